//! Whole worlds in virtual time, from seeds.

use std::time::Duration;

use keepwatch::app::status;
use keepwatch::model::{Key, Meta, Millis, RelPath};
use keepwatch::ports::{Change, Clock as _, ObjectStore as _, StateStore as _};
use keepwatch::sim::world::{self, World};

fn worlds() -> u64 {
    let wanted = std::env::var("KEEPWATCH_WORLDS").ok().and_then(|n| n.parse().ok());
    wanted.unwrap_or(2_000)
}

#[test]
fn safe_at_every_step_and_right_in_the_end() {
    if let Some(seed) = std::env::var("KEEPWATCH_SEED").ok().and_then(|s| s.parse().ok()) {
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).init();
        world::run(seed).unwrap();
        return;
    }
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let seeds = (thread..worlds()).step_by(threads as usize);
                    seeds.filter_map(|seed| world::run(seed).err()).take(5).collect::<Vec<_>>()
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn same_seed_same_run() {
    for seed in 0..20 {
        assert_eq!(world::run(seed), world::run(seed), "seed {seed}");
    }
}

#[test]
fn only_uploads_of_a_lost_state_are_aborted() {
    world::in_virtual_time(async {
        let mut world = World::new(1);
        let open = async |name: &str| {
            world.store.create_upload(&Key::literal(name), &Meta::default()).await.unwrap()
        };
        for name in ["a", "b", "c/d", "e", "f"] {
            open(name).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        world.state.forget_everything(world.clock.now());
        let theirs = open("theirs").await;
        world.start();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let left = world.store.list_open_uploads(None).await.unwrap().uploads;
        let left: Vec<_> = left.into_iter().map(|upload| upload.upload_id).collect();
        assert_eq!(left, [theirs], "what was begun since is not ours to abort");
        let requests = world.store.requests().multipart;
        tokio::time::sleep(Duration::from_secs(45 * 60)).await;
        assert_eq!(world.store.requests().multipart, requests, "no pass without a listing asks");
        world.crash().await;
    });
}

/// A world with `a/f`, which was backed up a while ago, in which a file may have more names.
async fn quiet(before: impl FnOnce(&World)) -> World {
    let mut world = World::new(1);
    world.fs.write(&path("a/f"), b"one");
    world.fs.make_folder(&path("b"));
    before(&world);
    world.start();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.differences(), [""; 0]);
    world
}

fn path(name: &str) -> RelPath {
    RelPath::new(name.as_bytes()).unwrap()
}

/// The moment before which all is in the bucket, as the program says.
async fn watermark(world: &World) -> Millis {
    Millis(world.status().await.unwrap().watermark_ms.unwrap())
}

#[test]
fn every_name_of_a_file_is_looked_at_when_one_is_written_to() {
    let (a, b) = (path("a/f"), path("b/f"));
    for linked_first in [true, false] {
        world::in_virtual_time(async {
            let link = |world: &World| world.fs.hard_link(&a, Some(&b));
            let mut world = match linked_first {
                true => quiet(link).await,
                false => {
                    let world = quiet(|_| {}).await;
                    link(&world);
                    tokio::time::sleep(Duration::from_secs(120)).await;
                    world
                }
            };
            // Only the name that is written to makes an event.
            world.fs.write(&b, b"two");
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(world.differences(), [""; 0], "linked before the start: {linked_first}");
            world.crash().await;
        });
    }
}

#[test]
fn a_write_through_a_name_outside_is_found_and_never_denied() {
    world::in_virtual_time(async {
        let a = path("a/f");
        let mut world = quiet(|world| world.fs.hard_link(&a, None)).await;
        let end = world.clock.now().plus_ms(10 * 60_000);
        while world.clock.now() < end {
            let written = world.clock.now();
            world.fs.write_outside(&a, format!("{}", written.0).as_bytes());
            let mut waited = 0;
            while !world.differences().is_empty() {
                assert!(watermark(&world).await <= written, "everything until then is not there");
                assert!(waited < 90, "{:?}", world.differences());
                tokio::time::sleep(Duration::from_secs(1)).await;
                waited += 1;
            }
            tokio::time::sleep(Duration::from_secs(100)).await;
            assert!(watermark(&world).await > written, "and then it is");
        }
        world.crash().await;
    });
}

#[test]
fn a_folder_that_can_be_read_again_is_looked_at_and_forgiven() {
    world::in_virtual_time(async {
        let mut world = quiet(|_| {}).await;
        world.fs.set_unreadable(&path("a"), true);
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.fs.write(&path("a/f"), b"hidden");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(world.status().await.unwrap().unread > 0);
        world.fs.set_unreadable(&path("a"), false);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let status = world.status().await.unwrap();
        assert_eq!((status.skipped, status.condition.as_str()), (0, "up-to-date"));
        assert_eq!(world.differences(), [""; 0]);
        let watermark = Millis(status.watermark_ms.unwrap());
        assert!(world.clock.now().since(watermark) < 45_000, "{status:?}");
        world.crash().await;
    });
}

#[test]
fn a_clock_that_was_ahead_proves_nothing_and_puts_nothing_off() {
    world::in_virtual_time(async {
        let mut world = quiet(|world| {
            world.fs.write(&path("gone"), b"gone");
        })
        .await;
        world.crash().await;
        world.fs.remove(&path("gone"));
        let ahead = world.clock.now().plus_ms(365 * 86_400_000);
        let changes = vec![
            Change::Proven { before: ahead, now: ahead },
            Change::Listed { at: ahead },
            Change::Missing { key: Key::file(&path("gone")), at: ahead },
        ];
        world.state.apply(changes).await.unwrap();
        let recorded = status::recorded(&world.state, world.clock.now()).await.unwrap();
        assert_eq!(recorded.watermark_ms, None);
        world.start();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(watermark(&world).await <= world.clock.now());
        world.crash().await;
        let (row, now) = (world.state.backup().await.unwrap(), world.clock.now());
        assert!(row.listed_at.unwrap() <= now, "listed again");
        assert!(row.proven_before.unwrap() <= now, "what was proven then is replaced");
        assert_eq!(world.differences(), [""; 0], "the delay before the deletion began anew");
    });
}
