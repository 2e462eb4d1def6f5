//! Runs one after the other: what is missing, what changed, what is gone and what comes back.

use aws_sdk_s3::types::StorageClass;

use super::{Pair, keeps_versions, rich, undelete, whole};
use crate::support::external::moto;
use crate::support::server::{Embedded, Reach};

/// Objects of the long scenario. `KEEPWATCH_OBJECTS=20000` makes it as long as it was meant.
fn count() -> usize {
    let count = std::env::var("KEEPWATCH_OBJECTS").ok().and_then(|text| text.parse().ok());
    count.unwrap_or(400)
}

fn name(n: usize) -> String {
    format!("folder {}/{n:05}", n % 7)
}

/// Writes these objects, several at a time.
fn put(pair: &Pair, numbers: impl Iterator<Item = usize>, version: &str) {
    use futures_util::StreamExt as _;
    let puts = numbers.map(|n| {
        let mut put = rich(&pair.source, &name(n), format!("{n} {version}").as_bytes());
        if n.is_multiple_of(10) {
            put = put.storage_class(StorageClass::StandardIa);
        }
        async move { put.send().await.unwrap() }
    });
    pair.source.run(futures_util::stream::iter(puts).buffer_unordered(16).collect::<Vec<_>>());
}

/// Objects are mirrored; then some change, some go, some are added, and some come back.
fn through_the_whole_life(reach: &Reach) {
    let pair = Pair::new(reach);
    keeps_versions(&pair.source);
    let all = count();
    put(&pair, 0..all, "first");
    let said = pair.mirror(&["--transfers", "32"], 0);
    assert_eq!((said.number("copied"), said.number("scanned")), (all as u64, all as u64));
    pair.is_settled(&[]);

    let (changed, gone, added) = (all / 20, all / 40, all / 50);
    // Times of objects are of one second on this server; who is newer must not depend on chance.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    put(&pair, 0..changed, "second");
    (changed..changed + gone).for_each(|n| pair.source.delete(&name(n)));
    put(&pair, all..all + added, "first");
    let said = pair.mirror(&["--deletions", "tag"], 0);
    let counts = ["copied", "tagged", "untagged", "deleted"].map(|what| said.number(what));
    assert_eq!(counts, [(changed + added) as u64, gone as u64, 0, 0], "{said:?}");
    let tags = pair.tags(&name(changed));
    assert_eq!((tags["Deleted"].as_str(), tags["team"].as_str()), ("True", "a"));
    let at: jiff::civil::DateTime = tags["DeletedAt"].parse().unwrap();
    assert!(tags["DeletedAt"].len() == 16, "{tags:?}");
    let age = jiff::Timestamp::now() - at.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
    assert!((0.0..180.0).contains(&age.total(jiff::Unit::Second).unwrap()), "{tags:?}");
    pair.is_settled(&[]);

    // Half of them come back by the removal of their delete marker, with their old date.
    let back = gone / 5 * 2;
    for n in changed..changed + back / 2 {
        undelete(&pair.source, &name(n));
    }
    put(&pair, changed + back / 2..changed + back, "third");
    let said = pair.mirror(&[], 0);
    let counts = ["copied", "tagged", "untagged"].map(|what| said.number(what));
    assert_eq!(counts, [(back - back / 2) as u64, 0, (back / 2) as u64], "{said:?}");
    for n in changed..changed + back {
        assert!(!pair.tags(&name(n)).contains_key("Deleted"), "{}", name(n));
        assert_eq!(pair.tags(&name(n))["team"], "a");
    }
    assert!(pair.tags(&name(changed + back)).contains_key("Deleted"));
    pair.is_settled(&[]);
    // What is deleted stays as it was; everything else is the same on both sides.
    (changed + back..changed + gone).for_each(|n| pair.copies.delete(&name(n)));
    pair.is_kept();
}

#[test]
fn on_the_embedded_store() {
    through_the_whole_life(&Embedded::start().reach);
}

#[test]
fn on_moto() {
    through_the_whole_life(&moto().reach);
}

#[test]
fn names_of_every_kind_are_copied() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let names =
        ["a b", "a+b", "ü/%2B", "x//y", "./z", "..", "/lead", "tail/", "c\u{1}d", "e\nf", "☃"];
    names.iter().for_each(|name| pair.source.put(name, name.as_bytes()));
    let said = pair.mirror(&[], 0);
    assert_eq!(said.number("copied"), names.len() as u64, "{said:?}");
    pair.is_kept();
    pair.is_settled(&[]);
    names.iter().take(5).for_each(|name| pair.source.delete(name));
    let said = pair.mirror(&[], 0);
    assert_eq!(said.number("tagged"), 5, "{said:?}");
    pair.is_settled(&[]);
}

#[test]
fn records_that_are_lost_are_found_in_the_tags() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    keeps_versions(&pair.source);
    put(&pair, 0..20, "first");
    pair.mirror(&[], 0);
    (0..5).for_each(|n| pair.source.delete(&name(n)));
    assert_eq!(pair.mirror(&[], 0).number("tagged"), 5);
    // Gone before the records were lost, and not tagged yet; and what somebody else put there.
    pair.source.delete(&name(5));
    pair.copies.put("foreign", b"the only copy");
    let open = pair.copies.client.create_multipart_upload().bucket("copies").key("left");
    pair.copies.run(open.send()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    std::fs::remove_dir_all(pair.user.state_folder()).unwrap();
    undelete(&pair.source, &name(0));
    let said = pair.mirror(&[], 0);
    let counts = ["copied", "untagged", "adopted"].map(|what| said.number(what));
    assert_eq!(counts, [0, 1, 15], "{said:?}");
    assert!(!pair.tags(&name(0)).contains_key("Deleted"));
    assert_eq!(pair.copies.open_uploads(), [""; 0], "nobody knows of it any more");
    assert_eq!(pair.user.run(&["status", "--check"]).code, 0, "a clean run is a proof");
    let said = pair.mirror(&[], 0);
    let counts = ["tagged", "untagged", "unclaimed"].map(|what| said.number(what));
    assert_eq!(counts, [0, 0, 2], "what nobody knows is nobody's: {said:?}");
    undelete(&pair.source, &name(1));
    assert_eq!(pair.mirror(&[], 0).number("untagged"), 1);
    pair.is_settled(&[]);
    pair.mirror(&["--deletions", "delete"], 0);
    for key in [name(5), "foreign".to_owned()] {
        let is_marked = pair.tags(&key).contains_key("Deleted");
        assert!(pair.copies.get(&key).is_some() && !is_marked, "{key}");
    }
}

#[test]
fn a_listing_that_fails_copies_and_tags_nothing() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    put(&pair, 0..2_500, "first");
    pair.mirror(&["--transfers", "64"], 0);
    (0..100).for_each(|n| pair.source.delete(&name(n)));
    put(&pair, 2_500..2_510, "first");
    for side in ["/source", "/copies"] {
        server.rule(move |seen| {
            let is_second = seen.query.contains("start-after") && seen.query.contains("list-type");
            match seen.path.starts_with(side) && is_second {
                true => crate::support::server::Fault::Error(403, "AccessDenied"),
                false => crate::support::server::Fault::Pass,
            }
        });
        server.clear_log();
        let said = pair.user.run(&["mirror", "s3://source", "s3://copies", "--json"]);
        assert_ne!(said.code, 0, "{said:?}");
        for operation in ["CopyObject", "PutObjectTagging", "DeleteObjects", "PutObject"] {
            assert_eq!(server.count(operation), 0, "{side}: {operation}");
        }
    }
    server.no_rule();
    let said = pair.mirror(&[], 0);
    assert_eq!((said.number("copied"), said.number("tagged")), (10, 100), "{said:?}");
}

#[test]
fn many_keys_are_compared_in_shares_at_the_same_time() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let all = 4_100;
    put(&pair, 0..all, "first");
    pair.mirror(&["--transfers", "64"], 0);
    // Each first page of the source waits until another one does.
    let (waiting, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, goes_on) = (waiting.clone(), enough.clone());
    server.rule(move |seen| match seen.path == "/source" && seen.query.contains("list-type") {
        true => {
            if counted.fetch_add(1, Ordering::SeqCst) + 1 >= 2 {
                goes_on.store(true, Ordering::SeqCst);
            }
            crate::support::server::Fault::Until(goes_on.clone())
        }
        false => crate::support::server::Fault::Pass,
    });
    for n in [0, 2_000, 4_000, 4_099] {
        pair.source.delete(&name(n));
    }
    put(&pair, [1, 3_000, 4_098, all].into_iter(), "second");
    server.clear_log();
    let said = pair.mirror(&[], 0);
    assert_eq!((said.number("copied"), said.number("tagged")), (4, 4), "{said:?}");
    assert_eq!(said.number("scanned"), all as u64 - 3, "each key once");
    let pages = said.number("requests.list");
    assert!(pages <= 2 * 5 + 2 * 2, "a share costs one page more at most: {pages}");
    server.no_rule();
    pair.is_settled(&[]);
}

#[test]
fn a_run_that_is_killed_goes_on() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    put(&pair, 0..300, "first");
    server.rule(|seen| match seen.method == "PUT" && seen.path.ends_with('7') {
        true => crate::support::server::Fault::Late(50),
        false => crate::support::server::Fault::Pass,
    });
    let command = pair.user.command(&["mirror", "s3://source", "s3://copies"]);
    let running = pair.user.spawn(command);
    crate::support::wait_for("some copies", || server.count("CopyObject") > 50);
    running.kill();
    server.no_rule();
    let there = pair.copies.listed().len() as u64;
    let said = pair.mirror(&[], 0);
    // Of those in flight some may have arrived unheard: they are adopted by their ETag.
    assert!(said.number("copied") + there >= 300, "{said:?}");
    assert!(said.number("copied") <= 300 - there + 16, "{said:?}");
    pair.is_kept();
    pair.is_settled(&[]);
}

/// What is put from now on has a time that is so far behind: clocks are not right.
fn minutes_ago(server: &Embedded, minutes: u64) {
    server.put_ago(std::time::Duration::from_secs(60 * minutes));
}

#[test]
fn a_change_of_nothing_but_metadata_is_seen_although_the_copy_seems_newer() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    minutes_ago(&server, 60);
    for key in ["changed", "same"] {
        pair.source.run(rich(&pair.source, key, b"words").send()).unwrap();
    }
    minutes_ago(&server, 0);
    pair.mirror(&[], 0);
    minutes_ago(&server, 30);
    pair.source
        .run(rich(&pair.source, "changed", b"words").metadata("own", "other").send())
        .unwrap();
    minutes_ago(&server, 0);
    assert_eq!(pair.mirror(&[], 0).number("copied"), 1);
    assert_eq!(whole(&pair.source), whole(&pair.copies));
    pair.is_settled(&[]);
}

#[test]
fn without_records_another_content_of_the_same_size_is_seen() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    minutes_ago(&server, 60);
    pair.source.put("changed", b"one");
    pair.source.put("same", b"one");
    minutes_ago(&server, 0);
    pair.mirror(&[], 0);
    std::fs::remove_dir_all(pair.user.state_folder()).unwrap();
    minutes_ago(&server, 30);
    pair.source.put("changed", b"two");
    minutes_ago(&server, 0);
    let said = pair.mirror(&[], 0);
    assert_eq!((said.number("copied"), said.number("adopted")), (1, 1), "{said:?}");
    pair.is_kept();
    pair.is_settled(&[]);
}
