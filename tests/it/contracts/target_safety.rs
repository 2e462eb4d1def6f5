//! The folder that a restore fills, when somebody else is at work in it: what is in the way, what
//! has changed, what is left over, and links that lead out of it.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use keepwatch::fs::Target;
use keepwatch::model::Timestamp;
use keepwatch::plan::ErrorClass;
use keepwatch::ports::{Attributes, LocalLook, TargetError, TargetTree};

use super::in_runtime;
use super::target::{PLAIN, Scene, path};

const MINE: rustix::fs::Mode = rustix::fs::Mode::RWXU;
const STAMP: Attributes =
    Attributes { mtime: Some(Timestamp::new(1_000, 1)), permissions: Some(0o640), owner: None };

#[test]
fn nothing_is_replaced_but_what_was_looked_at() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        scene.write("file", b"old");
        let old = scene.look(b"file").await;
        // It came, it changed, it went.
        assert_eq!(scene.make_plain(b"file", b"new").await, Err(TargetError::Changed));
        std::fs::write(scene.at("file"), b"OLD").unwrap();
        let changed = scene.make(b"file", b"new", PLAIN, old.clone()).await;
        assert_eq!(changed, Err(TargetError::Changed));
        assert_eq!(scene.target.remove(path(b"file"), old.clone()).await, changed);
        assert_eq!(scene.target.set(path(b"file"), old.clone(), STAMP).await, changed);
        assert_eq!(std::fs::read(scene.at("file")).unwrap(), b"OLD");
        let now = scene.look(b"file").await;
        scene.make(b"file", b"new", PLAIN, now.clone()).await.unwrap();
        assert_eq!(std::fs::read(scene.at("file")).unwrap(), b"new");
        std::fs::remove_file(scene.at("file")).unwrap();
        assert_eq!(scene.make(b"file", b"new", PLAIN, now.clone()).await, changed);
        assert_eq!(scene.target.remove(path(b"file"), now.clone()).await, changed);
        assert_eq!(scene.target.set(path(b"file"), now, STAMP).await, changed);
        let absent = LocalLook::Absent;
        assert_eq!(scene.target.remove(path(b"file"), absent.clone()).await, changed);
        assert_eq!(scene.target.set(path(b"file"), absent, STAMP).await, changed);
        scene.target.finish().await.unwrap();
        assert_eq!(scene.names(), [""; 0]);
    });
}

#[test]
fn each_kind_gives_way_to_each_other() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        let put = [
            |at: &Path| std::fs::write(at, b"old").unwrap(),
            |at: &Path| symlink("/etc/passwd", at).unwrap(),
            |at: &Path| std::fs::create_dir(at).unwrap(),
            |at: &Path| {
                rustix::fs::mkfifoat(rustix::fs::CWD, at, MINE).unwrap();
            },
        ];
        for (n, put) in put.iter().enumerate() {
            let (file, link, gone) =
                (format!("{n}/file"), format!("{n}/link"), format!("{n}/gone"));
            scene.target.folder(path(format!("{n}").as_bytes())).await.unwrap();
            [&file, &link, &gone].iter().for_each(|name| put(&scene.at(name)));
            let over = scene.look(file.as_bytes()).await;
            scene.make(file.as_bytes(), b"new", STAMP, over).await.unwrap();
            assert_eq!(std::fs::read(scene.at(&file)).unwrap(), b"new");
            let over = scene.look(link.as_bytes()).await;
            let target = Bytes::from_static(b"new");
            scene.target.link(path(link.as_bytes()), target, STAMP, over).await.unwrap();
            assert_eq!(std::fs::read_link(scene.at(&link)).unwrap(), Path::new("new"));
            let is = scene.look(gone.as_bytes()).await;
            scene.target.remove(path(gone.as_bytes()), is).await.unwrap();
            assert_eq!(scene.look(gone.as_bytes()).await, LocalLook::Absent);
        }
    });
}

#[test]
fn what_is_in_the_way_stays() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        scene.write("full/file", b"x");
        let in_the_way = |name: &[u8]| Err(TargetError::InTheWay(path(name)));
        let full = scene.look(b"full").await;
        assert_eq!(scene.make(b"full", b"", PLAIN, full.clone()).await, in_the_way(b"full"));
        assert_eq!(scene.target.remove(path(b"full"), full.clone()).await, in_the_way(b"full"));
        let link = scene.target.link(path(b"full"), Bytes::from_static(b"x"), PLAIN, full).await;
        assert_eq!(link, in_the_way(b"full"));
        // Links are not folders, wherever they lead.
        symlink("full", scene.at("link")).unwrap();
        for name in [&b"link/file"[..], b"link/new", b"full/file/new"] {
            let at: &[u8] = if name.starts_with(b"link") { b"link" } else { b"full/file" };
            assert_eq!(scene.make_plain(name, b"new").await, in_the_way(at));
            let blocked = scene.look(name).await;
            assert_eq!(scene.make(name, b"new", PLAIN, blocked.clone()).await, in_the_way(at));
            assert_eq!(scene.target.set(path(name), blocked, STAMP).await, in_the_way(at));
        }
        let special = LocalLook::Special("a pipe");
        let refused = scene.target.set(path(b"full"), special, STAMP).await;
        assert!(matches!(refused, Err(TargetError::Path(_))), "{refused:?}");
        scene.target.finish().await.unwrap();
        assert_eq!(scene.names(), ["full", "full/file", "link"]);
    });
}

#[test]
fn attributes_are_set_without_following_or_opening() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        scene.write("file", b"x");
        std::fs::set_permissions(scene.at("file"), PermissionsExt::from_mode(0o000)).unwrap();
        symlink("file", scene.at("link")).unwrap();
        for name in [&b"link"[..], b"file"] {
            let is = scene.look(name).await;
            scene.target.set(path(name), is, STAMP).await.unwrap();
            let shown = std::str::from_utf8(name).unwrap();
            let metadata = scene.at(shown).symlink_metadata().unwrap();
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_000, 1), "{shown}");
            // The link was first, and left the file alone.
            let file = scene.at("file").metadata().unwrap();
            assert_eq!(file.mode() & 0o777, if name == b"link" { 0 } else { 0o640 });
        }
        // A second name of the file may be anywhere.
        std::fs::hard_link(scene.at("file"), scene.folder.join("outside")).unwrap();
        let is = scene.look(b"file").await;
        let refused = scene.target.set(path(b"file"), is, PLAIN).await;
        assert!(matches!(&refused, Err(TargetError::Path(why)) if why.contains("2 hard links")));
    });
}

#[test]
fn what_is_given_up_or_left_over_is_removed() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        let file = scene.target.create(path(b"a/file")).await.unwrap();
        let mut stretch = file.stretch(0, false);
        stretch.write(Bytes::from(vec![1; 1 << 20])).await.unwrap();
        assert_eq!(scene.names().len(), 3, "{:?}", scene.names());
        drop((stretch, file));
        assert_eq!(scene.names(), [".keepwatch", "a"]);
        // As if killed.
        scene.write(".keepwatch/unfinished-7", b"half");
        symlink("/", scene.at(".keepwatch/unfinished-8")).unwrap();
        scene.write("a/.keepwatch-unfinished-1", b"half");
        symlink("a/.keepwatch-unfinished-1", scene.at(".keepwatch/elsewhere-9")).unwrap();
        scene.write("a/precious", b"x");
        symlink("a/precious", scene.at(".keepwatch/elsewhere-10")).unwrap();
        scene.write(".keepwatch/not ours", b"x");
        let mut scene = scene;
        scene.target = Target::new(&scene.at(""));
        scene.target.prepare().await.unwrap();
        let left = [".keepwatch", ".keepwatch/not ours", "a", "a/precious"];
        assert_eq!(scene.names(), left);
        scene.target.finish().await.unwrap();
        assert_eq!(scene.names(), left);
    });
}

#[test]
fn two_restores_do_not_meet() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        let second = Target::new(&scene.folder.join("target"));
        let failure = second.prepare().await.unwrap_err();
        assert_eq!(failure.class, ErrorClass::Configuration);
        assert!(failure.message.starts_with("another restore is filling "), "{failure:?}");
        assert!(failure.hint.is_some());
        scene.target.finish().await.unwrap();
        second.prepare().await.unwrap();
        second.finish().await.unwrap();
        // What is called like our folder and is not ours is left alone.
        for put in
            [|at: &Path| std::fs::write(at, b"").unwrap(), |at: &Path| symlink("/tmp", at).unwrap()]
        {
            put(&scene.at(".keepwatch"));
            let failure = second.prepare().await.unwrap_err();
            assert!(failure.message.contains("is in the way"), "{failure:?}");
            assert_eq!(scene.names(), [".keepwatch"]);
            std::fs::remove_file(scene.at(".keepwatch")).unwrap();
        }
        let unprepared = second.create(path(b"file")).await.err().unwrap();
        assert!(matches!(unprepared, TargetError::Failed(_)));
    });
}

#[test]
fn a_target_that_is_removed_meanwhile() {
    in_runtime(async {
        let scene = Scene::prepared().await;
        std::fs::remove_dir_all(scene.at("")).unwrap();
        for error in [
            scene.make_plain(b"file", b"x").await.unwrap_err(),
            scene.target.folder(path(b"a/b")).await.unwrap_err(),
        ] {
            let TargetError::Failed(failure) = error else { panic!("{error:?}") };
            assert!(failure.message.ends_with("target is gone"), "{failure:?}");
        }
    });
}

/// Swaps a folder of the target for a link to a folder outside, again and again, while files,
/// links and folders are made, changed and removed below its name.
#[test]
fn links_that_come_meanwhile_lead_nowhere() {
    let swaps: u32 = std::env::var("KEEPWATCH_SWAPS").map_or(5_000, |swaps| swaps.parse().unwrap());
    in_runtime(async {
        let scene = Scene::prepared().await;
        let outside = scene.folder.join("outside");
        std::fs::create_dir_all(outside.join("sub")).unwrap();
        std::fs::write(outside.join("file"), b"canary").unwrap();
        std::fs::write(outside.join("sub/old"), b"canary").unwrap();
        std::fs::create_dir(scene.at("swapped")).unwrap();
        symlink(&outside, scene.at("aside")).unwrap();
        let before = (snapshot(&outside), snapshot(&outside.join("sub")));
        let (swapped, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let racer = {
            let (one, two) = (scene.at("swapped"), scene.at("aside"));
            let (swapped, ended) = (swapped.clone(), ended.clone());
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let (at, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
                    rustix::fs::renameat_with(at, &one, at, &two, flags).unwrap();
                    swapped.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let (mut rounds, mut made, mut refused) = (0_u64, 0_u64, 0_u64);
        while swapped.load(Ordering::Relaxed) < swaps || rounds < 200 {
            let mut count = |done: bool| if done { made += 1 } else { refused += 1 };
            let new = format!("swapped/sub/{rounds}");
            count(scene.make_plain(new.as_bytes(), b"ours").await.is_ok());
            count(scene.target.folder(path(new.as_bytes())).await.is_ok());
            for name in [&b"swapped/file"[..], b"swapped/sub/old"] {
                let Ok(over) = scene.target.look(path(name)).await else { continue };
                count(scene.make(name, b"ours", STAMP, over).await.is_ok());
                let Ok(is) = scene.target.look(path(name)).await else { continue };
                count(scene.target.set(path(name), is.clone(), STAMP).await.is_ok());
                count(scene.target.remove(path(name), is).await.is_ok());
                if let Ok((_, crc64)) = scene.target.digest(path(name), None).await {
                    assert_eq!(crc64, keepwatch::model::Crc64::of(b"ours"));
                }
            }
            let target = Bytes::from_static(b"ours");
            let link = path(format!("swapped/link{rounds}").as_bytes());
            count(scene.target.link(link, target, STAMP, LocalLook::Absent).await.is_ok());
            rounds += 1;
        }
        ended.store(true, Ordering::Relaxed);
        racer.join().unwrap();
        println!("{swapped:?} swaps, {rounds} rounds: {made} made, {refused} refused");
        assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
        assert_eq!(before, (snapshot(&outside), snapshot(&outside.join("sub"))));
        scene.target.finish().await.unwrap();
        assert!(!scene.at(".keepwatch").exists());
    });
}

/// Everything that could be seen of a change in a folder.
fn snapshot(folder: &Path) -> Vec<(String, u32, i64, i64, i64, Vec<u8>)> {
    let mut seen = vec![];
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in names.chain([folder.to_owned()]) {
        let metadata = path.symlink_metadata().unwrap();
        let content = std::fs::read(&path).unwrap_or_default();
        let (mtime, ctime) = (metadata.mtime_nsec(), metadata.ctime_nsec());
        let name = path.display().to_string();
        seen.push((name, metadata.mode(), metadata.ctime(), ctime, mtime, content));
    }
    seen.sort();
    seen
}
