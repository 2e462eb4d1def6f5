//! The walk, the looks and the rules on a real file system.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;

use super::*;
use crate::model::{Key, Kind};
use crate::plan::Skip;
use crate::ports::{LeftOut, Seen};

struct Source {
    folder: tempfile::TempDir,
}

impl Source {
    fn new(files: &[&[u8]]) -> Self {
        let source = Self { folder: tempfile::tempdir().unwrap() };
        for file in files {
            source.write(file, b"x");
        }
        source
    }

    fn path(&self, name: &[u8]) -> PathBuf {
        self.folder.path().join(std::ffi::OsStr::from_bytes(name))
    }

    fn write(&self, name: &[u8], content: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn tree(&self, options: RuleOptions) -> Tree {
        Tree::new(self.folder.path(), Rules::new(options).unwrap(), 1024)
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

async fn collect(tree: &Tree, top: &str, watch: Option<Arc<dyn FolderWatch>>) -> Vec<(Key, Seen)> {
    let mut walk = tree.walk(path(top), watch);
    let mut all = vec![];
    while let Some(batch) = walk.next().await {
        all.extend(batch.unwrap());
    }
    assert!(all.is_sorted_by(|a, b| a.0 < b.0), "in key order: {all:?}");
    all
}

/// Keys of a walk; veils are marked with `?` (unknown) or `!` (excluded).
async fn keys(tree: &Tree, top: &str) -> Vec<String> {
    let mark = |(key, seen): (Key, Seen)| match seen {
        Seen::Entry(..) => key.as_str().to_owned(),
        Seen::Veil(veil) => format!("{}{key}", if veil.excluded { '!' } else { '?' }),
    };
    collect(tree, top, None).await.into_iter().map(mark).collect()
}

#[tokio::test]
async fn walks_in_key_order() {
    let source = Source::new(&[
        b"a/x",
        b"a-b",
        b"a.b",
        b"a0",
        b"A",
        "é".as_bytes(),
        b"gro\xdf/1",
        b"new\nline",
        b"z",
        "‛/y".as_bytes(),
        b"a/y/z",
    ]);
    std::fs::create_dir(source.path(b"empty")).unwrap();
    std::os::unix::fs::symlink("nowhere", source.path(b"link")).unwrap();
    let expected = [
        "A",
        "a-b",
        "a.b",
        "a/x",
        "a/y/z",
        "a0",
        "empty/",
        "gro‛DF/1",
        "link",
        "new␊line",
        "z",
        "é",
        "‛‛/y",
    ];
    let tree = source.tree(RuleOptions::default());
    assert_eq!(keys(&tree, "").await, expected);
    assert_eq!(keys(&tree, "a").await, ["a/x", "a/y/z"]);
    assert_eq!(keys(&tree, "vanished").await, ["?vanished/"]);
}

#[tokio::test]
async fn every_short_tree_walks_in_key_order() {
    // Names that sort differently alone and as folders.
    let names = ["a", "a-", "a.", "a0", "b"];
    for bits in 0..1024_u32 {
        let source = Source::new(&[]);
        for (index, name) in names.iter().enumerate() {
            match bits >> (2 * index) & 3 {
                0 => {}
                1 => source.write(name.as_bytes(), b""),
                2 => source.write(format!("{name}/x").as_bytes(), b""),
                _ => std::fs::create_dir(source.path(name.as_bytes())).unwrap(),
            }
        }
        collect(&source.tree(RuleOptions::default()), "", None).await;
    }
}

#[tokio::test]
async fn rules_prune_and_veil() {
    let source = Source::new(&[
        b"a.tmp",
        b"keep.tmp",
        b"b/node_modules/x",
        b"b/c",
        b"cache/CACHEDIR.TAG",
        b"cache/x",
        b"d/.keepwatchignore",
        b"d/secret",
        b"d/e/secret",
        b"d/e/kept",
        b".keepwatch/owner",
    ]);
    source.write(b"d/.keepwatchignore", b"secret\n!e/secret\n");
    let tree = source.tree(RuleOptions {
        exclude: vec!["*.tmp".into(), "!keep.tmp".into(), "node_modules/".into()],
        exclude_if_present: vec!["CACHEDIR.TAG".into()],
        ..RuleOptions::default()
    });
    let expected = [
        "?.keepwatch/",
        "!a.tmp",
        "b/c",
        "!b/node_modules/",
        "!cache/",
        "d/.keepwatchignore",
        "d/e/kept",
        "d/e/secret",
        "!d/secret",
        "keep.tmp",
    ];
    assert_eq!(keys(&tree, "").await, expected);
    // Single looks say the same.
    for (name, excluded) in [
        ("a.tmp", true),
        ("keep.tmp", false),
        ("b/node_modules", true),
        ("d/e/secret", false),
        ("b/node_modules/x", true),
        ("cache", true),
        ("cache/x", true),
        ("d/secret", true),
        ("b/c", false),
        ("d", false),
    ] {
        let stat = tree.stat(vec![path(name)]).await.unwrap().remove(0);
        assert_eq!(stat == Stat::Excluded, excluded, "{name}: {stat:?}");
    }
    // A rule file that changes changes the rules.
    assert_eq!(tree.governed(&path("d/.keepwatchignore")), Some(path("d")));
    assert_eq!(tree.governed(&path("cache/CACHEDIR.TAG")), Some(path("cache")));
    assert_eq!(tree.governed(&path("d/secret")), None);
    source.write(b"d/.keepwatchignore", b"kept\n");
    assert_eq!(
        keys(&tree, "d").await,
        ["d/.keepwatchignore", "!d/e/kept", "d/e/secret", "d/secret"]
    );
}

#[tokio::test]
async fn include_lets_in_only_what_matches() {
    let source = Source::new(&[b"a.txt", b"b.jpg", b"pics/c.png", b"x/y/d.txt"]);
    std::fs::create_dir(source.path(b"empty")).unwrap();
    let include = vec!["*.txt".into(), "/pics/".into()];
    let exclude = vec!["y/".into()];
    let tree = source.tree(RuleOptions { include, exclude, ..RuleOptions::default() });
    assert_eq!(keys(&tree, "").await, ["a.txt", "!b.jpg", "!empty/", "pics/c.png", "!x/", "!x/y/"]);
}

#[tokio::test]
async fn folders_get_markers_for_emptiness_and_mode() {
    let source = Source::new(&[b"plain/x", b"private/x", b"only-special/y"]);
    let mode = |name: &[u8], mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(source.path(name), permissions).unwrap();
    };
    for name in [&b"plain"[..], b"only-special"] {
        mode(name, 0o775);
    }
    mode(b"private", 0o700);
    std::fs::remove_file(source.path(b"only-special/y")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        source.path(b"only-special/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let tree = source.tree(RuleOptions::default());
    let expected = ["only-special/", "?only-special/fifo", "plain/x", "private/", "private/x"];
    assert_eq!(keys(&tree, "").await, expected);
    let stats = ["only-special", "plain", "private", "only-special/fifo", "gone", "plain/x/y"];
    let stats = tree.stat(stats.map(path).to_vec()).await.unwrap();
    let disk = tree.identity().await.unwrap().filesystem;
    let marker = |n: usize| match &stats[n] {
        Stat::Folder { marker, .. } => *marker,
        stat => panic!("{stat:?}"),
    };
    assert_eq!(marker(0).unwrap().kind, Kind::Folder);
    assert!(matches!(stats[1], Stat::Folder { marker: None, disk: on, .. } if on == disk));
    assert_eq!(marker(2).unwrap().mode & 0o7777, 0o700);
    assert_eq!(stats[3], Stat::Unknown(Skip::Special));
    let absent = Stat::Absent { disk, left_out: LeftOut::default() };
    assert_eq!(stats[4..], [absent.clone(), absent]);
}

#[tokio::test]
async fn folders_are_watched_before_they_are_listed() {
    struct Late(PathBuf, Mutex<BTreeMap<RelPath, usize>>);
    impl FolderWatch for Late {
        fn reset(&self) -> Fut<'_, ()> {
            Box::pin(std::future::ready(()))
        }

        fn walked(&self) -> Fut<'_, ()> {
            Box::pin(std::future::ready(()))
        }

        fn watch(&self, folders: &[RelPath]) {
            for folder in folders {
                // What comes after the watch is seen by it; what came before, by the listing.
                let at = self.0.join(std::ffi::OsStr::from_bytes(folder.as_bytes()));
                std::fs::write(at.join("made-by-watch"), b"").unwrap();
                *self.1.lock().unwrap().entry(folder.clone()).or_default() += 1;
            }
        }
    }
    let source = Source::new(&[b"a/b/c", b"d/e"]);
    let watch = Arc::new(Late(source.folder.path().to_owned(), Mutex::default()));
    let tree = source.tree(RuleOptions::default());
    let seen = collect(&tree, "", Some(watch.clone())).await;
    let watched = watch.1.lock().unwrap().clone();
    let expected = ["", "a", "a/b", "d"].map(|p| (path(p), 1));
    assert_eq!(watched, BTreeMap::from(expected));
    for folder in ["a", "a/b", "d"] {
        let key = Key::literal(&format!("{folder}/made-by-watch"));
        assert!(seen.iter().any(|(k, _)| *k == key), "{folder} was listed before it was watched");
    }
}

#[tokio::test]
async fn links_are_never_followed() {
    let source = Source::new(&[b"real/x", b"real/y"]);
    let outside = Source::new(&[b"secret"]);
    std::os::unix::fs::symlink(source.path(b"real"), source.path(b"inside")).unwrap();
    std::os::unix::fs::symlink(outside.folder.path(), source.path(b"out")).unwrap();
    let tree = source.tree(RuleOptions::default());
    assert_eq!(keys(&tree, "").await, ["inside", "out", "real/x", "real/y"]);
    for name in ["out/secret", "inside/x"] {
        let stat = tree.stat(vec![path(name)]).await.unwrap().remove(0);
        assert!(matches!(stat, Stat::Absent { .. }), "{name}: {stat:?}");
        let read = tree.read_whole(path(name), 100).await;
        assert_eq!(read.err(), Some(ReadError::Changed), "{name}");
    }
    let (entry, target) = tree.read_link(path("out")).await.unwrap();
    assert_eq!(entry.kind, Kind::Link);
    assert_eq!(target, outside.folder.path().as_os_str().as_bytes());
    assert_eq!(tree.read_whole(path("out"), 100).await.err(), Some(ReadError::Changed));
    let skip = RuleOptions { symlinks: crate::plan::Symlinks::Skip, ..RuleOptions::default() };
    assert_eq!(keys(&source.tree(skip), "").await, ["!inside", "!out", "real/x", "real/y"]);
}

#[tokio::test]
async fn reads_are_stable_or_say_so() {
    use crate::plan::{Readings, Verdict, judge};
    let source = Source::new(&[]);
    source.write(b"f", b"hello world");
    let tree = source.tree(RuleOptions::default());
    let read = tree.read_whole(path("f"), 100).await.unwrap();
    assert_eq!(&read.bytes[..], b"hello world");
    let (before, after) = (&read.before, &read.after);
    let by_path = read.by_path.as_ref();
    assert_eq!(judge(&Readings { before, after, by_path, read_bytes: 11 }), Verdict::Stable);
    assert!(tree.read_whole(path("f"), 10).await.unwrap().bytes.is_empty(), "over the limit");

    let file = tree.open(path("f")).await.unwrap();
    let chunk = file.read(6, 100).await.unwrap();
    assert_eq!(&chunk.bytes[..], b"world");
    assert_eq!(chunk.digest, file.digest(6, 5).await.unwrap());
    source.write(b"g", b"other");
    std::fs::rename(source.path(b"g"), source.path(b"f")).unwrap();
    let chunk = file.read(0, 5).await.unwrap();
    assert_eq!(&chunk.bytes[..], b"hello", "still the file that was opened");
    let (after, by_path) = file.look().await.unwrap();
    let before = file.opened();
    let by_path = by_path.as_ref();
    let readings = Readings { before: &before, after: &after, by_path, read_bytes: 11 };
    assert_eq!(judge(&readings), Verdict::Replaced);
}

#[tokio::test]
async fn a_missing_source_is_an_error_not_an_empty_one() {
    let source = Source::new(&[b"x"]);
    let tree = source.tree(RuleOptions::default());
    let identity = tree.identity().await.unwrap();
    assert_eq!(tree.identity().await.unwrap(), identity);
    std::fs::remove_dir_all(source.folder.path()).unwrap();
    assert!(tree.identity().await.is_err());
    assert!(tree.stat(vec![path("x")]).await.is_err());
    let mut walk = tree.walk(RelPath::root(), None);
    assert!(walk.next().await.unwrap().is_err());
    assert!(walk.next().await.is_none());
    std::fs::write(source.folder.path(), b"a file now").unwrap();
    assert!(tree.identity().await.is_err());
    std::fs::remove_file(source.folder.path()).unwrap();
    std::fs::create_dir(source.folder.path()).unwrap();
    assert_ne!(tree.identity().await.unwrap(), identity, "another folder at the same path");
}

#[tokio::test]
async fn braces_are_letters_as_in_git() {
    let source = Source::new(&[b"a.c", b"a.{c,d}", b"sub/{x", b"sub/x", b"sub/.keepwatchignore"]);
    source.write(b"sub/.keepwatchignore", b"{x\n");
    let options = RuleOptions { exclude: vec!["*.{c,d}".into()], ..RuleOptions::default() };
    let shown = keys(&source.tree(options), "").await;
    assert_eq!(shown, ["a.c", "!a.{c,d}", "sub/.keepwatchignore", "sub/x", "!sub/{x"]);
}

#[test]
fn every_pattern_that_a_configuration_may_have_is_a_rule() {
    const LETTERS: [char; 14] =
        ['a', 'z', '-', '*', '?', '[', ']', '{', '}', '!', '^', '\\', '/', ','];
    let mut random = fastrand::Rng::with_seed(7);
    let mut checked = 0;
    while checked < 5_000 {
        let text: String =
            (0..random.usize(1..9)).map(|_| random.choice(LETTERS).unwrap()).collect();
        if crate::plan::pattern::check(&text).is_err() {
            continue;
        }
        checked += 1;
        let options = RuleOptions { exclude: vec![text.clone()], ..RuleOptions::default() };
        assert_eq!(Rules::new(options).err().map(|e| e.to_string()), None);
    }
}

#[tokio::test]
async fn a_folder_whose_rules_cannot_be_read_is_frozen() {
    let source = Source::new(&[b"d/secret", b"d/e/secret", b"free"]);
    let tree = source.tree(RuleOptions::default());
    let rules = source.path(b"d/.keepwatchignore");
    let faults: [(&str, &dyn Fn()); 4] = [
        ("a folder", &|| std::fs::create_dir(&rules).unwrap()),
        ("a link", &|| std::os::unix::fs::symlink("free", &rules).unwrap()),
        ("too large", &|| std::fs::write(&rules, vec![b'#'; 1024 * 1024 + 1]).unwrap()),
        ("a FIFO", &|| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, &rules, fifo, mode, 0).unwrap();
        }),
    ];
    for (what, make) in faults {
        make();
        let expected = ["?d/", "?d/.keepwatchignore", "free"];
        assert_eq!(keys(&tree, "").await, expected, "{what}");
        assert_eq!(keys(&tree, "d").await, expected[..2], "{what}");
        assert_eq!(keys(&tree, "d/e").await, ["?d/e/"], "{what}");
        let stats = ["d", "d/secret", "d/e/secret", "d/gone"];
        for stat in tree.stat(stats.map(path).to_vec()).await.unwrap() {
            let Stat::Unknown(skip) = stat else { panic!("{what}: {stat:?}") };
            let said = skip.to_string();
            assert!(said.contains("d/.keepwatchignore cannot be read: it is "), "{what}: {said}");
        }
        match rules.symlink_metadata().unwrap().is_dir() {
            true => std::fs::remove_dir(&rules).unwrap(),
            false => std::fs::remove_file(&rules).unwrap(),
        }
    }
    std::fs::create_dir(source.path(b".keepwatchignore")).unwrap();
    assert_eq!(keys(&tree, "").await, ["?", "?.keepwatchignore"], "the source itself");
}

/// Whoever listens to a walk may wait for reads, and these for a thread.
#[test]
fn a_walk_that_waits_for_its_listener_holds_up_nobody() {
    let names: Vec<String> = (0..4_000).map(|n| format!("f{n}")).collect();
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let source = Source::new(&names);
    let tree = source.tree(RuleOptions::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut walk = tree.walk(RelPath::root(), None);
        let first = walk.next().await.unwrap().unwrap().len();
        let stat = tree.stat(vec![path("f0")]);
        let stat = tokio::time::timeout(std::time::Duration::from_secs(20), stat).await;
        assert!(stat.expect("an answer while the walk waits").is_ok());
        let mut all = first;
        while let Some(batch) = walk.next().await {
            all += batch.unwrap().len();
        }
        assert_eq!(all, 4_000);
    });
}
