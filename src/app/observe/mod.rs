//! Looking: what is seen on each side is compared with the records, and becomes jobs and changes
//! of records. Sends nothing to the destination; deletions are only marked here.

mod findings;
mod linked;
mod pass;
mod paths;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::engine::{LookId, LookReport, LookResult};
use crate::plan::{Failure, Job, Scope};
use crate::ports::FolderWatch;

use super::backup::Backup;
use findings::Findings;
pub use linked::{LinkedReport, linked};

/// Jobs found by a look, on their way to the engine. The channel is short: the look waits while
/// the engine has enough to do.
pub type Planned = mpsc::Sender<(LookId, Vec<Job>)>;

/// Why a look ended before its end.
pub(crate) enum Stop {
    SourceMissing(Failure),
    Failed(Failure),
    /// Nobody wants to know any more.
    Cancelled,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<crate::ports::StateError> for Stop {
    fn from(error: crate::ports::StateError) -> Self {
        Self::Failed(error.into())
    }
}

/// Looks at these scopes and reports how it ended.
pub async fn look(
    backup: Arc<Backup>,
    id: LookId,
    scopes: Vec<Scope>,
    eager: bool,
    watch: Option<Arc<dyn FolderWatch>>,
    planned: Planned,
) -> LookReport {
    let full = scopes == [Scope::All];
    let mut findings = Findings::new(&backup, id, full, eager, planned);
    let looked = match full {
        true if backup.settings.failed_only => paths::failed(&backup, &mut findings).await,
        true => pass::run(&backup, &mut findings, watch).await,
        false => paths::run(&backup, &mut findings, scopes, watch).await,
    };
    let looked = match looked {
        Ok(()) => findings.finish().await,
        Err(stop) => Err(stop),
    };
    let result = match looked {
        Ok(()) => LookResult::Complete,
        Err(Stop::SourceMissing(failure)) => LookResult::SourceMissing(failure),
        Err(Stop::Failed(failure)) => LookResult::Failed(failure),
        Err(Stop::Cancelled) => LookResult::Complete,
    };
    let deletion_due_in_ms = findings.deletion_due_in_ms();
    LookReport { result, young: findings.take_young(), deletion_due_in_ms }
}
