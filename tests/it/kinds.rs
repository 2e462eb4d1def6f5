//! Every kind of file: names, links, special files, holes, and what cannot be backed up.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, inotify};

use crate::support::bucket::Bucket;
use crate::support::program::User;
use crate::support::scene::{Scene, TO};
use crate::support::tree::{Tree, differences, odd_names};

#[test]
fn names_of_every_kind() {
    let scene = Scene::new(&[]);
    for (index, name) in odd_names().iter().enumerate() {
        let content = format!("content {index}");
        scene.tree.write(OsStr::from_bytes(name), content.as_bytes());
        // The same name as a folder.
        let below = [b"d/".as_slice(), name, b"/", name].concat();
        scene.tree.write(OsStr::from_bytes(&below), content.as_bytes());
    }
    let said = scene.sync(&[], 0);
    assert_eq!(said.number("uploaded"), 2 * odd_names().len() as u64);
    // Written out by hand: how names are spelled in keys.
    for (name, key) in [
        (&b"with space"[..], "p/with space"),
        (b"new\nline", "p/new␊line"),
        (b"del\x7f", "p/del␡"),
        (b"100%", "p/100%"),
        (b"a+b", "p/a+b"),
        (b"\xff", "p/‛FF"),
        (b"latin-\xe9", "p/latin-‛E9"),
        ("‛FF".as_bytes(), "p/‛‛FF"),
        ("␊picture".as_bytes(), "p/‛␊picture"),
        ("．．".as_bytes(), "p/‛．‛．"),
        ("full／width".as_bytes(), "p/full‛／width"),
        ("caf\u{e9}".as_bytes(), "p/caf\u{e9}"),
        ("cafe\u{301}".as_bytes(), "p/cafe\u{301}"),
    ] {
        let body = fs::read(scene.tree.path(OsStr::from_bytes(name))).unwrap();
        assert_eq!(scene.bucket.get(key).map(|seen| seen.body), Some(body), "{key}");
    }
    scene.is_settled(0);
    for name in odd_names() {
        fs::remove_file(scene.tree.path(OsStr::from_bytes(&name))).unwrap();
    }
    let said = scene.sync(&["--max-delete", "off"], 0);
    assert_eq!(said.number("deleted"), odd_names().len() as u64);
    scene.is_settled(0);
}

#[test]
fn folders_and_empty_files() {
    let scene = Scene::new(&[("empty", b""), ("a/b/c/empty", b""), ("own/x", b"x")]);
    for folder in ["none", "nest/in/nest", "shared", "secret"] {
        fs::create_dir_all(scene.tree.path(folder)).unwrap();
    }
    // Another mode than a umask gives is kept; the two that it gives are not worth an object.
    scene.tree.chmod("own", 0o700);
    scene.tree.chmod("shared", 0o2775);
    scene.tree.chmod("secret", 0o700);
    scene.tree.write("common/x", b"x");
    scene.tree.chmod("common", 0o775);
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("folders")), (4, 5), "{said:?}");
    scene.is_settled(0);
    let own = scene.bucket.get("p/own/").unwrap();
    assert_eq!((own.meta["mode"].as_str(), own.body.len()), ("40700", 0));
    assert!(scene.bucket.get("p/common/").is_none());

    // A marker goes when the folder has files again, and comes when it has none.
    scene.tree.write("none/now", b"some");
    scene.tree.remove("a/b/c/empty");
    scene.tree.chmod("own", 0o755);
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("deleted")), (1, 1), "{said:?}");
    assert!(scene.bucket.get("p/none/").is_none() && scene.bucket.get("p/own/").is_none());
    assert!(scene.bucket.get("p/a/b/c/").is_some());
    scene.is_settled(0);
}

#[test]
fn links_are_kept_and_never_followed() {
    let scene = Scene::new(&[("real/file", b"content")]);
    let secret = Tree::new(&[("outside", b"must not be read")]);
    let outside = secret.path("outside");
    let odd = OsStr::from_bytes(b"odd \xff \n target");
    for (name, target) in [
        ("dangling", OsStr::new("nowhere")),
        ("itself", OsStr::new("itself")),
        ("ping", OsStr::new("pong")),
        ("pong", OsStr::new("ping")),
        ("up", OsStr::new("..")),
        ("here", OsStr::new(".")),
        ("folder", OsStr::new("real")),
        ("real/back", OsStr::new("../real")),
        ("file", OsStr::new("real/file")),
        ("absolute", outside.as_os_str()),
        ("outer", secret.folder.path().as_os_str()),
        ("odd", odd),
        ("long", OsStr::new(&"x".repeat(4000))),
    ] {
        symlink(target, scene.tree.path(name)).unwrap();
    }
    let said = scene.sync(&[], 0);
    assert_eq!(said.number("uploaded"), 14, "{said:?}");
    let link = scene.bucket.get("p/folder").unwrap();
    assert_eq!((link.body.as_slice(), link.meta["mode"].as_str()), (&b"real"[..], "120777"));
    assert_eq!(scene.bucket.get("p/odd").unwrap().body, odd.as_bytes());
    scene.is_settled(0);

    // A link that points elsewhere is another link; a file with a link's bytes is no link.
    for name in ["dangling", "file"] {
        scene.tree.remove(name);
    }
    symlink("nowherE", scene.tree.path("dangling")).unwrap();
    scene.tree.write("file", b"real/file");
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 2);
    scene.is_settled(0);

    // Left out by the rules: kept in the bucket, and nobody's.
    let said = scene.sync(&["--symlinks", "skip"], 0);
    assert_eq!((said.number("deleted"), said.number("unclaimed")), (0, 12), "{said:?}");
}

/// Names that were opened in a folder since the watch began.
struct Opens(std::os::fd::OwnedFd);

impl Opens {
    fn watch(tree: &Tree) -> Self {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&fd, tree.folder.path(), inotify::WatchFlags::OPEN).unwrap();
        Self(fd)
    }

    fn names(self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.0, &mut buffer);
        let mut names = vec![];
        while let Ok(event) = reader.next() {
            names.extend(event.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        names
    }
}

fn make_special(tree: &Tree, name: &str, kind: FileType) {
    let mode = Mode::RUSR | Mode::WUSR;
    // Device 0:0 is the one that needs no privilege.
    rustix::fs::mknodat(rustix::fs::CWD, tree.path(name), kind, mode, 0).unwrap();
}

#[test]
fn special_files_are_counted_and_never_opened() {
    let scene = Scene::new(&[("file", b"content"), ("later", b"a file at first")]);
    make_special(&scene.tree, "fifo", FileType::Fifo);
    make_special(&scene.tree, "device", FileType::CharacterDevice);
    let socket = std::os::unix::net::UnixListener::bind(scene.tree.path("socket")).unwrap();
    fs::create_dir(scene.tree.path("only")).unwrap();
    make_special(&scene.tree, "only/fifo", FileType::Fifo);
    let opens = Opens::watch(&scene.tree);
    let said = scene.sync(&[], 3);
    assert_eq!((said.number("uploaded"), said.number("skipped")), (2, 4), "{said:?}");
    assert_eq!(said.json()["result"], "warnings");
    for name in ["fifo", "device", "socket", "only/fifo"] {
        let line = format!("skipped {name}: neither file, folder nor link");
        assert!(said.stderr.contains(&line), "{line:?} in {}", said.stderr);
    }
    let opened = opens.names();
    assert!(opened.contains(&"file".to_owned()), "the watch works: {opened:?}");
    for name in ["fifo", "device", "socket"] {
        assert!(!opened.contains(&name.to_owned()), "{name} was opened");
    }
    // A folder that holds nothing to back up is an empty folder.
    assert!(scene.bucket.get("p/only/").is_some());
    scene.is_settled(3);

    // What was a file is kept while something else has its name, and goes when nothing has it.
    scene.tree.remove("later");
    make_special(&scene.tree, "later", FileType::Fifo);
    let said = scene.sync(&[], 3);
    assert_eq!((said.number("deleted"), said.number("skipped")), (0, 5));
    assert!(scene.bucket.get("p/later").is_some());
    drop(socket);
    for name in ["later", "fifo", "device", "socket", "only/fifo"] {
        scene.tree.remove(name);
    }
    assert_eq!(scene.sync(&[], 0).number("deleted"), 1);
    scene.is_settled(0);
}

#[test]
fn hard_links_are_files_of_their_own() {
    let scene = Scene::new(&[("one", b"shared content")]);
    fs::hard_link(scene.tree.path("one"), scene.tree.path("two")).unwrap();
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 2);
    scene.is_settled(0);
    // Written through one name, changed under both.
    let file = fs::File::options().write(true).open(scene.tree.path("two")).unwrap();
    file.write_at(b"SHARED", 0).unwrap();
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 2);
    scene.is_settled(0);
    scene.tree.remove("one");
    assert_eq!(scene.sync(&[], 0).number("deleted"), 1);
    scene.is_settled(0);
}

#[test]
fn sparse_files_are_sent_with_their_holes() {
    let scene = Scene::new(&[]);
    for (name, size) in [("small", 5 << 20), ("large", 17 << 20), ("hole", 1 << 20)] {
        let file = fs::File::create(scene.tree.path(name)).unwrap();
        file.set_len(size).unwrap();
        if name != "hole" {
            file.write_at(b"in the middle", size / 2 + 1).unwrap();
        }
    }
    let said = scene.sync(&[], 0);
    assert_eq!(said.number("uploaded_bytes"), 23 << 20, "{said:?}");
    assert_eq!(scene.server.count("CompleteMultipartUpload"), 1);
    scene.is_settled(0);
}

#[test]
fn a_growing_file_is_sent_as_far_as_it_was() {
    let scene = Scene::new(&[("other", b"quiet")]);
    let path = scene.tree.path("log");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&[b'.'; 100_000]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for line in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                writeln!(file, "line {line}").unwrap();
            }
        });
        scene.sync(&[], 0);
        stop.store(true, Ordering::Relaxed);
    });
    let (sent, whole) = (scene.bucket.get("p/log").unwrap().body, fs::read(&path).unwrap());
    assert!(sent.len() >= 100_000 && whole.starts_with(&sent), "{} bytes sent", sent.len());
    scene.sync(&[], 0);
    scene.is_settled(0);
}

#[test]
fn unreadable_files_and_folders_are_skipped_and_kept() {
    let scene = Scene::new(&[("fine", b"1"), ("before", b"2")]).by(User::bound_by_modes);
    for name in ["closed/x", "closed/y", "unlisted/z", "deaf/w"] {
        scene.tree.write(name, b"in a folder");
    }
    scene.sync(&[], 0);
    scene.tree.write("never", b"3");
    scene.tree.write("fine", b"changed");
    for name in ["before", "never", "closed"] {
        scene.tree.chmod(name, 0);
    }
    // Names can be entered but not listed, and listed but not entered.
    scene.tree.chmod("unlisted", 0o300);
    scene.tree.chmod("deaf", 0o600);
    let said = scene.sync(&[], 3);
    assert_eq!((said.number("uploaded"), said.number("deleted")), (1, 0), "{said:?}");
    for name in ["never", "closed", "unlisted", "deaf"] {
        let line = format!("skipped {name}: cannot be read: Permission denied");
        assert!(said.stderr.contains(&line), "{line:?} in {}", said.stderr);
    }
    for key in ["p/before", "p/closed/x", "p/closed/y", "p/unlisted/z", "p/deaf/w"] {
        assert!(scene.bucket.get(key).is_some(), "{key} is kept");
    }
    for (name, mode) in [("before", 0o600), ("never", 0o644), ("closed", 0o755)] {
        scene.tree.chmod(name, mode);
    }
    for name in ["unlisted", "deaf"] {
        scene.tree.chmod(name, 0o755);
    }
    scene.sync(&[], 0);
    scene.is_settled(0);
}

#[test]
fn files_become_folders_and_the_other_way_round() {
    let scene = Scene::new(&[
        ("gone", b"0"),
        ("file", b"1"),
        ("folder/x", b"2"),
        ("folder/y/z", b"3"),
        ("to-link", b"4"),
        ("sub/file", b"5"),
    ]);
    symlink("file", scene.tree.path("link")).unwrap();
    fs::create_dir(scene.tree.path("hollow")).unwrap();
    scene.sync(&[], 0);
    scene.is_settled(0);
    for name in ["gone", "file", "folder", "to-link", "link", "hollow", "sub"] {
        scene.tree.remove(name);
    }
    fs::create_dir(scene.tree.path("file")).unwrap();
    scene.tree.write("folder", b"a file now");
    symlink("folder", scene.tree.path("to-link")).unwrap();
    scene.tree.write("link/was/a/link", b"6");
    scene.tree.write("hollow", b"");
    symlink("nowhere", scene.tree.path("sub")).unwrap();
    let said = scene.sync(&[], 0);
    assert_eq!(said.number("failed"), 0, "{said:?}");
    scene.is_settled(0);
}

#[test]
fn long_names_and_deep_folders() {
    let scene = Scene::new(&[]);
    scene.tree.write("x".repeat(250), b"250 bytes");
    scene.tree.write("x".repeat(255), b"as long as a name can be");
    scene.tree.write("日".repeat(83), b"249 bytes, 83 characters");
    // Five bytes in the key for each of these.
    let invalid = [vec![0xff; 200], vec![b'.'; 20]].concat();
    scene.tree.write(OsStr::from_bytes(&invalid), b"invalid UTF-8");
    let deep: Vec<String> = (1..=40).map(|level| format!("level {level}")).collect();
    scene.tree.write(deep.join("/"), b"at the bottom");
    scene.tree.write(format!("{}/empty/x", deep[..20].join("/")), b"");
    fs::create_dir_all(scene.tree.path(["d"; 300].join("/"))).unwrap();
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("folders")), (6, 1), "{said:?}");
    scene.is_settled(0);
}

#[test]
fn keys_too_long_are_named_and_skipped() {
    let scene = Scene::new(&[("short", b"fits")]);
    let folder: String = ["a", "b", "c", "d", "e"].map(|name| name.repeat(190) + "/").concat();
    // "p/", five times 191, and then as many as fit.
    let fits = 1024 - 2 - folder.len();
    scene.tree.write(format!("{folder}{}", "f".repeat(fits - 26) + "/" + &"g".repeat(25)), b"1024");
    let long = format!("{folder}{}/{}", "f".repeat(fits - 26), "h".repeat(26));
    scene.tree.write(&long, b"1025");
    scene.tree.write(format!("{folder}{}/x", "f".repeat(fits)), b"a folder too long");
    let invalid = OsStr::from_bytes(&[0xff; 204]).to_owned();
    scene.tree.write(&invalid, b"fits: 1,020 and the prefix");
    let deeper = OsStr::from_bytes(&[&[b'd', b'/'][..], &[0xff; 204]].concat()).to_owned();
    scene.tree.write(&deeper, b"1,022 and the prefix");
    let said = scene.sync(&[], 3);
    assert_eq!((said.number("uploaded"), said.number("skipped")), (4, 2), "{said:?}");
    let told = format!("skipped {long}: name too long: its key has 1023 bytes, 1022 fit behind");
    assert!(said.stderr.contains(&told), "{told:?} in {}", said.stderr);
    let keys = scene.bucket.keys();
    assert_eq!(keys.iter().filter(|key| key.len() == 1024).count(), 2, "{keys:?}");
    let said = scene.sync(&[], 3);
    assert_eq!((said.number("skipped"), scene.server.log().len()), (2, 1), "{said:?}");
    // At a shorter prefix they fit.
    let shorter = Bucket::create(&scene.server.reach, "shorter");
    let said = scene.user.sync(scene.tree.folder.path(), "s3://shorter", &[], 0);
    assert_eq!((said.number("uploaded"), said.number("skipped")), (6, 0), "{said:?}");
    assert_eq!(differences(&scene.tree, &shorter, ""), [""; 0]);
}

#[test]
fn three_thousand_files_in_one_folder() {
    let scene = Scene::new(&[]);
    for number in 0..3_000 {
        scene.tree.write(format!("many/{number}"), format!("file {number}").as_bytes());
    }
    // Around the folder, in an order that is not that of its files.
    for name in ["many-", "many.", "many0", "man"] {
        scene.tree.write(name, name.as_bytes());
    }
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("requests.list")), (3_004, 1));
    let log = scene.server.log().into_iter().filter(|access| access.operation == "PutObject");
    let keys: Vec<String> = log.filter_map(|access| access.key).collect();
    assert_eq!(keys.iter().filter(|key| !key.contains(".keepwatch/")).count(), 3_004);
    scene.is_settled(0);
    scene.tree.remove("many/1234");
    scene.tree.write("many/1234567", b"new");
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("deleted")), (1, 1));
    // The owner record twice, the new file, and the object looked at and deleted.
    assert!(scene.server.log().len() <= 5, "{:?}", scene.server.log());
    assert!(scene.bucket.get("p/many/1234").is_none());
}

#[test]
fn the_reserved_name_is_left_out_at_the_top_only() {
    let scene = Scene::new(&[(".keepwatch/owner.json", b"mine"), ("sub/.keepwatch/x", b"fine")]);
    let said = scene.sync(&[], 3);
    assert_eq!((said.number("uploaded"), said.number("skipped")), (1, 1), "{said:?}");
    assert!(said.stderr.contains("the name .keepwatch is reserved"), "{}", said.stderr);
    assert_eq!(scene.bucket.keys(), ["p/.keepwatch/owner.json", "p/sub/.keepwatch/x"]);
    let record = scene.bucket.get("p/.keepwatch/owner.json").unwrap().body;
    assert!(serde_json::from_slice::<serde_json::Value>(&record).is_ok());
}

#[test]
fn a_folder_with_unreadable_rules_is_left_as_it_is() {
    let scene = Scene::new(&[("d/.keepwatchignore", b"secret"), ("d/secret", b"1"), ("d/a", b"2")])
        .by(User::bound_by_modes);
    scene.sync(&[], 0);
    scene.tree.chmod("d/.keepwatchignore", 0);
    scene.tree.write("d/new", b"3");
    scene.tree.remove("d/a");
    scene.tree.write("free", b"4");
    let said = scene.sync(&[], 3);
    assert_eq!((said.number("uploaded"), said.number("skipped")), (1, 1), "{said:?}");
    let told = "skipped d/.keepwatchignore: left as it is, for its rules are not known: \
                d/.keepwatchignore cannot be read: Permission denied";
    assert!(said.stderr.contains(told), "{said:?}");
    assert!(scene.has("d/a") && !scene.has("d/secret") && !scene.has("d/new"));
    scene.tree.chmod("d/.keepwatchignore", 0o644);
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("deleted")), (1, 1), "{said:?}");
    assert!(!scene.has("d/secret"));
}

#[test]
fn what_a_restore_has_not_finished_is_left_out() {
    let scene = Scene::new(&[
        ("in/here/.keepwatch/unfinished-3", b"half"),
        ("in/here/.keepwatch-unfinished-00ff00ff00ff00ff", b"half"),
        ("in/here/done", b"1"),
        ("theirs/.keepwatch/settings", b"2"),
        ("theirs/.keepwatch/unfinished-symphony", b"3"),
    ]);
    let note = scene.tree.path("in/here/.keepwatch/elsewhere-4");
    symlink("in/here/x", note).unwrap();
    scene.tree.chmod("in/here/.keepwatch", 0o700);
    let kept =
        ["in/here/done", "theirs/.keepwatch/settings", "theirs/.keepwatch/unfinished-symphony"];
    let there = || -> Vec<String> {
        let keys = scene.bucket.keys().into_iter();
        let own = keys.filter_map(|key| key.strip_prefix("p/").map(str::to_owned));
        own.filter(|key| !key.starts_with(".keepwatch/")).collect()
    };
    scene.sync(&[], 0);
    assert_eq!(there(), kept);
    // As hints show it, and as a restore that really runs makes it.
    let daemon = scene.follow(&[]);
    scene.tree.write("in/here/.keepwatch/unfinished-5", b"more");
    scene.tree.write("theirs/.keepwatch/more", b"4");
    let target = scene.tree.path("in/restored");
    let said = scene.user.run(&["restore", TO, target.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.flush();
    let log = scene.server.log();
    let sent = log.iter().filter_map(|access| access.key.as_deref());
    let is_leak = |key: &&str| key.contains("/in/") && key.contains(".keepwatch");
    let leaked: Vec<&str> = sent.filter(is_leak).filter(|key| !key.contains("theirs")).collect();
    assert_eq!(leaked, [""; 0]);
    assert!(scene.has("theirs/.keepwatch/more") && scene.has("in/restored/in/here/done"));
}
