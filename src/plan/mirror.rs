//! Mirrors: one key of a bucket, its copy, and what was recorded of both; what to do about it.
//!
//! A record stands for one copied version of one object: its fingerprint says which object was the
//! source ([`fingerprint_of`]), its ETag which object is the copy. While both still are what the
//! record says, they are the same, whatever clocks and ETags say otherwise. Only where the record
//! does not know, the two listings are compared.
//!
//! The rows are tried from top to bottom; the first that fits decides. `tests/golden/mirror.txt`
//! has every combination.
//!
//! | source | record | copy | decision |
//! | --- | --- | --- | --- |
//! | excluded | none | present | unclaimed |
//! | excluded | some | absent | forget the record |
//! | excluded | tagged | present, as recorded | nothing: it would be forgotten that it is tagged |
//! | excluded | some | present | forget the record; the copy is kept, unclaimed |
//! | absent | none | present | unclaimed; in a sweep: ask for its tags |
//! | absent | some | absent | forget the record |
//! | absent | some | present, not the recorded copy | forget the record; unclaimed |
//! | absent | tagged | present | nothing: tagged already |
//! | absent | some | present | it is gone: mark it, then tag or delete the copy |
//! | older than asked for | missing | absent | forget the record |
//! | older than asked for | missing | present, differs | it is back: its deletion does not wait |
//! | older than asked for | any | absent | nothing |
//! | present | any | absent | copy |
//! | present | uploading | present, surely written since | adopt, once its tags were looked at |
//! | present | uploading | present | copy again; older than asked for: adopt so, or nothing |
//! | present | any | present, differs | copy over it, unless older than asked for |
//! | present | any | present, nobody can tell | look at both, unless older than asked for |
//! | present | tagged, deleting | present, the same | take the tags off |
//! | present | none | present, the same | adopt; where there may be marks, look at its tags |
//! | present | synced | present, the same | nothing, or bring the record up to date |

use crate::model::{Entry, Fingerprint, Key, Kind, Md5, Millis, Object, Record, Timestamp, Trust};

use super::restore::Overwrite;

/// What makes a copy count as another object than its source, where no record tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MirrorCompare {
    /// Another size, or a source that is newer than the copy.
    #[default]
    Modified,
    /// Another checksum: the ETags, and where these do not tell, the checksums beside them.
    Checksum,
    /// Another size.
    Size,
}

/// The source of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceSide<'a> {
    /// The rules leave it out.
    Excluded,
    /// A listing without an error does not have it.
    Absent,
    /// It is there, and was not modified as lately as is asked for.
    Older(&'a Object),
    Present(&'a Object),
}

/// What to do about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Copy(Reason),
    /// Compare what both sides say of the content; copy if it differs.
    Look,
    /// The copy is right: record it.
    Adopt,
    /// The same, once its tags do not say that it was deleted.
    AdoptUntagged,
    /// The copy is right, and tagged as deleted.
    Untag,
    /// The copy is right, and was counted as missing its source.
    Found,
    /// The source is gone.
    Gone,
    /// The source is gone, and whether the copy is ours its tags may tell.
    Ask,
    Forget,
    /// Drop the record; the object stays and is unclaimed from now on.
    Disown,
    /// An object that is neither of the source nor ours.
    Unclaimed,
}

/// Why something is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Missing,
    Size,
    Newer,
    Content,
    /// The source is not the object that was copied last.
    Changed,
    /// The copy is not the object that was written.
    Drifted,
    /// A copy was under way when the last run ended.
    Uncertain,
}

impl Reason {
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "not in the destination",
            Self::Size => "another size",
            Self::Newer => "newer than the copy",
            Self::Content => "another content",
            Self::Changed => "changed since it was copied",
            Self::Drifted => "the copy was changed by somebody else",
            Self::Uncertain => "a copy was cut short",
        }
    }
}

/// How two objects compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    Differs(Reason),
    /// The listings do not tell.
    Unsure,
}

/// An object of a bucket as the fingerprint of a source: size, time, and the ETag's digest in the
/// place of inode and device.
pub fn fingerprint_of(object: &Object) -> Fingerprint {
    let digest = Md5::of(object.etag.as_str().as_bytes()).0;
    let half = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let Millis(ms) = object.modified;
    Fingerprint {
        size_bytes: object.size_bytes,
        // Some servers list milliseconds, and tell of one object by the second.
        mtime: Timestamp::new(ms.div_euclid(1_000), 0),
        ctime: Timestamp::default(),
        inode: half(0),
        device: half(8),
    }
}

/// The same as the entry of a record.
pub fn entry_of(object: &Object) -> Entry {
    let fingerprint = fingerprint_of(object);
    Entry { kind: Kind::File, fingerprint, mode: 0, uid: 0, gid: 0 }
}

/// Which copies without a record are asked for their tags: only these tell that it was deleted
/// once, and what a restore leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskTags {
    /// None: nothing is ever tagged there.
    Never,
    /// Those that are adopted or written over.
    Adopting,
    /// All: the records were lost, and only tags can tell what was tagged before.
    Sweeping,
}

/// Decides about one key.
pub fn decide(
    source: SourceSide<'_>,
    base: Option<&Record>,
    copy: Option<&Object>,
    compare: MirrorCompare,
    ask: AskTags,
) -> Step {
    match source {
        SourceSide::Excluded => match (base, copy) {
            (None, None) => Step::Nothing,
            (None, Some(_)) => Step::Unclaimed,
            (Some(_), None) => Step::Forget,
            (Some(record), Some(copy))
                if record.trust == Trust::Tagged && is_recorded(record, copy) =>
            {
                Step::Nothing
            }
            (Some(_), Some(_)) => Step::Disown,
        },
        SourceSide::Absent => absent(base, copy, ask),
        SourceSide::Older(object) => match copy {
            None if base.is_some_and(is_missing) => Step::Forget,
            None => Step::Nothing,
            Some(copy) => match present(object, base, copy, compare, ask) {
                // As it is it stays, but not with the marks of a deletion.
                Step::Copy(Reason::Uncertain | Reason::Changed)
                    if object.etag == copy.etag
                        && base.is_some_and(|record| record.trust != Trust::Synced) =>
                {
                    Step::AdoptUntagged
                }
                // Its deletion does not wait any more.
                Step::Copy(_) | Step::Look if base.is_some_and(is_missing) => Step::Found,
                Step::Copy(_) | Step::Look => Step::Nothing,
                step => step,
            },
        },
        SourceSide::Present(object) => match copy {
            None => Step::Copy(Reason::Missing),
            Some(copy) => present(object, base, copy, compare, ask),
        },
    }
}

fn is_missing(record: &Record) -> bool {
    record.missing_since.is_some()
}

fn absent(base: Option<&Record>, copy: Option<&Object>, ask: AskTags) -> Step {
    match (base, copy) {
        (None, None) => Step::Nothing,
        (None, Some(_)) if ask == AskTags::Sweeping => Step::Ask,
        (None, Some(_)) => Step::Unclaimed,
        (Some(_), None) => Step::Forget,
        (Some(record), Some(copy)) => match record.trust {
            // Ours is what the request wrote, and what we wrote before it. The rest is not.
            Trust::Uploading if !is_recorded(record, copy) && !is_wanted(record, copy) => {
                Step::Disown
            }
            Trust::Synced | Trust::Deleting | Trust::Tagged if !is_recorded(record, copy) => {
                Step::Disown
            }
            Trust::Tagged => Step::Nothing,
            Trust::Synced | Trust::Deleting | Trust::Uploading => Step::Gone,
        },
    }
}

fn present(
    object: &Object,
    base: Option<&Record>,
    copy: &Object,
    compare: MirrorCompare,
    ask: AskTags,
) -> Step {
    let verdict = match base {
        Some(record) if record.trust == Trust::Uploading => {
            return match was_written(record, object, copy) {
                true => Step::AdoptUntagged,
                false => Step::Copy(Reason::Uncertain),
            };
        }
        Some(record) => by_record(record, object, copy, compare),
        None => match by_listing(object, copy, compare) {
            // The clock of the copy's server may be ahead: the later of the two is not the newer.
            Verdict::Same if compare == MirrorCompare::Modified && are_told_apart(object, copy) => {
                Verdict::Unsure
            }
            verdict => verdict,
        },
    };
    match (verdict, base) {
        (Verdict::Differs(reason), _) => Step::Copy(reason),
        (Verdict::Unsure, _) => Step::Look,
        (Verdict::Same, None) if ask == AskTags::Never => Step::Adopt,
        (Verdict::Same, None) => Step::AdoptUntagged,
        (Verdict::Same, Some(record)) => match record.trust {
            Trust::Tagged | Trust::Deleting => Step::Untag,
            // What nobody knows of this copy is whether it is marked.
            _ if record.stale_meta => Step::Untag,
            _ if !is_of(record, object) || !is_recorded(record, copy) => Step::Adopt,
            _ if record.missing_since.is_some() => Step::Found,
            _ => Step::Nothing,
        },
    }
}

/// Whether a request of which nobody heard has surely written this copy of the object. What it
/// was to write over may have the same content with other metadata, or with marks.
fn was_written(record: &Record, object: &Object, copy: &Object) -> bool {
    let equal = object.etag == copy.etag && object.size_bytes == copy.size_bytes;
    match &record.etag {
        Some(before) => equal && *before != copy.etag,
        None => equal && copy.modified > object.modified,
    }
}

/// Whether this has the content that the request was to write: that of the source, or what its
/// parts were to add up to.
fn is_wanted(record: &Record, copy: &Object) -> bool {
    let wanted = &record.entry.fingerprint;
    let expected = record.content.is_some_and(|content| content.matches(&copy.etag) == Some(true));
    expected || Fingerprint { mtime: wanted.mtime, ..fingerprint_of(copy) } == *wanted
}

/// Whether this is the source that was copied.
fn is_of(record: &Record, object: &Object) -> bool {
    record.entry.fingerprint == fingerprint_of(object)
}

/// Whether a record is of a source, and not of a copy whose source nobody saw.
fn knows_source(record: &Record, copy: &Object) -> bool {
    record.entry.fingerprint != fingerprint_of(copy)
}

/// Whether this is the copy that was written.
fn is_recorded(record: &Record, copy: &Object) -> bool {
    record.etag.as_ref() == Some(&copy.etag)
}

fn by_record(record: &Record, object: &Object, copy: &Object, compare: MirrorCompare) -> Verdict {
    match (is_of(record, object), is_recorded(record, copy)) {
        (true, true) => Verdict::Same,
        _ if compare == MirrorCompare::Size => by_listing(object, copy, compare),
        _ if object.size_bytes != copy.size_bytes => Verdict::Differs(Reason::Size),
        // Of the same content; its metadata may be another, and clocks do not tell.
        (false, _) if compare == MirrorCompare::Modified && knows_source(record, copy) => {
            Verdict::Differs(Reason::Changed)
        }
        _ if object.etag == copy.etag => by_listing(object, copy, compare),
        (false, _) => Verdict::Differs(Reason::Changed),
        (true, false) => Verdict::Differs(Reason::Drifted),
    }
}

/// Whether both ETags look like MD5s of the whole content, and are not the same. Under encryption
/// they may look so, and be none.
fn are_told_apart(object: &Object, copy: &Object) -> bool {
    let of_whole = |object: &Object| object.etag.as_md5().filter(|(_, parts)| *parts == 0);
    match (of_whole(object), of_whole(copy)) {
        (Some((one, _)), Some((other, _))) => one != other,
        _ => false,
    }
}

/// What the two listings alone say.
pub fn by_listing(object: &Object, copy: &Object, compare: MirrorCompare) -> Verdict {
    if object.size_bytes != copy.size_bytes {
        return Verdict::Differs(Reason::Size);
    }
    let equal = object.etag == copy.etag;
    match compare {
        MirrorCompare::Size => Verdict::Same,
        MirrorCompare::Checksum if equal => Verdict::Same,
        MirrorCompare::Checksum => Verdict::Unsure,
        MirrorCompare::Modified if object.modified > copy.modified => {
            Verdict::Differs(Reason::Newer)
        }
        // Times are of one second: which of the two was first, only the content tells.
        MirrorCompare::Modified if object.modified == copy.modified && !equal => {
            Verdict::Differs(Reason::Newer)
        }
        MirrorCompare::Modified => Verdict::Same,
    }
}

/// What brings one key back from a backup into another bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    Copy(Reason),
    /// What is there is right.
    Right,
    /// What is there is newer and as large, and its ETag tells nothing: the checksums may. If they
    /// do not say that it is right, it is kept or replaced, as is asked for.
    Look,
    /// What is there is newer than the backup, or is never to be replaced.
    Kept(super::restore::Kept),
}

/// Decides whether an object of a backup replaces what is under its key in the target.
pub fn bring_back(object: &Object, there: Option<&Object>, overwrite: Overwrite) -> Back {
    use super::restore::Kept;
    let Some(there) = there else { return Back::Copy(Reason::Missing) };
    let same_size = object.size_bytes == there.size_bytes;
    if same_size && object.etag == there.etag {
        return Back::Right;
    }
    let reason = if same_size { Reason::Content } else { Reason::Size };
    match overwrite {
        Overwrite::Never => Back::Kept(Kept::Exists),
        Overwrite::Always => Back::Copy(reason),
        // Copies of objects sent in parts may have another ETag; a copy is never older.
        Overwrite::IfChanged | Overwrite::IfNewer
            if same_size && there.modified > object.modified =>
        {
            Back::Look
        }
        // Times are of one second: where they are equal, nobody knows.
        Overwrite::IfNewer if there.modified >= object.modified => Back::Kept(Kept::Newer),
        Overwrite::IfChanged | Overwrite::IfNewer => Back::Copy(reason),
    }
}

/// Where a mirror's two places would feed on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    Same,
    /// The destination lies in the source: every copy would be copied.
    DestinationInside,
    SourceInside,
}

/// How two prefixes of one bucket lie to each other.
pub fn overlap(source: &str, destination: &str) -> Option<Overlap> {
    if source == destination {
        Some(Overlap::Same)
    } else if destination.starts_with(source) {
        Some(Overlap::DestinationInside)
    } else if source.starts_with(destination) {
        Some(Overlap::SourceInside)
    } else {
        None
    }
}

/// A record of a copy that was acknowledged, or found to be right.
pub fn record_of(object: &Object, copy: &Object) -> Record {
    Record {
        entry: entry_of(object),
        content: None,
        etag: Some(copy.etag.clone()),
        trust: Trust::Synced,
        racy: false,
        stale_meta: false,
        missing_since: None,
        approved: false,
    }
}

/// Whether a key takes part, by the path that it would be below a folder: rules are gitignore rules
/// on both sides of the house. What cannot be a path is taken as it is.
pub fn path_of(key: &Key) -> Option<(crate::model::RelPath, bool)> {
    use crate::model::KeyTarget;
    match key.target() {
        Some(KeyTarget::File(path)) => Some((path, false)),
        Some(KeyTarget::Folder(path)) => Some((path, true)),
        None => None,
    }
}

#[cfg(test)]
mod tests;
