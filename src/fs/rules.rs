//! What is left out: gitignore rules from the configuration and from `.keepwatchignore` files, and
//! the other filters.
//!
//! As in git, the rule file closest to a path speaks first, and the configuration last; within one
//! file the last matching line wins, and `!` takes a path back in. A path below an excluded folder
//! is excluded. With `include`, only files that match it, or lie below a folder that does, are
//! backed up; `exclude` wins over it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::io::Errno;
use thiserror::Error;

use crate::model::{Entry, Fingerprint, Kind, RelPath};
use crate::plan::Symlinks;

use super::beneath;
use super::meta::{What, what_is};

/// Rules in the tree itself, for the folder they are in and everything below.
pub const IGNORE_FILE: &str = ".keepwatchignore";
/// A rule file larger than this is not read.
const IGNORE_FILE_MAX_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Error)]
#[error("the pattern {pattern:?} is not a gitignore rule: {cause}")]
pub struct RuleError {
    pub pattern: String,
    pub cause: String,
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
            || self.matches(level, path, false)
            || !self.includes(path, false)
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

    /// The level inside `folder`, given the level above it. `open` is the folder itself.
    pub fn enter(&self, above: &Level, root: &OwnedFd, folder: &RelPath) -> Level {
        let Ok(path) = folder.join(IGNORE_FILE.as_bytes()) else { return above.clone() };
        match self.load(root, folder, &path) {
            Some(rules) => Level(Some(Arc::new(Node { rules, above: above.clone() }))),
            None => above.clone(),
        }
    }

    /// Reads a folder's rule file, unless it is as it was when it was read last.
    fn load(&self, root: &OwnedFd, folder: &RelPath, path: &RelPath) -> Option<Arc<Gitignore>> {
        let mut files = self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fingerprint = match what_is(root, path) {
            Ok(What::Entry(entry)) if entry.kind == Kind::File => entry.fingerprint,
            _ => {
                files.remove(folder);
                return None;
            }
        };
        if let Some((known, rules)) = files.get(folder)
            && *known == fingerprint
        {
            return Some(rules.clone());
        }
        match read_rules(root, folder, path) {
            Ok(rules) => {
                let rules = Arc::new(rules);
                files.insert(folder.clone(), (fingerprint, rules.clone()));
                Some(rules)
            }
            Err(error) => {
                tracing::warn!(file = %path, %error, "cannot read this rule file: it is ignored");
                None
            }
        }
    }
}

fn read_rules(root: &OwnedFd, folder: &RelPath, path: &RelPath) -> Result<Gitignore, Errno> {
    use std::io::Read as _;
    let file = std::fs::File::from(beneath::open_file(root, path)?);
    let mut text = vec![];
    file.take(IGNORE_FILE_MAX_BYTES).read_to_end(&mut text).map_err(|_| Errno::IO)?;
    let mut builder = GitignoreBuilder::new(absolute(folder));
    for line in String::from_utf8_lossy(&text).lines() {
        if let Err(error) = builder.add_line(None, line) {
            tracing::warn!(file = %path, %error, "a line of this rule file is ignored");
        }
    }
    builder.build().map_err(|_| Errno::INVAL)
}

fn build(patterns: &[String]) -> Result<Gitignore, RuleError> {
    let mut builder = GitignoreBuilder::new("/");
    for pattern in patterns {
        let fault = |e: ignore::Error| RuleError { pattern: pattern.clone(), cause: e.to_string() };
        builder.add_line(None, pattern).map_err(fault)?;
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
