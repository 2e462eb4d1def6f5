//! The heart: one total, deterministic function from what was seen to what to do.
//!
//! The rows below are tried from top to bottom; the first that fits decides. "Trusted" means that
//! the target was not looked at, and the record is `Synced`: the object is believed to be what the
//! record says. The complete table over every combination is the golden file
//! `tests/golden/decide.txt`; a change of that file is the review of a change of policy.
//!
//! | source | record | target | decision |
//! | --- | --- | --- | --- |
//! | Unknown | any | any | nothing: never act on ignorance |
//! | Excluded | none | present | unclaimed |
//! | Excluded | uploading | any | ask the server, close what is open, then decide again |
//! | Excluded | some | absent | forget the record |
//! | Excluded | some | any | forget the record; the object is kept, unclaimed |
//! | Absent | none | present | unclaimed |
//! | Absent | none | any | nothing |
//! | Absent | uploading | any | ask the server, close what is open, then decide again |
//! | Absent | some | absent | forget the record |
//! | Absent | any | present, not the recorded object | forget the record; unclaimed |
//! | Absent | tagged | any | nothing |
//! | Absent | synced, deleting | any | mark as missing; deletion is a step of its own |
//! | Present | none | present | adopt if equal, else upload over it |
//! | Present | none | any | upload |
//! | Present | any | absent | upload |
//! | Present | uploading, deleting | unknown | ask the server: adopt or upload |
//! | Present | any | present, not the recorded object | adopt if equal, else upload over it |
//! | Present | uploading, deleting | present | adopt if equal, else upload over it |
//! | Present | tagged | any | upload |
//! | Present | synced | trusted, or as recorded | by comparison: nothing, check, or upload |

use crate::model::{Entry, Kind, Object, Observed, Record, Source, Trust};

use super::policy::{Compare, Deletions};

/// What to do about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Nothing(Why),
    /// Send the content.
    Upload(Why),
    /// Read the content; send it only if it differs from the record, else bring the metadata up
    /// to date.
    Check(Why),
    /// The object may be right already: compare with it, adopt it if equal, else upload over it.
    Compare(Why),
    /// A request was under way: ask the server what came of it, and go on from there.
    Resolve(Why),
    /// Note since when the source is missing. Deletion is a later step, with its own proofs.
    MarkMissing,
    /// The source is there, unchanged: take the mark off that it is missing, and note its disk.
    Found,
    /// Drop the record.
    Forget(Why),
    /// Drop the record; the object stays and is unclaimed from now on.
    Disown(Why),
    /// The object is neither ours nor of any file here: count it.
    Unclaimed,
}

/// Why: shown in dry runs, logs and `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    NotObserved,
    Same,
    New,
    Changed,
    /// The fingerprint differs, the size does not.
    Touched,
    /// The file was as young as the record.
    Racy,
    /// `compare = "md5"` reads everything.
    Asked,
    /// A request was under way when the last run ended.
    Uncertain,
    /// The object vanished from the destination.
    Lost,
    /// The object in the destination is not the recorded one.
    Drifted,
    /// The key exists in the destination, without a record.
    Found,
    /// The file is back after its object was tagged as deleted.
    Returned,
    /// Neither a file nor an object, or gone on both sides.
    Gone,
    /// Missing, marked, and waiting for its deletion, or kept by policy.
    Missing,
    Excluded,
    /// Tagged as deleted already.
    Tagged,
}

/// Decides about one key. See the module's table.
pub fn decide(
    source: &Source,
    base: Option<&Record>,
    target: Observed<&Object>,
    compare: Compare,
) -> Decision {
    match source {
        Source::Unknown => Decision::Nothing(Why::NotObserved),
        Source::Excluded => excluded(base, target),
        Source::Absent => absent(base, target),
        Source::Present(entry) => present(entry, base, target, compare),
    }
}

fn excluded(base: Option<&Record>, target: Observed<&Object>) -> Decision {
    match (base.map(|b| b.trust), target) {
        (None, Observed::Present(_)) => Decision::Unclaimed,
        (None, _) => Decision::Nothing(Why::Excluded),
        (Some(Trust::Uploading), _) => Decision::Resolve(Why::Uncertain),
        (Some(_), Observed::Absent) => Decision::Forget(Why::Excluded),
        (Some(_), _) => Decision::Disown(Why::Excluded),
    }
}

fn absent(base: Option<&Record>, target: Observed<&Object>) -> Decision {
    let Some(record) = base else {
        return match target {
            Observed::Present(_) => Decision::Unclaimed,
            _ => Decision::Nothing(Why::Gone),
        };
    };
    match (record.trust, target) {
        (Trust::Uploading, _) => Decision::Resolve(Why::Uncertain),
        (_, Observed::Absent) => Decision::Forget(Why::Gone),
        (_, Observed::Present(object)) if !is_recorded(record, object) => {
            Decision::Disown(Why::Drifted)
        }
        (Trust::Tagged, _) => Decision::Nothing(Why::Tagged),
        (Trust::Synced | Trust::Deleting, _) => match record.missing_since {
            None => Decision::MarkMissing,
            Some(_) => Decision::Nothing(Why::Missing),
        },
    }
}

fn present(
    entry: &Entry,
    base: Option<&Record>,
    target: Observed<&Object>,
    by: Compare,
) -> Decision {
    let Some(record) = base else {
        return match target {
            Observed::Present(_) => Decision::Compare(Why::Found),
            _ => Decision::Upload(Why::New),
        };
    };
    match (record.trust, target) {
        (_, Observed::Absent) => Decision::Upload(Why::Lost),
        (Trust::Uploading | Trust::Deleting, Observed::Unknown) => {
            Decision::Resolve(Why::Uncertain)
        }
        (_, Observed::Present(object)) if !is_recorded(record, object) => {
            Decision::Compare(Why::Drifted)
        }
        (Trust::Uploading | Trust::Deleting, _) => Decision::Compare(Why::Uncertain),
        (Trust::Tagged, _) => Decision::Upload(Why::Returned),
        (Trust::Synced, _) => compare(entry, record, by),
    }
}

/// Whether the object is the one that the record speaks of.
fn is_recorded(record: &Record, object: &Object) -> bool {
    record.etag.as_ref() == Some(&object.etag)
}

fn compare(entry: &Entry, record: &Record, by: Compare) -> Decision {
    let (seen, known) = (&entry.fingerprint, &record.entry.fingerprint);
    if entry.kind != record.entry.kind || seen.size_bytes != known.size_bytes {
        return Decision::Upload(Why::Changed);
    }
    let unchanged = match record.missing_since {
        None if seen.device == known.device => Decision::Nothing(Why::Same),
        _ => Decision::Found,
    };
    match by {
        _ if entry.kind == Kind::Folder => match meta_differs(entry, record) {
            true => Decision::Upload(Why::Changed),
            false => unchanged,
        },
        Compare::Size => unchanged,
        Compare::Md5 => Decision::Check(Why::Asked),
        Compare::Fingerprint if seen != known => Decision::Check(Why::Touched),
        Compare::Fingerprint if record.racy => Decision::Check(Why::Racy),
        Compare::Fingerprint => unchanged,
    }
}

fn meta_differs(entry: &Entry, record: &Record) -> bool {
    entry.meta() != record.meta()
}

/// The last word on an object whose source is missing, spoken when its deletion is about to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWord {
    Delete,
    Tag,
    /// Not now: it could not be looked at, or the policy keeps it.
    Wait,
    /// Something is there again: take the mark off and look at it.
    Back,
    /// The rules leave it out now: the object is kept, unclaimed.
    Disown,
}

/// Decides from one more look at the source, made after the delay. Only proven absence of what is
/// recorded as ours lets an object go. `disk` is where the look found what it found.
pub fn last_word(
    source: &Source,
    disk: Option<u64>,
    record: &Record,
    deletions: Deletions,
) -> LastWord {
    match (source, record.trust, record.missing_since) {
        (Source::Absent, ..) if !is_believed(record, disk) => LastWord::Wait,
        (Source::Unknown, _, _) => LastWord::Wait,
        (Source::Present(_), _, _) => LastWord::Back,
        (Source::Excluded, _, _) => LastWord::Disown,
        (Source::Absent, Trust::Uploading | Trust::Tagged, _) => LastWord::Wait,
        (Source::Absent, _, None) => LastWord::Wait,
        (Source::Absent, Trust::Synced | Trust::Deleting, Some(_)) => match deletions {
            Deletions::Delete => LastWord::Delete,
            Deletions::Tag => LastWord::Tag,
            Deletions::Keep => LastWord::Wait,
        },
    }
}

/// Whether it proves anything that a file is not found on this disk: the file was there, or a
/// person said so. Where a disk is not mounted, or another is mounted over it, nothing is certain.
pub fn is_believed(record: &Record, disk: Option<u64>) -> bool {
    record.approved || disk == Some(record.entry.fingerprint.device)
}

#[cfg(test)]
mod tests;
