//! Other tools: what they make of our backup, and what we make of theirs.

use std::path::Path;
use std::process::Command;

use crate::support::bucket::Bucket;
use crate::support::external::{garage, moto};
use crate::support::program::User;
use crate::support::rclone::{self, SPELLING};
use crate::support::scene::{Scene, TO};
use crate::support::server::{Embedded, Reach};
use crate::support::tools;
use crate::support::tree::{Tree, odd_names};

use super::round_trip::{again, noise, restore, set_mtime};
use super::same::{assert_same, differences, seen};

/// rclone leaves out what is not a file of the backup.
const FILES: [&str; 2] = ["--filter", "- /.keepwatch/**"];

/// With both of these rclone copies empty folders.
const FOLDERS: [&str; 2] = ["--s3-directory-markers", "--create-empty-src-dirs"];

fn at(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Regular files in folders with ordinary modes, under names that rclone can read from a disk.
fn regular() -> Tree {
    let tree = plain();
    let ours_alone = |c: char| matches!(c, '‛' | '␀'..='␟' | '␡' | '．' | '／');
    for name in odd_names() {
        if !String::from_utf8_lossy(&name).contains(ours_alone) {
            let path = [b"names/", name.as_slice()].concat();
            tree.write(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path), &name);
        }
    }
    for mode in [0o600, 0o640, 0o755, 0o444] {
        let name = format!("modes/{mode:o}");
        tree.write(&name, b"with a mode");
        tree.chmod(&name, mode);
    }
    for (name, secs, nanos) in
        [("past", -2, 500_000_000), ("first", 0, 1), ("lately", 1_700_000_000, 123_456_789)]
    {
        let name = format!("times/{name}");
        tree.write(&name, name.as_bytes());
        set_mtime(&tree.path(&name), secs, nanos);
    }
    tree
}

/// What every tool can upload: small, empty, and of such a size that it goes in parts of 5 MiB.
fn plain() -> Tree {
    let tree =
        Tree::new(&[("a file.txt", b"content"), ("empty", b""), ("sub/naïve 日本", b"below")]);
    let large = noise((12 << 20) + 3);
    tree.write("large/three-parts", &large);
    tree.write("large/exact", &large[..10 << 20]);
    tree.write("large/whole", &large[..2 << 20]);
    tree
}

#[test]
fn rclone_restores_our_backup() {
    for server in [&Embedded::start().reach, &garage().reach] {
        Bucket::create(server, "bucket");
        let tree = regular();
        let parts = ["--multipart-threshold", "5MiB", "--part-size", "5MiB"];
        User::of(server).sync(tree.folder.path(), TO, &parts, 0);
        let copy = Tree::new(&[]);
        let from = rclone::remote(server, "bucket/p");
        let to = at(copy.folder.path());
        rclone::run(&[&["copy", &from, to, "--metadata"], &SPELLING[..], &FILES].concat());
        assert_same(tree.folder.path(), copy.folder.path());
        for (left, right) in [(to, from.as_str()), (from.as_str(), to)] {
            for more in [&[][..], &["--download"]] {
                let args = [&["check", left, right], &SPELLING[..], &FILES, more].concat();
                let told = rclone::run(&args);
                assert!(told.contains("0 differences found"), "{told}");
            }
        }
    }
}

#[test]
fn what_rclone_makes_of_the_rest() {
    let scene = Scene::new(&[("file", b"content"), ("own/file", b"in a folder with a mode")]);
    std::os::unix::fs::symlink("file", scene.tree.path("link")).unwrap();
    std::fs::create_dir(scene.tree.path("empty")).unwrap();
    scene.tree.chmod("own", 0o700);
    scene.sync(&[], 0);
    let from = rclone::remote(&scene.server.reach, "bucket/p");
    for markers in [false, true] {
        let copy = Tree::new(&[]);
        let more = if markers { &FOLDERS[..] } else { &[] };
        let to = at(copy.folder.path());
        rclone::run(&[&["copy", &from, to, "--metadata"], &SPELLING[..], &FILES, more].concat());
        let found = seen(copy.folder.path());
        let link = &found[b"link".as_slice()];
        assert_eq!(link.content.as_deref(), Some(&b"file"[..]), "{link:?}");
        assert_eq!(link.mode & 0o170_000, 0o100_000, "a file with the target as content");
        assert_eq!(found.contains_key(b"empty".as_slice()), markers);
        assert_eq!(found[b"own".as_slice()].mode & 0o777, 0o755, "folders have no mode there");
    }
}

/// What uploads a folder to `bucket/p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Rclone,
    Aws,
    S5cmd,
}

impl Tool {
    fn upload(self, reach: &Reach, from: &Path) {
        match self {
            Self::Rclone => {
                let to = rclone::remote(reach, "bucket/p");
                let parts = ["--s3-upload-cutoff", "5Mi", "--s3-chunk-size", "5Mi"];
                let copy = ["copy", at(from), &to, "--metadata"];
                rclone::run(&[&copy, &SPELLING[..], &parts].concat());
            }
            Self::Aws => {
                let args = ["s3", "cp", "--recursive", "--only-show-errors", at(from)];
                self.run(reach, &[&args[..], &["s3://bucket/p", "--exclude", "empty"]].concat());
                // After an empty body it takes a minute for the next request on the connection.
                let empty = from.join("empty");
                self.run(reach, &["s3", "cp", "--only-show-errors", at(&empty), "s3://bucket/p/"]);
            }
            Self::S5cmd => {
                let from = format!("{}/", at(from));
                let args = ["--log", "error", "cp", "--part-size", "5", &from, "s3://bucket/p/"];
                self.run(reach, &args);
            }
        }
    }

    fn run(self, reach: &Reach, args: &[&str]) {
        let home = tempfile::tempdir().unwrap();
        let config = "[default]\ns3 =\n  multipart_threshold = 5MB\n  multipart_chunksize = 5MB\n";
        let file = home.path().join("config");
        std::fs::write(&file, config).unwrap();
        let name = if self == Self::Aws { "aws" } else { "s5cmd" };
        let output = Command::new(tools::python_tool(name))
            .args(args)
            .env("HOME", home.path())
            .env("AWS_CONFIG_FILE", &file)
            .env("AWS_ACCESS_KEY_ID", &reach.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &reach.secret_key)
            .env("AWS_REGION", &reach.region)
            .env("AWS_DEFAULT_REGION", &reach.region)
            .env("AWS_ENDPOINT_URL", &reach.endpoint)
            .env("S3_ENDPOINT_URL", &reach.endpoint)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}

/// What one tool has uploaded comes back, and every byte of it is verified by something.
fn comes_back(reach: &Reach, tool: Tool) {
    Bucket::create(reach, "bucket");
    let tree = if tool == Tool::Rclone { regular() } else { plain() };
    tool.upload(reach, tree.folder.path());
    let user = User::of(reach);
    let back = restore(&user, TO, &[], 0);
    match tool {
        // With its metadata the times and modes are there too.
        Tool::Rclone => assert_same(tree.folder.path(), &back.path()),
        // Without any, the content is.
        Tool::Aws | Tool::S5cmd => {
            let (expected, found) = (seen(tree.folder.path()), seen(&back.path()));
            assert!(expected.keys().eq(found.keys()), "{found:?}");
            for (name, expected) in expected {
                assert!(found[&name].content == expected.content, "{name:?}");
            }
        }
    }
    let files = seen(tree.folder.path()).values().filter(|seen| seen.content.is_some()).count();
    let numbers = ["downloaded", "verified", "unverified"].map(|name| back.said.number(name));
    assert_eq!(numbers, [files as u64, files as u64, 0], "{tool:?}: {:?}", back.said);
    // Whether times are known or not: what is right is not fetched again.
    let said = again(&user, TO, &back.path(), &[], 0);
    let numbers = ["downloaded", "unchanged", "requests.get"].map(|name| said.number(name));
    assert_eq!(numbers, [0, files as u64, 0], "{tool:?}: {said:?}");
    println!("{tool:?}: {}", back.said.json()["verified_by"]);
}

#[test]
fn what_other_tools_have_uploaded_comes_back() {
    for tool in [Tool::Rclone, Tool::Aws, Tool::S5cmd] {
        let server = Embedded::start();
        comes_back(&server.reach, tool);
    }
}

#[test]
fn what_other_tools_have_uploaded_comes_back_from_garage() {
    for tool in [Tool::Rclone, Tool::Aws, Tool::S5cmd] {
        let server = garage();
        comes_back(&server.reach, tool);
    }
}

#[test]
fn what_other_tools_have_uploaded_comes_back_from_moto() {
    for tool in [Tool::Rclone, Tool::Aws, Tool::S5cmd] {
        let server = moto();
        comes_back(&server.reach, tool);
    }
}

#[test]
fn what_rclone_has_copied_to_another_bucket_comes_back() {
    let scene = Scene::new(&[("file", b"content"), ("sub/100%", b"in a folder")]);
    scene.tree.write("large", &noise(11 << 20));
    std::os::unix::fs::symlink("file", scene.tree.path("link")).unwrap();
    std::fs::create_dir(scene.tree.path("empty")).unwrap();
    scene.tree.chmod("sub", 0o700);
    scene.sync(&["--multipart-threshold", "5MiB", "--part-size", "5MiB"], 0);
    Bucket::create(&scene.server.reach, "second");
    let [from, to] = ["bucket/p", "second/q"].map(|at| rclone::remote(&scene.server.reach, at));
    rclone::run(&[&["copy", &from, &to, "--metadata"], &SPELLING[..], &FILES, &FOLDERS].concat());
    let back = restore(&scene.user, "s3://second/q", &[], 0);
    // All but the modes of folders.
    let different = differences(scene.tree.folder.path(), &back.path());
    assert_eq!(different.len(), 1, "{different:?}");
    assert!(different[0].starts_with("\"sub\" is 40755 "), "{different:?}");
    assert_eq!(back.said.number("unverified"), 0, "{:?}", back.said);
}
