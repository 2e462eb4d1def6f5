//! What is in the source never keeps the marks of a deletion: a restore would leave it out. And a
//! copy that was refused is made by the next run, although the ETags are equal.

use super::{Pair, keeps_versions, rich, undelete, whole};
use crate::support::bucket::Bucket;
use crate::support::external::moto;
use crate::support::server::{Embedded, Fault, Reach, Seen};

/// Times of objects are of one second.
fn a_second_later() {
    std::thread::sleep(std::time::Duration::from_millis(1_100));
}

fn put(bucket: &Bucket, key: &str, body: &[u8], word: &str) {
    let put = bucket.client.put_object().bucket(&bucket.name).key(key).metadata("word", word);
    bucket.run(put.tagging("own=1").body(body.to_vec().into()).send()).unwrap();
}

/// Mirrored, and `gone` tagged.
fn tagged(reach: &Reach) -> Pair {
    let pair = Pair::new(reach);
    keeps_versions(&pair.source);
    for key in ["a", "b", "gone"] {
        put(&pair.source, key, key.as_bytes(), "first");
    }
    pair.mirror(&[], 0);
    pair.source.delete("gone");
    assert_eq!(pair.mirror(&[], 0).number("tagged"), 1);
    assert!(is_marked(&pair, "gone"));
    pair
}

fn is_marked(pair: &Pair, key: &str) -> bool {
    pair.tags(key).contains_key("Deleted")
}

/// Nothing is marked, its own tags are kept, and a restore has all of it.
fn all_is_right(pair: &Pair) {
    for key in pair.source.keys() {
        assert!(!is_marked(pair, &key), "{key}");
        assert_eq!(pair.tags(&key)["own"], "1", "{key}");
    }
    pair.is_settled(&[]);
    let args = ["restore", "s3://copies", "s3://rebuilt", "--create-bucket", "--json"];
    let said = pair.user.run(&args);
    assert_eq!((said.code, said.number("left_out")), (0, 0), "{said:?}");
}

/// The request that writes a copy, not one for its tags.
fn writes(seen: &Seen<'_>, path: &str) -> bool {
    seen.method == "PUT" && seen.path == path && !seen.query.contains("tagging")
}

fn refuses(server: &Embedded, path: &'static str) {
    server.rule(move |seen| match writes(seen, path) {
        true => Fault::Error(400, "InvalidRequest"),
        false => Fault::Pass,
    });
}

#[test]
fn a_copy_over_a_marked_one_was_refused() {
    let server = Embedded::start();
    let pair = tagged(&server.reach);
    a_second_later();
    put(&pair.source, "gone", b"gone", "first");
    refuses(&server, "/copies/gone");
    assert_eq!(pair.mirror(&[], 1).number("failed"), 1);
    server.no_rule();
    pair.mirror(&[], 0);
    all_is_right(&pair);
}

#[test]
fn a_copy_over_a_marked_one_was_killed() {
    let server = Embedded::start();
    let pair = tagged(&server.reach);
    a_second_later();
    put(&pair.source, "gone", b"gone", "first");
    server.rule(|seen| match writes(seen, "/copies/gone") {
        true => Fault::Hang,
        false => Fault::Pass,
    });
    server.clear_log();
    let running = pair.user.spawn(pair.user.command(&["mirror", "s3://source", "s3://copies"]));
    // The row is durable before the request; the HEAD comes before the row.
    crate::support::wait_for("the copy to begin", || server.count("HeadObject") > 0);
    a_second_later();
    running.kill();
    server.no_rule();
    pair.mirror(&[], 0);
    all_is_right(&pair);
}

#[test]
fn left_out_by_the_rules_for_a_while() {
    for policy in ["tag", "delete"] {
        let server = Embedded::start();
        let pair = tagged(&server.reach);
        let said = pair.mirror(&["--exclude", "gone", "--deletions", policy], 0);
        assert_eq!((said.number("deleted"), said.number("untagged")), (0, 0), "{said:?}");
        undelete(&pair.source, "gone");
        assert_eq!(pair.mirror(&["--deletions", policy], 0).number("untagged"), 1, "{policy}");
        all_is_right(&pair);
    }
}

#[test]
fn a_bucket_that_another_system_filled_and_marked() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    for key in ["a", "b"] {
        put(&pair.source, key, key.as_bytes(), "first");
        put(&pair.copies, key, key.as_bytes(), "first");
    }
    let put = pair.copies.client.put_object().bucket("copies").key("a").body(b"a".to_vec().into());
    let put = put.tagging("own=1&Deleted=True&DeletedAt=2026-01-01T00%3A00");
    pair.copies.run(put.send()).unwrap();
    server.clear_log();
    let said = pair.mirror(&[], 0);
    let counts = ["copied", "adopted", "untagged"].map(|what| said.number(what));
    assert_eq!(counts, [0, 2, 1], "{said:?}");
    // One question for each that is adopted, and one for the server; and of what is marked, whether
    // its source is so, too, and which tags are its own.
    assert_eq!(server.count("GetObjectTagging"), 3 + 2);
    all_is_right(&pair);
}

/// The records are lost, and what was marked is back with another content.
fn records_are_lost(reach: &Reach) {
    let pair = tagged(reach);
    std::fs::remove_dir_all(pair.user.state_folder()).unwrap();
    a_second_later();
    put(&pair.source, "gone", b"another content", "second");
    assert_eq!(pair.mirror(&[], 0).number("copied"), 1);
    all_is_right(&pair);
}

#[test]
fn records_are_lost_on_the_embedded_store() {
    records_are_lost(&Embedded::start().reach);
}

#[test]
fn records_are_lost_on_moto() {
    records_are_lost(&moto().reach);
}

#[test]
fn a_change_of_nothing_but_metadata_is_copied_after_all() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    for key in ["a", "b"] {
        pair.source.run(rich(&pair.source, key, key.as_bytes()).send()).unwrap();
    }
    pair.mirror(&[], 0);
    a_second_later();
    pair.source.run(rich(&pair.source, "a", b"a").metadata("own", "changed").send()).unwrap();
    refuses(&server, "/copies/a");
    assert_eq!(pair.mirror(&[], 1).number("failed"), 1);
    server.no_rule();
    assert_eq!(pair.mirror(&[], 0).number("copied"), 1);
    assert_eq!(whole(&pair.source), whole(&pair.copies));
    pair.is_settled(&[]);
}

#[test]
fn a_copy_whose_overwriting_failed_is_still_ours() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    for key in ["a", "b", "c"] {
        put(&pair.source, key, key.as_bytes(), "first");
    }
    pair.mirror(&[], 0);
    a_second_later();
    put(&pair.source, "a", b"second version", "second");
    refuses(&server, "/copies/a");
    assert_eq!(pair.mirror(&[], 1).number("failed"), 1);
    server.no_rule();
    pair.source.delete("a");
    let said = pair.mirror(&[], 0);
    assert_eq!((said.number("tagged"), said.number("unclaimed")), (1, 0), "{said:?}");
    assert!(is_marked(&pair, "a"));
}

/// Marked; changed, and its copy refused; gone again, and held; and back as it was at first.
#[test]
fn a_marked_copy_that_was_to_be_written_over_is_freed_when_its_source_is_back() {
    let server = Embedded::start();
    let pair = tagged(&server.reach);
    a_second_later();
    put(&pair.source, "gone", b"another content", "second");
    let head = pair.source.client.head_object().bucket("source").key("gone").send();
    let second = pair.source.run(head).unwrap().version_id().unwrap().to_owned();
    refuses(&server, "/copies/gone");
    assert_eq!(pair.mirror(&[], 1).number("failed"), 1);
    server.no_rule();
    pair.source.delete("gone");
    assert_eq!(pair.mirror(&["--max-delete", "0%"], 7).number("held"), 1);
    undelete(&pair.source, "gone");
    let delete = pair.source.client.delete_object().bucket("source").key("gone");
    pair.source.run(delete.version_id(second).send()).unwrap();
    undelete(&pair.source, "gone");
    assert_eq!(pair.source.get("gone").unwrap().body, b"gone");
    assert_eq!(pair.mirror(&[], 0).number("untagged"), 1);
    all_is_right(&pair);
}
