//! Local files: those in memory, and those on a disk.

use std::sync::{Arc, Mutex};

use keepwatch::model::{Crc64, Entry, Fingerprint, Key, Kind, Md5, Observed, RelPath};
use keepwatch::ports::{FolderWatch, Fut, LeftOut, ReadError, Seen, Stat, Veil};
use keepwatch::sim::world::in_virtual_time;

use super::in_runtime;
use super::source::{Source, path};

/// Runs a case on files in memory and on a disk.
fn on_both(case: impl AsyncFn(&Source)) {
    println!("in memory");
    in_virtual_time(async { case(&Source::in_memory()).await });
    println!("on a disk");
    in_runtime(async { case(&Source::on_disk()).await });
}

/// Everything that a walk says, in its order; `Err` when it failed.
async fn steps(source: &Source, top: &str) -> Result<Vec<(Key, Seen)>, ()> {
    let mut walk = source.tree.walk(path(top), None);
    let mut all = vec![];
    while let Some(batch) = walk.next().await {
        all.extend(batch.map_err(drop)?);
    }
    assert!(all.is_sorted_by(|a, b| a.0 < b.0), "{all:?}");
    Ok(all)
}

/// Keys and entries of a walk that can see everything.
pub async fn walk(source: &Source, top: &str) -> Vec<(String, Entry)> {
    let entry = |(key, seen): (Key, Seen)| match seen {
        Seen::Entry(_, entry) => (key.as_str().to_owned(), entry),
        Seen::Veil(veil) => panic!("{key}: {veil:?}"),
    };
    steps(source, top).await.unwrap().into_iter().map(entry).collect()
}

/// Keys of a walk; `?` before those that hide what is there.
async fn keys(source: &Source, top: &str) -> Vec<String> {
    let name = |(key, seen): (Key, Seen)| match seen {
        Seen::Entry(..) => key.as_str().to_owned(),
        Seen::Veil(Veil { tree, .. }) => format!("?{key}{}", if tree { "**" } else { "" }),
    };
    steps(source, top).await.unwrap().into_iter().map(name).collect()
}

async fn stat(source: &Source, name: &str) -> Stat {
    source.tree.stat(vec![path(name)]).await.unwrap().remove(0)
}

async fn entry(source: &Source, name: &str) -> Entry {
    match stat(source, name).await {
        Stat::Entry(entry) => entry,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_walk_is_in_key_order_with_markers_where_they_are_needed() {
    on_both(async |source| {
        let person = &source.person;
        for name in ["a-b", "a/b", "a/c/d", "a0", "b", "\u{e9}", "e\u{301}", "sp ace", "+", "%"] {
            person.write(name, name.as_bytes());
        }
        person.link("a.link", b"nowhere");
        person.make_folder("empty");
        person.make_folder("own/below");
        person.chmod("own", 0o700);
        person.write("own/file", b"");
        let names = [
            "%",
            "+",
            "a-b",
            "a.link",
            "a/b",
            "a/c/d",
            "a0",
            "b",
            "empty/",
            "e\u{301}",
            "own/",
            "own/below/",
            "own/file",
            "sp ace",
            "\u{e9}",
        ];
        assert_eq!(keys(source, "").await, names);
        assert_eq!(keys(source, "a").await, ["a/b", "a/c/d"]);
        assert_eq!(keys(source, "empty").await, [""; 0], "of its own marker its walk says nothing");
        let all = walk(source, "").await;
        let seen = |name: &str| all.iter().find(|(key, _)| key == name).unwrap().1;
        let file = seen("a0");
        assert_eq!((file.kind, file.mode, file.fingerprint.size_bytes), (Kind::File, 0o100_644, 2));
        let link = seen("a.link");
        assert_eq!((link.kind, link.mode, link.fingerprint.size_bytes), (Kind::Link, 0o120_777, 7));
        let folder = seen("own/");
        assert_eq!((folder.kind, folder.mode), (Kind::Folder, 0o40_700));
        let device = file.fingerprint.device;
        let kept = Fingerprint { device, ..Fingerprint::default() };
        assert_eq!(folder.fingerprint, kept, "times of folders are not kept");
    });
}

#[test]
fn names_are_bytes() {
    on_both(async |source| {
        source.person.write("plain", b"x");
        let odd = RelPath::new(b"\xff\x01 \n").unwrap();
        let stats = source.tree.stat(vec![odd]).await.unwrap();
        assert!(matches!(stats[..], [Stat::Absent { .. }]), "{stats:?}");
        source.person.write("tab\tand\nline", b"x");
        assert_eq!(keys(source, "").await, ["plain", "tab\u{2409}and\u{240a}line"]);
    });
}

#[test]
fn an_empty_source_is_walked_without_an_error() {
    on_both(async |source| assert_eq!(steps(source, "").await, Ok(vec![])));
}

#[test]
fn a_folder_that_cannot_be_listed_proves_nothing() {
    on_both(async |source| {
        source.person.write("file", b"x");
        assert_eq!(keys(source, "gone").await, ["?gone/**"]);
        assert_eq!(keys(source, "file").await, ["?file/**"]);
    });
}

#[test]
fn a_source_that_is_not_there_fails_every_question() {
    on_both(async |source| {
        source.person.write("folder/file", b"x");
        source.person.set_missing(true);
        for top in ["", "folder"] {
            let mut walk = source.tree.walk(path(top), None);
            assert!(matches!(walk.next().await, Some(Err(_))));
            assert_eq!(walk.next().await, None, "and nothing more comes");
        }
        assert!(source.tree.stat(vec![path("folder/file")]).await.is_err());
        assert!(source.tree.identity().await.is_err());
        source.person.set_missing(false);
        assert_eq!(keys(source, "").await, ["folder/file"]);
    });
}

/// Writes down what it is asked to watch.
#[derive(Default)]
struct Notebook(Mutex<Vec<String>>);

impl FolderWatch for Notebook {
    fn watch(&self, folders: &[RelPath]) {
        self.0.lock().unwrap().extend(folders.iter().map(ToString::to_string));
    }

    fn reset(&self) -> Fut<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn walked(&self) -> Fut<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn every_folder_is_watched() {
    on_both(async |source| {
        for name in ["a/b/c", "d/e", "f"] {
            source.person.write(name, b"x");
        }
        source.person.make_folder("empty");
        for (top, wanted) in [("", vec!["", "a", "a/b", "d", "empty"]), ("a", vec!["a", "a/b"])] {
            let notebook = Arc::new(Notebook::default());
            let mut walk = source.tree.walk(path(top), Some(notebook.clone()));
            while let Some(batch) = walk.next().await {
                batch.unwrap();
            }
            let mut watched = notebook.0.lock().unwrap().clone();
            assert_eq!(watched[0], wanted[0]);
            watched.sort();
            assert_eq!(watched, wanted, "each once");
        }
    });
}

#[test]
fn looks_at_single_paths() {
    on_both(async |source| {
        let person = &source.person;
        person.write("folder/file", b"four");
        person.make_folder("empty");
        person.make_folder("own/x");
        person.chmod("own", 0o700);
        person.link("link", b"folder");
        let names =
            ["", "folder/file", "folder", "gone", "folder/file/below", "gone/below", "link/file"];
        let stats = source.tree.stat(names.map(path).to_vec()).await.unwrap();
        let disk = source.tree.identity().await.unwrap().filesystem;
        let left_out = LeftOut::default();
        let folder = Stat::Folder { marker: None, disk, left_out };
        assert_eq!(stats[0], folder);
        assert!(matches!(stats[1], Stat::Entry(e) if e.kind == Kind::File));
        assert_eq!(stats[2], folder);
        assert!(
            stats[3..].iter().all(|stat| *stat == Stat::Absent { disk, left_out }),
            "{stats:?}"
        );
        assert!(stats.iter().all(|stat| stat.disk() == Some(disk)), "on the source's own disk");
        assert_eq!(entry(source, "link").await.kind, Kind::Link);
        for (name, mode) in [("empty", 0o40_755), ("own", 0o40_700)] {
            let stat = stat(source, name).await;
            let Stat::Folder { marker: Some(marker), .. } = stat else { panic!("{stat:?}") };
            assert_eq!((marker.mode, marker.fingerprint.device), (mode, disk));
        }
        // As the walk has it.
        assert_eq!(walk(source, "folder").await[0].1, entry(source, "folder/file").await);
    });
}

#[test]
fn a_change_shows_in_the_fingerprint() {
    on_both(async |source| {
        source.person.write("a", b"one");
        let mut before = entry(source, "a").await;
        let changes: [(&str, &dyn Fn()); 4] = [
            ("in place", &|| source.person.write("a", b"two")),
            ("quietly", &|| source.person.rewrite_quietly("a")),
            ("its mode", &|| source.person.chmod("a", 0o600)),
            ("saved atomically", &|| {
                source.person.write("new", b"two");
                source.person.rename("new", "a");
            }),
        ];
        for (what, change) in changes {
            // A clock that ticks in milliseconds must have ticked.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            assert_eq!(entry(source, "a").await, before);
            change();
            let after = entry(source, "a").await;
            assert_ne!(after, before, "{what}");
            let (new, old) = (after.fingerprint, before.fingerprint);
            match what {
                "quietly" => assert_eq!((new.mtime, new.inode), (old.mtime, old.inode)),
                "its mode" => assert_eq!((new.mtime, after.mode), (old.mtime, 0o100_600)),
                "saved atomically" => assert_ne!(new.inode, old.inode),
                _ => assert_eq!(new.inode, old.inode),
            }
            before = after;
        }
    });
}

#[test]
fn reads_small_files_whole() {
    on_both(async |source| {
        for content in [&b""[..], b"hello", &[7; 300_000]] {
            source.person.write("a", content);
            let read = source.tree.read_whole(path("a"), 300_000).await.unwrap();
            assert_eq!(&read.bytes[..], content);
            assert_eq!((read.md5, read.crc64), (Md5::of(content), Crc64::of(content)));
            assert_eq!(read.before, entry(source, "a").await);
            assert_eq!((read.after, read.by_path), (read.before, Observed::Present(read.before)));
        }
        let cut = source.tree.read_whole(path("a"), 299_999).await.unwrap();
        assert_eq!((cut.bytes.len(), cut.before.fingerprint.size_bytes), (0, 300_000));
    });
}

#[test]
fn reads_only_what_is_what_it_was() {
    on_both(async |source| {
        source.person.make_folder("folder");
        source.person.link("link", b"target \xff");
        source.person.write("file", b"x");
        for name in ["folder", "link", "gone", "file/below"] {
            let whole = source.tree.read_whole(path(name), 9).await.map(drop);
            assert_eq!(whole, Err(ReadError::Changed), "{name}");
            assert_eq!(source.tree.open(path(name)).await.map(drop), Err(ReadError::Changed));
        }
        for name in ["folder", "file", "gone"] {
            let read = source.tree.read_link(path(name)).await;
            assert_eq!(read, Err(ReadError::Changed), "{name}");
        }
        let (entry, target) = source.tree.read_link(path("link")).await.unwrap();
        assert_eq!((&target[..], entry.fingerprint.size_bytes), (&b"target \xff"[..], 8));
    });
}

#[test]
fn reads_ranges_of_an_open_file() {
    on_both(async |source| {
        let content: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        source.person.write("a", &content);
        let file = source.tree.open(path("a")).await.unwrap();
        assert_eq!(file.opened(), entry(source, "a").await);
        for (from, length, end) in [
            (0, 10, 10),
            (5, 600_000, 600_005),
            (999_990, 99, 1_000_000),
            (2_000_000, 5, 2_000_000),
        ] {
            let from_index = usize::try_from(from).unwrap().min(content.len());
            let wanted = &content[from_index..content.len().min(end)];
            let chunk = file.read(from, length).await.unwrap();
            assert_eq!(&chunk.bytes[..], wanted);
            let digest = file.digest(from, length).await.unwrap();
            assert_eq!((chunk.digest, digest.bytes), (digest, wanted.len() as u64));
            assert_eq!((digest.md5, digest.crc64), (Md5::of(wanted), Crc64::of(wanted)));
        }
    });
}

#[test]
fn an_open_file_stays_the_same_file_whatever_happens_to_its_name() {
    on_both(async |source| {
        let person = &source.person;
        let replace = || {
            person.remove("a");
            person.make_folder("a");
        };
        let save = || {
            person.write("new", b"other");
            person.rename("new", "a");
        };
        let happenings: [(&str, &dyn Fn()); 4] = [
            ("removed", &|| person.remove("a")),
            ("renamed", &|| person.rename("a", "b")),
            ("replaced by a folder", &replace),
            ("saved atomically", &save),
        ];
        for (what, happen) in happenings {
            println!("{what}");
            source.person.remove("a");
            source.person.write("a", b"content");
            let file = source.tree.open(path("a")).await.unwrap();
            happen();
            let chunk = file.read(0, 99).await.unwrap();
            assert_eq!(&chunk.bytes[..], b"content");
            let (after, by_path) = file.look().await.unwrap();
            assert_eq!(after.fingerprint.inode, file.opened().fingerprint.inode);
            match (what, by_path) {
                ("saved atomically", Observed::Present(other)) => {
                    assert_ne!(other.fingerprint.inode, after.fingerprint.inode);
                }
                (_, by_path) => assert_eq!(by_path, Observed::Absent),
            }
        }
    });
}

#[test]
fn an_open_file_shows_what_is_written_to_it() {
    on_both(async |source| {
        source.person.write("a", b"content");
        let file = source.tree.open(path("a")).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        source.person.write("a", b"grown content");
        assert_eq!(&file.read(0, 99).await.unwrap().bytes[..], b"grown content");
        let (after, by_path) = file.look().await.unwrap();
        assert_eq!(by_path, Observed::Present(after));
        assert_ne!(after, file.opened());
    });
}

#[test]
fn a_source_has_an_identity() {
    on_both(async |source| {
        let first = source.tree.identity().await.unwrap();
        source.person.write("a/b", b"x");
        source.person.set_missing(true);
        source.person.set_missing(false);
        assert_eq!(source.tree.identity().await.unwrap(), first);
        source.person.swap();
        assert_ne!(source.tree.identity().await.unwrap(), first);
        assert_eq!(keys(source, "").await, [""; 0]);
    });
}
