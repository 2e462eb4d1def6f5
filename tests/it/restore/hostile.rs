//! A bucket that somebody filled to do harm, and a racer in the target: nothing outside the target
//! changes, each key that has no place is named, and all the rest is restored.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use keepwatch::model::Escaped;

use super::Ends;
use crate::support::bucket::Bucket;
use crate::support::external::moto;
use crate::support::program::{Said, User};
use crate::support::scene::{Scene, TO};
use crate::support::server::{Embedded, Reach};
use crate::support::tree::Tree;

/// What is to become of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Fails,
    IsSkipped,
    /// Restored under its own name.
    Comes,
    /// Left out without a word.
    IsOurs,
}
use Fate::{Comes, Fails, IsOurs, IsSkipped};

const FILE: &[(&str, &str)] = &[];
const LINK: &[(&str, &str)] = &[("mode", "120777")];

type Metadata = &'static [(&'static str, &'static str)];

/// Keys that the bucket is filled with: metadata, content and fate.
fn keys() -> Vec<(String, Metadata, &'static str, Fate)> {
    let plain = |key: &str, fate| (key.to_owned(), FILE, "content", fate);
    let mut keys = vec![];
    for key in ["../x", "/etc/keepwatch-x", "a/../../x", "a//b", ".", "..", "./x", "b/.", "b/.."] {
        keys.push(plain(key, Fails));
    }
    for key in ["x/../canary", "/", "//", "\0", "nul\0x", ".keepwatch", "planted/file"] {
        keys.push(plain(key, Fails));
    }
    keys.extend([plain(".keepwatch/x", IsOurs), plain(".keepwatch/owner.json", IsOurs)]);
    for key in ["‛2E‛2E/x", "a‛2Fb", "‛00", "‛2E", "．．/x", "／etc/x", "good", "deep/er/good"]
    {
        keys.push(plain(key, Comes));
    }
    keys.push(plain(&["d".repeat(200).as_str(); 5].join("/"), Comes));
    keys.push(plain(&["e".repeat(255), "f".repeat(255)].join("/"), Comes));
    keys.push(plain(&"g".repeat(256), Fails));
    keys.push(plain(&"h".repeat(1_024), Fails));
    // File and folder at once, a folder with content, and names that become one.
    keys.extend([plain("both", Comes), plain("both/below", Fails), plain("full/", Fails)]);
    keys.extend([plain("one␊name", Comes), plain("one\nname", Fails)]);
    // Links, and what lies below them.
    keys.push(("absolute".to_owned(), LINK, "/etc", IsSkipped));
    keys.push(("absolute/keepwatch-x".to_owned(), FILE, "content", Fails));
    keys.push(("up".to_owned(), LINK, "..", IsSkipped));
    keys.push(("up/x".to_owned(), FILE, "content", Fails));
    keys.push(("around".to_owned(), LINK, "good/../../canary", IsSkipped));
    keys.push(("inside".to_owned(), LINK, "deep/er", Comes));
    keys.push(("inside/x".to_owned(), FILE, "content", Fails));
    keys.push(("nowhere".to_owned(), LINK, "", Fails));
    // Kinds that are never made.
    for (key, mode) in [("device", "60666"), ("pipe", "10644"), ("socket", "140644")] {
        let meta: &[_] = match mode {
            "60666" => &[("mode", "60666")],
            "10644" => &[("mode", "10644")],
            _ => &[("mode", "140644")],
        };
        keys.push((key.to_owned(), meta, "content", IsSkipped));
    }
    keys.push(("setuid".to_owned(), &[("mode", "106755")], "content", Comes));
    keys.push(("odd mode".to_owned(), &[("mode", "rwx"), ("uid", "-1")], "content", Comes));
    keys.push(("huge mode".to_owned(), &[("mode", "37777700644")], "content", Comes));
    for (n, mtime) in ["soon", "9223372036854775807.999999999", "-9223372036854775807", "1e400"]
        .into_iter()
        .enumerate()
    {
        let meta: &[_] = match n {
            0 => &[("mtime", "soon")],
            1 => &[("mtime", "9223372036854775807.999999999")],
            2 => &[("mtime", "-9223372036854775807")],
            _ => &[("mtime", "1e400")],
        };
        keys.push((format!("time {mtime}"), meta, "content", Comes));
    }
    keys
}

/// A place beside which there are others that must not change.
struct Place {
    tree: Tree,
}

impl Place {
    fn new() -> Self {
        let tree = Tree::new(&[("canary", b"alive"), ("outside/file", b"alive"), ("x", b"alive")]);
        std::fs::create_dir(tree.path("target")).unwrap();
        let place = Self { tree };
        place.plant();
        place
    }

    /// A link to outside where the backup has a folder.
    fn plant(&self) {
        let planted = self.tree.path("target/planted");
        std::fs::remove_dir_all(&planted).ok();
        std::fs::remove_file(&planted).ok();
        symlink("../outside", planted).unwrap();
    }

    fn target(&self) -> String {
        self.tree.path("target").to_str().unwrap().to_owned()
    }

    /// All that can be seen of what is beside the target.
    fn beside(&self) -> BTreeMap<String, (u32, i64, i64, i64, Vec<u8>)> {
        let mut seen = BTreeMap::new();
        for name in ["", "canary", "outside", "outside/file", "x"] {
            let path = self.tree.path(name);
            let stat = path.symlink_metadata().unwrap();
            let content = std::fs::read(&path).unwrap_or_default();
            let times = (stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
            seen.insert(name.to_owned(), (stat.mode(), times.0, times.1, times.2, content));
        }
        let names = |of: &str| std::fs::read_dir(self.tree.path(of)).unwrap().count();
        assert_eq!((names(""), names("outside")), (4, 1));
        assert!(!Path::new("/etc/keepwatch-x").exists());
        seen
    }
}

/// Fills a bucket; answers with the keys that the server took.
fn fill(reach: &Reach) -> (Bucket, Vec<String>) {
    let bucket = Bucket::create(reach, "hostile");
    for (key, meta, content, _) in keys() {
        let put = bucket.client.put_object().bucket("hostile").key(&key);
        let meta = meta.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let put = put.set_metadata(Some(meta.collect())).body(content.as_bytes().to_vec().into());
        bucket.run(put.send()).ok();
    }
    let kept = bucket.keys();
    (bucket, kept)
}

/// What is in the way is replaced when all is overwritten.
fn check(place: &Place, kept: &[String], said: &Said, always: bool) {
    let named = |word: &str, key: &str| {
        let name = Escaped(key.as_bytes()).to_string();
        said.stderr.lines().any(|line| line.contains(&format!("{word}: {name}: ")))
    };
    let (mut failed, mut skipped) = (0, 0);
    for (key, meta, content, fate) in keys() {
        if !kept.contains(&key) {
            continue;
        }
        let fate = if always && key == "planted/file" { Comes } else { fate };
        failed += u64::from(fate == Fails);
        skipped += u64::from(fate == IsSkipped);
        assert_eq!(named("failed", &key), fate == Fails, "{key:?}: {said:?}");
        assert_eq!(named("skipped", &key), fate == IsSkipped, "{key:?}: {said:?}");
        let path = place.tree.path("target").join(key.replace('␊', "\n").trim_start_matches('/'));
        match (fate, meta == LINK) {
            (Comes, true) => {
                assert_eq!(std::fs::read_link(path).unwrap(), Path::new(content), "{key:?}");
            }
            (Comes, false) => {
                assert_eq!(std::fs::read(&path).unwrap(), content.as_bytes(), "{key:?}");
                assert_eq!(path.metadata().unwrap().mode() & 0o6000, 0, "{key:?}");
            }
            _ => {}
        }
    }
    assert_eq!((said.number("failed"), said.number("skipped")), (failed, skipped), "{said:?}");
    assert!(failed > 10 && !place.tree.path("target/.keepwatch").exists());
}

fn a_hostile_bucket_on(reach: &Reach) -> Vec<String> {
    let (_bucket, kept) = fill(reach);
    let (user, place) = (User::of(reach), Place::new());
    let before = place.beside();
    let target = place.target();
    for more in [&["--json"][..], &["--json", "--overwrite", "always", "--transfers", "2"]] {
        let said = user.run(&[&["restore", "s3://hostile", &target], more].concat());
        assert_eq!(said.code, 1, "{said:?}");
        check(&place, &kept, &said, more.contains(&"always"));
        assert_eq!(place.beside(), before, "{said:?}");
    }
    place.plant();
    // Links that lead out are made when asked for, and nothing goes through them.
    let args = ["restore", "s3://hostile", &target, "--json", "--outside-links", "--setuid"];
    let said = user.run(&[&args[..], &["--delete", "--max-delete", "off"]].concat());
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(std::fs::read_link(place.tree.path("target/up")).unwrap(), Path::new(".."));
    assert_eq!(place.beside(), before, "{said:?}");
    kept
}

#[test]
fn a_hostile_bucket() {
    let server = Embedded::start();
    let kept = a_hostile_bucket_on(&server.reach);
    for key in ["../x", "/etc/keepwatch-x", "a/../../x", "a//b", ".", "‛00", ".keepwatch/x"] {
        assert!(kept.iter().any(|kept| kept == key), "the store did not take {key:?}");
    }
}

#[test]
fn a_hostile_bucket_on_moto() {
    let kept = a_hostile_bucket_on(&moto().reach);
    assert!(kept.len() > 30, "{kept:?}");
}

/// Puts a folder of the target and a link to the outside in each other's place, again and again.
fn swap_all_the_time(place: &Tree, outside: &Path, ended: &AtomicBool, swapped: &AtomicU32) {
    let (one, two) = (place.path("target/swapped"), place.path("aside"));
    for n in 0.. {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let (at, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
        match rustix::fs::renameat_with(at, &one, at, &two, flags) {
            Ok(()) => swapped.fetch_add(1, Ordering::Relaxed),
            // A link has just been removed, and a folder comes.
            Err(rustix::io::Errno::NOENT) => 0,
            Err(errno) => panic!("{errno}"),
        };
        if !one.is_symlink() && !two.is_symlink() {
            std::fs::rename(&two, place.path(format!("old-{n}"))).unwrap();
            symlink(outside, &two).unwrap();
        }
        std::thread::yield_now();
    }
}

/// Swaps folders of the target for links to the outside, all the time, while whole restores run.
#[test]
fn a_racer_in_the_target() {
    let swaps: u32 = std::env::var("KEEPWATCH_SWAPS").map_or(5_000, |swaps| swaps.parse().unwrap());
    let scene = Scene::new(&[]);
    for n in 0..120 {
        scene.tree.write(format!("swapped/{}/{n}", n % 4), format!("{n}").as_bytes());
    }
    symlink("0/0", scene.tree.path("swapped/link")).unwrap();
    std::fs::create_dir(scene.tree.path("swapped/empty")).unwrap();
    scene.sync(&[], 0);
    let outside = Tree::new(&[("file", b"alive"), ("0/0", b"alive"), ("1/new", b"alive")]);
    std::fs::create_dir(outside.path("empty")).unwrap();
    let place = Tree::new(&[]);
    std::fs::create_dir_all(place.path("target/swapped")).unwrap();
    symlink(outside.folder.path(), place.path("aside")).unwrap();
    let before = (outside.expected(""), ctimes(&outside));

    let target = place.path("target");
    let target = target.to_str().unwrap();
    let (swapped, ended) = (AtomicU32::new(0), AtomicBool::new(false));
    let mut codes = vec![];
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        scope.spawn(|| swap_all_the_time(&place, outside.folder.path(), &ended, &swapped));
        while swapped.load(Ordering::Relaxed) < swaps || codes.len() < 3 {
            let overwrite = ["if-changed", "always"][codes.len() % 2];
            let said = scene.user.run(&["restore", TO, target, "--overwrite", overwrite, "--json"]);
            codes.push((said.code, said.number("downloaded"), said.number("failed")));
            if said.code == 0 {
                continue;
            }
            assert_eq!(said.code, 1, "{said:?}");
            assert!(said.stderr.contains("failed: swapped/"), "{said:?}");
        }
    });
    println!("{swapped:?} swaps: {codes:?}");
    assert!(codes.iter().any(|code| code.1 > 0) && codes.iter().any(|code| code.2 > 0));
    assert_eq!(before, (outside.expected(""), ctimes(&outside)));
    // In peace all of it comes right.
    if place.path("aside").is_dir() && place.path("target/swapped").is_symlink() {
        std::fs::remove_file(place.path("target/swapped")).unwrap();
        std::fs::rename(place.path("aside"), place.path("target/swapped")).unwrap();
    }
    let said = scene.user.run(&["restore", TO, target, "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let restored = Tree::new(&[]);
    let into = restored.path("all");
    std::fs::rename(place.path("target"), &into).unwrap();
    assert_eq!(restored.expected(""), {
        let expected = scene.tree.expected("all/");
        assert!(expected.len() > 120);
        expected
    });
}

/// When each thing was last touched in any way.
fn ctimes(tree: &Tree) -> Vec<(i64, i64)> {
    let names = ["", "file", "0", "0/0", "1", "1/new", "empty"];
    let stats = names.iter().map(|name| tree.path(name).symlink_metadata().unwrap());
    stats.map(|stat| (stat.ctime(), stat.ctime_nsec())).collect()
}
