//! What can be chosen, what is refused, and what waits for a person.

use std::time::Duration;

use super::{Pair, rich};
use crate::support::bucket::Bucket;
use crate::support::external::garage;
use crate::support::program::User;
use crate::support::server::Embedded;

fn says(stderr: &str, words: &[&str]) {
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in:\n{stderr}");
    }
}

fn filled(count: usize) -> (Embedded, Pair) {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    (0..count).for_each(|n| pair.source.put(&format!("k/{n}"), format!("{n}").as_bytes()));
    (server, pair)
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let (server, pair) = filled(3);
    pair.mirror(&[], 0);
    pair.source.put("k/0", b"another size");
    pair.source.delete("k/1");
    pair.source.put("new", b"n");
    server.clear_log();
    let said = pair.mirror(&["--dry-run"], 0);
    let lines: Vec<serde_json::Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(&str, &str)> = lines
        .iter()
        .filter_map(|line| Some((line["action"].as_str()?, line["path"].as_str()?)))
        .collect();
    assert_eq!(told, [("copy", "k/0"), ("copy", "new"), ("tag", "k/1")]);
    assert_eq!((said.number("copied"), said.number("tagged")), (2, 1));
    for access in server.log() {
        let reads = ["ListObjectsV2", "GetObject", "GetObjectTagging"];
        assert!(reads.contains(&access.operation.as_str()), "{access:?}");
    }
    let said = pair.mirror(&[], 0);
    assert_eq!((said.number("copied"), said.number("tagged")), (2, 1));
}

#[test]
fn only_what_was_modified_lately() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let hours = |n: u64| Duration::from_secs(n * 3_600);
    server.put_ago(hours(3));
    (0..4).for_each(|n| pair.source.put(&format!("k/{n}"), b"1"));
    let said = pair.mirror(&["--modified-within", "24h"], 0);
    assert_eq!(said.number("copied"), 4);
    (0..4).for_each(|n| pair.copies.delete(&format!("k/{n}")));
    server.put_ago(hours(1));
    pair.source.put("late", b"1");
    server.put_ago(hours(0));
    let said = pair.mirror(&["--modified-within", "2h"], 0);
    assert_eq!((said.number("copied"), said.number("tagged")), (1, 0), "{said:?}");
    assert_eq!(pair.copies.listed().len(), 1, "what is older is there, and only left alone");
    assert_eq!(pair.mirror(&[], 0).number("copied"), 4);
}

#[test]
fn rules_leave_out_and_nothing_is_marked_because_of_them() {
    let (_server, pair) = filled(2);
    pair.source.put("a.tmp", b"1");
    pair.source.put("keep/a.txt", b"1");
    let said = pair.mirror(&["--exclude", "*.tmp", "--include", "keep/", "--include", "k/"], 0);
    assert_eq!(said.number("copied"), 3, "{said:?}");
    assert!(!pair.copies.listed().contains_key("a.tmp"));
    let said = pair.mirror(&["--exclude", "keep/"], 0);
    assert_eq!((said.number("copied"), said.number("tagged")), (1, 0), "{said:?}");
    assert!(pair.tags("keep/a.txt").is_empty());
    assert_eq!(said.number("unclaimed"), 1, "what the rules leave out now is nobody's");
}

#[test]
fn deletions_delete_or_keep() {
    let (_server, pair) = filled(6);
    pair.copies.put("strange", b"not of the source");
    let said = pair.mirror(&["--deletions", "delete"], 0);
    assert_eq!((said.number("copied"), said.number("unclaimed")), (6, 1), "{said:?}");
    pair.source.delete("k/0");
    let said = pair.mirror(&["--deletions", "keep"], 0);
    assert_eq!((said.number("deleted"), said.number("tagged")), (0, 0));
    assert!(pair.copies.listed().contains_key("k/0"));
    let said = pair.mirror(&["--deletions", "delete"], 0);
    assert_eq!(said.number("deleted"), 1, "{said:?}");
    let left = pair.copies.listed();
    assert!(!left.contains_key("k/0") && left.contains_key("strange"), "{left:?}");
}

#[test]
fn an_emptied_source_and_too_many_deletions_wait_for_a_person() {
    let (_server, pair) = filled(8);
    pair.mirror(&[], 0);
    (0..8).for_each(|n| pair.source.delete(&format!("k/{n}")));
    let said = pair.mirror(&["--dry-run"], 7);
    assert_eq!(said.number("held"), 8, "{said:?}");
    let said = pair.mirror(&[], 7);
    assert_eq!((said.number("held"), said.number("tagged")), (8, 0), "{said:?}");
    says(&said.stderr, &["8 deletions held: every file of the source is gone"]);
    pair.source.put("k/0", b"0");
    // What was held stays held, although the source is not empty any more.
    assert_eq!(pair.mirror(&[], 7).number("held"), 7);
    let listed = pair.user.run(&["deletions", "list", "--json"]);
    says(&listed.stdout, &["\"waiting\":7", "k/3"]);
    let approved = pair.user.run(&["deletions", "approve", "--all"]);
    assert_eq!(approved.code, 0, "{approved:?}");
    let said = pair.mirror(&[], 0);
    assert_eq!(said.number("tagged"), 7, "{said:?}");

    (0..9).for_each(|n| pair.source.put(&format!("m/{n}"), b"1"));
    pair.mirror(&[], 0);
    (0..5).for_each(|n| pair.source.delete(&format!("m/{n}")));
    let said = pair.mirror(&["--max-delete", "3"], 7);
    assert_eq!(said.number("held"), 5);
    let said = pair.mirror(&["--max-delete", "off"], 7);
    assert_eq!(said.number("tagged"), 0, "held before: {said:?}");
}

#[test]
fn places_that_feed_on_each_other_are_refused() {
    let server = Embedded::start();
    let user = User::of(&server.reach);
    for (source, destination, word) in [
        ("s3://a-bucket", "s3://a-bucket", "the source itself"),
        ("s3://a-bucket", "s3://a-bucket/copies", "lies inside the source"),
        ("s3://a-bucket/x/y", "a-bucket::x", "lies inside the destination"),
        ("s3://a-bucket", "default", "by their names"),
        ("/folder", "s3://a-bucket", "is not a destination"),
    ] {
        let said = user.run(&["mirror", source, destination]);
        assert_eq!(said.code, 2, "{said:?}");
        says(&said.stderr, &[word]);
    }
    // The same server by another name, and by the environment.
    let named = server.reach.endpoint.replace("127.0.0.1", "localhost");
    for url in [&named, &server.reach.endpoint] {
        let places = ["mirror", "s3://a-bucket", "s3://a-bucket/copies", "--source-endpoint-url"];
        let said = user.run(&[&places[..], &[url]].concat());
        assert_eq!(said.code, 4, "{said:?}");
        says(&said.stderr, &["contain each other, on one server"]);
    }
    assert!(server.log().is_empty(), "nothing was asked");
}

#[test]
fn two_prefixes_of_one_bucket_and_a_bucket_that_is_made() {
    let (server, pair) = filled(3);
    let said = pair.user.run(&["mirror", "s3://source/k", "s3://source/copies", "--json"]);
    assert_eq!((said.code, said.number("copied")), (0, 3), "{said:?}");
    let said = pair.user.run(&["mirror", "s3://source/k", "s3://made/x", "--json"]);
    assert_eq!(said.code, 4, "{said:?}");
    says(&said.stderr, &["--create-bucket"]);
    let args = ["mirror", "s3://source/k", "s3://made/x", "--json", "--create-bucket"];
    let said = pair.user.run(&[&args[..], &["--dry-run"]].concat());
    assert_eq!((said.code, said.number("copied")), (0, 3), "{said:?}");
    let said = pair.user.run(&args);
    assert_eq!((said.code, said.number("copied")), (0, 3), "{said:?}");
    let made = Bucket::open(&server.reach, "made");
    assert_eq!(made.keys(), ["x/.keepwatch/owner.json", "x/0", "x/1", "x/2"]);
    let said = pair.user.run(&["mirror", "s3://nowhere", "s3://made/y", "--create-bucket"]);
    assert_eq!(said.code, 4, "a source is never made: {said:?}");
}

#[test]
fn a_destination_has_one_owner() {
    let (server, pair) = filled(2);
    pair.mirror(&[], 0);
    let other = User::of(&server.reach);
    let args = ["mirror", "s3://source/k", "s3://copies", "--json"];
    let said = other.run(&args);
    assert_eq!(said.code, 4, "{said:?}");
    says(&said.stderr, &["belongs to", "s3://source/", "--take-over"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), b"1").unwrap();
    let said = other.run(&["sync", folder.path().to_str().unwrap(), "s3://copies"]);
    assert_eq!(said.code, 4, "a backup does not write there either: {said:?}");
    let said = other.run(&[&args[..], &["--take-over"]].concat());
    assert_eq!(said.code, 0, "{said:?}");
    let said = pair.user.run(&["mirror", "s3://source", "s3://copies"]);
    assert_eq!(said.code, 4, "the first one hears of it: {said:?}");
}

#[test]
fn tags_that_do_not_fit_are_told_by_key() {
    let (_server, pair) = filled(1);
    let nine: Vec<String> = (0..9).map(|n| format!("t{n}=v")).collect();
    let put = rich(&pair.source, "full", b"1").tagging(nine.join("&"));
    pair.source.run(put.send()).unwrap();
    pair.mirror(&[], 0);
    pair.source.delete("full");
    pair.source.delete("k/0");
    pair.source.put("rest", b"1");
    let said = pair.mirror(&[], 1);
    assert_eq!((said.number("tagged"), said.number("failed")), (1, 1), "{said:?}");
    says(&said.stderr, &["failed: full: ", "it has 9 tags of its own"]);
    assert_eq!(pair.tags("full").len(), 9);
}

#[test]
fn a_server_without_tags_says_so_before_anything_is_done() {
    let server = garage();
    let pair = Pair::new(&server.reach);
    pair.source.put("a", b"1");
    let said = pair.user.run(&["mirror", "s3://source", "s3://copies", "--json"]);
    assert_eq!(said.code, 4, "{said:?}");
    says(&said.stderr, &["has no object tags", "--deletions keep", "--deletions delete"]);
    assert_eq!(pair.copies.keys(), [""; 0], "not even an owner record");
    let said = pair.mirror(&["--deletions", "keep"], 0);
    assert_eq!(said.number("copied"), 1, "{said:?}");
    pair.source.delete("a");
    pair.source.put("b", b"2");
    let said = pair.mirror(&["--deletions", "delete"], 0);
    assert_eq!((said.number("copied"), said.number("deleted")), (1, 1), "{said:?}");
    assert_eq!(pair.copies.listed().into_keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn the_number_of_requests_at_a_time() {
    let (_server, pair) = filled(2);
    let said = pair.mirror(&["--processes", "4", "--threads", "10"], 0);
    assert_eq!(said.number("copied"), 2);
    for wrong in
        [&["--processes", "4", "--transfers", "2"], &["--processes", "0", "--threads", "1"]]
    {
        let said = pair.user.run(&[&["mirror", "s3://source", "s3://copies"], &wrong[..]].concat());
        assert_eq!(said.code, 2, "{said:?}");
    }
    let said = pair.user.run(&[
        "mirror",
        "s3://source",
        "s3://copies",
        "--processes",
        "100",
        "--threads",
        "100",
    ]);
    assert_eq!(said.code, 2, "{said:?}");
}
