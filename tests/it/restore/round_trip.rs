//! A tree with every kind of file, backed up and restored: the same, in the opinion of other tools.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use keepwatch::model::{Key, RelPath};
use rustix::fs::{AtFlags, Timespec, Timestamps, utimensat};

use crate::support::bucket::Bucket;
use crate::support::external::{garage, moto};
use crate::support::program::{Said, User};
use crate::support::scene::TO;
use crate::support::server::{Embedded, Reach};
use crate::support::tree::{Tree, odd_names};

use super::same::{assert_same, differences, seen};

/// Garage has keys of up to 480 bytes here, the prefix included.
const KEY_MAX_BYTES: usize = 478;

pub fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Links that stay inside.
const INNER: [(&str, &str); 9] = [
    ("links/dangling", "nowhere"),
    ("links/itself", "itself"),
    ("links/ping", "pong"),
    ("links/pong", "ping"),
    ("links/up", ".."),
    ("links/here", "."),
    ("links/folder", "../modes"),
    ("links/file", "../one"),
    ("links/untidy", ".././/links/../one"),
];

/// Links that lead out.
const OUTER: [(&str, &str); 4] = [
    ("out/absolute", "/etc/hostname"),
    ("out/slash", "/"),
    ("out/up", "../../beside"),
    ("out-at-once", ".."),
];

fn every_kind() -> Tree {
    let tree = Tree::new(&[("empty", b""), ("deep/er/empty", b""), ("one", b"shared")]);
    names(&tree);
    for folder in ["none", "nest/in/nest", "sticky", "group", "own", "read-only"] {
        fs::create_dir_all(tree.path(folder)).unwrap();
    }
    tree.write("own/inside", b"in a folder of its owner");
    tree.write("read-only/inside", b"in a folder that nobody writes into");
    fs::hard_link(tree.path("one"), tree.path("two")).unwrap();
    fs::create_dir(tree.path("links")).unwrap();
    fs::create_dir(tree.path("out")).unwrap();
    for (name, target) in INNER.iter().chain(&OUTER) {
        symlink(target, tree.path(name)).unwrap();
    }
    symlink(OsStr::from_bytes(b"odd \xff \n target"), tree.path("links/odd")).unwrap();
    symlink("x".repeat(4000), tree.path("links/long")).unwrap();
    set_mtime(&tree.path("links/dangling"), 1_500_000_000, 987_654_321);
    set_mtime(&tree.path("links/long"), -77, 1);
    contents(&tree);
    modes(&tree);
    for (index, (secs, nanos)) in [
        (0, 0),
        (0, 1),
        (-1, 999_999_999),
        (-1, 1),
        (-2, 500_000_000),
        (-1_000_000_000, 123_456_789),
        (1_700_000_000, 123_456_789),
        (1_700_000_000, 100_000_000),
        (4_294_967_296, 5),
        (15_032_385_534, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("times/{index}");
        tree.write(&name, name.as_bytes());
        set_mtime(&tree.path(&name), secs, nanos);
    }
    tree
}

fn names(tree: &Tree) {
    for (index, name) in odd_names().iter().enumerate() {
        let below = [b"d/".as_slice(), name, b"/", name].concat();
        for path in [name.as_slice(), &below] {
            let key = Key::file(&RelPath::new(path).unwrap());
            if key.as_bytes().len() <= KEY_MAX_BYTES {
                tree.write(OsStr::from_bytes(path), format!("content {index}").as_bytes());
            }
        }
    }
    tree.write("x".repeat(250), b"250 bytes");
    tree.write("x".repeat(255), b"as long as a name can be");
    tree.write("日".repeat(83), b"249 bytes, 83 characters");
    let invalid = [vec![0xff; 60], vec![b'.'; 20]].concat();
    tree.write(OsStr::from_bytes(&invalid), b"invalid UTF-8");
    let deep: Vec<String> = (1..=40).map(|level| format!("level {level}")).collect();
    tree.write(deep.join("/"), b"at the bottom");
}

/// So many bytes that nothing can make smaller.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.rotate_left(23).to_le_bytes()
    });
    let mut noise: Vec<u8> = words.take(bytes.div_ceil(8)).flatten().collect();
    noise.truncate(bytes);
    noise
}

fn contents(tree: &Tree) {
    let large = noise((18 << 20) + 1);
    tree.write("large/in-parts", &large);
    tree.write("large/in-one", &large[..(4 << 20) + 1]);
    tree.write("large/one-part-and-a-byte", &large[..(5 << 20) + 1]);
    tree.write("large/zeros", &vec![0; 300_000]);
    for (name, size) in [("sparse/small", 3 << 20), ("sparse/large", 40 << 20)] {
        tree.write(name, b"");
        let file = fs::File::options().write(true).open(tree.path(name)).unwrap();
        file.set_len(size).unwrap();
        file.write_at(b"in the middle", size / 2 + 1).unwrap();
    }
    tree.write("sparse/hole", b"");
    let file = fs::File::options().write(true).open(tree.path("sparse/hole")).unwrap();
    file.set_len((1 << 20) + 1).unwrap();
}

fn modes(tree: &Tree) {
    for mode in [0o644, 0o600, 0o400, 0o444, 0o777, 0o755, 0o1644, 0o2755, 0o4755, 0o6711, 0o070] {
        // Who is not root could not read the last one.
        if mode & 0o400 != 0 || is_root() {
            let name = format!("modes/{mode:o}");
            tree.write(&name, name.as_bytes());
            tree.chmod(&name, mode);
        }
    }
    if is_root() {
        tree.write("owned/file", b"of another");
        symlink("file", tree.path("owned/link")).unwrap();
        tree.write("owned/setuid", b"of another");
        fs::create_dir(tree.path("owned/folder")).unwrap();
        tree.chmod("owned/folder", 0o750);
        chown(tree.path("owned/file"), Some(1234), Some(5678)).unwrap();
        chown(tree.path("owned/setuid"), Some(1234), Some(5678)).unwrap();
        chown(tree.path("owned/folder"), Some(1234), Some(5678)).unwrap();
        lchown(tree.path("owned/link"), Some(1234), Some(5678)).unwrap();
        // A new owner has taken this bit.
        tree.chmod("owned/setuid", 0o4711);
    }
    for (name, mode) in
        [("own", 0o700), ("sticky", 0o1777), ("group", 0o2775), ("read-only", 0o555)]
    {
        tree.chmod(name, mode);
    }
}

/// A place to restore into, and what was said about it.
pub struct Restored {
    folder: tempfile::TempDir,
    pub said: Said,
}

impl Restored {
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("target")
    }
}

pub fn restore(user: &User, from: &str, more: &[&str], code: i32) -> Restored {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let said = again(user, from, &target, more, code);
    Restored { folder, said }
}

pub fn again(user: &User, from: &str, target: &Path, more: &[&str], code: i32) -> Said {
    let args = [&["restore", from, target.to_str().unwrap(), "--json"], more].concat();
    let said = user.run(&args);
    assert_eq!(said.code, code, "{args:?}: {said:?}");
    said
}

const PARTS: [&str; 4] = ["--multipart-threshold", "5MiB", "--part-size", "5MiB"];
const ALL: [&str; 2] = ["--setuid", "--outside-links"];

/// Objects that hold content: files and links.
fn files(tree: &Tree) -> u64 {
    seen(tree.folder.path()).values().filter(|seen| seen.content.is_some()).count() as u64
}

fn comes_back(reach: &Reach) {
    Bucket::create(reach, "bucket");
    let (tree, user) = (every_kind(), User::of(reach));
    user.sync(tree.folder.path(), TO, &PARTS, 0);
    // On another machine: nothing but credentials.
    let user = User::of(reach);
    let back = restore(&user, TO, &ALL, 0);
    assert_same(tree.folder.path(), &back.path());
    let count = files(&tree);
    assert_eq!(back.said.number("downloaded"), count, "{:?}", back.said);
    assert_eq!((back.said.number("verified"), back.said.number("unverified")), (count, 0));
    assert!(!user.state_folder().exists(), "a restore needs no state");
    for (name, most) in
        [("sparse/small", 1 << 20), ("sparse/large", 1 << 20), ("sparse/hole", 4096)]
    {
        let on_disk = back.path().join(name).metadata().unwrap().blocks() * 512;
        assert!(on_disk <= most, "{name} has {on_disk} bytes on the disk");
    }
    // All is right already.
    let said = again(&user, TO, &back.path(), &ALL, 0);
    assert_eq!((said.number("downloaded"), said.number("unchanged")), (0, count), "{said:?}");
    assert_eq!((said.number("requests.get"), said.number("retouched")), (0, 0), "{said:?}");
    assert_same(tree.folder.path(), &back.path());
}

#[test]
fn every_kind_of_file_comes_back() {
    let server = Embedded::start();
    comes_back(&server.reach);
}

#[test]
fn every_kind_of_file_comes_back_from_moto() {
    let server = moto();
    comes_back(&server.reach);
}

#[test]
fn every_kind_of_file_comes_back_from_garage() {
    let server = garage();
    comes_back(&server.reach);
}

#[test]
fn every_kind_of_file_comes_back_from_a_folder() {
    let store = tempfile::tempdir().unwrap();
    let from = format!("file://{}", store.path().display());
    let tree = every_kind();
    User::new().sync(tree.folder.path(), &from, &["--create-bucket"], 0);
    let back = restore(&User::new(), &from, &ALL, 0);
    assert_same(tree.folder.path(), &back.path());
    assert_eq!(back.said.number("unverified"), 0);
}

#[test]
fn what_is_risky_is_made_only_when_asked() {
    let server = Embedded::start();
    Bucket::create(&server.reach, "bucket");
    let (tree, user) = (every_kind(), User::of(&server.reach));
    user.sync(tree.folder.path(), TO, &[], 0);
    let back = restore(&user, TO, &["--no-owner"], 3);
    assert_eq!(back.said.number("skipped"), OUTER.len() as u64);
    for (name, target) in OUTER {
        let line = format!("skipped: {name}: a link to {target}, outside the target");
        assert!(back.said.stderr.contains(&line), "{line:?} in {}", back.said.stderr);
    }
    let (expected, found) = (seen(tree.folder.path()), seen(&back.path()));
    for (name, mut expected) in expected {
        let shown = String::from_utf8_lossy(&name).into_owned();
        let Some(found) = found.get(&name) else {
            // The folder that would hold nothing else is not made either.
            let is_outer = OUTER.iter().any(|(outer, _)| *outer == shown);
            assert!(is_outer || shown == "out", "{shown} is missing");
            continue;
        };
        // Folders too get no bits that give rights to others.
        expected.mode &= !0o6000;
        expected.owner = found.owner;
        assert_eq!(*found, expected, "{shown}");
        assert_eq!(found.owner.0, rustix::process::geteuid().as_raw(), "{shown}");
    }
    // Asked for later, the rest is made good without a byte of content.
    server.clear_log();
    let said = again(&user, TO, &back.path(), &ALL, 0);
    assert_eq!(differences(tree.folder.path(), &back.path()), [""; 0]);
    assert_eq!(server.count("GetObject"), 2 * OUTER.len(), "{said:?}");
}
