//! What is of another kind here than in the backup: never replaced unasked, and whoever is refused
//! is told what stands in the way and which option helps.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::program::Said;
use crate::support::scene::{Scene, TO};
use crate::support::tree::Tree;

use super::same::{differences, seen};

/// A backup of a folder with two files, two files, an empty folder, and a file that stays.
fn backup() -> Scene {
    let scene = Scene::new(&[("a/x", b"1"), ("a/y", b"2"), ("b", b"3"), ("c", b"4"), ("e", b"5")]);
    fs::create_dir(scene.tree.path("d")).unwrap();
    scene.sync(&[], 0);
    scene
}

/// A place where all but one of them are of another kind.
fn changed() -> Tree {
    let back = Tree::new(&[("a", b"file"), ("c/one", b"1"), ("c/deep/two", b"2"), ("d", b"file")]);
    fs::create_dir(back.path("b")).unwrap();
    fs::write(back.path("e"), b"5").unwrap();
    back
}

fn restore(scene: &Scene, back: &Tree, more: &[&str], code: i32) -> Said {
    let target = back.folder.path().to_str().unwrap();
    let said = scene.user.run(&[&["restore", TO, target, "--json"], more].concat());
    assert_eq!(said.code, code, "{more:?}: {said:?}");
    said
}

/// Each of these is named as it ought to be.
fn named(said: &Said, how: &str, names: &[(&str, &str)]) {
    for (name, words) in names {
        let start = format!("{how}: {name}: ");
        let line = said.stderr.lines().find(|line| line.contains(&start));
        assert!(line.is_some_and(|line| line.contains(words)), "{name}: {words:?}: {said:?}");
    }
}

#[test]
fn nothing_of_another_kind_is_replaced_unasked() {
    let scene = backup();
    let file = "a file is at a, where the backup has a folder: --overwrite always replaces it";
    let folder = "a folder is here, and the backup has a file: --overwrite always replaces it if";
    let marker = "a file is at d, where the backup has a folder: --overwrite always replaces it";
    let all = [("a/x", file), ("a/y", file), ("b", folder), ("c", folder), ("d/", marker)];
    for more in [&[][..], &["--overwrite", "if-changed"], &["--delete"], &["--dry-run"]] {
        let back = changed();
        let before = seen(back.folder.path());
        let said = restore(&scene, &back, more, 1);
        named(&said, "failed", &all);
        assert_eq!(said.number("failed"), 5, "{said:?}");
        let mut after = seen(back.folder.path());
        after.insert(b"e".to_vec(), before[&b"e"[..]].clone());
        assert!(after == before, "{more:?}");
    }
    let back = changed();
    let said = restore(&scene, &back, &["--overwrite", "never"], 1);
    named(&said, "failed", &[("a/x", file), ("a/y", file), ("d/", marker)]);
    named(&said, "kept", &[("b", "is here already"), ("c", "is here already")]);
}

#[test]
fn what_was_asked_for_is_replaced() {
    let scene = backup();
    let always = ["--overwrite", "always"];
    let back = changed();
    let said = restore(&scene, &back, &always, 1);
    named(&said, "failed", &[("c", "--overwrite always --delete replaces it with all that is in")]);
    assert_eq!((said.number("failed"), said.number("deleted")), (1, 2), "{said:?}");
    let names: Vec<String> = back.expected("").into_keys().collect();
    assert_eq!(names, ["a/x", "a/y", "b", "c/deep/two", "c/one", "d/", "e"]);

    // And the rest of it: first told, then done.
    let all = ["--overwrite", "always", "--delete"];
    for back in [changed(), back] {
        let before = seen(back.folder.path());
        let said = restore(&scene, &back, &[&all[..], &["--dry-run"]].concat(), 0);
        assert!(seen(back.folder.path()) == before, "a dry run writes nothing");
        let planned = |action: &str| {
            let action = format!("\"action\":\"{action}\"");
            said.stdout.lines().filter(|line| line.contains(&action)).count() as u64
        };
        let told = (planned("delete"), planned("fetch") - said.number("retouched"));
        let done = restore(&scene, &back, &all, 0);
        assert_eq!(differences(scene.tree.folder.path(), back.folder.path()), [""; 0]);
        assert_eq!(told.0, done.number("deleted"), "{said:?} {done:?}");
        assert!(told.1 >= done.number("downloaded"), "{said:?} {done:?}");
    }
}

#[test]
fn a_link_in_the_way_goes_and_what_it_leads_to_stays() {
    let scene = backup();
    let (back, outside) = (Tree::new(&[("e", b"5")]), Tree::new(&[("x", b"mine")]));
    let before = seen(outside.folder.path());
    symlink(outside.folder.path(), back.path("a")).unwrap();
    symlink(outside.path("x"), back.path("d")).unwrap();
    let said = restore(&scene, &back, &[], 1);
    named(&said, "failed", &[("a/x", "a link is at a, where the backup has a folder")]);
    restore(&scene, &back, &["--overwrite", "always"], 0);
    assert_eq!(differences(scene.tree.folder.path(), back.folder.path()), [""; 0]);
    assert!(seen(outside.folder.path()) == before, "nothing outside is touched");
}

#[test]
fn the_guard_is_over_folders_that_would_be_replaced() {
    let scene = backup();
    (0..20).for_each(|n| scene.tree.write(format!("more/{n}"), b"0"));
    scene.sync(&[], 0);
    let all = ["--overwrite", "always", "--delete"];
    let back = Tree::new(&[]);
    restore(&scene, &back, &[], 0);
    fs::remove_file(back.path("c")).unwrap();
    (0..101).for_each(|n| back.write(format!("c/{n}"), b"mine"));
    let said = restore(&scene, &back, &all, 7);
    named(&said, "skipped", &[("c", "the folder is deleted first, and nothing was deleted")]);
    assert_eq!((said.number("held"), said.number("deleted")), (101, 0), "{said:?}");
    assert_eq!(fs::read_dir(back.path("c")).unwrap().count(), 101);
    // What the rules leave out is not deleted, and so the folder stays.
    back.remove("c");
    back.write("c/a.tmp", b"mine");
    back.write("c/other", b"mine");
    let said = restore(&scene, &back, &[&all[..], &["--exclude", "*.tmp"]].concat(), 1);
    named(&said, "failed", &[("c", "the rules of the backup leave some of it out")]);
    assert!(back.path("c/a.tmp").exists());
    restore(&scene, &back, &all, 0);
    assert_eq!(differences(scene.tree.folder.path(), back.folder.path()), [""; 0]);
}

#[test]
fn a_folder_in_the_place_of_the_one_file_that_is_asked_for() {
    let scene = backup();
    let back = Tree::new(&[("a", b"file"), ("b/mine", b"1"), ("b/too", b"2")]);
    let only = |path| ["--path", path, "--overwrite", "always", "--delete"];
    let before = seen(back.folder.path());
    let said = restore(&scene, &back, &only("b"), 7);
    let hint = "a folder is at b, where the backup has a file; move the folder away, and restore";
    assert!(said.stderr.contains(hint), "{said:?}");
    assert!(seen(back.folder.path()) == before);
    // It helps.
    fs::rename(back.path("b"), back.path("aside")).unwrap();
    assert_eq!(restore(&scene, &back, &only("b"), 0).number("downloaded"), 1);
    assert_eq!(fs::read(back.path("b")).unwrap(), b"3");
    assert_eq!(fs::read(back.path("aside/mine")).unwrap(), b"1");
    // A folder of the backup that looks like another one is not moved away.
    fs::remove_file(back.path("a")).unwrap();
    back.write("a/mine", b"1");
    let said = restore(&scene, &back, &only("a"), 7);
    assert!(said.stderr.contains("restore without --delete first"), "{said:?}");
}

/// The old object is still there, with a tag that says it was deleted.
#[test]
fn a_kind_that_changed_where_deletions_are_tags() {
    let scene = Scene::new(&[("a", b"file"), ("b/x", b"1"), ("b/y", b"2"), ("c", b"3")]);
    let policy = ["--deletions", "tag"];
    scene.sync(&policy, 0);
    scene.tree.remove("a");
    scene.tree.remove("b");
    scene.tree.write("a/x", b"4");
    scene.tree.write("b", b"file");
    assert_eq!(scene.sync(&policy, 0).number("tagged"), 3);
    let back = Tree::new(&[]);
    let said = restore(&scene, &back, &[], 0);
    assert_eq!(said.number("left_out"), 3, "{said:?}");
    assert_eq!(differences(scene.tree.folder.path(), back.folder.path()), [""; 0]);
}
