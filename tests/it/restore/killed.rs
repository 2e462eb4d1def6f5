//! SIGKILL at any moment of a restore: no name ever has half its content, and what was complete is
//! not fetched again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Ends;
use crate::support::scene::{Scene, TO};
use crate::support::server::Fault;
use crate::support::tree::Tree;

const MIB: usize = 1024 * 1024;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Every regular file below, the restore's own folder left out.
fn files(folder: &Path, found: &mut Vec<String>, root: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if name == ".keepwatch" {
            continue;
        }
        match entry.file_type().unwrap().is_dir() {
            true => files(&path, found, root),
            false => found.push(name),
        }
    }
}

fn names(tree: &Tree) -> Vec<String> {
    let mut found = vec![];
    files(tree.folder.path(), &mut found, tree.folder.path());
    found
}

/// Looks at every name as soon as it is there; answers with those that were not complete.
fn watch(source: &Tree, target: &Tree, ended: &AtomicBool) -> (usize, Vec<String>) {
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    let mut half = vec![];
    let mut last = false;
    while !last {
        last = ended.load(Ordering::SeqCst);
        for name in names(target) {
            let inode = target.path(&name).metadata().unwrap().ino();
            if known.insert(name.clone(), inode) == Some(inode) {
                continue;
            }
            let (seen, right) = (target.path(&name), source.path(&name));
            let times = [&seen, &right].map(|path| path.metadata().unwrap().modified().unwrap());
            let same = std::fs::read(&seen).unwrap() == std::fs::read(&right).unwrap();
            if !same || times[0] != times[1] {
                half.push(name);
            }
        }
    }
    (known.len(), half)
}

#[test]
fn killed_again_and_again() {
    let (kills, count) = (number("KEEPWATCH_KILLS", 10), number("KEEPWATCH_FILES", 400));
    let large = number("KEEPWATCH_LARGE_MIB", 24) * MIB;
    let seed = number("KEEPWATCH_SEED", fastrand::usize(..));
    println!("KEEPWATCH_SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed as u64);
    let scene = Scene::new(&[]);
    for n in 0..count {
        let mut content = vec![0; chance.usize(1..20_000)];
        chance.fill(&mut content);
        scene.tree.write(format!("{}/{n}", n % 7), &content);
    }
    for n in 0..3 {
        let mut content = vec![0; large];
        chance.fill(&mut content);
        scene.tree.write(format!("{n}/large"), &content);
    }
    scene.sync(&[], 0);

    // Who fetched what: each start calls itself by another name.
    let fetched: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let heard = fetched.clone();
    scene.server.rule(move |seen| {
        if seen.method == "GET" && seen.path.starts_with("/bucket/p/") {
            let run = seen.agent.split(' ').find(|word| word.starts_with("app/run-"));
            let key = seen.path.trim_start_matches("/bucket/p/").to_owned();
            heard.lock().unwrap().push((run.unwrap_or("nobody").to_owned(), key));
        }
        Fault::Pass
    });
    let target = Tree::new(&[]);
    let (ended, mut complete) = (AtomicBool::new(false), vec![]);
    std::thread::scope(|scope| {
        let ends = Ends(&ended);
        let watcher = scope.spawn(|| watch(&scene.tree, &target, &ended));
        for run in 0..=kills {
            complete.push(names(&target).into_iter().collect::<BTreeSet<String>>());
            let mut restore =
                scene.user.command(&["restore", TO, target.folder.path().to_str().unwrap()]);
            restore.env("AWS_SDK_UA_APP_ID", format!("run-{run}"));
            let mut restore = scene.user.spawn(restore);
            if run < kills {
                std::thread::sleep(Duration::from_millis(chance.u64(0..1_500)));
                restore.kill();
            } else {
                let code = restore.child.wait().unwrap().code();
                assert_eq!(code, Some(0), "{}", restore.log());
            }
        }
        drop(ends);
        let (seen, half) = watcher.join().unwrap();
        assert_eq!((seen, half), (count + 3, vec![]));
    });
    assert_eq!(target.expected(""), scene.tree.expected(""));
    assert!(!target.path(".keepwatch").exists());

    let fetched = fetched.lock().unwrap();
    assert!(fetched.iter().all(|(run, _)| run != "nobody"), "{:?}", fetched.first());
    let again = |(run, complete): (usize, &BTreeSet<String>)| {
        let run = format!("app/run-{run}");
        let of_run = fetched.iter().filter(move |fetch| fetch.0 == run);
        of_run.filter(|fetch| complete.contains(&fetch.1)).count()
    };
    assert_eq!(complete.iter().enumerate().map(again).sum::<usize>(), 0);
    // The test was one: some were cut short with something done.
    let grown = complete.windows(2).filter(|pair| pair[0].len() < pair[1].len()).count();
    println!("{grown} of {kills} got further, {} requests for content", fetched.len());
    assert!(grown > 0 && fetched.len() > count);
}
