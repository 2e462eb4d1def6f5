//! The folder that a restore fills, on a disk: what is made in it, and what is refused.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use keepwatch::fs::Target;
use keepwatch::model::{ContentMd5, Crc64, Md5, RelPath, Timestamp};
use keepwatch::plan::ErrorClass;
use keepwatch::ports::{Attributes, LocalLook, TargetError, TargetTree, Written};
use tempfile::TempDir;

use super::in_runtime;

/// A folder, and the target in it: `target` itself is made by `prepare`.
pub struct Scene {
    pub folder: PathBuf,
    pub target: Target,
    _removed_at_the_end: Option<TempDir>,
}

pub const PLAIN: Attributes = Attributes { mtime: None, permissions: None, owner: None };

impl Scene {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scene = Self::at_folder(folder.path());
        Self { _removed_at_the_end: Some(folder), ..scene }
    }

    /// In a folder that somebody else made, and removes.
    pub fn at_folder(folder: &Path) -> Self {
        let target = Target::new(&folder.join("target"));
        Self { folder: folder.to_owned(), target, _removed_at_the_end: None }
    }

    pub async fn prepared() -> Self {
        let scene = Self::new();
        scene.target.prepare().await.unwrap();
        scene
    }

    pub fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.join("target").join(name.as_ref())
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        std::fs::write(self.at(name), content).unwrap();
    }

    pub async fn look(&self, name: &[u8]) -> LocalLook {
        self.target.look(path(name)).await.unwrap()
    }

    /// Makes a file in one stretch.
    pub async fn make(
        &self,
        name: &[u8],
        content: &[u8],
        attributes: Attributes,
        over: LocalLook,
    ) -> Result<(), TargetError> {
        let file = self.target.create(path(name)).await?;
        let mut stretch = file.stretch(0, true);
        stretch.write(Bytes::copy_from_slice(content)).await?;
        let written = stretch.finish().await?;
        assert_eq!(written, sums(content, true));
        file.commit(content.len() as u64, attributes, over).await
    }

    pub async fn make_plain(&self, name: &[u8], content: &[u8]) -> Result<(), TargetError> {
        self.make(name, content, PLAIN, LocalLook::Absent).await
    }

    /// Everything in the target, with what belongs to keepwatch.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![];
        collect(&self.at(""), &self.at(""), &mut names);
        names.sort();
        names
    }
}

fn collect(root: &Path, folder: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
        if path.symlink_metadata().unwrap().is_dir() {
            collect(root, &path, names);
        }
    }
}

pub fn path(name: &[u8]) -> RelPath {
    RelPath::new(name).unwrap()
}

fn sums(content: &[u8], md5: bool) -> Written {
    let md5 = md5.then(|| Md5::of(content));
    Written { bytes: content.len() as u64, crc64: Crc64::of(content), md5 }
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

fn mtime(path: &Path) -> Timestamp {
    let metadata = path.symlink_metadata().unwrap();
    Timestamp::new(metadata.mtime(), metadata.mtime_nsec() as u32)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn files_get_their_content_times_and_permissions() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        let times = [
            Timestamp::new(1_600_000_000, 123_456_789),
            Timestamp::new(-2, 500_000_001),
            Timestamp::new(0, 0),
        ];
        for (n, (mtime_asked, permissions)) in times.iter().zip([0o4755, 0o600, 0o1777]).enumerate()
        {
            let name = format!("a/b/{n}");
            let attributes = Attributes {
                mtime: Some(*mtime_asked),
                permissions: Some(permissions),
                owner: None,
            };
            scene.make(name.as_bytes(), b"content", attributes, LocalLook::Absent).await.unwrap();
            assert_eq!(std::fs::read(scene.at(&name)).unwrap(), b"content");
            assert_eq!(mtime(&scene.at(&name)), *mtime_asked);
            assert_eq!(mode(&scene.at(&name)), permissions);
        }
        // Where nothing is asked, it is as if a program had made the file.
        scene.make_plain(b"plain", b"").await.unwrap();
        std::fs::write(scene.at("judge"), b"").unwrap();
        assert_eq!(mode(&scene.at("plain")), mode(&scene.at("judge")));
        scene.target.finish().await.unwrap();
        assert_eq!(scene.names(), ["a", "a/b", "a/b/0", "a/b/1", "a/b/2", "judge", "plain"]);
    });
}

#[test]
fn owners_are_set_before_permissions() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        let attributes =
            Attributes { mtime: None, permissions: Some(0o4755), owner: Some((12, 34)) };
        let made = scene.make(b"file", b"x", attributes, LocalLook::Absent).await;
        if !is_root() {
            assert!(matches!(made, Err(TargetError::Path(why)) if why.contains("user 12")));
            assert_eq!(scene.look(b"file").await, LocalLook::Absent);
            return;
        }
        made.unwrap();
        let target = Bytes::from_static(b"nowhere");
        scene.target.link(path(b"link"), target, attributes, LocalLook::Absent).await.unwrap();
        for name in ["file", "link"] {
            let metadata = scene.at(name).symlink_metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (12, 34), "{name}");
        }
        assert_eq!(mode(&scene.at("file")), 0o4755);
    });
}

#[test]
fn names_are_kept_byte_for_byte() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        let long = [b'n'; 255];
        let names: [&[u8]; 6] =
            [&long, b"gro\xdf", b"new\nline", b"-", "e\u{301}".as_bytes(), b"\xff/\x01"];
        for name in names {
            scene.make_plain(name, name).await.unwrap();
            assert_eq!(std::fs::read(scene.at(OsStr::from_bytes(name))).unwrap(), name);
        }
        // A name that cannot be is known before any content is fetched.
        let too_long = path(&[b'n'; 256]);
        for refused in [
            scene.target.create(too_long.clone()).await.err(),
            scene.target.folder(too_long.clone()).await.err(),
            scene.target.look(too_long).await.err(),
        ] {
            assert_eq!(refused, Some(TargetError::Path("File name too long".to_owned())));
        }
        for own in [&b".keepwatch"[..], b".keepwatch/file"] {
            let refused = scene.target.create(path(own)).await.err().unwrap();
            assert!(matches!(refused, TargetError::Path(_)), "{refused:?}");
        }
        scene.make_plain(b"below/.keepwatch", b"x").await.unwrap();
    });
}

#[test]
fn stretches_are_hashed_and_zeros_become_holes() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        const PART: usize = 1 << 20;
        let mut content = vec![0; 4 * PART + 5000];
        content[10] = 1;
        content[PART + 4096 * 3 + 7] = 2;
        content[2 * PART - 1] = 3;
        let file = scene.target.create(path(b"sparse")).await.unwrap();
        // Parts in any order, in pieces of an odd size.
        for (n, part) in content.chunks(PART).enumerate().rev() {
            let mut stretch = file.stretch((n * PART) as u64, n % 2 == 0);
            for piece in part.chunks(10_007) {
                stretch.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            assert_eq!(stretch.finish().await.unwrap(), sums(part, n % 2 == 0));
        }
        let whole = (ContentMd5::whole(Md5::of(&content)), Crc64::of(&content));
        assert_eq!(file.digest(None).await.unwrap(), whole);
        let parts: Vec<Md5> = content.chunks(PART).map(Md5::of).collect();
        let composite = ContentMd5::of_parts(&parts, PART as u64);
        let in_parts = file.digest(Some(PART as u64)).await.unwrap();
        assert_eq!(in_parts, (composite, whole.1));
        file.commit(content.len() as u64, PLAIN, LocalLook::Absent).await.unwrap();
        assert!(std::fs::read(scene.at("sparse")).unwrap() == content);
        let blocks = scene.at("sparse").metadata().unwrap().blocks();
        assert!(blocks * 512 <= 64 * 1024, "{blocks} blocks");
        assert_eq!(scene.target.digest(path(b"sparse"), None).await.unwrap(), whole);
        let parts = scene.target.digest(path(b"sparse"), Some(PART as u64)).await.unwrap();
        assert_eq!(parts, in_parts);
    });
}

#[test]
fn a_file_of_zeros_and_an_empty_one() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        for size in [0, 1, 4096, 8192, 1 << 20] {
            let name = format!("{size}");
            scene.make_plain(name.as_bytes(), &vec![0; size]).await.unwrap();
            assert!(std::fs::read(scene.at(&name)).unwrap() == vec![0; size]);
        }
        assert_eq!(scene.at("1048576").metadata().unwrap().blocks(), 0);
        let empty = scene.target.digest(path(b"0"), None).await.unwrap();
        assert_eq!(empty, (ContentMd5::whole(Md5::of(b"")), Crc64::EMPTY));
        let gone = scene.target.digest(path(b"none"), None).await;
        assert_eq!(gone, Err(TargetError::Changed));
    });
}

#[test]
fn links_are_made_with_their_own_times() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        let stamp = Timestamp::new(-5, 7);
        let attributes = Attributes { mtime: Some(stamp), permissions: Some(0o777), owner: None };
        for target in [&b"/etc/passwd"[..], b"../..", b"no\xffwhere\n"] {
            let over = scene.look(b"a/link").await;
            let bytes = Bytes::copy_from_slice(target);
            scene.target.link(path(b"a/link"), bytes.clone(), attributes, over).await.unwrap();
            let read = std::fs::read_link(scene.at("a/link")).unwrap();
            assert_eq!(read.as_os_str().as_bytes(), target);
            assert_eq!(mtime(&scene.at("a/link")), stamp);
            let LocalLook::Link(entry, seen) = scene.look(b"a/link").await else { panic!() };
            assert_eq!((entry.fingerprint.mtime, seen), (stamp, bytes));
        }
        for wrong in [Bytes::new(), Bytes::from(vec![b'x'; 5000])] {
            let refused = scene.target.link(path(b"b"), wrong, PLAIN, LocalLook::Absent).await;
            assert!(matches!(refused, Err(TargetError::Path(_))), "{refused:?}");
        }
    });
}

#[test]
fn folders_are_made_once() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        let folder = async |name: &[u8]| scene.target.folder(path(name)).await;
        assert_eq!(folder(b"a/b/c").await, Ok(true));
        assert_eq!(folder(b"a/b").await, Ok(false));
        assert_eq!(folder(b"").await, Ok(false));
        scene.write("a/file", b"");
        assert_eq!(folder(b"a/file/x/y").await, Err(TargetError::InTheWay(path(b"a/file"))));
        assert_eq!(folder(b"a/file").await, Err(TargetError::InTheWay(path(b"a/file"))));
        // Many at once: each folder is made by one of them.
        let many = (0..20).map(|_| scene.target.folder(path(b"x/y/z")));
        let made = futures_util::future::join_all(many).await;
        assert_eq!(made.iter().filter(|made| **made == Ok(true)).count(), 1, "{made:?}");
        let is = scene.look(b"x/y").await;
        let attributes = Attributes {
            mtime: Some(Timestamp::new(5, 6)),
            permissions: Some(0o2750),
            owner: None,
        };
        scene.target.set(path(b"x/y"), is.clone(), attributes).await.unwrap();
        assert_eq!(mode(&scene.at("x/y")), 0o2750);
        assert_eq!(mtime(&scene.at("x/y")), Timestamp::new(5, 6));
        let again = scene.target.set(path(b"x/y"), is, attributes).await;
        assert_eq!(again, Err(TargetError::Changed));
    });
}

#[test]
fn looks_tell_what_is_there() {
    in_runtime(async {
        let scene = Scene::new();
        // Also before the target is there.
        assert_eq!(scene.look(b"a/b").await, LocalLook::Absent);
        scene.target.prepare().await.unwrap();
        scene.write("a/file", b"12345");
        symlink("a", scene.at("link")).unwrap();
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkfifoat(rustix::fs::CWD, scene.at("pipe"), mode).unwrap();
        assert_eq!(scene.look(b"b/c").await, LocalLook::Absent);
        let LocalLook::File(entry) = scene.look(b"a/file").await else { panic!() };
        assert_eq!(entry.fingerprint.size_bytes, 5);
        assert_eq!(entry.fingerprint.inode, scene.at("a/file").metadata().unwrap().ino());
        assert!(matches!(scene.look(b"a").await, LocalLook::Folder(_)));
        assert!(matches!(scene.look(b"").await, LocalLook::Folder(_)));
        assert_eq!(scene.look(b"pipe").await, LocalLook::Special("a pipe"));
        assert_eq!(scene.look(b"link/file").await, LocalLook::Blocked(path(b"link")));
        assert_eq!(scene.look(b"a/file/x/y").await, LocalLook::Blocked(path(b"a/file")));
        let read = scene.target.digest(path(b"pipe"), None).await;
        assert_eq!(read, Err(TargetError::Changed));
        let read = scene.target.digest(path(b"link/file"), None).await;
        assert_eq!(read, Err(TargetError::Changed));
    });
}

#[test]
fn facts_change_nothing() {
    in_runtime(async {
        let scene = Scene::new();
        let deep = Target::new(&scene.folder.join("a/b/c"));
        for target in [&deep, &scene.target, &Target::new(Path::new("not/there"))] {
            let facts = target.facts().await.unwrap();
            assert!(facts.free_bytes > 0 && facts.block_bytes.is_power_of_two(), "{facts:?}");
        }
        assert_eq!(std::fs::read_dir(&scene.folder).unwrap().count(), 0);
        let failure = deep.prepare().await.unwrap_err();
        assert_eq!(failure.class, ErrorClass::Configuration);
        assert!(failure.message.contains("a/b/c") && failure.hint.is_some(), "{failure:?}");
        std::fs::write(scene.folder.join("target"), b"").unwrap();
        for failure in [scene.target.prepare().await, scene.target.facts().await] {
            let failure = failure.unwrap_err();
            assert!(failure.message.ends_with("target is not a folder"), "{failure:?}");
            assert!(failure.hint.is_some());
        }
    });
}
