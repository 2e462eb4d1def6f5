//! Servers that break off, lie, and fall silent: a restore completes, or names exactly what is
//! damaged; a wrong byte never gets a name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::support::program::Said;
use crate::support::scene::{Scene, TO};
use crate::support::server::{Fault, Seen};
use crate::support::tree::Tree;
use crate::support::wait_for;

const MIB: usize = 1024 * 1024;
const LARGE: usize = 40 * MIB + 12_345;

struct Case {
    scene: Scene,
    target: Tree,
}

impl Case {
    /// A backup of two small files, one that just is not large, and a large one.
    fn new() -> Self {
        let scene = Scene::new(&[("a", b"a"), ("b", b"b")]);
        scene.tree.write("c", &content(3 * MIB));
        scene.tree.write("large", &content(LARGE));
        scene.sync(&[], 0);
        scene.server.clear_log();
        Self { scene, target: Tree::new(&[]) }
    }

    fn restore(&self, more: &[&str]) -> Said {
        let target = self.target.folder.path().to_str().unwrap();
        self.scene.user.run(&[&["restore", TO, target, "--json"], more].concat())
    }

    /// What is asked for content meets this fate.
    fn rule(&self, rule: impl Fn(&str, &Seen<'_>) -> Fault + Send + Sync + 'static) {
        self.scene.server.rule(move |seen| match seen.path.strip_prefix("/bucket/p/") {
            Some(key) if seen.method == "GET" && !key.is_empty() => rule(key, seen),
            _ => Fault::Pass,
        });
    }

    fn is_whole(&self, said: &Said) {
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(self.target.expected(""), self.scene.tree.expected(""));
        assert!(!self.target.path(".keepwatch").exists());
    }

    /// All came but these, and these are named.
    fn is_whole_but(&self, missing: &[&str], said: &Said) {
        assert_eq!(said.code, 1, "{said:?}");
        let mut expected = self.scene.tree.expected("");
        expected.retain(|name, _| !missing.contains(&name.as_str()));
        assert_eq!(self.target.expected(""), expected);
        assert_eq!(said.number("failed"), missing.len() as u64, "{said:?}");
        for name in missing {
            let named = |line: &str| line.starts_with(&format!("failed: {name}: "));
            assert!(said.stderr.lines().any(named), "{said:?}");
        }
        assert!(!self.target.path(".keepwatch").exists());
    }

    /// Bytes of content that were sent.
    fn sent(&self) -> u64 {
        let log = self.scene.server.log();
        log.iter().filter(|a| a.operation == "GetObject").map(|a| a.sent_bytes).sum()
    }
}

/// Nowhere the same.
fn content(length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    fastrand::Rng::with_seed(length as u64).fill(&mut content);
    content
}

/// The first so many times that it is asked for one key.
fn at_first(times: usize, fault: Fault) -> impl Fn(&str, &Seen<'_>) -> Fault {
    let seen: Mutex<BTreeMap<String, usize>> = Mutex::default();
    move |key, _| {
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(key.to_owned()).or_default();
        *count += 1;
        if *count <= times { fault.clone() } else { Fault::Pass }
    }
}

#[test]
fn connections_that_break_are_taken_up_where_they_were() {
    let case = Case::new();
    case.rule(at_first(3, Fault::Cut(MIB)));
    let said = case.restore(&[]);
    case.is_whole(&said);
    let size = (LARGE + 3 * MIB) as u64;
    assert_eq!((said.number("downloaded"), said.number("downloaded_bytes")), (4, size + 2));
    // What had come did not come again: the rest of `c` was asked for, and of each range.
    let ranges = case.scene.server.count("GetObject");
    assert!(ranges > 8, "{ranges}");
}

#[test]
fn replies_that_never_come_whole() {
    let case = Case::new();
    for fault in [Fault::Close, Fault::DropReply, Fault::Cut(0)] {
        case.rule(at_first(1, fault));
        let said = case.restore(&["--overwrite", "always"]);
        case.is_whole(&said);
        std::fs::remove_file(case.target.path("c")).unwrap();
    }
    // One that never comes is named, and keeps nobody else from coming.
    let one = |key: &str, _: &Seen<'_>| match key {
        "c" => Fault::Cut(0),
        _ => Fault::Pass,
    };
    case.rule(one);
    let said = case.restore(&["--retry-for", "1s"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(!case.target.path("c").exists() && said.stderr.contains("p/c"), "{said:?}");
}

#[test]
fn a_wrong_byte_never_lands() {
    let case = Case::new();
    case.rule(at_first(1, Fault::WrongByte(0)));
    let said = case.restore(&[]);
    case.is_whole(&said);
    assert!(said.stderr.contains("c: what came does not match the checksum"), "{said:?}");
    // In one range of the large one, and only once.
    std::fs::remove_file(case.target.path("large")).unwrap();
    let done = AtomicBool::new(false);
    case.rule(move |_, seen| {
        let wrong = seen.range.starts_with("bytes=16777216-") && !done.swap(true, Ordering::SeqCst);
        if wrong { Fault::WrongByte(77) } else { Fault::Pass }
    });
    let said = case.restore(&[]);
    case.is_whole(&said);
    assert!(said.stderr.contains("large: what came does not match"), "{said:?}");
    // Always: in a whole one, and in a range.
    let gone = ["b", "c", "large"];
    gone.iter().for_each(|name| std::fs::remove_file(case.target.path(name)).unwrap());
    case.rule(|key, seen| match (key, seen.range) {
        ("c", _) => Fault::WrongByte(MIB),
        ("large", range) if range.starts_with("bytes=8388608-") => Fault::WrongByte(0),
        _ => Fault::Pass,
    });
    let said = case.restore(&[]);
    case.is_whole_but(&["c", "large"], &said);
    // What was right before stays, when what is to replace it is damaged.
    std::fs::write(case.target.path("c"), b"old").unwrap();
    let said = case.restore(&["--overwrite", "always"]);
    assert_eq!(std::fs::read(case.target.path("c")).unwrap(), b"old", "{said:?}");
    case.scene.server.no_rule();
    let said = case.restore(&["--overwrite", "always"]);
    case.is_whole(&said);
}

#[test]
fn a_wrong_byte_is_seen_and_fetched_anew() {
    let scene = Scene::new(&[]);
    scene.tree.write("file", &content(MIB));
    std::os::unix::fs::symlink("some/where", scene.tree.path("link")).unwrap();
    scene.sync(&[], 0);
    let case = Case { scene, target: Tree::new(&[]) };
    case.rule(|_, _| Fault::WrongByte(3));
    let said = case.restore(&[]);
    assert_eq!((said.code, said.number("failed")), (1, 2), "{said:?}");
    assert_eq!(case.target.expected("").len(), 0);
    case.rule(at_first(2, Fault::WrongByte(3)));
    let said = case.restore(&[]);
    assert_eq!((said.code, said.number("downloaded")), (0, 2), "{said:?}");
    assert_eq!(said.number("verified_by.crc64nvme"), 2, "{said:?}");
    assert_eq!(std::fs::read(case.target.path("file")).unwrap(), content(MIB));
}

#[test]
fn bodies_that_are_too_short() {
    let case = Case::new();
    case.rule(at_first(2, Fault::Short(100_000)));
    case.is_whole(&case.restore(&[]));
    std::fs::remove_file(case.target.path("c")).unwrap();
    case.rule(|key, _| if key == "c" { Fault::Short(100_000) } else { Fault::Pass });
    case.is_whole_but(&["c"], &case.restore(&[]));
}

#[test]
fn a_server_without_ranges() {
    let case = Case::new();
    let (cut, whole) = (AtomicUsize::new(0), [3 * MIB, LARGE].map(|n| Bytes::from(content(n))));
    case.rule(move |key, seen| match key {
        // The only way that is left is to begin again.
        "c" if cut.fetch_add(1, Ordering::SeqCst) == 0 => Fault::Cut(MIB),
        _ if seen.range.is_empty() => Fault::Pass,
        "c" => Fault::Whole(whole[0].clone()),
        _ => Fault::Whole(whole[1].clone()),
    });
    let said = case.restore(&[]);
    case.is_whole(&said);
    assert!(said.stderr.contains("the server ignores ranges"), "{said:?}");
}

#[test]
fn an_object_that_changes_between_its_ranges() {
    let case = Case::new();
    let (ranges, changed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, flag) = (ranges.clone(), changed.clone());
    case.rule(move |_, seen| match seen.range {
        "" => Fault::Pass,
        _ if count.fetch_add(1, Ordering::SeqCst) < 2 => Fault::Pass,
        _ => Fault::Until(flag.clone()),
    });
    let now = content(LARGE + 1);
    std::thread::scope(|scope| {
        let restore = scope.spawn(|| case.restore(&[]));
        wait_for("the third range", || ranges.load(Ordering::SeqCst) > 2);
        case.scene.bucket.put("p/large", &now);
        changed.store(true, Ordering::SeqCst);
        let said = restore.join().unwrap();
        assert_eq!((said.code, said.number("downloaded")), (0, 4), "{said:?}");
    });
    assert!(std::fs::read(case.target.path("large")).unwrap() == now);
    assert!(case.scene.server.log().iter().any(|access| access.status == 412));
    assert!(case.sent() > LARGE as u64);
}

/// With `KEEPWATCH_OUTAGE=60`: the minute that the contract speaks of.
#[test]
fn a_server_that_is_away_for_a_while() {
    let seconds = std::env::var("KEEPWATCH_OUTAGE").map_or(2, |s| s.parse().unwrap());
    let case = Case::new();
    let outage = Duration::from_secs(seconds);
    let began: Mutex<Option<Instant>> = Mutex::default();
    let (refused, count) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (told, counted) = (refused.clone(), count.clone());
    case.scene.server.rule(move |seen| {
        // Some ranges come first; then everything is refused.
        counted.fetch_add(usize::from(!seen.range.is_empty()), Ordering::SeqCst);
        if counted.load(Ordering::SeqCst) < 3 {
            return Fault::Pass;
        }
        let began = *began.lock().unwrap().get_or_insert_with(Instant::now);
        match began.elapsed() < outage {
            true => {
                told.fetch_add(1, Ordering::SeqCst);
                Fault::Error(503, "SlowDown")
            }
            false => Fault::Pass,
        }
    });
    let said = match seconds {
        60 => case.restore(&[]),
        _ => case.restore(&["--retry-for", "20s"]),
    };
    case.is_whole(&said);
    assert!(refused.load(Ordering::SeqCst) > 1);
    // For longer than one is ready to wait: an error that says so, and nothing half done.
    ["a", "large"].iter().for_each(|name| std::fs::remove_file(case.target.path(name)).unwrap());
    case.scene.server.rule(|seen| match seen.method {
        "GET" if seen.query.contains("list-type") => Fault::Pass,
        _ => Fault::Error(503, "ServiceUnavailable"),
    });
    let said = case.restore(&["--retry-for", "1s"]);
    assert_eq!(said.code, 5, "{said:?}");
    assert!(!case.target.path("a").exists() && !case.target.path("large").exists());
    assert!(!case.target.path(".keepwatch").exists());
    case.scene.server.no_rule();
    case.is_whole(&case.restore(&[]));
}
