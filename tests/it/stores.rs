//! Stores in folders, on disks that are changed for others, by hand, or that are read-only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::mounts::behind;
use crate::support::program::User;
use crate::support::tree::Tree;
use crate::support::wait_for;

/// Every file below a folder, with what is in it.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = std::fs::read(&path).unwrap();
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), content);
            }
        }
    }
    found
}

#[test]
fn another_stores_disk_in_the_place_of_one_gets_nothing() {
    let (user, disks) = (User::new(), tempfile::tempdir().unwrap());
    let at = |name: &str| disks.path().join(name);
    let to = |name: &str| format!("file://{}", at(name).display());
    let other = Tree::new(&[("f", b"of the other")]);
    user.sync(other.folder.path(), &to("other"), &["--create-bucket"], 0);
    let before = contents(&at("other"));

    let tree = Tree::new(&[("f", b"first")]);
    let source = tree.folder.path().to_str().unwrap();
    let daemon = user.watch(&[source, &to("usb"), "--create-bucket", "--settle", "50ms"]);
    daemon.flush();
    std::fs::rename(at("usb"), at("aside")).unwrap();
    std::fs::rename(at("other"), at("usb")).unwrap();
    tree.write("f", b"second");
    wait_for("the daemon to see it", || daemon.log().contains("(put the disk back"));
    let log = daemon.log();
    let why = format!("the store that was in {} is away", at("usb").display());
    assert!(log.contains(&why) && log.contains("another folder is there now"), "{log}");
    assert_eq!(contents(&at("usb")), before);

    std::fs::rename(at("usb"), at("other")).unwrap();
    std::fs::rename(at("aside"), at("usb")).unwrap();
    wait_for("the daemon to go on", || {
        std::fs::read(at("usb/keepwatch/f")).is_ok_and(|content| content == b"second")
    });
    assert_eq!(daemon.stop(), 0);
    assert_eq!(contents(&at("other")), before);
}

/// A user, a folder, and a store that it was synced to once.
fn stored(files: &[(&str, &[u8])]) -> (User, Tree, String) {
    let (user, tree) = (User::new(), Tree::new(files));
    let store = format!("file://{}", user.home.path().join("store").display());
    user.sync(tree.folder.path(), &store, &["--create-bucket"], 0);
    (user, tree, store)
}

const FILES: [(&str, &[u8]); 4] = [("a", b"1"), ("b/c", b"22"), ("d", b"333"), ("e", b"4444")];

#[test]
fn a_verifying_pass_mends_what_was_removed_or_changed_by_hand() {
    let (user, tree, store) = stored(&FILES);
    let at = |name: &str| user.home.path().join("store/keepwatch").join(name);
    let is_right =
        || FILES.iter().all(|(name, content)| std::fs::read(at(name)).unwrap() == *content);
    let verify = || user.sync(tree.folder.path(), &store, &["--verify-every", "0s"], 0);
    assert_eq!(verify().number("unchanged"), 4);
    std::fs::remove_file(at("a")).unwrap();
    std::fs::write(at("b/c"), "xx").unwrap();
    std::fs::write(at("d"), "longer").unwrap();
    let said = verify();
    assert_eq!((said.number("uploaded"), said.number("unchanged")), (3, 1), "{said:?}");
    assert!(is_right());
    std::fs::remove_dir_all(at("")).unwrap();
    let said = verify();
    assert_eq!((said.number("uploaded"), said.number("unchanged")), (4, 0), "{said:?}");
    assert!(is_right());
    assert_eq!(verify().number("unchanged"), 4);
}

#[test]
fn a_mirror_names_what_is_damaged_in_its_source_and_keeps_the_copy() {
    let (user, _tree, store) = stored(&FILES);
    let copy = format!("file://{}", user.home.path().join("copy").display());
    let mirror = || user.run(&["mirror", &store, &copy, "--json", "--create-bucket"]);
    assert_eq!(mirror().number("copied"), 4);
    let at = |name: &str| user.home.path().join(name);
    std::fs::remove_file(at("store/keepwatch/a")).unwrap();
    std::fs::write(at("store/keepwatch/d"), "xxx").unwrap();
    let said = mirror();
    assert_eq!((said.code, said.number("failed")), (1, 2), "{said:?}");
    assert!(said.stderr.contains("the body of keepwatch/a is missing"), "{said:?}");
    assert_eq!(std::fs::read(at("copy/keepwatch/a")).unwrap(), b"1");
    assert_eq!(std::fs::read(at("copy/keepwatch/d")).unwrap(), b"333");
}

/// Restores, lists and verifies a store that may not be written to, and tries to.
fn is_readable(user: &User, source: &Path, store: &str) {
    let said = user.run(&["ls", store]);
    assert!(said.code == 0 && said.stdout.contains("b/c"), "{said:?}");
    let target = Tree::new(&[]);
    let said = user.run(&["restore", store, target.folder.path().to_str().unwrap(), "--json"]);
    assert_eq!((said.code, said.number("downloaded")), (0, 4), "{said:?}");
    for (name, content) in FILES {
        assert_eq!(std::fs::read(target.path(name)).unwrap(), content);
    }
    let copy = format!("file://{}", user.home.path().join("copy").display());
    let said = user.run(&["mirror", store, &copy, "--create-bucket"]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = user.run(&["verify", store, &copy, "--json"]);
    assert_eq!((said.code, said.number("verified")), (0, 4), "{said:?}");
    std::fs::write(source.join("new"), "not to be stored").unwrap();
    let said = user.run(&["sync", source.to_str().unwrap(), store]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("can be read only"), "{said:?}");
    assert!(said.stderr.contains("mount its disk writable"), "{said:?}");
}

#[test]
fn a_store_on_a_read_only_disk_can_be_restored_from() {
    let test = "stores::a_store_on_a_read_only_disk_can_be_restored_from";
    let mount = "mkdir real view; mount --bind real view; mount -o remount,ro,bind view";
    let Some(folder) = behind(test, mount) else { return };
    let (user, tree) = (User::new(), Tree::new(&FILES));
    let to = |name: &str| format!("file://{}", folder.join(name).display());
    user.sync(tree.folder.path(), &to("real/store"), &["--create-bucket"], 0);
    is_readable(&user, tree.folder.path(), &to("view/store"));
}

#[test]
fn a_store_can_be_restored_from_without_the_right_to_write() {
    let (user, tree) = (User::new(), Tree::new(&FILES));
    let folder = user.home.path().join("store");
    let store = format!("file://{}", folder.display());
    let source = tree.folder.path().to_str().unwrap();
    let daemon = user.watch(&[source, &store, "--create-bucket"]);
    daemon.flush();
    // Its last writes are in the log only.
    daemon.kill();
    let inner = folder.join(".keepwatch-store");
    let is_logged = || std::fs::metadata(inner.join("index.db-wal")).is_ok_and(|log| log.len() > 0);
    assert!(is_logged());
    let set_mode = |mode: &str| {
        let status = Command::new("chmod").args(["-R", mode]).arg(&folder).status();
        assert!(status.unwrap().success());
    };
    let user = user.bound_by_modes();
    for with_memory in [true, false] {
        set_mode("u+w");
        if !with_memory {
            std::fs::remove_file(inner.join("index.db-shm")).unwrap();
        }
        set_mode("a-w");
        let before = contents(&folder);
        is_readable(&user, tree.folder.path(), &store);
        assert_eq!(contents(&folder), before);
    }
    assert!(is_logged());
    set_mode("u+w");
    assert_eq!(user.sync(tree.folder.path(), &store, &[], 0).number("uploaded"), 1);
}
