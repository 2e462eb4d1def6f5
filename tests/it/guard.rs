//! No delete without proof, and none on doubt: identity, budget, delay, policy, and the holds.

use std::path::PathBuf;
use std::process::Command;

use crate::support::program::{Daemon, User};
use crate::support::scene::Scene;
use crate::support::tree::Tree;
use crate::support::wait_for;

/// A disk that can be pulled out under a daemon: a mount where mounting is permitted, and else a
/// folder that is moved away, which looks the same: an empty folder is where the source was.
enum Disk {
    Mounted { from: PathBuf, to: PathBuf },
    Moved { aside: PathBuf, to: PathBuf },
}

/// Options of `unshare` and of `nsenter` for a mount namespace.
pub fn namespace() -> (&'static [&'static str], &'static [&'static str]) {
    match rustix::process::geteuid().is_root() {
        true => (&["-m"], &["-m"]),
        false => (&["-rm"], &["-U", "-m", "--preserve-credentials"]),
    }
}

impl Disk {
    /// The scene's folder becomes a disk that its user has mounted.
    fn of(scene: Scene, files: &[(&str, &[u8])]) -> (Self, Scene, Tree) {
        let (unshare, _) = namespace();
        let (real, to) = (Tree::new(files), scene.tree.folder.path().to_owned());
        let mut trial = Command::new("unshare");
        trial.args(unshare).args(["mount", "-t", "tmpfs", "trial"]).arg(&to);
        let permitted = trial.output().is_ok_and(|output| output.status.success());
        if !permitted {
            files.iter().for_each(|(name, content)| scene.tree.write(name, content));
            let aside = real.folder.path().join("aside");
            return (Self::Moved { aside, to }, scene, real);
        }
        let from = real.folder.path().to_owned();
        let mount =
            format!("mount --bind '{}' '{}' && exec \"$0\" \"$@\"", from.display(), to.display());
        let words = [&["unshare"], unshare, &["sh", "-c", &mount]].concat();
        let scene = scene.by(|user| user.wrapped(&words));
        (Self::Mounted { from, to }, scene, real)
    }

    fn enter(daemon: &Daemon<'_>, words: &[&std::ffi::OsStr]) -> bool {
        let (_, nsenter) = namespace();
        let mut command = Command::new("nsenter");
        command.args(nsenter).args(["-t", &daemon.pid().to_string()]).args(words);
        command.output().unwrap().status.success()
    }

    fn unplug(&self, daemon: &Daemon<'_>) {
        match self {
            // A mount is busy while the daemon has a file of it open.
            Self::Mounted { to, .. } => wait_for("umount to succeed", || {
                Self::enter(daemon, &["umount".as_ref(), to.as_os_str()])
            }),
            Self::Moved { aside, to } => {
                std::fs::rename(to, aside).unwrap();
                std::fs::create_dir(to).unwrap();
            }
        }
    }

    fn plug(&self, daemon: &Daemon<'_>) {
        match self {
            Self::Mounted { from, to } => {
                let words = ["mount".as_ref(), "--bind".as_ref(), from.as_os_str(), to.as_os_str()];
                assert!(Self::enter(daemon, &words));
            }
            Self::Moved { aside, to } => {
                std::fs::remove_dir_all(to).unwrap();
                std::fs::rename(aside, to).unwrap();
            }
        }
    }
}

#[test]
fn an_unmounted_source_loses_nothing() {
    let files: [(&str, &[u8]); 3] = [("a", b"1"), ("b/c", b"2"), ("b/d", b"3")];
    let (disk, scene, _real) = Disk::of(Scene::new(&[]), &files);
    let quick = ["--settle", "50ms", "--delete-delay", "0s", "--rescan", "1s"];
    let daemon = scene.watch(&quick);
    wait_for("the first pass", || scene.bucket.objects().len() == 3);
    let before = scene.bucket.objects();

    disk.unplug(&daemon);
    wait_for("deletions to be held", || daemon.backup()["held"] == 3);
    let reasons = daemon.backup()["held_reasons"].to_string();
    assert!(reasons.contains("is a disk not mounted?"), "{reasons}");
    // Changes go on being kept, here in the folder under the mount.
    scene.tree.write("new", b"4");
    wait_for("the new file", || scene.has("new"));
    assert_eq!(scene.bucket.objects().len(), 4);
    let said = scene.user.run(&["deletions", "approve", "--all"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("mount the right disk"), "{said:?}");

    scene.tree.remove("new");
    disk.plug(&daemon);
    wait_for("the hold to end by itself", || daemon.backup()["held"] == 0);
    wait_for("what never was on the disk to go", || !scene.has("new"));
    assert_eq!(scene.bucket.objects(), before);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_emptied_source_is_held_until_approved() {
    let scene = Scene::with_files(5);
    scene.sync(&[], 0);
    scene.tree.remove("f");
    let said = scene.sync(&["--max-delete", "off"], 7);
    assert_eq!((said.number("held"), said.number("deleted")), (5, 0));
    assert_eq!(said.json()["result"], "held");
    assert!(said.stderr.contains("deletions are held (5 files): every file of the source is gone"));
    assert_eq!(scene.bucket.objects().len(), 5);

    let list = scene.user.run(&["deletions", "list", "--json"]);
    let backup = &list.json()["backups"][0];
    assert_eq!((&backup["waiting"], &backup["approved"]), (&5.into(), &0.into()), "{list:?}");
    assert_eq!(backup["paths"].as_array().unwrap().len(), 5);
    let list = scene.user.run(&["deletions", "list"]);
    assert!(list.stdout.contains("held: every file of the source is gone"), "{list:?}");
    assert!(list.stdout.contains("missing    f/3"), "{list:?}");

    let said = scene.user.run(&["deletions", "approve", scene.name()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.stdout, format!("{}: 5 deletions approved\n", scene.name()));
    assert_eq!(scene.sync(&[], 0).number("deleted"), 5);
    scene.is_settled(0);
}

#[test]
fn a_new_file_does_not_end_a_hold() {
    let scene = Scene::new(&[("a", b"1"), ("b", b"2")]);
    scene.sync(&[], 0);
    scene.tree.remove("a");
    scene.tree.remove("b");
    scene.sync(&[], 7);
    scene.tree.write("c", b"3");
    let said = scene.sync(&[], 7);
    assert_eq!((said.number("uploaded"), said.number("deleted"), said.number("held")), (1, 0, 2));
    scene.tree.write("a", b"1");
    scene.tree.write("b", b"2");
    scene.sync(&[], 0);
    scene.tree.remove("c");
    assert_eq!(scene.sync(&[], 0).number("deleted"), 1, "all came back: the hold is over");
}

#[test]
fn a_source_that_comes_back_ends_its_hold() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    let aside = Tree::new(&[]);
    std::fs::rename(scene.tree.path("f"), aside.path("f")).unwrap();
    scene.sync(&[], 7);
    std::fs::rename(aside.path("f"), scene.tree.path("f")).unwrap();
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("held"), said.number("uploaded")), (0, 0));
    scene.is_settled(0);
    // A source of one file may become empty.
    let scene = Scene::with_files(1);
    scene.sync(&[], 0);
    scene.tree.remove("f");
    assert_eq!(scene.sync(&[], 0).number("deleted"), 1);
}

#[test]
fn another_folder_in_its_place_is_held() {
    let scene = Scene::new(&[("a", b"1"), ("b", b"2"), ("same", b"3")]);
    scene.sync(&[], 0);
    let aside = Tree::new(&[]);
    let source = scene.tree.folder.path();
    std::fs::rename(source, aside.path("aside")).unwrap();
    std::fs::create_dir(source).unwrap();
    scene.tree.write("same", b"3");
    scene.tree.write("other", b"4");
    let said = scene.sync(&["--max-delete", "off"], 7);
    assert_eq!((said.number("uploaded"), said.number("held")), (1, 2), "{said:?}");
    assert!(said.stderr.contains("another folder or file system is where the source was"));
    assert_eq!(scene.bucket.objects().len(), 4);

    let refused = scene.user.run(&["deletions", "approve", scene.name()]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("or accept this folder with --new-root"), "{refused:?}");
    scene.sync(&[], 7);
    let said = scene.user.run(&["deletions", "approve", scene.name(), "--new-root"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("the new source is accepted"), "{said:?}");
    assert_eq!(scene.sync(&[], 0).number("deleted"), 2);
    scene.is_settled(0);

    // A source that is not there at all is an error, and nothing is touched.
    std::fs::rename(source, aside.path("again")).unwrap();
    let said = scene.sync(&[], 4);
    assert!(said.stderr.contains(&format!("the source {} cannot be used", scene.source())));
    assert!(said.stderr.contains("whether its disk is mounted"), "{said:?}");
    assert_eq!((scene.bucket.objects().len(), scene.server.count("DeleteObject")), (2, 0));
    std::fs::rename(aside.path("again"), source).unwrap();
}

#[test]
fn an_unreadable_folder_freezes_what_is_below() {
    let files: [(&str, &[u8]); 4] = [("d/a", b"1"), ("d/e/b", b"2"), ("d/c", b"3"), ("x", b"4")];
    let scene = Scene::new(&files).by(User::bound_by_modes);
    scene.sync(&[], 0);
    // Really gone, but nobody can tell.
    scene.tree.remove("d/a");
    scene.tree.remove("d/e");
    scene.tree.remove("x");
    scene.tree.chmod("d", 0);
    let said = scene.sync(&[], 3);
    assert_eq!((said.number("deleted"), said.number("skipped")), (1, 1), "{said:?}");
    assert!(scene.has("d/a") && scene.has("d/e/b") && scene.has("d/c") && !scene.has("x"));
    // What was found missing before is not deleted as long as it cannot be looked at.
    scene.tree.chmod("d", 0o755);
    scene.sync(&["--delete-delay", "1h"], 0);
    scene.tree.chmod("d", 0);
    assert_eq!(scene.sync(&[], 3).number("deleted"), 0);
    scene.tree.chmod("d", 0o755);
    assert_eq!(scene.sync(&[], 0).number("deleted"), 2);
    scene.is_settled(0);
    // The source itself, unreadable.
    std::fs::set_permissions(scene.source(), std::os::unix::fs::PermissionsExt::from_mode(0o0))
        .unwrap();
    let said = scene.sync(&[], 4);
    assert!(said.stderr.contains("caused by: Permission denied"), "{said:?}");
    assert!(scene.has("d/c"));
}

#[test]
fn what_the_rules_leave_out_is_kept_when_it_goes() {
    let names = ["a.tmp", "b.tmp", "c", "d/e.tmp", "d/f", "gone/g"];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b"1"[..])).collect();
    let scene = Scene::new(&files);
    scene.sync(&[], 0);
    scene.tree.write(".keepwatchignore", b"a.tmp\n/gone/\n");
    for name in ["a.tmp", "b.tmp", "d/e.tmp", "gone"] {
        scene.tree.remove(name);
    }
    let said = scene.sync(&["--exclude", "e.tmp"], 0);
    assert_eq!((said.number("deleted"), said.number("unclaimed")), (1, 3), "{said:?}");
    assert!(scene.has("a.tmp") && scene.has("d/e.tmp") && scene.has("gone/g"));
    assert!(!scene.has("b.tmp"));
    // So it is for a daemon, in which the rule comes before the file goes, or during the delay.
    let daemon = scene.follow(&["--exclude", "e.tmp", "--delete-delay", "1s"]);
    scene.tree.write("d/.keepwatchignore", b"f\n");
    scene.tree.remove("d/f");
    scene.tree.remove("c");
    wait_for("the deletion of the other", || !scene.has("c"));
    daemon.flush();
    assert!(scene.has("d/f"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_include_does_not_let_in_is_kept() {
    let scene = Scene::new(&[("private/secret", b"1"), ("x", b"2")]);
    scene.tree.chmod("private", 0o700);
    std::fs::create_dir(scene.tree.path("empty")).unwrap();
    scene.sync(&[], 0);
    let said = scene.sync(&["--include", "/x"], 0);
    assert_eq!((said.number("deleted"), said.number("requests.delete")), (0, 0), "{said:?}");
    let daemon = scene.follow(&["--include", "/x"]);
    scene.tree.chmod("private", 0o711);
    scene.tree.remove("empty");
    daemon.flush();
    assert_eq!(daemon.stop(), 0);
    assert!(scene.has("private/") && scene.has("private/secret") && scene.has("empty/"));
}

#[test]
fn a_dry_run_knows_the_guard() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    (0..3).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    let said = scene.sync(&["--dry-run"], 7);
    assert_eq!((said.number("held"), said.number("deleted")), (3, 0), "{said:?}");
    assert!(said.stderr.contains("would be held: every file of the source is gone"), "{said:?}");
    let said = scene.sync(&[], 7);
    assert_eq!((said.number("held"), said.number("deleted")), (3, 0), "{said:?}");
    let said = scene.sync(&["--dry-run"], 7);
    assert_eq!((said.number("held"), said.number("deleted")), (3, 0), "{said:?}");
}

#[test]
fn orders_have_no_dry_run() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    (0..3).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    scene.sync(&[], 7);
    let orders = ["deletions approve", "deletions discard", "pause", "resume", "forget"];
    for order in orders {
        let all = if order == "forget" { scene.name() } else { "--all" };
        let words: Vec<&str> = order.split(' ').chain([all, "--dry-run"]).collect();
        let said = scene.user.run(&words);
        assert_eq!(said.code, 2, "{order}: {said:?}");
        assert!(said.stderr.contains("no dry run") && said.stderr.contains("hint: "), "{said:?}");
    }
    assert_eq!(scene.sync(&[], 7).number("held"), 3, "nothing was approved, or anything else");
    assert!((0..3).all(|n| scene.has(&format!("f/{n}"))));
    assert_eq!(scene.user.run(&["deletions", "list", "--dry-run"]).code, 0);
}

#[test]
fn what_changes_its_kind_is_uploaded_before_it_is_deleted() {
    let scene = Scene::new(&[("file", b"1"), ("folder/a", b"2"), ("folder/b/c", b"3")]);
    scene.sync(&[], 0);
    scene.tree.remove("file");
    scene.tree.remove("folder");
    scene.tree.write("file/inside", b"4");
    scene.tree.write("folder", b"5");
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("deleted")), (2, 3), "{said:?}");
    let log = scene.server.log();
    let is = |name: &'static str| {
        move |access: &keepwatch::store::Access| access.operation.starts_with(name)
    };
    let (put, delete) = (log.iter().rposition(is("PutObject")), log.iter().position(is("Delete")));
    assert!(put.is_some() && put < delete, "{log:?}");
    scene.is_settled(0);
}

#[test]
fn more_deletions_than_max_delete_are_held_while_uploads_go_on() {
    let scene = Scene::with_files(150);
    scene.sync(&[], 0);
    (0..101).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    scene.tree.write("new", b"new");
    scene.tree.write("f/149", b"changed");
    let said = scene.sync(&[], 7);
    assert_eq!((said.number("uploaded"), said.number("held")), (2, 101), "{said:?}");
    assert_eq!(said.number("deleted"), 0);
    let told = "more deletions within 24 hours than max_delete allows (100 files)";
    assert!(said.stderr.contains(told), "{said:?}");
    assert_eq!(scene.bucket.objects().len(), 151);
    // One that comes back would make the rest fit; but they wait for a person.
    scene.tree.write("f/7", b"7");
    assert_eq!(scene.sync(&[], 7).number("held"), 100);
    assert_eq!(scene.user.run(&["deletions", "approve", scene.name()]).code, 0);
    assert_eq!(scene.sync(&[], 0).number("deleted"), 100);
    scene.is_settled(0);
}

#[test]
fn the_budget_of_a_day_is_spent_once() {
    let scene = Scene::with_files(150);
    scene.sync(&[], 0);
    (0..100).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    assert_eq!(scene.sync(&[], 0).number("deleted"), 100);
    scene.tree.remove("f/120");
    assert_eq!(scene.sync(&["--max-delete", "101"], 0).number("deleted"), 1);
    scene.tree.remove("f/121");
    assert_eq!(scene.sync(&["--max-delete", "101"], 7).number("held"), 1);
    assert_eq!(scene.user.run(&["deletions", "approve", scene.name()]).code, 0);
    assert_eq!(scene.sync(&["--max-delete", "101"], 0).number("deleted"), 1);
    scene.is_settled(0);
}

#[test]
fn approved_deletions_do_not_count() {
    let scene = Scene::with_files(12);
    let few = ["--max-delete", "2"];
    scene.sync(&few, 0);
    (0..5).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    assert_eq!(scene.sync(&few, 7).number("held"), 5);
    assert_eq!(scene.user.run(&["deletions", "approve", scene.name()]).code, 0);
    // What goes missing after the approval is not approved.
    (5..8).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    let said = scene.sync(&few, 7);
    assert_eq!((said.number("deleted"), said.number("held")), (5, 3), "{said:?}");
    assert_eq!(scene.user.run(&["deletions", "approve", scene.name()]).code, 0);
    (8..10).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    let said = scene.sync(&few, 0);
    assert_eq!((said.number("deleted"), said.number("held")), (5, 0), "{said:?}");
    scene.is_kept();
}

#[test]
fn discarded_deletions_leave_unclaimed_objects() {
    let scene = Scene::with_files(12);
    let few = ["--max-delete", "2"];
    scene.sync(&few, 0);
    (0..5).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    scene.sync(&few, 7);
    let said = scene.user.run(&["deletions", "discard", scene.name()]);
    let expected = format!("{}: 5 deletions discarded: the objects stay\n", scene.name());
    assert_eq!((said.code, &said.stdout), (0, &expected), "{said:?}");
    let said = scene.sync(&few, 0);
    assert_eq!((said.number("held"), said.number("unclaimed")), (0, 5), "{said:?}");
    assert_eq!(scene.bucket.objects().len(), 12);
    let list = scene.user.run(&["deletions", "list"]);
    assert!(list.stdout.contains("unclaimed  f/3"), "{list:?}");
    // A file that comes back claims its object again; then it can be deleted.
    scene.tree.write("f/3", b"3");
    assert_eq!(scene.sync(&few, 0).number("unclaimed"), 4);
    scene.tree.remove("f/3");
    let said = scene.sync(&few, 0);
    assert_eq!((said.number("deleted"), said.number("unclaimed")), (1, 4), "{said:?}");
}

#[test]
fn a_running_daemon_holds_and_is_told() {
    let scene = Scene::with_files(4);
    scene.tree.write("other", b"stays");
    let options = ["--settle", "50ms", "--delete-delay", "0s", "--max-delete", "2"];
    let daemon = scene.watch(&options);
    wait_for("the first pass", || scene.differences().is_empty());
    // All at once: what is seen to go two by two is deleted two by two.
    let aside = Tree::new(&[]);
    std::fs::rename(scene.tree.path("f"), aside.path("f")).unwrap();
    wait_for("the hold", || daemon.backup()["held"] == 4);
    assert_eq!(daemon.backup()["condition"], "held");
    let status = scene.user.run(&["status"]).stdout;
    assert!(status.contains("4 deletions held: more deletions within 24 hours"), "{status}");
    scene.tree.write("new", b"new");
    wait_for("the new file", || scene.has("new"));
    let list = scene.user.run(&["deletions", "list"]);
    assert!(list.stdout.contains("4 deletions waiting, 0 approved"), "{list:?}");
    let said = scene.user.run(&["deletions", "approve", scene.name()]);
    assert_eq!(said.stdout, format!("{}: 4 deletions approved\n", scene.name()));
    wait_for("the deletions", || scene.differences().is_empty());
    wait_for("the hold to end", || daemon.backup()["held"] == 0);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn deletions_wait_for_their_delay() {
    let scene = Scene::with_files(4);
    scene.sync(&[], 0);
    scene.tree.remove("f/0");
    let said = scene.sync(&["--delete-delay", "1h"], 0);
    assert_eq!((said.number("deleted"), said.number("held")), (0, 0));
    let list = scene.user.run(&["deletions", "list"]);
    assert!(list.stdout.contains("1 deletion waiting"), "{list:?}");
    // Back in time: nothing is sent, and the clock starts anew.
    scene.tree.write("f/0", b"0");
    assert_eq!(scene.sync(&["--delete-delay", "1h"], 0).number("uploaded"), 0);
    assert!(scene.user.run(&["deletions", "list"]).stdout.contains("0 deletions waiting"));
    scene.tree.remove("f/0");
    // A one-shot run with its own default does not wait.
    assert_eq!(scene.sync(&[], 0).number("deleted"), 1);

    let daemon = scene.watch(&["--settle", "50ms", "--delete-delay", "3s"]);
    wait_for("the first pass", || daemon.backup()["last_pass_ms"].is_number());
    scene.server.clear_log();
    scene.tree.remove("f/1");
    scene.tree.remove("f/2");
    wait_for("both to be missed", || daemon.backup()["missing"] == 2);
    assert!(scene.has("f/1") && scene.has("f/2"));
    scene.tree.write("f/2", b"2");
    wait_for("the one that stays away to be deleted", || !scene.has("f/1"));
    wait_for("nothing more to do", || daemon.backup()["missing"] == 0);
    let deleted = scene.server.log().into_iter().filter(|a| a.operation.starts_with("Delete"));
    assert_eq!(deleted.count(), 1);
    scene.is_kept();
}
