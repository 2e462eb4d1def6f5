//! Copies in parts that were cut and are not wanted any more: nothing of them stays open, and what
//! was written is known to be ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Pair;
use super::large::{MIB, SMALL_PARTS, bytes, put_in_parts_with};
use crate::support::server::{Embedded, Fault, Seen};
use crate::support::wait_for;

fn is_part(seen: &Seen<'_>) -> bool {
    seen.method == "PUT" && seen.query.contains("partNumber")
}

/// A request to open an upload of this object.
fn opens(seen: &Seen<'_>) -> bool {
    seen.method == "POST" && seen.query.starts_with("uploads")
}

/// A large object of which only some parts were copied, and a small one.
fn cut() -> (Embedded, Pair) {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("large", &bytes(20 * MIB, 3));
    pair.source.put("small", b"1");
    let copied = AtomicUsize::new(0);
    server.rule(move |seen| match is_part(seen) {
        true if copied.fetch_add(1, Ordering::SeqCst) >= 2 => Fault::Hang,
        _ => Fault::Pass,
    });
    killed(&pair, "two parts", || server.count("UploadPartCopy") >= 2);
    server.no_rule();
    assert_eq!(pair.copies.open_uploads(), ["large"]);
    (server, pair)
}

/// A run that is killed as soon as this is so.
fn killed(pair: &Pair, what: &str, is_so: impl FnMut() -> bool) {
    let args = [&["mirror", "s3://source", "s3://copies"], &SMALL_PARTS[..]].concat();
    let running = pair.user.spawn(pair.user.command(&args));
    wait_for(what, is_so);
    running.kill();
}

fn opened_by_another(pair: &Pair) -> String {
    let open = pair.copies.client.create_multipart_upload().bucket("copies").key("large").send();
    pair.copies.run(open).unwrap().upload_id().unwrap().to_owned()
}

#[test]
fn a_cut_copy_is_aborted_where_nobody_goes_on_with_it() {
    for what in ["deleted", "small", "left out"] {
        let (_server, pair) = cut();
        let mut more = SMALL_PARTS.to_vec();
        match what {
            "deleted" => pair.source.delete("large"),
            "small" => pair.source.put("large", b"not any more"),
            _ => more.extend(["--exclude", "large"]),
        }
        let other = opened_by_another(&pair);
        pair.mirror(&more, 0);
        assert_eq!(pair.copies.open_ids(), [other], "{what}");
    }
}

#[test]
fn an_upload_whose_opening_nobody_heard_of_is_aborted() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("large", &bytes(12 * MIB, 3));
    let other = opened_by_another(&pair);
    let lost = AtomicUsize::new(0);
    server.rule(move |seen| match opens(seen) && lost.fetch_add(1, Ordering::SeqCst) == 0 {
        true => Fault::DropReply,
        false => Fault::Pass,
    });
    assert_eq!(pair.mirror(&SMALL_PARTS, 0).number("copied"), 1);
    assert_eq!(pair.copies.open_ids(), std::slice::from_ref(&other), "of another");

    // The same, and killed before it can look for it.
    pair.source.put("large", &bytes(12 * MIB, 11));
    let (begun, looked) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let looks = looked.clone();
    server.rule(move |seen| match (opens(seen), begun.load(Ordering::SeqCst)) {
        (true, _) => {
            begun.store(1, Ordering::SeqCst);
            Fault::DropReply
        }
        (_, 1) => {
            looks.store(1, Ordering::SeqCst);
            Fault::Hang
        }
        _ => Fault::Pass,
    });
    killed(&pair, "the look for it", || looked.load(Ordering::SeqCst) > 0);
    server.no_rule();
    assert_eq!(pair.copies.open_ids().len(), 2);
    // One that another has begun since, and is at work on.
    let since = opened_by_another(&pair);
    let part = pair.copies.client.upload_part().bucket("copies").key("large").upload_id(&since);
    pair.copies.run(part.part_number(1).body(b"theirs".to_vec().into()).send()).unwrap();
    assert_eq!(pair.mirror(&SMALL_PARTS, 0).number("copied"), 1);
    let mut open = pair.copies.open_ids();
    open.sort();
    let mut theirs = [other, since];
    theirs.sort();
    assert_eq!(open, theirs);
    pair.is_kept();
}

#[test]
fn an_upload_that_could_not_be_aborted_is_aborted_later() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("large", &bytes(20 * MIB, 3));
    pair.source.put("small", b"1");
    server.rule(|seen| match is_part(seen) && seen.query.contains("partNumber=3") {
        true => Fault::Error(400, "InvalidRequest"),
        false if seen.query.contains("uploadId") && seen.method == "DELETE" => {
            Fault::Error(403, "AccessDenied")
        }
        false => Fault::Pass,
    });
    assert_eq!(pair.mirror(&SMALL_PARTS, 1).number("failed"), 1);
    assert_eq!(pair.copies.open_uploads(), ["large"]);
    // It is not forgotten where it cannot be aborted, and what it belongs to has failed.
    pair.source.delete("large");
    let said = pair.mirror(&SMALL_PARTS, 1);
    assert_eq!(said.number("failed"), 1, "{said:?}");
    assert_eq!(pair.copies.open_uploads(), ["large"]);
    server.no_rule();
    pair.mirror(&SMALL_PARTS, 0);
    assert_eq!(pair.copies.open_uploads(), [""; 0]);
    pair.is_settled(&SMALL_PARTS);
}

#[test]
fn a_copy_that_nobody_heard_of_is_known_to_be_ours() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("large", &bytes(12 * MIB, 3));
    pair.source.put("small", b"1");
    server.rule(|seen| match seen.method == "HEAD" && seen.path == "/copies/large" {
        true => Fault::Hang,
        false => Fault::Pass,
    });
    killed(&pair, "its completion", || server.count("CompleteMultipartUpload") > 0);
    server.no_rule();
    pair.source.delete("large");
    let said = pair.mirror(&SMALL_PARTS, 0);
    assert_eq!((said.number("tagged"), said.number("unclaimed")), (1, 0), "{said:?}");
    assert_eq!(pair.tags("large")["Deleted"], "True");
    assert_eq!(pair.copies.open_uploads(), [""; 0]);
}

/// The same of an object that was sent in parts and is copied in one request, if it tells its MD5:
/// the copy has another ETag. What somebody else has put in its place is nobody's.
#[test]
fn a_copy_in_one_request_that_nobody_heard_of_is_known_to_be_ours_by_the_md5_of_its_source() {
    for (is_told, is_ours) in [(true, true), (true, false), (false, true)] {
        let server = Embedded::start();
        let pair = Pair::new(&server.reach);
        let body = bytes(6 * MIB, 3);
        let md5 = keepwatch::model::Md5::of(&body).0;
        let md5 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, md5);
        let told = [("md5chksum", md5.as_str())];
        let metadata = if is_told { &told[..] } else { &[] };
        put_in_parts_with(&pair.source, "parts", &body, 5 * MIB, metadata);
        pair.source.put("small", b"1");
        server.rule(|seen| match seen.method == "PUT" && seen.path == "/copies/parts" {
            true => Fault::DropReply,
            false => Fault::Pass,
        });
        let running = pair.user.spawn(pair.user.command(&["mirror", "s3://source", "s3://copies"]));
        wait_for("the copy", || pair.copies.get("parts").is_some());
        running.kill();
        server.no_rule();
        if !is_ours {
            pair.copies.put("parts", &bytes(6 * MIB, 11));
        }
        pair.source.delete("parts");
        let said = pair.mirror(&[], 0);
        let expected = if is_told && is_ours { (1, 0) } else { (0, 1) };
        let numbers = (said.number("tagged"), said.number("unclaimed"));
        assert_eq!(numbers, expected, "told: {is_told}, ours: {is_ours}: {said:?}");
        assert_eq!(pair.tags("parts").contains_key("Deleted"), is_told && is_ours);
    }
}
