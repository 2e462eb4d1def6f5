//! The watcher: hints of where to look, never what to do.

use crate::engine::Sight;
use crate::model::RelPath;
use crate::plan::Hint;

use super::Fut;

/// What a watcher says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    Hints(Vec<Hint>),
    /// Events were lost; every folder must be watched and looked at again.
    Overflow,
    /// The source was moved, removed or unmounted: nothing is watched, and everything must be
    /// looked at again.
    SourceGone,
    /// How much is seen has changed, and why, in plain words.
    Sight(Sight, String),
}

/// Adds folders to those that are watched.
pub trait FolderWatch: Send + Sync {
    /// After this returns, a change in these folders makes an event, or the sight is not full once
    /// the walk over everything that this is part of has ended.
    fn watch(&self, folders: &[RelPath]);
    /// A walk over everything has ended: whether all folders could be watched is known.
    fn walked(&self) -> Fut<'_, ()>;
    /// Another folder is where the source was: forgets what is watched.
    fn reset(&self) -> Fut<'_, ()>;
}

/// The stream of a watcher's events.
pub trait HintSource: Send {
    /// Never ends: a watcher that died has said so by its sight.
    fn next(&mut self) -> Fut<'_, WatchEvent>;
}
