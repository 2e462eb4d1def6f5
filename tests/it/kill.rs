//! SIGKILL at any moment: nothing is lost, nothing is sent twice, nothing is left behind.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use keepwatch::store::Access;

use crate::support::scene::Scene;
use crate::support::tree::Tree;

const MIB: usize = 1024 * 1024;

fn kills() -> u32 {
    std::env::var("KEEPWATCH_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(50)
}

fn seed() -> u64 {
    let seed = std::env::var("KEEPWATCH_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("KEEPWATCH_SEED={seed}");
    seed
}

/// Content that never was before: most of it small, some of it many parts long.
fn content(chance: &mut Rng) -> Vec<u8> {
    let size = match chance.u8(0..100) {
        0..60 => chance.usize(1..64 * 1024),
        60..88 => chance.usize(1..5 * MIB),
        88..97 => chance.usize(5 * MIB..20 * MIB),
        _ => chance.usize(20 * MIB..=64 * MIB),
    };
    let mut content = vec![0; size];
    chance.fill(&mut content);
    content
}

/// Changes files in every way but one: a file that moves back would rightly be sent again.
fn change_files(tree: &Tree, chance: &mut Rng, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let path = tree.path(format!("folder{}/file{}", chance.u8(0..3), chance.u8(0..8)));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match chance.u8(0..10) {
            0..=3 => fs::write(path, content(chance)).unwrap(),
            4..=6 => {
                let beside = path.with_extension("part");
                fs::write(&beside, content(chance)).unwrap();
                fs::rename(beside, path).unwrap();
            }
            7 => {
                let mut file = File::options().append(true).create(true).open(path).unwrap();
                file.write_all(&chance.u64(..).to_le_bytes()).unwrap();
            }
            8 => drop(fs::remove_file(path)),
            _ => drop(File::options().write(true).open(path).map(|file| {
                file.set_modified(std::time::SystemTime::now()).unwrap();
            })),
        }
        std::thread::sleep(Duration::from_millis(chance.u64(0..80)));
    }
}

/// Keys that were written twice in a row with the same content. No content is ever written to two
/// files or twice to one, so whatever is here was in the bucket, and was sent once more. (Empty
/// content is not told apart, and says nothing.)
fn sent_twice(log: &[Access]) -> Vec<String> {
    const OF_NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";
    let writes = ["PutObject", "CompleteMultipartUpload"];
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    let mut twice = vec![];
    for access in log.iter().filter(|access| writes.contains(&access.operation.as_str())) {
        let (Some(key), Some(etag), None, 200) =
            (&access.key, &access.etag, &access.error, access.status)
        else {
            continue;
        };
        if last.insert(key, etag) == Some(etag.as_str()) && etag != OF_NOTHING {
            let life = log.iter().filter(|other| other.key == access.key);
            let life = life.map(|a| (a.time_ms, a.operation.as_str(), a.status, a.etag.as_deref()));
            twice.push(format!("{key} {etag} at {}: {:?}", access.time_ms, Vec::from_iter(life)));
        }
    }
    twice
}

#[test]
fn killed_again_and_again() {
    let scene = Scene::new(&[]);
    let mut chance = Rng::with_seed(seed());
    let sizes = ["--multipart-threshold", "5MiB", "--part-size", "5MiB"];
    let args = scene.quick(&[&["--settle", "100ms"], sizes.as_slice()].concat());
    let (stop, mut changes) = (AtomicBool::new(false), chance.fork());
    std::thread::scope(|scope| {
        scope.spawn(|| change_files(&scene.tree, &mut changes, &stop));
        for _ in 0..kills() {
            let daemon = scene.user.start(&args);
            std::thread::sleep(Duration::from_millis(chance.u64(0..1_200)));
            daemon.kill();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let daemon = scene.follow(&[&["--settle", "100ms"], sizes.as_slice()].concat());
    scene.comes_right(&daemon);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(scene.bucket.open_uploads(), [""; 0]);
    assert_eq!(sent_twice(&scene.server.log()), [""; 0]);
    // The test was one: objects were made whole across kills, and in both ways.
    let (begun, ended) =
        (scene.server.count("CreateMultipartUpload"), scene.server.count("PutObject"));
    assert!(begun > 0 && ended > 10, "{begun} uploads in parts, {ended} others");

    let said = scene.sync(&sizes, 0);
    assert_eq!((said.number("uploaded"), said.number("adopted")), (0, 0), "{said:?}");
    assert_eq!(scene.server.log().len(), 1, "{:?}", scene.server.log());
}
