//! Tags are the owner's: what only bears the name of a mark is left alone, and no tag is lost
//! without a word.

use super::{Pair, keeps_versions, tags, undelete};
use crate::support::bucket::Bucket;
use crate::support::external::{garage, moto};
use crate::support::server::{Embedded, Fault, Reach};

fn put(bucket: &Bucket, key: &str, tags: &str) {
    let put = bucket.client.put_object().bucket(&bucket.name).key(key).tagging(tags);
    bucket.run(put.body(key.as_bytes().to_vec().into()).send()).unwrap();
}

fn is_marked(pair: &Pair, key: &str) -> bool {
    pair.tags(key).get("Deleted").is_some_and(|value| value == "True")
}

fn own_tags_stay(reach: &Reach) {
    let pair = Pair::new(reach);
    keeps_versions(&pair.source);
    let own = [
        ("no", "Deleted=no&own=1"),
        ("at", "DeletedAt=never&own=1"),
        ("false", "Deleted=False"),
        ("plain", "own=1"),
    ];
    for (key, tags) in own {
        put(&pair.source, key, tags);
        put(&pair.copies, key, tags);
    }
    let said = pair.mirror(&[], 0);
    assert_eq!((said.number("adopted"), said.number("untagged")), (4, 0), "{said:?}");
    pair.is_kept();
    // Where a mark is to be put, none of them is replaced.
    pair.source.put("rest", b"1");
    pair.mirror(&[], 0);
    own.iter().for_each(|(key, _)| pair.source.delete(key));
    let said = pair.mirror(&["--max-delete", "off"], 1);
    assert_eq!((said.number("tagged"), said.number("failed")), (1, 3), "{said:?}");
    assert!(said.stderr.contains("failed: no: "), "{said:?}");
    assert!(said.stderr.contains("it has a tag Deleted=no of its own"), "{said:?}");
    assert!(said.stderr.contains("it has a tag DeletedAt=never of its own"), "{said:?}");
    assert!(is_marked(&pair, "plain"));
    own.iter().for_each(|(key, _)| undelete(&pair.source, key));
    let said = pair.mirror(&[], 0);
    assert_eq!(said.number("untagged"), 1, "{said:?}");
    pair.is_kept();
}

#[test]
fn own_tags_stay_on_the_embedded_store() {
    own_tags_stay(&Embedded::start().reach);
}

#[test]
fn own_tags_stay_on_moto() {
    own_tags_stay(&moto().reach);
}

/// What is marked in the source is marked in its copy, and stays so when nothing is known of it.
#[test]
fn a_copy_of_a_copy_keeps_the_marks_that_its_source_has() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let third = Bucket::create(&server.reach, "third");
    ["x", "y"].iter().for_each(|key| put(&pair.source, key, "own=1"));
    pair.mirror(&[], 0);
    pair.source.delete("x");
    assert_eq!(pair.mirror(&[], 0).number("tagged"), 1);
    let marks = pair.tags("x");
    for n in 0..2 {
        let state = pair.user.home.path().join(format!("state-{n}"));
        let args = ["mirror", "s3://copies", "s3://third", "--json", "--state-dir"];
        let said = pair.user.run(&[&args[..], &[state.to_str().unwrap(), "--take-over"]].concat());
        assert_eq!((said.code, said.number("untagged")), (0, 0), "{said:?}");
        assert_eq!(tags(&third, "x"), marks, "run {n}");
    }
    // Marks that the source does not have do come off.
    put(&third, "y", "own=1&Deleted=True");
    let state = pair.user.home.path().join("state-2");
    let args = ["mirror", "s3://copies", "s3://third", "--json", "--take-over", "--state-dir"];
    let said = pair.user.run(&[&args[..], &[state.to_str().unwrap()]].concat());
    assert_eq!((said.code, said.number("untagged")), (0, 1), "{said:?}");
    assert_eq!(tags(&third, "y"), tags(&pair.copies, "y"));
}

#[test]
fn tags_that_may_not_be_read_are_not_lost_without_a_word() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let put = pair.source.client.put_object().bucket("source").key("large").tagging("own=1");
    pair.source.run(put.body(vec![b'l'; 12 << 20].into()).send()).unwrap();
    server.rule(|seen| match seen.query.contains("tagging") && seen.path.starts_with("/source/") {
        true => Fault::Error(403, "AccessDenied"),
        false => Fault::NoTagCount,
    });
    let parts = ["--multipart-threshold", "5MiB", "--part-size", "5MiB"];
    let said = pair.mirror(&parts, 1);
    assert_eq!((said.number("copied"), said.number("failed")), (0, 1), "{said:?}");
    assert!(said.stderr.contains("allow s3:GetObjectTagging"), "{said:?}");
    server.no_rule();
    assert_eq!(pair.mirror(&parts, 0).number("copied"), 1);
    pair.is_kept();
}

/// From a server with tags to one without, whose keys are in files.
fn to_garage(
    pair: &Pair,
    from: &Reach,
    to: &Reach,
    more: &[&str],
) -> crate::support::program::Said {
    let file = |name: &str, reach: &Reach| {
        let path = pair.user.home.path().join(name);
        let (key, secret) = (&reach.access_key, &reach.secret_key);
        let text =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        crate::support::write_secret(&path, &text);
        path.to_str().unwrap().to_owned()
    };
    let (from_keys, to_keys) = (file("from", from), file("to", to));
    let sides = [
        "--source-endpoint-url",
        &from.endpoint,
        "--source-region",
        &from.region,
        "--source-credentials-file",
        &from_keys,
        "--endpoint-url",
        &to.endpoint,
        "--region",
        &to.region,
        "--credentials-file",
        &to_keys,
        "--json",
    ];
    pair.user.run(&[&["mirror", "s3://source"], more, &sides[..]].concat())
}

#[test]
fn a_destination_without_tags_says_what_it_leaves_out() {
    let (from, to) = (Embedded::start(), garage());
    let pair = Pair::new(&from.reach);
    put(&pair.source, "a", "own=1");
    put(&pair.source, "b", "own=1");
    let words = "those that objects of the source have are left out";
    // A bucket that is to be made cannot tell before it is there.
    let made = ["s3://made", "--create-bucket"];
    let said = to_garage(&pair, &from.reach, &to.reach, &made);
    assert_eq!((said.code, said.number("copied")), (4, 0), "{said:?}");
    assert!(said.stderr.contains("has no object tags"), "{said:?}");
    assert!(Bucket::open(&to.reach, "made").listed().is_empty(), "nothing was copied");
    let said = to_garage(&pair, &from.reach, &to.reach, &["s3://made", "--deletions", "keep"]);
    assert_eq!((said.code, said.number("copied")), (0, 2), "{said:?}");
    assert_eq!(said.stderr.matches(words).count(), 1, "{said:?}");
    // Where the source's server has none either, none are left out.
    let other = Pair::new(&to.reach);
    other.source.put("a", b"1");
    let said = other.mirror(&["--deletions", "keep"], 0);
    assert!(!said.stderr.contains(words), "{said:?}");
}
