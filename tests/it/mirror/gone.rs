//! What is gone from the source: one key that cannot be judged stops no other, what failed is
//! charged once, another's object is not marked, and a run that is told to stop does.

use std::time::{Duration, Instant};

use super::{Pair, keeps_versions};
use crate::support::server::{Embedded, Fault};

fn filled(count: usize) -> (Embedded, Pair) {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    (0..count).for_each(|n| pair.source.put(&format!("k/{n:02}"), b"1"));
    pair.mirror(&[], 0);
    (server, pair)
}

fn is_marked(pair: &Pair, key: &str) -> bool {
    pair.tags(key).contains_key("Deleted")
}

#[test]
fn one_that_cannot_be_looked_at_stops_no_other() {
    for (status, code) in [(500, "InternalError"), (403, "AccessDenied")] {
        for side in ["source", "copies"] {
            let (server, pair) = filled(20);
            (0..5).for_each(|n| pair.source.delete(&format!("k/{n:02}")));
            let path = format!("/{side}/k/02");
            server.rule(move |seen| match seen.path == path && !seen.query.contains("tagging") {
                true => Fault::Error(status, code),
                false => Fault::Pass,
            });
            let said = pair.mirror(&["--max-delete", "off", "--retry-for", "2s"], 1);
            let numbers = (said.number("tagged"), said.number("failed"));
            assert_eq!(numbers, (4, 1), "{status} {side}: {said:?}");
            assert!(said.stderr.contains("failed: k/02: "), "{said:?}");
            assert!(is_marked(&pair, "k/04") && !is_marked(&pair, "k/02"));
            server.no_rule();
            let said = pair.mirror(&["--max-delete", "off"], 0);
            assert_eq!(said.number("tagged"), 1, "{said:?}");
        }
    }
}

#[test]
fn what_fails_again_and_again_is_charged_once() {
    let (server, pair) = filled(40);
    (0..6).for_each(|n| pair.source.delete(&format!("k/{n:02}")));
    server.rule(|seen| match seen.method == "PUT" && seen.query.contains("tagging") {
        true => Fault::Error(400, "InvalidTag"),
        false => Fault::Pass,
    });
    for n in 0..6 {
        let said = pair.mirror(&["--max-delete", "10"], 1);
        let numbers = (said.number("tagged"), said.number("failed"), said.number("held"));
        assert_eq!(numbers, (0, 6, 0), "run {n}: {said:?}");
    }
    server.no_rule();
    let said = pair.mirror(&["--max-delete", "10"], 0);
    assert_eq!((said.number("tagged"), said.number("held")), (6, 0), "{said:?}");
    // The budget is spent as far as it is, and no further.
    (6..12).for_each(|n| pair.source.delete(&format!("k/{n:02}")));
    assert_eq!(pair.mirror(&["--max-delete", "10"], 7).number("held"), 6);
}

#[test]
fn an_object_of_somebody_else_is_not_marked() {
    let (server, pair) = filled(3);
    pair.source.put("gone", b"1");
    pair.mirror(&[], 0);
    pair.source.delete("gone");
    pair.source.put("new", b"1");
    // The run copies, and meanwhile somebody puts another object in the place.
    let begun = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let until = begun.clone();
    server.rule(move |seen| match seen.method == "PUT" && seen.path == "/copies/new" {
        true => Fault::Until(until.clone()),
        false => Fault::Pass,
    });
    server.clear_log();
    let args = ["mirror", "s3://source", "s3://copies"];
    let mut child = pair.user.command(&args).spawn().unwrap();
    crate::support::wait_for("the look at what is copied", || server.count("HeadObject") > 0);
    let put = pair.copies.client.put_object().bucket("copies").key("gone").tagging("mine=1");
    pair.copies.run(put.body(b"of somebody else".to_vec().into()).send()).unwrap();
    begun.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(child.wait().unwrap().success());
    server.no_rule();
    assert!(!is_marked(&pair, "gone"));
    let said = pair.mirror(&[], 0);
    assert_eq!((said.number("tagged"), said.number("unclaimed")), (0, 1), "{said:?}");
    assert!(!is_marked(&pair, "gone"));
}

#[test]
fn a_run_that_is_stopped_does_not_wait_for_tags() {
    let (server, pair) = filled(30);
    (0..3).for_each(|n| pair.source.delete(&format!("k/{n:02}")));
    server.rule(|seen| {
        let tags = seen.method == "PUT" && seen.query.contains("tagging");
        match tags && seen.path.ends_with('2') {
            true => Fault::Hang,
            false => Fault::Pass,
        }
    });
    let args = ["mirror", "s3://source", "s3://copies", "--max-delete", "off"];
    let running = pair.user.spawn(pair.user.command(&args));
    crate::support::wait_for("two to be tagged", || {
        is_marked(&pair, "k/00") && is_marked(&pair, "k/01")
    });
    let before = Instant::now();
    running.signal("INT");
    assert_eq!(running.wait(), 130);
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    server.no_rule();
    // What was tagged is on record.
    assert_eq!(pair.mirror(&["--max-delete", "off"], 0).number("tagged"), 1);
}

#[test]
fn what_is_back_but_older_than_asked_for_waits_no_more() {
    for is_kept in [true, false] {
        let server = Embedded::start();
        let pair = Pair::new(&server.reach);
        keeps_versions(&pair.source);
        ["a", "b", "c"].iter().for_each(|key| pair.source.put(key, b"1"));
        pair.mirror(&[], 0);
        pair.source.delete("a");
        assert_eq!(pair.mirror(&["--max-delete", "0%"], 7).number("held"), 1);
        server.put_ago(Duration::from_secs(3_600));
        pair.source.put("a", b"another");
        server.put_ago(Duration::ZERO);
        if !is_kept {
            pair.copies.delete("a");
        }
        let recent = ["--modified-within", "1m"];
        let said = pair.mirror(&recent, 0);
        assert_eq!((said.number("held"), said.number("copied")), (0, 0), "{said:?}");
        assert_eq!(pair.mirror(&[], 0).number("copied"), 1);
        pair.is_kept();
    }
}
