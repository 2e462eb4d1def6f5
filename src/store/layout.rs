//! Where things lie in the store's folder, and which keys can be plain files.
//!
//! Paths only: nothing here touches the disk. Used by `bodies`, and by `mod` to open the store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The store's own folder inside its folder. No bucket can have this name: theirs start with a
/// letter or a digit.
const INNER: &str = ".keepwatch-store";
/// What one segment of a path may have on ext4, xfs, btrfs and APFS.
const SEGMENT_MAX_BYTES: usize = 255;
/// PATH_MAX without its NUL.
const PATH_MAX_BYTES: usize = if cfg!(target_os = "macos") { 1023 } else { 4095 };
/// How many low bits of a [`BodyId`] are random; the others are milliseconds since the epoch.
const RANDOM_BITS: u32 = 21;

/// Names one body for ever: it is never used again, not even after the body is gone.
///
/// Ids grow with time, so that bodies written together lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BodyId(pub(super) i64);

impl BodyId {
    /// A new id. Two are equal once in two million tries within the same millisecond: whoever
    /// creates the file must not accept an existing one.
    pub(super) fn fresh() -> Self {
        let time = super::clock::millis(SystemTime::now());
        Self(time << RANDOM_BITS | fastrand::i64(0..1 << RANDOM_BITS))
    }

    /// The id in the name of a file that [`Layout`] made, if it is one.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let plausible = name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
        plausible.then(|| i64::from_str_radix(name, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The paths of one store.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The store's folder, which all other paths are below.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn inner(&self) -> PathBuf {
        self.root.join(INNER)
    }

    pub(super) fn index(&self) -> PathBuf {
        self.inner().join("index.db")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.inner().join("lock")
    }

    /// Holds bodies on their way: being written, not yet home, or leaving.
    pub(super) fn tmp_folder(&self) -> PathBuf {
        self.inner().join("tmp")
    }

    pub(super) fn blob_folder(&self) -> PathBuf {
        self.inner().join("blobs")
    }

    pub(super) fn tmp(&self, body: BodyId) -> PathBuf {
        self.tmp_folder().join(body.to_string())
    }

    /// `blobs/ab/cd/<id>`; bodies of the same four seconds share a folder.
    pub(super) fn blob(&self, body: BodyId) -> PathBuf {
        let time_ms = body.0 >> RANDOM_BITS;
        let (high, low) = ((time_ms >> 20) & 0xff, (time_ms >> 12) & 0xff);
        self.blob_folder().join(format!("{high:02x}/{low:02x}/{body}"))
    }

    pub(super) fn bucket(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// `<folder>/<bucket>/<key>`, when every segment of the key is legal as a file name and the
    /// path is not too long. Whether another file is in the way is for the disk to say.
    pub(super) fn plain(&self, bucket: &str, key: &str) -> Option<PathBuf> {
        let legal = |segment: &str| {
            (1..=SEGMENT_MAX_BYTES).contains(&segment.len())
                && !matches!(segment, "." | "..")
                && !segment.contains('\0')
        };
        if !key.split('/').all(legal) {
            return None;
        }
        let path = self.bucket(bucket).join(key);
        (path.as_os_str().len() <= PATH_MAX_BYTES).then_some(path)
    }
}

/// The folders between `top` and `path`, nearest to `top` first; neither is included.
pub(super) fn folders_between<'a>(top: &Path, path: &'a Path) -> Vec<&'a Path> {
    let mut folders: Vec<&Path> =
        path.ancestors().skip(1).take_while(|folder| *folder != top).collect();
    folders.reverse();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_those_every_segment_of_which_is_a_legal_name() {
        let layout = Layout::new(PathBuf::from("/s"));
        let plain = |key: &str| layout.plain("bkt", key).map(|p| p.display().to_string());
        for key in ["a", "a/b c/ü", "a+b%41", ".hidden", "...", "a\nb", &"x".repeat(255)] {
            assert_eq!(plain(key), Some(format!("/s/bkt/{key}")), "{key:?}");
        }
        for key in ["", "/", "a/", "/a", "a//b", ".", "a/../b", "a\0b", &"x".repeat(256)] {
            assert_eq!(plain(key), None, "{key:?}");
        }
        let deep = Layout::new(PathBuf::from(format!("/{}", "d/".repeat(1990))));
        assert_eq!(deep.plain("bkt", &"k".repeat(200)), None, "path too long");
    }

    #[test]
    fn body_ids_survive_their_text_and_lie_together_in_time() {
        let id = BodyId::fresh();
        assert_eq!(BodyId::parse(&id.to_string()), Some(id));
        assert_eq!(BodyId::parse("+00000000000000a"), None);
        let layout = Layout::new(PathBuf::from("/s"));
        let near = BodyId(id.0 ^ 1);
        assert_eq!(layout.blob(id).parent(), layout.blob(near).parent());
    }

    #[test]
    fn folders_between_are_listed_from_the_top() {
        let folders = folders_between(Path::new("/s/b"), Path::new("/s/b/x/y/z"));
        assert_eq!(folders, [Path::new("/s/b/x"), Path::new("/s/b/x/y")]);
    }
}
