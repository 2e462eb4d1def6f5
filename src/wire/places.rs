//! The folders of a configuration, and whether they can be what it makes them. Whatever looks at a
//! disk does so on a thread of its own: one that hangs, as a network mount may, holds up nobody but
//! who waits here.

use std::path::{Path, PathBuf};

use crate::app::driver::Watching;
use crate::config::{BackupConfig, Destination, real_path};
use crate::engine::Mode;
use crate::fs::with_own_turns;
use crate::plan::ErrorClass;
use crate::watch;

use super::{Error, rules};

/// What is wrong with an entry beyond its words, and the option it is about.
#[derive(Debug)]
pub struct Beyond {
    pub option: &'static str,
    pub error: Error,
}

/// Whether a configuration can be used at all, as far as it can be told without touching its
/// source or its destination.
pub fn check(config: &BackupConfig, state: &Path) -> Result<(), Error> {
    match faults(config, state).into_iter().next() {
        None => Ok(()),
        Some(Beyond { error, .. }) => Err(error),
    }
}

/// All that is wrong with a configuration, as far as that can be told.
pub fn faults(config: &BackupConfig, state: &Path) -> Vec<Beyond> {
    let looks = [
        ("exclude", rules(config).map(drop)),
        ("source", refuse_state_in_source(&config.source, state)),
    ];
    let faults = looks.into_iter().filter_map(|(option, looked)| Some((option, looked.err()?)));
    faults.map(|(option, error)| Beyond { option, error }).collect()
}

/// A source that was looked at.
pub struct Found {
    /// Without links.
    pub path: PathBuf,
    /// What a daemon hears of it by.
    pub watching: Option<Watching>,
}

/// Looks at the source of a backup. On a mount that hangs this never ends; it may be dropped.
pub async fn find(config: &BackupConfig, mode: Mode) -> Result<Found, Error> {
    let source = config.source.clone();
    apart(move || {
        let path = source_path(&source, mode)?;
        let watching = (mode == Mode::Daemon).then(|| {
            let (folders, hints) = watch::start(&source);
            Watching { hints: Box::new(hints), folders }
        });
        Ok(Found { path, watching })
    })
    .await?
}

/// Does what may hang on a thread of its own.
pub(super) async fn apart<T: Send + 'static>(
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    with_own_turns(look).await.ok_or_else(|| {
        Error::new(ErrorClass::Path, "a look at a disk ended unexpectedly: this is a bug")
    })
}

/// The source with links resolved. A daemon waits for one that is not there, or that cannot be
/// looked at for now, as on a disk that fails or a server that is away; a one-shot command does
/// not.
fn source_path(source: &Path, mode: Mode) -> Result<PathBuf, Error> {
    match source.canonicalize().and_then(|path| Ok((path.metadata()?.is_dir(), path))) {
        Ok((true, path)) => Ok(path),
        Ok((false, _)) => {
            let message = format!("the source {} is not a folder", source.display());
            Err(Error::new(ErrorClass::Configuration, message).hint("name a folder to keep"))
        }
        Err(_) if mode == Mode::Daemon => Ok(source.to_owned()),
        Err(error) => {
            let message = format!("the source {} cannot be used", source.display());
            let hint = "check the path, and whether its disk is mounted";
            Err(Error::new(ErrorClass::Configuration, message).caused_by(&error).hint(hint))
        }
    }
}

pub(super) fn refuse_state_in_source(source: &Path, state: &Path) -> Result<(), Error> {
    if !state.starts_with(source) {
        return Ok(());
    }
    let message =
        format!("the state folder {} is inside the source {}", state.display(), source.display());
    Err(Error::new(ErrorClass::Configuration, message)
        .hint("keepwatch would back up its own notes for ever: choose another --state-dir"))
}

/// A store and a folder that is filled must not contain each other.
pub async fn refuse_nested(
    destination: &Destination,
    folder: &Path,
    what: &'static str,
) -> Result<(), Error> {
    let Destination::Store { folder: store, .. } = destination else { return Ok(()) };
    let (store, folder) = (store.clone(), folder.to_owned());
    apart(move || {
        let (store, folder) = (real_path(&store), real_path(&folder));
        match is_within(&store, &folder) || is_within(&folder, &store) {
            true => Err(nested(&store, &folder, what)),
            false => Ok(()),
        }
    })
    .await?
}

fn nested(store: &Path, folder: &Path, what: &str) -> Error {
    let (store, folder) = (store.display(), folder.display());
    let message = format!("the store {store} and the {what} {folder} contain each other");
    Error::new(ErrorClass::Configuration, message)
        .hint("one would grow into the other: choose another folder")
}

/// Whether one folder lies in another, or is the same: by their paths, or by what they are where
/// one of them is mounted at another place, too.
fn is_within(inner: &Path, outer: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let number = |path: &Path| std::fs::metadata(path).ok().map(|is| (is.dev(), is.ino()));
    let Some(outer_is) = number(outer) else { return inner.starts_with(outer) };
    inner.starts_with(outer) || inner.ancestors().any(|above| number(above) == Some(outer_is))
}
