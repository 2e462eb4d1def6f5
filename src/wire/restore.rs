//! From a place and a folder to a restore that can be run.

use std::path::PathBuf;
use std::sync::Arc;

use crate::app::backup::PlanSink;
use crate::app::restore::{Filter, Ports, Restore, RestoreSettings};
use crate::config::BackupConfig;
use crate::fs::{RuleOptions, Rules, Target, Tree};
use crate::model::key::KEY_MAX_BYTES;
use crate::plan::ErrorClass;

use super::{Error, connect, place, refuse_nested, rules};

/// What is restored, and whereto.
pub struct RestorePlan {
    /// Where it comes from is its destination; what its rules leave out is not deleted here.
    pub config: BackupConfig,
    /// An absolute path.
    pub target: PathBuf,
    /// What takes part.
    pub patterns: Rules,
    pub settings: RestoreSettings,
    /// Given in a dry run.
    pub plan: Option<PlanSink>,
}

/// Only what matches `include`, if that is not empty, and not what matches `exclude`: gitignore
/// rules both.
pub fn patterns(include: Vec<String>, exclude: Vec<String>) -> Result<Rules, Error> {
    Rules::new(RuleOptions { include, exclude, ..RuleOptions::default() }).map_err(|error| {
        Error::new(ErrorClass::Configuration, error.to_string())
            .hint("patterns are gitignore rules")
    })
}

/// Makes the ports of a restore and puts them together.
pub async fn restore(asked: RestorePlan) -> Result<Restore, Error> {
    let RestorePlan { config, target, patterns, settings, plan } = asked;
    let config = BackupConfig { create_bucket: false, ..config };
    let (bucket, prefix) = place(&config.destination);
    refuse_nested(&config.destination, &target, "target").await?;
    let wanted: Filter = Arc::new(move |path, is_folder| patterns.lets_in(path, is_folder));
    // What the backup leaves out is not there because of that, and is not to be deleted.
    let here = Tree::new(&target, rules(&config)?, KEY_MAX_BYTES - prefix.as_str().len());
    let reader = Arc::new(connect(&config, bucket, &prefix, plan.is_some()).await?);
    let ports = Ports { reader, target: Arc::new(Target::new(&target)), here: Arc::new(here) };
    Ok(Restore::new(settings, ports, wanted, plan))
}
