//! What is left out: gitignore rules from the configuration and from `.keepwatchignore` files, and
//! the other filters.
//!
//! As in git, the rule file closest to a path speaks first, and the configuration last; within one
//! file the last matching line wins, and `!` takes a path back in. A path below an excluded folder
//! is excluded. With `include`, only files that match it, or lie below a folder that does, are
//! backed up; `exclude` wins over it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::io::Errno;
use thiserror::Error;

use crate::model::{Entry, Fingerprint, Kind, RelPath};
use crate::plan::pattern::as_in_git;
use crate::plan::{Skip, Symlinks};
use crate::ports::LeftOut;

use super::beneath::{self, Place};
use super::meta::{What, explain};
use super::own;

/// Rules in the tree itself, for the folder they are in and everything below.
pub const IGNORE_FILE: &str = ".keepwatchignore";
/// A rule file larger than this is no rule file.
const IGNORE_FILE_MAX_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Error)]
#[error("the pattern {pattern:?} is not a gitignore rule: {cause}")]
pub struct RuleError {
    pub pattern: String,
    pub cause: String,
}

/// A rule file that is there, and that cannot be read.
#[derive(Debug)]
pub struct RulesUnread {
    pub file: RelPath,
    cause: String,
}

impl RulesUnread {
    pub fn skip(&self) -> Skip {
        Skip::Rules(format!("{} cannot be read: {}", self.file, self.cause))
    }
}

/// Why a folder is not gone into.
pub enum Unopened {
    Failed(Errno),
    Rules(RulesUnread),
}

impl From<Errno> for Unopened {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

/// The rules as configured.
#[derive(Clone, Debug, Default)]
pub struct RuleOptions {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub exclude_if_present: Vec<String>,
    pub max_file_size: Option<u64>,
    pub one_file_system: bool,
    pub symlinks: Symlinks,
}

pub struct Rules {
    include: Option<Gitignore>,
    exclude: Gitignore,
    options: RuleOptions,
    /// Rule files by folder, each with the fingerprint it had when it was read.
    files: Mutex<HashMap<RelPath, (Fingerprint, Arc<Gitignore>)>>,
}

/// The rules that apply inside one folder: its own rule file first, then those above.
#[derive(Clone, Default)]
pub struct Level(Option<Arc<Node>>);

struct Node {
    rules: Arc<Gitignore>,
    above: Level,
}

impl Rules {
    pub fn new(options: RuleOptions) -> Result<Self, RuleError> {
        let include = match options.include.is_empty() {
            true => None,
            false => Some(build(&options.include)?),
        };
        let exclude = build(&options.exclude)?;
        Ok(Self { include, exclude, options, files: Mutex::default() })
    }

    /// Whether a name is part of the rules.
    pub fn is_rule(&self, name: &[u8]) -> bool {
        name == IGNORE_FILE.as_bytes() || self.excludes_its_folder(name)
    }

    /// Whether a file of this name excludes the folder it is in.
    pub fn excludes_its_folder(&self, name: &[u8]) -> bool {
        self.options.exclude_if_present.iter().any(|marker| marker.as_bytes() == name)
    }

    pub fn exclude_if_present(&self) -> &[String] {
        &self.options.exclude_if_present
    }

    pub fn one_file_system(&self) -> bool {
        self.options.one_file_system
    }

    /// Whether the rules leave out a folder, and so everything below it.
    pub fn excludes_folder(&self, level: &Level, path: &RelPath) -> bool {
        self.matches(level, path, true)
    }

    /// Whether the rules leave out a file or link.
    pub fn excludes_file(&self, level: &Level, path: &RelPath, entry: &Entry) -> bool {
        let too_large = |max| entry.kind == Kind::File && entry.fingerprint.size_bytes > max;
        (entry.kind == Kind::Link && self.options.symlinks == Symlinks::Skip)
            || self.options.max_file_size.is_some_and(too_large)
            || own::is_unfinished(path)
            || self.matches(level, path, false)
            || !self.includes(path, false)
    }

    /// What is left out at a path where nothing is, as far as its name tells.
    pub fn left_out(&self, level: &Level, path: &RelPath) -> LeftOut {
        let tree = self.matches(level, path, true);
        LeftOut {
            file: self.matches(level, path, false) || !self.includes(path, false),
            marker: tree || !self.includes(path, true),
            tree,
        }
    }

    /// Whether `include` lets this path in.
    pub fn includes(&self, path: &RelPath, is_folder: bool) -> bool {
        let Some(include) = &self.include else { return true };
        include.matched_path_or_any_parents(absolute(path), is_folder).is_ignore()
    }

    /// Whether the configured patterns let this path in, whatever rule files in the tree say.
    pub fn lets_in(&self, path: &RelPath, is_folder: bool) -> bool {
        let excluded = self.exclude.matched_path_or_any_parents(absolute(path), is_folder);
        !excluded.is_ignore() && self.includes(path, is_folder)
    }

    fn matches(&self, level: &Level, path: &RelPath, is_folder: bool) -> bool {
        let path = absolute(path);
        let mut level = level;
        while let Some(node) = &level.0 {
            match node.rules.matched(&path, is_folder) {
                Match::None => level = &node.above,
                found => return found.is_ignore(),
            }
        }
        self.exclude.matched(&path, is_folder).is_ignore()
    }

    /// The level inside `folder`, which is open as `place`, given the level above it. Without the
    /// rules of a folder nobody knows what is to be left out of it.
    pub fn enter(&self, above: &Level, place: &Place, folder: &RelPath) -> Result<Level, Unopened> {
        let Ok(file) = folder.join(IGNORE_FILE.as_bytes()) else { return Ok(above.clone()) };
        let seen = match place.what(IGNORE_FILE.as_bytes()) {
            Err(errno) if beneath::is_gone(errno) => None,
            seen => Some(seen?),
        };
        match self.load(place, folder, seen) {
            Ok(Some(rules)) => Ok(Level(Some(Arc::new(Node { rules, above: above.clone() })))),
            Ok(None) => Ok(above.clone()),
            Err(cause) => Err(Unopened::Rules(RulesUnread { file, cause })),
        }
    }

    /// Reads a folder's rule file, if there is one, unless it is as it was when it was read last.
    fn load(
        &self,
        place: &Place,
        folder: &RelPath,
        seen: Option<What>,
    ) -> Result<Option<Arc<Gitignore>>, String> {
        let mut files = self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = files.remove(folder);
        let fingerprint = match seen {
            None => return Ok(None),
            Some(What::Entry(entry)) if entry.kind == Kind::File => entry.fingerprint,
            Some(_) => return Err("it is not a regular file".to_owned()),
        };
        let rules = match known {
            Some((known, rules)) if known == fingerprint => rules,
            _ if fingerprint.size_bytes > IGNORE_FILE_MAX_BYTES => {
                return Err(format!("it is larger than {IGNORE_FILE_MAX_BYTES} bytes"));
            }
            _ => Arc::new(read_rules(place, folder)?),
        };
        files.insert(folder.clone(), (fingerprint, rules.clone()));
        Ok(Some(rules))
    }
}

fn read_rules(place: &Place, folder: &RelPath) -> Result<Gitignore, String> {
    use std::io::Read as _;
    let file = place.open_file(IGNORE_FILE.as_bytes()).map_err(explain)?;
    let mut text = vec![];
    file.take(IGNORE_FILE_MAX_BYTES).read_to_end(&mut text).map_err(|e| e.to_string())?;
    let mut builder = GitignoreBuilder::new(absolute(folder));
    for line in String::from_utf8_lossy(&text).lines() {
        if let Err(error) = builder.add_line(None, &as_in_git(line)) {
            tracing::warn!(%folder, %error, "a line of {IGNORE_FILE} is ignored");
        }
    }
    builder.build().map_err(|error| error.to_string())
}

fn build(patterns: &[String]) -> Result<Gitignore, RuleError> {
    let mut builder = GitignoreBuilder::new("/");
    for pattern in patterns {
        let fault = |e: ignore::Error| RuleError { pattern: pattern.clone(), cause: e.to_string() };
        builder.add_line(None, &as_in_git(pattern)).map_err(fault)?;
    }
    builder.build().map_err(|e| RuleError { pattern: patterns.join(" "), cause: e.to_string() })
}

/// The matcher knows paths below a root; the source's root is "/" to it.
fn absolute(path: &RelPath) -> PathBuf {
    let mut absolute = PathBuf::with_capacity(path.as_bytes().len() + 1);
    absolute.push(Path::new("/"));
    absolute.push(OsStr::from_bytes(path.as_bytes()));
    absolute
}
