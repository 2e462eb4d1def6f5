//! One scripted life, once for every request it makes and every way that request can go wrong: the
//! end is always the same.

use std::time::Duration;

use keepwatch::model::RelPath;
use keepwatch::plan::ErrorClass;
use keepwatch::sim::faults::Fate;
use keepwatch::sim::world::{World, in_virtual_time};

fn path(name: &str) -> RelPath {
    RelPath::new(name.as_bytes()).unwrap()
}

async fn pause(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

/// Small and large files, a link, folders; then changes of every kind, then deletions.
async fn script(world: &World, act: u32) {
    let fs = &world.fs;
    match act {
        0 => {
            fs.write(&path("a"), b"small");
            fs.write(&path("b/large"), &[7; 65]);
            fs.write(&path("b/touched"), b"same content");
            fs.link(&path("c/link"), b"somewhere");
            fs.make_folder(&path("empty"));
            fs.write(&path("gone"), b"soon gone");
        }
        1 => {
            fs.write(&path("a"), b"another");
            fs.write(&path("b/large"), &[8; 58]);
            fs.chmod(&path("b/touched"), 0o600);
            fs.rewrite_quietly(&path("gone"));
            fs.write(&path("empty/no-more"), b"x");
            fs.rename(&path("c"), &path("d"));
        }
        2 => {
            fs.remove(&path("gone"));
            fs.remove(&path("a"));
            fs.write(&path("a/now-a-folder"), b"y");
            fs.remove(&path("b/large"));
        }
        _ => {}
    }
}

/// Lives the script; the n-th request of the given act meets its fate. Answers with how many
/// requests that act made.
fn live(act: u32, n: u64, fate: Fate) -> u64 {
    in_virtual_time(async {
        let mut world = World::new(7);
        world.settings.delete_delay_ms = 5_000;
        let mut made = 0;
        script(&world, 0).await;
        for now in 0..3 {
            let faults = world.store.faults.clone();
            let before = faults.calls();
            if now == act {
                faults.on_nth(n, fate);
            }
            match now {
                0 => world.start(),
                now => script(&world, now).await,
            }
            let crashed = tokio::time::timeout(Duration::from_secs(300), faults.crash()).await;
            if crashed.is_ok() {
                world.crash().await;
                pause(3).await;
                world.start();
            }
            faults.clear_nth();
            pause(300).await;
            if now == act {
                made = faults.calls() - before;
            }
        }
        world.calm().await;
        world.crash().await;
        let mut wrong = world.broken();
        wrong.extend(world.differences());
        assert!(wrong.is_empty(), "request {n} of act {act}, {fate:?}: {}", wrong.join("; "));
        made
    })
}

#[test]
fn every_request_may_fail_in_every_way() {
    let fates = [
        Fate::FailBefore(ErrorClass::Server),
        Fate::FailAfter(ErrorClass::Server),
        Fate::FailBefore(ErrorClass::Unreachable),
        Fate::FailAfter(ErrorClass::Unreachable),
        Fate::FailBefore(ErrorClass::Path),
        Fate::FailBefore(ErrorClass::Credentials),
        Fate::CrashBefore,
        Fate::CrashAfter,
    ];
    let mut lives = 0;
    for act in 0..3 {
        let requests = live(act, u64::MAX / 2, Fate::Fine);
        assert!(requests > 5, "act {act} makes {requests} requests");
        for n in 1..=requests {
            for fate in fates {
                live(act, n, fate);
                lives += 1;
            }
        }
    }
    assert!(lives > 200, "{lives} lives");
}
