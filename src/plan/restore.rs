//! Restoring: where an object belongs, and whether what is there may be replaced.

use std::fmt;

use crate::model::key::RESERVED_NAME;
use crate::model::{Entry, Key, KeyTarget, Kind, Millis, PathError, RelPath, Timestamp};

/// What happens to what is there already, in restic's terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// It is replaced, unless its content is the same.
    Always,
    /// It is replaced when its size or its time differ, and its content does.
    IfChanged,
    /// The same, but a file that is newer than the backup is kept.
    #[default]
    IfNewer,
    /// It is kept.
    Never,
}

/// Where an object belongs below the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file or a link.
    File(RelPath),
    Folder(RelPath),
}

impl Place {
    pub fn path(&self) -> &RelPath {
        match self {
            Self::File(path) | Self::Folder(path) => path,
        }
    }

    pub fn is_folder(&self) -> bool {
        matches!(self, Self::Folder(_))
    }
}

/// Why a key has no place below any target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Path(PathError),
    /// `.keepwatch` at the top.
    Reserved,
    /// A folder's name with content in it.
    FolderWithContent,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(error) => write!(f, "no file can have this name: {error}"),
            Self::Reserved => f.write_str("the name .keepwatch is reserved at the top"),
            Self::FolderWithContent => {
                f.write_str("it is named like a folder, and has content like a file")
            }
        }
    }
}

/// The place of an object of this size. A key that is not canonical is taken literally; the result
/// is checked after decoding, so no key leads out of the target.
pub fn place(key: &Key, size_bytes: u64) -> Result<Place, Refusal> {
    let place = match key.target() {
        Some(KeyTarget::File(path)) => Place::File(path),
        Some(KeyTarget::Folder(path)) => Place::Folder(path),
        None => literal(key.as_str())?,
    };
    if place.path().segments().next().is_none_or(|top| top == RESERVED_NAME) {
        return Err(Refusal::Reserved);
    }
    match place {
        Place::Folder(_) if size_bytes > 0 => Err(Refusal::FolderWithContent),
        place => Ok(place),
    }
}

fn literal(text: &str) -> Result<Place, Refusal> {
    let (is_folder, text) = match text.strip_suffix('/') {
        Some(folder) => (true, folder),
        None => (false, text),
    };
    if text.is_empty() {
        return Err(Refusal::Path(PathError::EmptySegment));
    }
    let path = RelPath::new(text.as_bytes()).map_err(Refusal::Path)?;
    Ok(if is_folder { Place::Folder(path) } else { Place::File(path) })
}

/// The key that was quoted in another way, or not at all, for the place of this one: if both are
/// there, they would become one name.
pub fn rival(key: &Key, place: &Place) -> Option<Key> {
    let canonical = match place {
        Place::File(path) => Key::file(path),
        Place::Folder(path) => Key::folder(path),
    };
    (canonical != *key).then_some(canonical)
}

/// What the backup says of a file or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub kind: Kind,
    pub size_bytes: u64,
    /// `None` where the tool that made the object kept none.
    pub mtime: Option<Timestamp>,
    /// When the object was written.
    pub modified: Millis,
}

/// Why what is there stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Newer,
    Exists,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newer => "the file here is newer than the backup",
            Self::Exists => "something of this name is here already",
        })
    }
}

/// What to do about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Content, size and time are right, as far as times tell.
    Right,
    Write,
    Keep(Kept),
    /// The content decides: when it is the same, at most attributes are set (`retouch`); when it
    /// differs, the file is kept or written.
    Compare {
        retouch: bool,
        differs: Option<Kept>,
    },
}

/// Whether what is there may be replaced.
pub fn choose(overwrite: Overwrite, wanted: &Wanted, local: Option<&Entry>) -> Choice {
    let Some(local) = local else { return Choice::Write };
    let mtime = local.fingerprint.mtime;
    let newer = match wanted.mtime {
        Some(kept) => mtime > kept,
        None => mtime.millis() > wanted.modified,
    };
    let kept = match overwrite {
        Overwrite::Never => return keep_all(wanted, local),
        Overwrite::IfNewer if newer => Some(Kept::Newer),
        Overwrite::IfNewer | Overwrite::IfChanged | Overwrite::Always => None,
    };
    if !looks_alike(wanted, local) {
        return kept.map_or(Choice::Write, Choice::Keep);
    }
    match overwrite {
        Overwrite::IfNewer | Overwrite::IfChanged if wanted.mtime == Some(mtime) => Choice::Right,
        _ => Choice::Compare { retouch: kept.is_none(), differs: kept },
    }
}

fn keep_all(wanted: &Wanted, local: &Entry) -> Choice {
    match looks_alike(wanted, local) && wanted.mtime == Some(local.fingerprint.mtime) {
        true => Choice::Right,
        false => Choice::Keep(Kept::Exists),
    }
}

fn looks_alike(wanted: &Wanted, local: &Entry) -> bool {
    wanted.kind == local.kind && wanted.size_bytes == local.fingerprint.size_bytes
}

/// Whether a link at `path` with this target leads out of the folder that `path` is below of. Told
/// from the names alone: what other links there are on the way does not matter, for no restored
/// file is ever written through a link.
pub fn leads_out(path: &RelPath, target: &[u8]) -> bool {
    if target.starts_with(b"/") {
        return true;
    }
    let mut depth = path.segments().count() - 1;
    for name in target.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Fingerprint;

    #[test]
    fn no_key_leads_out() {
        let refused = [
            "../x",
            "/etc/x",
            "a/../../x",
            "a//b",
            ".",
            "..",
            "./x",
            "a/.",
            "x/..",
            "/",
            "a\0b",
            "a//",
            ".keepwatch",
            ".keepwatch/owner.json",
            ".keepwatch/",
        ];
        for text in refused {
            assert!(place(&Key::literal(text), 0).is_err(), "{text:?}");
        }
        assert_eq!(place(&Key::literal("d/"), 1), Err(Refusal::FolderWithContent));
    }

    #[test]
    fn odd_keys_are_taken_literally() {
        for text in ["‛2E‛2E/x", "a‛2Fb", "‛00", "‛41", "\n"] {
            let key = Key::literal(text);
            let place = place(&key, 0).unwrap();
            assert_eq!(place, Place::File(RelPath::new(text.as_bytes()).unwrap()));
            assert!(rival(&key, &place).is_some(), "{text:?}");
        }
        let key = Key::literal("a␊b/");
        let place = place(&key, 0).unwrap();
        assert_eq!(place, Place::Folder(RelPath::new(b"a\nb").unwrap()));
        assert_eq!(rival(&key, &place), None);
    }

    #[test]
    fn links_that_lead_out() {
        let out = |path: &str, target: &str| {
            leads_out(&RelPath::new(path.as_bytes()).unwrap(), target.as_bytes())
        };
        assert!(!out("l", "x") && !out("a/l", "../x") && !out("a/b/l", "../../c/../d"));
        assert!(!out("l", ".") && !out("a/l", "..") && !out("l", "x/.."));
        assert!(out("l", "..") && out("a/l", "../../x") && out("l", "/etc") && out("l", "x/../.."));
    }

    #[test]
    fn overwrite_rules() {
        use Choice::{Compare, Keep, Right, Write};
        let entry = |size_bytes, secs| Entry {
            kind: Kind::File,
            fingerprint: Fingerprint {
                size_bytes,
                mtime: Timestamp::new(secs, 0),
                ..Fingerprint::default()
            },
            mode: 0o100_644,
            uid: 0,
            gid: 0,
        };
        let at = |mtime: Option<i64>| Wanted {
            kind: Kind::File,
            size_bytes: 5,
            mtime: mtime.map(|secs| Timestamp::new(secs, 0)),
            modified: Millis(100_000),
        };
        let compare = Compare { retouch: true, differs: None };
        let hesitate = Compare { retouch: false, differs: Some(Kept::Newer) };
        use Overwrite::{Always, IfChanged, IfNewer, Never};
        for (overwrite, size, secs, mtime, choice) in [
            (Always, 5, 50, Some(50), compare),
            (Always, 5, 51, Some(50), compare),
            (Always, 6, 51, Some(50), Write),
            (IfChanged, 5, 50, Some(50), Right),
            (IfChanged, 5, 51, Some(50), compare),
            (IfChanged, 6, 50, Some(50), Write),
            (IfNewer, 5, 50, Some(50), Right),
            (IfNewer, 5, 49, Some(50), compare),
            (IfNewer, 5, 51, Some(50), hesitate),
            (IfNewer, 6, 49, Some(50), Write),
            (IfNewer, 6, 50, Some(50), Write),
            (IfNewer, 6, 51, Some(50), Keep(Kept::Newer)),
            (IfNewer, 5, 101, None, hesitate),
            (IfNewer, 5, 99, None, compare),
            (IfNewer, 6, 101, None, Keep(Kept::Newer)),
            (IfNewer, 6, 99, None, Write),
            (Never, 5, 50, Some(50), Right),
            (Never, 5, 49, Some(50), Keep(Kept::Exists)),
            (Never, 6, 50, Some(50), Keep(Kept::Exists)),
            (Never, 5, 50, None, Keep(Kept::Exists)),
        ] {
            let local = entry(size, secs);
            assert_eq!(
                choose(overwrite, &at(mtime), Some(&local)),
                choice,
                "{overwrite:?} {size} {secs} {mtime:?}"
            );
        }
        let link = Entry { kind: Kind::Link, ..entry(5, 50) };
        assert_eq!(choose(IfChanged, &at(Some(50)), Some(&link)), Write);
        assert_eq!(choose(Never, &at(Some(50)), None), Write);
    }
}
