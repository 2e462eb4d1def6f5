//! What is to be done, and what came of it: the vocabulary between decisions and their execution.

use std::fmt;

use crate::model::{Entry, Key, Object, Record, RelPath};

use super::decide::{Decision, Why};

/// What an event of a watcher is worth: "look at this path again".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    pub path: RelPath,
    /// Everything below the path may have changed too: a folder that is new here, or that moved.
    pub deep: bool,
}

/// How much of a source one look covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything: a pass.
    All,
    /// A path and everything below it.
    Tree(RelPath),
    /// One path; when it is a folder, the folder itself and not what is in it.
    Path(RelPath),
}

/// How an object is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Send the content.
    Upload,
    /// Hash the content; send it if it differs from the record.
    Check,
    /// Compare with the object, adopt it if equal, else send the content.
    Compare,
    /// Ask the server what is there; then as `Compare`, or as nothing where the source is gone.
    Resolve,
}

/// One key to bring up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub key: Key,
    pub path: RelPath,
    pub task: Task,
    pub why: Why,
    /// The source as it was looked at; `None` when it is gone and only the object is in question.
    pub entry: Option<Entry>,
    pub base: Option<Record>,
    /// The object as the listing showed it, in passes that list.
    pub target: Option<Object>,
}

impl Job {
    /// Bytes to read and perhaps send.
    pub fn size_bytes(&self) -> u64 {
        self.entry.map_or(0, |entry| entry.fingerprint.size_bytes)
    }

    /// The task that carries out a decision; `None` where the decision needs no work on the object.
    pub fn task_of(decision: Decision) -> Option<(Task, Why)> {
        match decision {
            Decision::Upload(why) => Some((Task::Upload, why)),
            Decision::Check(why) => Some((Task::Check, why)),
            Decision::Compare(why) => Some((Task::Compare, why)),
            Decision::Resolve(why) => Some((Task::Resolve, why)),
            Decision::Nothing(_)
            | Decision::MarkMissing
            | Decision::Found
            | Decision::Forget(_)
            | Decision::Disown(_)
            | Decision::Unclaimed => None,
        }
    }
}

/// One object whose deletion is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteItem {
    pub key: Key,
    pub path: RelPath,
    pub record: Record,
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done(Done),
    /// Not an error: the world is not as it was when the job was planned.
    Look(LookAgain),
    /// The file changed while it was read.
    Torn,
    /// The path cannot be backed up as it is; the rest goes on.
    Skipped(Skip),
    Failed(Failure),
    /// A deletion's results, key by key.
    Deleted(Vec<(DeleteItem, Deletion)>),
    Cancelled,
}

/// What was done. All of these leave the key up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Content was sent.
    Uploaded { bytes: u64 },
    /// The object was right already; it has a record now.
    Adopted,
    /// The content was the same; only the object's metadata was replaced.
    Retouched,
    /// Nothing had to be sent.
    Unchanged,
    /// The source is gone and so is the object, or it is on its way through a deletion.
    Settled,
}

/// Why a job must be planned anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookAgain {
    /// The source vanished or became something else.
    Source,
    /// The object is not the one that was believed to be there.
    Target,
}

/// Why a path was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Permission denied, or another error of reading this path.
    Unreadable(String),
    /// Nobody knows what the rules of its folder leave out: nothing in it is touched.
    Rules(String),
    KeyTooLong(String),
    /// A FIFO, socket or device.
    Special,
    /// It changes faster than it can be read.
    Changing,
    /// `.keepwatch` at the top of a source.
    Reserved,
    /// Larger than S3 can store.
    TooLarge(String),
}

impl Skip {
    /// Whether nobody knows what is there, so that changes may be missing from the destination.
    /// The others are never backed up, whatever becomes of them.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Unreadable(_) | Self::Rules(_) | Self::Changing => true,
            Self::KeyTooLong(_) | Self::Special | Self::Reserved | Self::TooLarge(_) => false,
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::Rules(error) => write!(f, "left as it is, for its rules are not known: {error}"),
            Self::KeyTooLong(error) => write!(f, "name too long: {error}"),
            Self::Special => f.write_str("neither file, folder nor link"),
            Self::Changing => f.write_str("changes while it is read"),
            Self::Reserved => f.write_str("the name .keepwatch is reserved at the top of a source"),
            Self::TooLarge(error) => write!(f, "too large: {error}"),
        }
    }
}

/// What became of one deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    Deleted,
    Tagged,
    /// The source is back, or could not be looked at: nothing was sent.
    Spared,
    /// The rules leave it out now, or another object is there: kept, unclaimed.
    Disowned,
    Failed(Failure),
}

/// An error, with what it means for everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: ErrorClass,
    /// What failed, in plain words.
    pub message: String,
    /// Why, where that is not said with it.
    pub cause: Option<String>,
    /// The next step, where one is known.
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), cause: None, hint: None }
    }

    pub fn because(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// All of it in one line, as it is told of a path.
    pub fn in_one_line(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{self} ({hint})"),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

/// What an error means for the other work. Decided where the error arises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorClass {
    /// The destination does not answer, or not as S3: refused, timed out, HTML.
    Unreachable,
    /// The server failed on this request; it may fail on others too, or not.
    Server,
    /// The server asks for fewer requests.
    Throttled,
    /// This path only.
    Path,
    /// Not allowed. At the start that is everybody's, later it is this path's.
    Denied,
    /// A person must act: bucket, region, permission, owner.
    Configuration,
    /// The destination takes no more data. It can be read, and things can be deleted there.
    Full,
    /// Missing, wrong or expired credentials.
    Credentials,
    /// The state database cannot be written.
    State,
}

impl ErrorClass {
    /// Whether every other request would fail as well.
    pub fn is_general(self) -> bool {
        match self {
            Self::Unreachable
            | Self::Configuration
            | Self::Full
            | Self::Credentials
            | Self::State => true,
            Self::Server | Self::Throttled | Self::Path | Self::Denied => false,
        }
    }
}
