//! Names, with the real rclone as the judge: what one program has uploaded, the other reads under
//! the same names.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use keepwatch::model::{Key, RelPath};

use crate::support::bucket::Bucket;
use crate::support::external::garage;
use crate::support::program::User;
use crate::support::rclone::{self, SPELLING};
use crate::support::scene::TO;
use crate::support::server::{Embedded, Reach};
use crate::support::tree::{Tree, differences, odd_names};

/// Names that rclone can read from a disk: one with a quote or a picture in it, or made of dots of
/// full width, is not one of them.
fn names() -> Vec<Vec<u8>> {
    let ours_alone = |c: char| matches!(c, '‛' | '␀'..='␟' | '␡' | '．' | '／');
    let mut names = odd_names();
    names.retain(|name| !String::from_utf8_lossy(name).contains(ours_alone));
    names.push("日本語の名前".repeat(14).into_bytes());
    names.push([vec![0xff; 50], vec![b'x'; 150]].concat());
    names
}

/// A tree with these names, for files and for folders, of times and modes of their own.
fn tree() -> Tree {
    let tree = Tree::new(&[]);
    for (index, name) in names().iter().enumerate() {
        let below = [name.as_slice(), b".d/", name].concat();
        for path in [name.as_slice(), &below] {
            // Keys up to 480 bytes are Garage's limit here.
            if Key::file(&RelPath::new(path).unwrap()).as_bytes().len() > 478 {
                continue;
            }
            let path = OsStr::from_bytes(path);
            tree.write(path, format!("content {index}").as_bytes());
            let at = std::time::Duration::new(1_700_000_000 + index as u64, 123_456_789);
            let file = std::fs::File::options().write(true).open(tree.path(path)).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH + at).unwrap();
        }
    }
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(tree.path("with space"), private).unwrap();
    tree
}

/// Names, contents, times and modes of all files below.
fn listed(root: &Path) -> BTreeMap<Vec<u8>, (Vec<u8>, i64, i64, u32)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            if stat.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().as_os_str().to_owned().into_vec();
            let content = std::fs::read(&path).unwrap();
            found.insert(name, (content, stat.mtime(), stat.mtime_nsec(), stat.mode()));
        }
    }
    found
}

fn rclone_reads_what_keepwatch_has_uploaded(reach: &Reach) {
    let (bucket, tree) = (Bucket::create(reach, "bucket"), tree());
    let said = User::of(reach).sync(tree.folder.path(), TO, &[], 0);
    let expected = listed(tree.folder.path());
    assert_eq!(said.number("uploaded"), expected.len() as u64);
    assert_eq!(differences(&tree, &bucket, "p/"), [""; 0]);
    let copy = Tree::new(&[]);
    let (from, to) = (rclone::remote(reach, "bucket/p"), copy.folder.path().to_str().unwrap());
    let only = ["--metadata", "--filter", "- /.keepwatch/**"];
    rclone::run(&[&["copy", &from, to], &SPELLING[..], &only].concat());
    let found = listed(copy.folder.path());
    for (name, file) in &expected {
        assert_eq!(found.get(name), Some(file), "{:?}", String::from_utf8_lossy(name));
    }
    assert_eq!(found.len(), expected.len());
}

fn keepwatch_adopts_what_rclone_has_uploaded(reach: &Reach) {
    let (bucket, tree) = (Bucket::create(reach, "bucket"), tree());
    let (from, to) = (tree.folder.path().to_str().unwrap(), rclone::remote(reach, "bucket/p"));
    rclone::run(&[&["copy", from, &to, "--metadata"], &SPELLING[..]].concat());
    let user = User::of(reach);
    let said = user.sync(tree.folder.path(), TO, &[], 0);
    let files = listed(tree.folder.path()).len() as u64;
    assert_eq!((said.number("adopted"), said.number("uploaded")), (files, 0), "{said:?}");
    assert_eq!((said.number("unclaimed"), said.number("requests.copy")), (0, 0), "{said:?}");
    let keys: Vec<String> = bucket.keys();
    assert_eq!(keys.len() as u64, files + 1);
    let said = user.sync(tree.folder.path(), TO, &[], 0);
    assert_eq!((said.number("unchanged"), said.number("requests.head")), (files, 0));
}

#[test]
fn rclone_reads_what_keepwatch_has_uploaded_to_the_embedded_store() {
    let server = Embedded::start();
    rclone_reads_what_keepwatch_has_uploaded(&server.reach);
}

#[test]
fn rclone_reads_what_keepwatch_has_uploaded_to_garage() {
    let server = garage();
    rclone_reads_what_keepwatch_has_uploaded(&server.reach);
}

#[test]
fn keepwatch_adopts_what_rclone_has_uploaded_to_the_embedded_store() {
    let server = Embedded::start();
    keepwatch_adopts_what_rclone_has_uploaded(&server.reach);
}

#[test]
fn keepwatch_adopts_what_rclone_has_uploaded_to_garage() {
    let server = garage();
    keepwatch_adopts_what_rclone_has_uploaded(&server.reach);
}

#[test]
fn rclone_check_finds_no_difference() {
    let server = Embedded::start();
    Bucket::create(&server.reach, "bucket");
    let tree = Tree::new(&[("plain.txt", b"1"), ("a folder/naïve 日本.txt", b"2"), ("100%+", b"")]);
    tree.write("large", &vec![5; 20 << 20]);
    User::of(&server.reach).sync(tree.folder.path(), TO, &[], 0);
    let to = rclone::remote(&server.reach, "bucket/p");
    let only = ["--filter", "- /.keepwatch/**"];
    // With rclone's own defaults, and its checksums where there is one.
    let told =
        rclone::run(&[&["check", tree.folder.path().to_str().unwrap(), &to], &only[..]].concat());
    assert!(told.contains("0 differences found"), "{told}");
    let told = rclone::run(&[
        "check",
        "--download",
        tree.folder.path().to_str().unwrap(),
        &to,
        "--filter",
        "- /.keepwatch/**",
    ]);
    assert!(told.contains("4 matching files"), "{told}");
}

#[test]
fn a_name_of_white_space_alone_stops_no_other() {
    let server = Embedded::start();
    let user = User::of(&server.reach);
    let tree = Tree::new(&[(" ", b"blank"), ("a", b"1"), ("d/ ", b"2")]);
    user.sync(tree.folder.path(), "s3://bucket", &["--create-bucket"], 0);
    let back = user.home.path().join("back");
    let said = user.run(&["restore", "s3://bucket", back.to_str().unwrap()]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("refuses a key of white space only"), "{said:?}");
    assert_eq!(std::fs::read(back.join("a")).unwrap(), b"1");
    assert_eq!(std::fs::read(back.join("d/ ")).unwrap(), b"2");
    // Behind a prefix it is a name like any other.
    user.sync(tree.folder.path(), "s3://another/p", &["--create-bucket"], 0);
    let whole = user.home.path().join("whole");
    let said = user.run(&["restore", "s3://another/p", whole.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(std::fs::read(whole.join(" ")).unwrap(), b"blank");
}
