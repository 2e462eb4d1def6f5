//! Stores in folders, on disks that are changed for others, by hand, or that are read-only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
