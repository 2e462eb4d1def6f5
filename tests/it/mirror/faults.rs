//! One object that fails stops no other, whatever it fails with; a server that is away is no
//! failure of an object.

use super::Pair;
use crate::support::bucket::Bucket;
use crate::support::external::moto;
use crate::support::passage::Passage;
use crate::support::program::User;
use crate::support::server::{Embedded, Fault};

fn filled() -> (Embedded, Pair) {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    (0..6).for_each(|n| pair.source.put(&format!("k/{n}"), format!("{n}").as_bytes()));
    pair.source.put("gone", b"1");
    (server, pair)
}

#[test]
fn one_key_that_always_fails_stops_no_other() {
    for (method, path) in [("HEAD", "/source/k/3"), ("PUT", "/copies/k/3")] {
        let (server, pair) = filled();
        pair.mirror(&["--exclude", "k/3"], 0);
        pair.source.delete("gone");
        server.rule(move |seen| match seen.method == method && seen.path == path {
            true => Fault::Error(500, "InternalError"),
            false => Fault::Pass,
        });
        let said = pair.mirror(&["--retry-for", "2s", "--log-format", "json"], 1);
        assert_eq!((said.number("failed"), said.number("tagged")), (1, 1), "{method}: {said:?}");
        // Lines of the log say whose they are.
        for what in ["failed: k/3", "objects compared;"] {
            let line = said.stderr.lines().find(|line| line.contains(what)).unwrap();
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["backup"].is_string(), "{line}");
        }
        server.no_rule();
        assert_eq!(pair.mirror(&[], 0).number("copied"), 1);
    }
}

#[test]
fn a_destination_that_goes_away_is_waited_for() {
    let (server, pair) = filled();
    let gone = std::sync::atomic::AtomicBool::new(false);
    server.rule(move |seen| {
        use std::sync::atomic::Ordering::SeqCst;
        if seen.method == "PUT" && seen.path.starts_with("/copies/k") {
            gone.store(true, SeqCst);
        }
        match seen.path.starts_with("/copies") && gone.load(SeqCst) {
            true => Fault::Close,
            false => Fault::Pass,
        }
    });
    let said = pair.mirror(&["--retry-for", "2s"], 5);
    assert_eq!(said.number("failed"), 0, "{said:?}");
    server.no_rule();
    assert_eq!(pair.mirror(&[], 0).number("failed"), 0);
    pair.is_kept();
}

#[test]
fn what_is_listed_and_not_found_has_failed() {
    let (server, pair) = filled();
    let says_no = |path: &'static str| {
        server.rule(move |seen| match seen.method == "HEAD" && seen.path == path {
            true => Fault::Error(404, "NoSuchKey"),
            false => Fault::Pass,
        });
    };
    says_no("/source/k/3");
    let said = pair.mirror(&[], 1);
    assert_eq!((said.number("failed"), said.number("copied")), (1, 6), "{said:?}");
    assert!(said.stderr.contains("failed: k/3: the server lists it, and says"), "{said:?}");
    assert_ne!(pair.user.run(&["status", "--check"]).code, 0, "nothing is proven");
    server.no_rule();
    assert_eq!(pair.mirror(&[], 0).number("copied"), 1);
    assert_eq!(pair.user.run(&["status", "--check"]).code, 0);

    says_no("/copies/k/3");
    let args = ["restore", "s3://copies", "s3://rebuilt", "--create-bucket", "--json"];
    let said = pair.user.run(&args);
    assert_eq!((said.code, said.number("failed"), said.number("copied")), (1, 1, 6), "{said:?}");
}

#[test]
fn what_is_gone_since_it_was_listed_has_not_failed() {
    let server = moto();
    let mut pair = Pair::new(&server.reach);
    (0..4).for_each(|n| pair.source.put(&format!("k/{n}"), b"1"));
    let other = Bucket::open(&server.reach, "source");
    let passage = Passage::to(&server.reach, move |line| {
        if line.starts_with("HEAD /source/k/2 ") {
            other.delete("k/2");
        }
    });
    pair.user = User::of(&passage.reach);
    let said = pair.mirror(&[], 0);
    assert_eq!((said.number("failed"), said.number("copied")), (0, 3), "{said:?}");
}

#[test]
fn no_bucket_is_made_for_a_source_that_is_not_there() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let args = ["mirror", "s3://sourze", "s3://unmade", "--create-bucket", "--retry-for", "1s"];
    let said = pair.user.run(&args);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("sourze"), "{said:?}");
    let made = pair.source.run(pair.source.client.head_bucket().bucket("unmade").send());
    assert!(made.is_err(), "nothing was made");
}

#[test]
fn a_full_destination_gets_room_by_what_is_gone() {
    let (server, pair) = filled();
    let delete = ["--deletions", "delete"];
    pair.mirror(&delete, 0);
    pair.source.delete("gone");
    pair.source.put("new", b"1");
    server.rule(|seen| match seen.method == "PUT" && seen.path.starts_with("/copies/") {
        true => Fault::Error(507, "InsufficientStorage"),
        false => Fault::Pass,
    });
    let said = pair.mirror(&delete, 4);
    assert_eq!((said.number("copied"), said.number("deleted")), (0, 1), "{said:?}");
    assert!(said.stderr.contains("the destination is full"), "{said:?}");
    server.no_rule();
    assert_eq!(pair.mirror(&delete, 0).number("copied"), 1);
    pair.is_kept();
}
