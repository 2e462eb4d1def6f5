//! How a daemon comes to its state. Where another command has it for a moment, or its disk is full,
//! it waits, and says so: a service that gave up would not come again by itself.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::app::CONDITION;
use crate::config::BackupConfig;
use crate::service::notify::ServiceManager;
use crate::service::paths;
use crate::service::signals::Wish;
use crate::service::socket::{Answer, Listener, Request, ask};
use crate::wire::{OpenState, open_state_of, state_folder};

use super::args::Global;
use super::error::{CliError, Code};
use super::health::{ASK_EVERY, MORE_TIME};

/// Between tries.
const EVERY: Duration = Duration::from_secs(1);
/// Whoever has the state may take so long to say who it is.
const ANSWER: Duration = Duration::from_secs(10);

/// What a daemon has before all else.
pub struct Opened {
    pub state: OpenState,
    pub listener: Listener,
}

/// Takes the state; `None` where a stop is wished meanwhile.
///
/// # Errors
///
/// What does not pass by itself: another daemon has it, or it is of no use.
pub async fn open(
    global: &Global,
    configs: &[BackupConfig],
    manager: &ServiceManager,
    wishes: &mut mpsc::Receiver<Wish>,
) -> Result<Option<Opened>, CliError> {
    let mut waits = Waits { manager, told: None, asked: None };
    loop {
        let trying = async {
            let error = match open_now(global, configs).await {
                Err(error) if error.may_pass => error,
                result => return result.map(Some),
            };
            if is_daemons(global).await {
                return Err(error);
            }
            waits.tell(error);
            sleep(EVERY).await;
            Ok(None)
        };
        tokio::select! {
            biased;
            () = told_to_stop(wishes) => return Ok(None),
            opened = trying => if let Some(opened) = opened? {
                return Ok(Some(opened));
            },
        }
    }
}

/// Returns once a stop is wished. A wish to reload has no need of an answer: the file is read when
/// its time comes, and what it says then is what counts.
pub async fn told_to_stop(wishes: &mut mpsc::Receiver<Wish>) {
    while let Some(wish) = wishes.recv().await {
        if wish == Wish::Stop {
            return;
        }
    }
    std::future::pending().await
}

async fn open_now(global: &Global, configs: &[BackupConfig]) -> Result<Opened, CliError> {
    let (folder, configs) = (global.state_dir.clone(), configs.to_vec());
    let opening = spawn_blocking(move || open_state_of(folder.as_deref(), &configs));
    let state = opening.await.map_err(|e| {
        CliError::new(Code::Failed, "the state cannot be opened: this is a bug").caused_by(&e)
    })??;
    let path = paths::control_socket(&state.folder);
    let listener = Listener::bind(&path).map_err(|e| {
        let error =
            CliError::new(Code::NeedsPerson, format!("cannot listen on {}", path.display()));
        let may_pass = matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        CliError { may_pass, ..error.caused_by(&e) }
    })?;
    Ok(Opened { state, listener })
}

/// Whether a daemon has the state, which will have it for good.
async fn is_daemons(global: &Global) -> bool {
    let Ok(folder) = state_folder(global.state_dir.as_deref()) else { return false };
    match ask(&folder, &Request::Status, ANSWER).await {
        Ok(Some(Answer::Ok(report))) => report["daemon"] == true,
        _ => false,
    }
}

/// What was said of a wait.
struct Waits<'a> {
    manager: &'a ServiceManager,
    told: Option<CliError>,
    asked: Option<Instant>,
}

impl Waits<'_> {
    fn tell(&mut self, error: CliError) {
        if self.told.as_ref() != Some(&error) {
            tracing::error!(target: CONDITION, "waiting to be started: {}", error.with_hints());
            self.manager.status(&format!("waits to be started: {}", error.line()));
            self.told = Some(error);
        }
        if self.asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
            self.manager.more_time(MORE_TIME);
            self.asked = Some(Instant::now());
        }
    }
}
