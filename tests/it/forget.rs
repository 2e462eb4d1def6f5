//! Records that nobody wants any more, as of a destination that was mistyped: they say what went
//! wrong, and are forgotten when asked.

use crate::support::program::Said;
use crate::support::scene::{Scene, TO};
use crate::support::wait_for;

fn tells(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    let all = format!("{}{}", said.stdout, said.stderr);
    words.iter().for_each(|word| assert!(all.contains(word), "{word:?} is not in {said:?}"));
}

#[test]
fn a_destination_that_was_mistyped_is_explained_and_forgotten() {
    let scene = Scene::with_files(2);
    let run = |args: &[&str]| scene.user.run(args);
    scene.user.sync(scene.tree.folder.path(), "s3://typo", &[], 4);
    scene.sync(&[], 0);
    let name = scene.name();
    // It alone keeps the check from passing, and says why and what to do.
    let words = ["the last run ended with: ", "NoSuchBucket", "keepwatch forget "];
    tells(&run(&["status", "--check"]), 6, &words);
    tells(&run(&["forget", name]), 2, &["may be any of 2 backups", "s3://typo"]);
    tells(&run(&["forget", "nobody"]), 2, &["there is no backup \"nobody\""]);
    tells(&run(&["forget"]), 2, &[]);
    tells(&run(&["forget", "s3://typo"]), 0, &["forgotten; what is in s3://typo/ stays"]);
    let said = run(&["status", "--check"]);
    tells(&said, 0, &["2 files", TO]);
    assert!(!said.stdout.contains("typo") && !said.stdout.contains("the last run"), "{said:?}");
    // What is forgotten is learnt anew: nothing is sent twice.
    let said = run(&["forget", TO, "--json"]).json();
    assert_eq!(said["backups"][0]["destination"], format!("{TO}/"), "{said}");
    tells(&run(&["status", "--check"]), 6, &["no backup is on record"]);
    scene.is_kept();
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("adopted")), (0, 2), "{said:?}");
}

#[test]
fn what_is_being_kept_is_not_forgotten() {
    let scene = Scene::with_files(2);
    scene.user.sync(scene.tree.folder.path(), "s3://typo", &[], 4);
    let daemon = scene.follow(&[]);
    let run = |args: &[&str]| scene.user.run(args);
    tells(&run(&["forget", TO]), 4, &["is being kept", "hint: take it out of the configuration"]);
    tells(&run(&["forget", "s3://typo", TO]), 4, &["is being kept"]);
    tells(&run(&["forget", "s3://typo"]), 0, &["forgotten"]);
    tells(&run(&["forget", "s3://typo"]), 2, &["there is no backup"]);
    scene.tree.write("new", b"1");
    scene.comes_right(&daemon);
    assert_eq!(daemon.stop(), 0);
    let status = run(&["status", "--json"]).json();
    assert_eq!(status["backups"].as_array().unwrap().len(), 1, "{status}");
}

#[test]
fn what_a_daemon_waited_for_to_its_end_is_told() {
    let scene = Scene::with_files(1);
    let daemon = scene.follow(&[]);
    scene.server.rule(|_| crate::support::server::Fault::Error(400, "ExpiredToken"));
    scene.tree.write("new", b"1");
    wait_for("the wait", || daemon.backup()["waiting_for"].is_string());
    assert_eq!(daemon.stop(), 0);
    let backup = || scene.user.run(&["status", "--json"]).json()["backups"][0].clone();
    assert!(backup()["last_error"].to_string().contains("ExpiredToken"), "{}", backup());
    scene.server.no_rule();
    scene.sync(&[], 0);
    assert!(backup()["last_error"].is_null(), "{}", backup());
}

#[test]
fn why_deletions_were_held_is_known_later_too() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    (0..3).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    scene.sync(&[], 7);
    let why = "every file of the source is gone";
    let words = [why, "0 files (0 B) in the destination, besides 3 missing here"];
    tells(&scene.user.run(&["status"]), 0, &words);
    scene.tree.write("new", b"1");
    scene.sync(&[], 7);
    let words = ["deletions were held before (every file of the source is gone)"];
    tells(&scene.user.run(&["deletions", "list"]), 0, &words);
    tells(&scene.user.run(&["status"]), 0, &["3 deletions held: every file"]);
}
