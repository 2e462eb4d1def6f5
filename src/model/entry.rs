//! What was seen: local entries and objects, and how sure we are to have looked.

use super::content::{Crc64, ETag};
use super::time::{Millis, Timestamp};

/// What is known about one side of one key. `Option` is not enough: "not looked at" and "looked,
/// and nothing there" lead to opposite decisions. Nothing is ever done on `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed<T> {
    Unknown,
    Absent,
    Present(T),
}

impl<T> Observed<T> {
    pub fn as_ref(&self) -> Observed<&T> {
        match self {
            Self::Unknown => Observed::Unknown,
            Self::Absent => Observed::Absent,
            Self::Present(value) => Observed::Present(value),
        }
    }
}

/// What is known about the source of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Not looked at, or looked at in vain: unreadable folder, failed listing, a device.
    Unknown,
    /// The rules leave it out; it was not looked at.
    Excluded,
    /// Looked at without an error, and nothing of a kind that maps to this key is there.
    Absent,
    Present(Entry),
}

/// The kinds of local entries that become objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    File,
    /// A symbolic link; its content is its target.
    Link,
    /// A folder marker: an empty folder, or one with a mode of its own. No content, no times.
    Folder,
}

/// How `stat` sees a file; a change of any of these says "look closer".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    pub size_bytes: u64,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub inode: u64,
    /// Of the disk that the folder of this name lies on: a number that stays when disks are
    /// numbered anew, where the file system has an id of its own.
    pub device: u64,
}

/// A local entry as `lstat` saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    /// All zero but the device for folder markers, whose times and sizes are not kept.
    pub fingerprint: Fingerprint,
    /// File type and permission bits, as in `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Entry {
    /// What restore gives back beside the content.
    pub fn meta(&self) -> Meta {
        Meta {
            mtime: (self.kind != Kind::Folder).then_some(self.fingerprint.mtime),
            mode: Some(self.mode),
            uid: Some(self.uid),
            gid: Some(self.gid),
        }
    }
}

/// An object's user metadata, in rclone's terms. Absent where the object has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub mtime: Option<Timestamp>,
    /// File type and permission bits (`100644`, `120777` for a link), octal in the metadata.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Meta {
    /// Names and values of the metadata, without the `x-amz-meta-` in front.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::with_capacity(4);
        pairs.extend(self.mtime.map(|t| ("mtime", t.to_string())));
        pairs.extend(self.mode.map(|m| ("mode", format!("{m:o}"))));
        pairs.extend(self.uid.map(|id| ("uid", id.to_string())));
        pairs.extend(self.gid.map(|id| ("gid", id.to_string())));
        pairs
    }

    /// Reads what [`Self::to_pairs`] wrote; what does not parse counts as absent.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut meta = Self::default();
        for (name, value) in pairs {
            match name {
                "mtime" => meta.mtime = value.parse().ok(),
                "mode" => meta.mode = u32::from_str_radix(value, 8).ok(),
                "uid" => meta.uid = value.parse().ok(),
                "gid" => meta.gid = value.parse().ok(),
                _ => {}
            }
        }
        meta
    }
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub size_bytes: u64,
    pub etag: ETag,
    pub modified: Millis,
    /// In a storage class that must be thawed before it can be read or copied.
    pub archived: bool,
}

/// An object as HEAD shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    pub object: Object,
    pub meta: Meta,
    /// The full-object CRC64NVME, where the server keeps one.
    pub crc64: Option<Crc64>,
    /// Number of tags, where the server tells.
    pub tags: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_round_trips() {
        let meta = Meta {
            mtime: Some(Timestamp::new(-2, 500_000_000)),
            mode: Some(0o120_777),
            uid: Some(0),
            gid: Some(4_294_967_295),
        };
        let pairs = meta.to_pairs();
        assert_eq!(pairs[1].1, "120777");
        let read = Meta::from_pairs(pairs.iter().map(|(n, v)| (*n, v.as_str())));
        assert_eq!(read, meta);
        let strange = [("mode", "rw"), ("uid", "-1"), ("mtime", "x"), ("other", "1")];
        assert_eq!(Meta::from_pairs(strange), Meta::default());
    }
}
