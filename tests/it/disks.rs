//! Disks that are mounted below the source, and go: what is not there proves nothing then.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guard::namespace;
use crate::support::program::{Said, User};
use crate::support::scene::Scene;
use crate::support::tree::Tree;
use crate::support::wait_for;

/// A folder `disk` in the source, over which another folder is mounted for the program alone, as
/// long as a switch is on.
struct Disk {
    scene: Scene,
    real: tempfile::TempDir,
    switch: PathBuf,
}

/// Calls the test with a disk of another file system, and with one of the source's own; not at all
/// where mounting is not permitted.
fn with_each_disk(test: impl Fn(Disk)) {
    for place in ["/dev/shm", "/tmp"].map(Path::new) {
        match Disk::new(place) {
            Some(disk) => test(disk),
            None => println!("NOT TESTED: a disk from {} cannot be mounted here", place.display()),
        }
    }
}

impl Disk {
    fn new(place: &Path) -> Option<Self> {
        let scene = Scene::new(&[("own", b"1"), ("disk/covered", b"2")]);
        scene.tree.remove("disk/covered");
        let real = tempfile::tempdir_in(place).ok()?;
        let switch = scene.user.home.path().join("mounted");
        let (unshare, _) = namespace();
        let (from, to) = (real.path().display(), scene.tree.path("disk"));
        let mount = format!("mount --bind '{from}' '{}'", to.display());
        let mut trial = Command::new("unshare");
        let permitted = trial.args(unshare).args(["sh", "-c", &mount]).output();
        if !permitted.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let run = format!(
            "if test -e '{}'; then {mount} || exit 99; fi; exec \"$0\" \"$@\"",
            switch.display()
        );
        let words = [&["unshare"], unshare, &["sh", "-c", &run]].concat();
        let disk = Self { scene: scene.by(|user| user.wrapped(&words)), real, switch };
        disk.write("a", b"on the disk");
        disk.write("deep/b", b"below");
        std::fs::create_dir(disk.real.path().join("empty")).unwrap();
        disk.set_mounted(true);
        Some(disk)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.real.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn set_mounted(&self, mounted: bool) {
        match mounted {
            true => std::fs::write(&self.switch, b"").unwrap(),
            false => std::fs::remove_file(&self.switch).unwrap(),
        }
    }

    /// A pass without the budget of deletions.
    fn sync(&self, code: i32) -> Said {
        self.scene.sync(&["--max-delete", "off"], code)
    }

    fn keys(&self) -> Vec<String> {
        let keys = self.scene.bucket.objects().into_keys();
        keys.filter_map(|key| key.strip_prefix("p/disk/").map(str::to_owned)).collect()
    }
}

const ON_DISK: [&str; 3] = ["a", "deep/b", "empty/"];

#[test]
fn a_disk_below_the_source_that_goes_loses_nothing() {
    with_each_disk(|disk| {
        disk.sync(0);
        assert_eq!(disk.keys(), ON_DISK);
        disk.set_mounted(false);
        disk.scene.tree.write("own", b"changed");
        let said = disk.sync(7);
        assert_eq!((said.number("held"), said.number("uploaded")), (2, 1), "{said:?}");
        assert!(said.stderr.contains("disk/a was on another disk than the one"), "{said:?}");
        // Its folder goes too, as that of an automounter does.
        std::fs::remove_dir(disk.scene.tree.path("disk")).unwrap();
        assert_eq!(disk.sync(7).number("deleted"), 0);
        std::fs::create_dir(disk.scene.tree.path("disk")).unwrap();
        let list = disk.scene.user.run(&["deletions", "list"]);
        assert!(list.stdout.contains("is a disk in the source not mounted?"), "{list:?}");

        disk.set_mounted(true);
        let said = disk.sync(0);
        assert_eq!((said.number("uploaded"), said.number("unchanged")), (0, 3), "{said:?}");
        assert_eq!(disk.keys(), ON_DISK, "all is back, and the hold has ended by itself");
        std::fs::remove_file(disk.real.path().join("a")).unwrap();
        assert_eq!(disk.sync(0).number("deleted"), 1, "on a disk that is there, absence is proven");
    });
}

#[test]
fn what_a_mounted_disk_covers_is_not_gone() {
    with_each_disk(|disk| {
        disk.set_mounted(false);
        disk.scene.tree.write("disk/covered", b"2");
        disk.sync(0);
        disk.set_mounted(true);
        let said = disk.sync(7);
        assert_eq!((said.number("held"), said.number("uploaded")), (1, 2), "{said:?}");
        disk.set_mounted(false);
        assert_eq!(disk.sync(7).number("held"), 2, "now it is what was on the disk");
        assert_eq!(disk.keys(), [&["a", "covered"], &ON_DISK[1..]].concat());
    });
}

#[test]
fn a_person_may_say_that_a_disk_has_gone_for_good() {
    with_each_disk(|disk| {
        disk.sync(0);
        disk.set_mounted(false);
        disk.sync(7);
        let (user, name) = (&disk.scene.user, disk.scene.name());
        assert_eq!(user.run(&["deletions", "discard", name]).code, 0);
        assert_eq!(disk.sync(0).number("unclaimed"), 3);
        disk.set_mounted(true);
        assert_eq!(disk.sync(0).number("adopted"), 2);
        disk.set_mounted(false);
        disk.sync(7);
        assert_eq!(user.run(&["deletions", "approve", name]).code, 0);
        assert_eq!(disk.sync(0).number("deleted"), 2);
        disk.scene.is_settled(0);
    });
}

#[test]
fn a_daemon_sees_a_disk_go_and_come() {
    with_each_disk(|disk| {
        let to = disk.scene.tree.path("disk");
        let quick = ["--settle", "50ms", "--delete-delay", "3s", "--rescan", "1s"];
        let daemon = disk.scene.watch(&quick);
        wait_for("the first pass", || disk.keys() == ON_DISK);
        let enter = |words: &[&OsStr]| {
            let (_, nsenter) = namespace();
            let mut command = Command::new("nsenter");
            command.args(nsenter).args(["-t", &daemon.pid().to_string()]).args(words);
            command.output().unwrap().status.success()
        };
        // A deletion that is about to be carried out when the disk goes.
        std::fs::remove_file(disk.real.path().join("a")).unwrap();
        wait_for("its file to be missed", || daemon.backup()["missing"] == 1);
        wait_for("umount to succeed", || enter(&["umount".as_ref(), to.as_os_str()]));
        wait_for("deletions to be held", || daemon.backup()["held"] == 2);
        assert_eq!(disk.keys().iter().filter(|key| ON_DISK.contains(&&key[..])).count(), 3);
        let from = disk.real.path().as_os_str();
        assert!(enter(&["mount".as_ref(), "--bind".as_ref(), from, to.as_os_str()]));
        // What was missing when deletions were held waits for a person, gone or not.
        wait_for("the disk to be found", || daemon.backup()["held"] == 1);
        assert_eq!(disk.scene.user.run(&["deletions", "approve", "--all"]).code, 0);
        wait_for("what is gone to go, and nothing else", || disk.keys() == ON_DISK[1..]);
        assert_eq!(daemon.stop(), 0);
    });
}

#[test]
fn a_full_disk_under_the_store_is_the_destinations_trouble() {
    let (unshare, _) = namespace();
    let (store, source) = (Tree::new(&[]), Tree::new(&[("large", &[7; 4 << 20]), ("z", b"small")]));
    let folder = store.folder.path().to_str().unwrap();
    let mount = format!("mount -t tmpfs -o size=2m store '{folder}'");
    let mut trial = Command::new("unshare");
    let permitted = trial.args(unshare).args(["sh", "-c", &mount]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        return println!("NOT TESTED: a small disk cannot be mounted here");
    }
    let run = format!("{mount} && exec \"$0\" \"$@\"");
    let words = [&["unshare"], unshare, &["sh", "-c", &run]].concat();
    let user = User::new().wrapped(&words);
    let destination = format!("file://{folder}");
    let said = user.sync(source.folder.path(), &destination, &["--create-bucket"], 4);
    assert_eq!((said.number("failed"), &said.json()["result"]), (0, &"error".into()), "{said:?}");
    assert!(said.stderr.contains("the destination is full: free some space there"), "{said:?}");
    assert!(said.stderr.contains("No space left on device"), "{said:?}");
}

#[test]
fn another_disk_in_the_place_of_one_proves_nothing() {
    with_each_disk(|disk| {
        disk.sync(0);
        let before = disk.keys();
        let aside = tempfile::tempdir_in(disk.real.path().parent().unwrap()).unwrap();
        std::fs::rename(disk.real.path(), aside.path().join("former")).unwrap();
        std::fs::create_dir(disk.real.path()).unwrap();
        disk.write("other", b"of another disk");
        disk.sync(7);
        let kept = disk.keys();
        assert!(before.iter().all(|key| kept.contains(key)), "{before:?}: {kept:?}");
        assert!(kept.contains(&"other".to_owned()), "{kept:?}");
        // The right one again: of its own nothing is missing, and the other's file is not here.
        std::fs::remove_dir_all(disk.real.path()).unwrap();
        std::fs::rename(aside.path().join("former"), disk.real.path()).unwrap();
        assert_eq!(disk.sync(7).number("held"), 1);
        assert_eq!(disk.keys(), kept);
    });
}

#[test]
fn a_store_that_is_mounted_into_its_source_is_refused() {
    let scene = Scene::with_files(1);
    let (unshare, _) = namespace();
    let elsewhere = tempfile::tempdir().unwrap();
    let to = elsewhere.path().display();
    let mount = format!("mount --bind '{}' '{to}' || exit 99; exec \"$0\" \"$@\"", scene.source());
    let words = [&["unshare"], unshare, &["sh", "-c", &mount]].concat();
    let user = User::new().wrapped(&words);
    let said =
        user.run(&["sync", scene.source(), &format!("file://{to}/store"), "--create-bucket"]);
    if said.code == 99 || said.stderr.contains("unshare") {
        println!("NOT TESTED: mounting is not permitted here");
        return;
    }
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("contain each other"), "{said:?}");
    assert!(!scene.tree.path("store").exists());
}
