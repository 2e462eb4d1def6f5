//! What a command publishes: the runs that are followed, where the configuration file says so.
//!
//! Whatever is wrong with it is told, and keeps nothing else from its work.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::app::publish::{Followed, Publisher};
use crate::config::{CloudWatchConfig, CloudWatchOptions, resolve_cloudwatch};
use crate::service::paths;
use crate::wire::publish::publisher;

use super::args::Global;
use super::sync::config_file;

/// The numbers of a command, and where they go.
#[derive(Default)]
pub struct Published {
    pub followed: Followed,
    going: Option<(CloudWatchConfig, Publisher)>,
}

/// Where the file wants numbers published. Commands that need no file are published by it, too.
fn wanted(global: &Global) -> Result<Option<CloudWatchConfig>, String> {
    let Some(file) = config_file(global).map_err(|error| error.line())? else { return Ok(None) };
    if file.is_faulty() {
        return Err(format!("{} has faults: see `keepwatch config check`", file.path));
    }
    resolve_cloudwatch(&file, &session(global), paths::home().as_deref())
}

/// What is asked for on the command line or by variables.
pub fn session(global: &Global) -> CloudWatchOptions {
    let flags = global.clone().into_options(crate::config::BackupOptions::default());
    CloudWatchOptions {
        region: flags.region,
        profile: flags.profile,
        credentials_file: flags.credentials_file,
        ..CloudWatchOptions::default()
    }
}

impl Published {
    /// Publishes as the file says now. A dry run publishes nothing.
    pub async fn follow_file(&mut self, global: &Global) {
        if global.dry_run {
            return;
        }
        let wanted = wanted(global).unwrap_or_else(|why| {
            tracing::warn!("no metrics are published: {why}");
            None
        });
        if self.going.as_ref().map(|(config, _)| config) == wanted.as_ref() {
            return;
        }
        self.end(false).await;
        let Some(config) = wanted else { return };
        match publisher(&config, self.followed.clone()).await {
            Ok(publisher) => self.going = Some((config, publisher)),
            Err(error) => {
                let hints = error.hints().join("; ");
                tracing::warn!("no metrics are published: {error} ({hints})");
            }
        }
    }

    /// Publishes that nothing is to do any more.
    pub async fn end(&mut self, came_to_nothing: bool) {
        if let Some((_, publisher)) = self.going.take() {
            publisher.end(came_to_nothing).await;
        }
    }
}

/// The same for a daemon, which waits for none of it.
#[derive(Clone)]
pub struct InTime {
    published: Arc<Mutex<Published>>,
    global: Arc<Global>,
}

impl InTime {
    /// Takes over what is published. What is followed there from now on is published here.
    pub fn of(published: &mut Published, global: &Global) -> Self {
        let followed = published.followed.clone();
        let taken = std::mem::replace(published, Published { followed, going: None });
        Self { published: Arc::new(Mutex::new(taken)), global: Arc::new(global.clone()) }
    }

    /// Begins to publish as the file says now.
    pub fn follow_file(&self) {
        let Self { published, global } = self.clone();
        tokio::spawn(async move { published.lock().await.follow_file(&global).await });
    }

    /// Publishes that nothing is to do any more; not where it is still not known whereto.
    pub async fn end(&self) {
        const KNOWN: Duration = Duration::from_secs(1);
        if let Ok(mut published) = timeout(KNOWN, self.published.lock()).await {
            published.end(false).await;
        }
    }
}
