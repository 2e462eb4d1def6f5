//! The watcher: the one of the files in memory, and notify.

use std::collections::BTreeSet;
use std::time::Duration;

use keepwatch::engine::Sight;
use keepwatch::model::RelPath;
use keepwatch::ports::WatchEvent;

use super::in_runtime;
use super::source::{Source, Watcher, path};

/// A source with a watcher.
struct Watched {
    source: Source,
    watcher: Watcher,
    cookies: u32,
}

/// Runs a case on both watchers. The root and these folders are watched.
fn on_both(folders: &[&str], case: impl AsyncFn(&mut Watched)) {
    for (name, make) in
        [("in memory", Source::in_memory as fn() -> Source), ("notify", Source::on_disk)]
    {
        println!("{name}");
        in_runtime(async {
            let source = make();
            folders.iter().for_each(|folder| source.person.make_folder(folder));
            let watcher = source.watch();
            let mut watched = Watched { source, watcher, cookies: 0 };
            watched.watch(&[""]);
            watched.watch(folders);
            watched.seen().await;
            case(&mut watched).await;
        });
    }
}

impl Watched {
    fn watch(&self, folders: &[&str]) {
        let folders: Vec<RelPath> = folders.iter().map(|folder| path(folder)).collect();
        self.watcher.1.watch(&folders);
    }

    async fn next(&mut self) -> WatchEvent {
        let next = tokio::time::timeout(Duration::from_secs(30), self.watcher.0.next()).await;
        next.expect("an event")
    }

    /// Paths hinted so far, `/**` for all below: a cookie made now comes after them.
    async fn seen(&mut self) -> BTreeSet<String> {
        self.cookies += 1;
        let cookie = format!("cookie-{}", self.cookies);
        self.source.person.write(&cookie, b"");
        let mut seen = BTreeSet::new();
        loop {
            match self.next().await {
                WatchEvent::Hints(hints) => {
                    for hint in hints {
                        seen.insert(format!("{}{}", hint.path, if hint.deep { "/**" } else { "" }));
                    }
                }
                // A file system may say at the start that it does not see everything.
                WatchEvent::Sight(Sight::Partial, _) => {}
                other => panic!("{other:?}"),
            }
            if seen.contains(&cookie) {
                seen.retain(|name| !name.starts_with("cookie-"));
                return seen;
            }
        }
    }
}

#[test]
fn a_change_in_a_watched_folder_is_a_hint() {
    on_both(&["a", "a/b"], async |watched| {
        for name in ["file", "a/file", "a/b/file"] {
            watched.source.person.write(name, b"x");
            assert!(watched.seen().await.contains(name), "made: {name}");
            watched.source.person.write(name, b"y");
            assert!(watched.seen().await.contains(name), "written: {name}");
            watched.source.person.rewrite_quietly(name);
            assert!(watched.seen().await.contains(name), "written quietly: {name}");
            watched.source.person.chmod(name, 0o600);
            assert!(watched.seen().await.contains(name), "its mode: {name}");
            watched.source.person.remove(name);
            assert!(watched.seen().await.contains(name), "removed: {name}");
            watched.source.person.link(name, b"target");
            assert!(watched.seen().await.iter().any(|seen| seen.starts_with(name)), "link: {name}");
        }
    });
}

#[test]
fn a_new_folder_is_a_deep_hint_and_is_not_watched_by_itself() {
    on_both(&["a"], async |watched| {
        watched.source.person.make_folder("a/new");
        assert_eq!(watched.seen().await, BTreeSet::from(["a/new/**".to_owned()]));
        watched.source.person.write("a/new/file", b"x");
        assert_eq!(watched.seen().await, BTreeSet::new());
        watched.watch(&["a/new"]);
        watched.source.person.write("a/new/other", b"x");
        assert!(watched.seen().await.contains("a/new/other"));
    });
}

#[test]
fn a_rename_hints_at_both_names() {
    on_both(&["a", "b"], async |watched| {
        watched.source.person.write("a/file", b"x");
        watched.seen().await;
        watched.source.person.rename("a/file", "b/file");
        let seen = watched.seen().await;
        assert!(seen.contains("a/file") && seen.contains("b/file/**"), "{seen:?}");
        watched.source.person.rename("a", "b/a");
        let seen = watched.seen().await;
        assert!(seen.contains("a") && seen.contains("b/a/**"), "{seen:?}");
        // What was watched under the old name is watched under the new one once that is watched.
        watched.watch(&["b/a"]);
        watched.source.person.write("b/a/file", b"x");
        assert!(watched.seen().await.contains("b/a/file"));
    });
}

#[test]
fn a_folder_that_comes_back_can_be_watched_again() {
    on_both(&["a"], async |watched| {
        for _ in 0..3 {
            watched.source.person.remove("a");
            assert!(watched.seen().await.contains("a"));
            watched.source.person.make_folder("a");
            assert!(watched.seen().await.contains("a/**"));
            watched.watch(&["a"]);
            watched.source.person.write("a/file", b"x");
            assert!(watched.seen().await.contains("a/file"));
        }
    });
}

#[test]
fn watching_twice_hints_once() {
    on_both(&["a"], async |watched| {
        watched.watch(&["", "a", "a"]);
        watched.source.person.make_folder("a/new");
        assert_eq!(watched.seen().await, BTreeSet::from(["a/new/**".to_owned()]));
    });
}

#[test]
fn after_a_reset_folders_can_be_watched_anew() {
    on_both(&["a"], async |watched| {
        watched.watcher.1.reset().await;
        watched.watch(&["", "a"]);
        watched.source.person.write("a/seen", b"x");
        assert!(watched.seen().await.contains("a/seen"));
    });
}

#[test]
fn looking_and_reading_are_no_changes() {
    on_both(&["a"], async |watched| {
        watched.source.person.write("a/file", b"x");
        watched.seen().await;
        let tree = watched.source.tree.clone();
        let mut walk = tree.walk(RelPath::root(), None);
        while walk.next().await.is_some() {}
        tree.stat(vec![path("a"), path("a/file")]).await.unwrap();
        tree.read_whole(path("a/file"), 9).await.unwrap();
        tree.open(path("a/file")).await.unwrap().read(0, 9).await.unwrap();
        tree.identity().await.unwrap();
        assert_eq!(watched.seen().await, BTreeSet::new());
    });
}

#[test]
fn a_folder_that_is_gone_is_no_trouble() {
    on_both(&[], async |watched| {
        watched.watch(&["never-was"]);
        watched.source.person.write("file", b"x");
        assert!(watched.seen().await.contains("file"));
    });
}
