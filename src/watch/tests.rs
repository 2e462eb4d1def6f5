//! The watcher on a real file system. Waits are for hints, never for time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

struct Watched {
    folder: tempfile::TempDir,
    watch: Arc<Watch>,
    hints: Hints,
    sentinels: u32,
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

impl Watched {
    fn new(folders: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in folders {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self::over(Layout::HERE, folder, folders)
    }

    /// As on macOS: one watch over everything.
    fn whole() -> Self {
        Self::over(Layout::Whole, tempfile::tempdir().unwrap(), &[])
    }

    fn over(layout: Layout, folder: tempfile::TempDir, folders: &[&str]) -> Self {
        let root = folder.path().canonicalize().unwrap();
        let (watch, hints) = start_as(layout, &root);
        let mut paths = vec![RelPath::root()];
        paths.extend(folders.iter().map(|name| path(name)));
        watch.watch(&paths);
        Self { folder, watch, hints, sentinels: 0 }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Collects hints until a sentinel made now has been seen: everything before it has.
    async fn until_now(&mut self) -> BTreeSet<(String, bool)> {
        self.sentinels += 1;
        let sentinel = format!("sentinel{}", self.sentinels);
        std::fs::write(self.at(&sentinel), b"").unwrap();
        let (mut seen, mut done) = (BTreeSet::new(), false);
        loop {
            match self.next().await {
                WatchEvent::Hints(hints) => {
                    for hint in hints {
                        let name = hint.path.to_string();
                        done |= name == sentinel;
                        if !name.starts_with("sentinel") {
                            seen.insert((name, hint.deep));
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
            if done {
                return seen;
            }
        }
    }

    async fn next(&mut self) -> WatchEvent {
        let next = tokio::time::timeout(Duration::from_secs(20), self.hints.next());
        next.await.expect("no event within 20 s")
    }
}

fn names(seen: &BTreeSet<(String, bool)>) -> Vec<&str> {
    seen.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn changes_become_hints_and_our_own_reads_do_not() {
    let mut w = Watched::new(&["a"]);
    std::fs::write(w.at("a/x"), b"1").unwrap();
    std::fs::write(w.at("y"), b"1").unwrap();
    let seen = w.until_now().await;
    assert_eq!(names(&seen), ["a/x", "y"]);
    std::fs::read(w.at("a/x")).unwrap();
    assert_eq!(std::fs::read_dir(w.at("a")).unwrap().count(), 1);
    let seen = w.until_now().await;
    assert!(seen.is_empty(), "{seen:?}");
    std::fs::rename(w.at("y"), w.at("a/x")).unwrap();
    let seen = w.until_now().await;
    assert!(names(&seen).contains(&"a/x") && names(&seen).contains(&"y"));
}

#[tokio::test]
async fn a_folder_that_comes_back_under_its_name_is_watched_again() {
    let mut w = Watched::new(&["a", "a/b"]);
    for round in 0..50 {
        std::fs::remove_dir_all(w.at("a")).unwrap();
        std::fs::create_dir_all(w.at("a/b")).unwrap();
        // The driver's part: a deep hint makes the walk add the folders.
        let mut seen = BTreeSet::new();
        while !seen.contains(&("a".to_owned(), true)) {
            seen.append(&mut w.until_now().await);
        }
        w.watch.watch(&[path("a"), path("a/b")]);
        std::fs::write(w.at("a/b/x"), b"").unwrap();
        let seen = w.until_now().await;
        assert!(names(&seen).contains(&"a/b/x"), "round {round}: {seen:?}");
    }
}

#[tokio::test]
async fn a_renamed_folder_speaks_under_its_new_name_only() {
    let mut w = Watched::new(&["a", "a/b", "a-b"]);
    std::fs::rename(w.at("a"), w.at("c")).unwrap();
    let seen = w.until_now().await;
    assert!(seen.contains(&("a".to_owned(), false)) && seen.contains(&("c".to_owned(), true)));
    w.watch.watch(&[path("c"), path("c/b")]);
    std::fs::create_dir_all(w.at("a/b")).unwrap();
    w.until_now().await;
    w.watch.watch(&[path("a"), path("a/b")]);
    std::fs::write(w.at("c/b/x"), b"").unwrap();
    std::fs::write(w.at("a-b/y"), b"").unwrap();
    let seen = w.until_now().await;
    assert!(names(&seen).contains(&"c/b/x") && names(&seen).contains(&"a-b/y"), "{seen:?}");
    std::fs::write(w.at("a/b/z"), b"").unwrap();
    assert!(names(&w.until_now().await).contains(&"a/b/z"));
}

#[tokio::test]
async fn many_folders_are_spread_over_watchers_and_can_vanish_at_once() {
    let mut w = Watched::new(&[]);
    let folders: Vec<RelPath> = (0..5_000).map(|i| path(&format!("d{i}"))).collect();
    for folder in &folders {
        std::fs::create_dir(w.at(&folder.to_string())).unwrap();
    }
    w.until_now().await;
    w.watch.watch(&folders);
    assert_eq!(w.watch.folders().shards(), 3);
    std::fs::write(w.at("d0/x"), b"").unwrap();
    std::fs::write(w.at("d4999/x"), b"").unwrap();
    // Each watcher has a thread of its own: their events are in no common order.
    let mut seen = BTreeSet::new();
    while !names(&seen).contains(&"d0/x") || !names(&seen).contains(&"d4999/x") {
        seen.append(&mut w.until_now().await);
    }
    for folder in &folders {
        std::fs::remove_dir_all(w.at(&folder.to_string())).unwrap();
    }
    let mut gone = BTreeSet::new();
    while gone.len() < folders.len() {
        let seen = w.until_now().await;
        gone.extend(seen.into_iter().map(|(name, _)| name).filter(|n| !n.contains('/')));
    }
    assert_eq!(w.watch.folders().watched(), 1, "only the source itself");
}

#[tokio::test]
async fn what_cannot_be_handed_over_is_an_overflow() {
    let mut w = Watched::new(&[]);
    for round in 0..2 * HINTS_MAX {
        w.watch.outbox.send(WatchEvent::Hints(vec![]));
        assert_eq!(w.hints.lost.load(Ordering::SeqCst), round >= HINTS_MAX);
    }
    assert_eq!(w.next().await, WatchEvent::Overflow);
    std::fs::write(w.at("x"), b"").unwrap();
    assert!(names(&w.until_now().await).contains(&"x"), "and goes on");
}

#[tokio::test]
async fn after_events_found_no_room_no_watch_is_believed() {
    let mut w = Watched::new(&["a"]);
    w.watch.spilled.store(true, Ordering::SeqCst);
    std::fs::write(w.at("x"), b"").unwrap();
    while w.next().await != WatchEvent::Overflow {}
    assert_eq!(w.watch.folders().watched(), 0);
    w.watch.watch(&[RelPath::root(), path("a")]);
    std::fs::write(w.at("a/x"), b"").unwrap();
    assert!(names(&w.until_now().await).contains(&"a/x"), "and goes on");
}

#[tokio::test]
async fn when_the_source_goes_nothing_stays_watched() {
    let mut w = Watched::new(&["a"]);
    std::fs::remove_dir_all(w.folder.path()).unwrap();
    while w.next().await != WatchEvent::SourceGone {}
    assert_eq!(w.watch.folders().watched(), 0);
    std::fs::create_dir_all(w.at("a")).unwrap();
    w.watch.watch(&[RelPath::root(), path("a")]);
    std::fs::write(w.at("a/x"), b"").unwrap();
    assert!(names(&w.until_now().await).contains(&"a/x"));
}

#[tokio::test]
async fn a_source_that_is_a_link_is_found_anew() {
    let w = Watched::new(&["one", "two"]);
    let link = w.at("link");
    std::os::unix::fs::symlink("one", &link).unwrap();
    let (watch, mut hints) = start(&link);
    watch.watch(&[RelPath::root()]);
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("two", &link).unwrap();
    watch.reset().await;
    watch.watch(&[RelPath::root()]);
    std::fs::write(w.at("two/x"), b"").unwrap();
    loop {
        let WatchEvent::Hints(seen) = hints.next().await else { panic!("no hints") };
        if seen.iter().any(|hint| hint.path == path("x")) {
            return;
        }
    }
}

#[tokio::test]
async fn one_watch_sees_everything() {
    let mut w = Watched::whole();
    std::fs::create_dir_all(w.at("a/b")).unwrap();
    assert!(w.until_now().await.contains(&("a".to_owned(), true)), "what it brought is looked at");
    // The walk hands over every folder it finds; none needs a watch of its own.
    w.watch.watch(&[path("a"), path("a/b")]);
    assert_eq!(w.watch.folders().watched(), 1);
    let mut seen = BTreeSet::new();
    while !names(&seen).contains(&"a/b/x") {
        std::fs::write(w.at("a/b/x"), b"1").unwrap();
        seen = w.until_now().await;
    }
    std::fs::rename(w.at("a/b/x"), w.at("a/y")).unwrap();
    let seen = w.until_now().await;
    assert!(names(&seen).contains(&"a/b/x") && names(&seen).contains(&"a/y"), "{seen:?}");
    std::fs::remove_dir_all(w.at("a")).unwrap();
    assert!(names(&w.until_now().await).contains(&"a"));
    w.watch.reset().await;
    w.watch.watch(&[RelPath::root()]);
    std::fs::write(w.at("z"), b"").unwrap();
    assert!(names(&w.until_now().await).contains(&"z"));
    std::fs::remove_dir_all(w.folder.path()).unwrap();
    while w.next().await != WatchEvent::SourceGone {}
    assert_eq!(w.watch.folders().watched(), 0);
}
