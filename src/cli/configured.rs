//! What is configured, as a daemon takes it up: read as a whole, and checked beyond its words.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::{
    BackupConfig, BackupOptions, ConfigFile, Defaults, Finding, MirrorConfig, settle,
};
use crate::wire::{Beyond, check, faults};

use super::args::{Global, Run};
use super::error::CliError;
use super::exposed;
use super::mirror::configured_for;
use super::sync::{choose, config_file, faulty};

/// All that a daemon runs by.
pub struct Configured {
    pub backups: Vec<BackupConfig>,
    pub mirrors: Vec<MirrorConfig>,
    /// Where pages are wanted.
    pub listen: Option<SocketAddr>,
}

impl Configured {
    /// Reads it. May wait for a disk, as far as sources lie on some: not on the runtime's thread.
    pub fn read(global: &Global, run: &Run) -> Result<Self, CliError> {
        Ok(Self {
            backups: choose(global, run, Defaults::DAEMON, false)?,
            mirrors: configured_for(global, run)?,
            listen: exposed::wanted(global, run)?,
        })
    }

    /// The same, all of it of use with this state.
    pub fn read_whole(global: &Global, run: &Run, state: &Path) -> Result<Self, CliError> {
        let all = Self::read(global, run)?;
        let looked = match config_file(global)? {
            Some(file) => {
                let faults = file.place(beyond(&all.backups, state));
                if faults.is_empty() { Ok(()) } else { Err(faulty(&file.faulty(faults), global)) }
            }
            None => all.backups.iter().try_for_each(|one| check(one, state).map_err(Into::into)),
        };
        looked.map(|()| all)
    }
}

/// The backups of a file, where nothing is wrong with any of its words, nor beyond them: all that
/// is wrong is told at once.
pub fn resolve_whole(
    file: &ConfigFile,
    flags: &BackupOptions,
    home: Option<&Path>,
    state: &Path,
    global: &Global,
) -> Result<Vec<BackupConfig>, CliError> {
    let (backups, mut faults) = settle(file, flags, Defaults::DAEMON, home);
    faults.extend(file.place(beyond(&backups, state)));
    if faults.is_empty() { Ok(backups) } else { Err(faulty(&file.faulty(faults), global)) }
}

/// What is wrong with backups beyond the words of their entries.
fn beyond(backups: &[BackupConfig], state: &Path) -> Vec<Finding> {
    // One that cannot be read has been told of.
    let backups = backups.iter().filter(|one| !one.source.as_os_str().is_empty());
    let all = backups.flat_map(|one| faults(one, state).into_iter().map(move |fault| (one, fault)));
    let findings = all.map(|(one, Beyond { option, error })| Finding {
        name: one.name.clone(),
        option,
        title: error.to_string(),
        help: (!error.hints().is_empty()).then(|| error.hints().join("; ")),
    });
    findings.collect()
}
