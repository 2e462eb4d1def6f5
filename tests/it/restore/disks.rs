//! Targets that fill up, are read-only, or belong to somebody else: a clear error, the right exit
//! code, nothing half done under a final name, and nothing left over.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::mounts::behind;
use crate::support::program::User;
use crate::support::scene::{Scene, TO};
use crate::support::server::Fault;
use crate::support::tree::Tree;

/// A backup of some MiB.
fn scene() -> Scene {
    let scene = Scene::new(&[]);
    for n in 0..60_u8 {
        scene.tree.write(format!("{}/{n}", n % 3), &vec![n; 50_000]);
    }
    scene.tree.write("large", &vec![7; 20 << 20]);
    scene.sync(&[], 0);
    scene
}

/// What is in the target is complete; answers with how many files that are.
fn all_complete(source: &Tree, target: &Path) -> usize {
    let expected = source.expected("");
    let mut complete = 0;
    for (name, (content, _)) in expected {
        if let Ok(here) = std::fs::read(target.join(&name)) {
            assert!(here == content, "{name} is not complete");
            complete += 1;
        }
    }
    complete
}

/// Something else takes the room after it was found to be enough.
#[test]
fn a_target_that_fills_up() {
    let test = "restore::disks::a_target_that_fills_up";
    let Some(folder) = behind(test, "mount -t tmpfs -o size=40m small target") else { return };
    let (scene, target) = (scene(), folder.join("target"));
    let (filler, count) = (target.join("filler"), AtomicUsize::new(0));
    let fill = filler.clone();
    scene.server.rule(move |seen| {
        if seen.method == "GET" && count.fetch_add(1, Ordering::SeqCst) == 30 {
            std::fs::write(&fill, vec![1; 39 << 20]).ok();
        }
        Fault::Pass
    });
    let restore = || scene.user.run(&["restore", TO, target.to_str().unwrap(), "--json"]);
    let said = restore();
    assert_eq!((said.code, said.json()["result"].as_str()), (4, Some("error")), "{said:?}");
    assert!(said.stderr.contains("error: there is no room left in "), "{said:?}");
    assert!(said.stderr.contains("hint: free some space"), "{said:?}");
    assert!(!target.join(".keepwatch").exists());
    let complete = all_complete(&scene.tree, &target);
    assert!((1..61).contains(&complete), "{complete}");
    scene.server.no_rule();
    // Not enough from the start: not one byte.
    scene.server.clear_log();
    let said = restore();
    assert_eq!((said.code, scene.server.count("GetObject")), (4, 0), "{said:?}");
    std::fs::remove_file(filler).unwrap();
    let said = restore();
    assert_eq!((said.code, said.number("downloaded")), (0, 61 - complete as u64), "{said:?}");
    assert_eq!(all_complete(&scene.tree, &target), 61);
    assert!(!target.join(".keepwatch").exists());
}

#[test]
fn a_target_that_is_read_only() {
    let test = "restore::disks::a_target_that_is_read_only";
    let Some(folder) = behind(test, "mount -t tmpfs -o ro fixed target") else { return };
    let (scene, target) = (Scene::with_files(3), folder.join("target"));
    scene.sync(&[], 0);
    scene.server.clear_log();
    let said = scene.user.run(&["restore", TO, target.to_str().unwrap(), "--json"]);
    assert_eq!((said.code, said.json()["result"].as_str()), (4, Some("error")), "{said:?}");
    assert!(said.stderr.contains("/target is read-only"), "{said:?}");
    assert!(said.stderr.contains("hint: mount it writable"), "{said:?}");
    assert_eq!(scene.server.count("GetObject"), 0);
}

#[test]
fn a_target_without_permission() {
    let scene = Scene::new(&[("open/a", b"a"), ("shut/b", b"b"), ("shut/c/d", b"d")]);
    scene.sync(&[], 0);
    let scene = scene.by(User::bound_by_modes);
    let target = Tree::new(&[]);
    let restore = |at: &Path| scene.user.run(&["restore", TO, at.to_str().unwrap(), "--json"]);
    // A folder in it: its files are named, the others come.
    std::fs::create_dir(target.path("shut")).unwrap();
    target.chmod("shut", 0o555);
    let said = restore(target.folder.path());
    assert_eq!((said.code, said.number("failed")), (1, 2), "{said:?}");
    for name in ["shut/b", "shut/c/d"] {
        assert!(said.stderr.contains(&format!("failed: {name}: Permission denied")), "{said:?}");
    }
    assert_eq!(std::fs::read(target.path("open/a")).unwrap(), b"a");
    assert!(!target.path(".keepwatch").exists());
    // The target itself, and the folder that it would be made in.
    let shut = target.path("shut");
    for at in [shut.clone(), shut.join("new")] {
        let said = restore(&at);
        assert_eq!(said.code, 4, "{said:?}");
        assert!(said.stderr.contains("error: ") && said.stderr.contains("hint: "), "{said:?}");
        assert!(said.stderr.contains(at.to_str().unwrap()), "{said:?}");
    }
    assert_eq!(std::fs::read_dir(&shut).unwrap().count(), 0);
    std::fs::set_permissions(shut, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(restore(target.folder.path()).code, 0);
}

/// Root without the right to give files away, as on FAT: that is said once, and no file fails.
#[test]
fn a_disk_that_keeps_no_owners() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root gives files away");
        return;
    }
    let scene = Scene::with_files(20);
    for n in 0..20 {
        std::os::unix::fs::chown(scene.tree.path(format!("f/{n}")), Some(7), Some(8)).unwrap();
    }
    scene.sync(&[], 0);
    let scene = scene.by(|user| user.wrapped(&["setpriv", "--bounding-set=-chown"]));
    let target = Tree::new(&[]);
    for round in 0..2 {
        let at = target.folder.path().to_str().unwrap();
        let said = scene.user.run(&["restore", TO, at, "--json"]);
        assert_eq!((said.code, said.number("retouched")), (0, 0), "{said:?}");
        let said_so = said.stderr.matches("does not keep owners").count();
        assert_eq!(said_so, if round == 0 { 1 } else { 0 }, "{said:?}");
    }
    assert_eq!(target.path("f/7").metadata().unwrap().uid(), 0);
}
