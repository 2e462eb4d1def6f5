//! A backup brought back into a new bucket.

use aws_sdk_s3::types::StorageClass;

use super::{Pair, keeps_versions, rich, whole};
use crate::support::bucket::Bucket;
use crate::support::external::{External, moto, served};
use crate::support::program::Said;
use crate::support::server::{Embedded, Reach};

/// A bucket that was mirrored: some of its objects are tagged as deleted, some archived.
fn mirrored(reach: &Reach, count: usize, gone: &[usize]) -> Pair {
    let pair = Pair::new(reach);
    let put = |bucket: &Bucket, n: usize| {
        let put = rich(bucket, &format!("k/{n:03}"), format!("{n}").as_bytes());
        let put = match (n % 5, is_cold(n)) {
            (1, _) => put.storage_class(StorageClass::StandardIa),
            (_, true) => put.storage_class(StorageClass::Glacier),
            _ => put,
        };
        bucket.run(put.send()).unwrap();
    };
    (0..count).for_each(|n| put(&pair.source, n));
    // What is archived cannot be copied, and is named; so the backup is filled as a stranger would.
    let said = pair.user.run(&["mirror", "s3://source", "s3://copies", "--json"]);
    assert_eq!(said.code, 3, "{said:?}");
    let cold: Vec<usize> = (0..count).filter(|n| is_cold(*n)).collect();
    assert_eq!(said.number("skipped"), cold.len() as u64, "{said:?}");
    assert!(said.stderr.contains("must be thawed before it can be copied"), "{said:?}");
    cold.iter().for_each(|n| put(&pair.copies, *n));
    let said = pair.user.run(&["mirror", "s3://source", "s3://copies", "--json"]);
    assert_eq!((said.code, said.number("adopted")), (0, cold.len() as u64), "{said:?}");
    gone.iter().for_each(|n| pair.source.delete(&format!("k/{n:03}")));
    pair
}

fn is_cold(n: usize) -> bool {
    n.is_multiple_of(2) && n % 5 != 1
}

fn restore(pair: &Pair, target: &str, more: &[&str], code: i32) -> Said {
    let said = pair.user.run(&[&["restore", "s3://copies", target, "--json"], more].concat());
    assert_eq!(said.code, code, "{said:?}");
    said
}

fn from_archives_into_a_new_bucket(server: &External, looks: &[&str], gone: &[usize]) {
    let count = 30;
    let pair = mirrored(&server.reach, count, gone);
    let said = pair.user.run(&["mirror", "s3://source", "s3://copies", "--json"]);
    assert_eq!((said.code, said.number("tagged")), (0, gone.len() as u64), "{said:?}");
    let said = restore(&pair, "s3://rebuilt", looks, 4);
    assert!(said.stderr.contains("--create-bucket"), "{said:?}");
    let with_bucket = [looks, &["--create-bucket"]].concat();
    let said = restore(&pair, "s3://rebuilt", &[&with_bucket[..], &["--dry-run"]].concat(), 0);
    let lines = |told: &str| told.matches(r#""action":"copy""#).count() as u64;
    let told = [said.number("copied"), said.number("left_out"), lines(&said.stdout)];
    let (left, out) = ((count - gone.len()) as u64, gone.len() as u64);
    assert_eq!(told, [left, out, left], "{said:?}");

    let said = restore(&pair, "s3://rebuilt", &[&with_bucket[..], &["--no-wait"]].concat(), 3);
    let left: Vec<usize> = (0..count).filter(|n| !gone.contains(n)).collect();
    let cold = left.iter().filter(|n| is_cold(**n)).count() as u64;
    let warm = left.len() as u64 - cold;
    let numbers = ["copied", "frozen", "left_out"].map(|name| said.number(name));
    assert_eq!(numbers, [warm, cold, gone.len() as u64], "{said:?}");
    let said = restore(&pair, "s3://rebuilt", &with_bucket, 0);
    assert_eq!((said.number("copied"), said.number("unchanged")), (cold, warm), "{said:?}");
    let said = restore(&pair, "s3://rebuilt", looks, 0);
    assert_eq!((said.number("copied"), said.number("unchanged")), (0, warm + cold), "{said:?}");

    let rebuilt = whole(&Bucket::open(&server.reach, "rebuilt"));
    assert_eq!(rebuilt.len(), left.len(), "no owner record, and nothing that was deleted");
    for n in left {
        let back = &rebuilt[&format!("k/{n:03}")];
        assert_eq!(back.body, format!("{n}").into_bytes());
        assert_eq!(back.metadata["own"], "word");
        assert_eq!((back.tags["team"].as_str(), back.tags.len()), ("a", 2));
        assert_eq!(back.headers[0].as_deref(), Some("text/x-rich"));
        let class = back.headers[7].as_deref();
        let expected = (n % 5 == 1).then_some("STANDARD_IA");
        assert_eq!(class.filter(|class| *class != "STANDARD"), expected, "{n}");
    }
}

#[test]
fn from_archives_on_moto() {
    // moto tells no tags of archived objects.
    from_archives_into_a_new_bucket(&moto(), &["--poll", "200ms"], &[1, 3, 5, 6]);
}

#[test]
fn from_archives_on_the_embedded_store() {
    from_archives_into_a_new_bucket(&served(), &["--poll", "200ms"], &[0, 1, 2, 3, 4, 5]);
}

#[test]
fn as_it_was_then_and_only_a_part() {
    let server = served();
    let pair = Pair::new(&server.reach);
    keeps_versions(&pair.copies);
    pair.copies.put("a/1", b"old");
    pair.copies.put("b/1", b"old");
    pair.copies.put("a/2", b"old");
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let then = jiff::Timestamp::now();
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    pair.copies.put("a/1", b"newer");
    pair.copies.delete("a/2");
    let at = then.to_string();
    let said = restore(&pair, "s3://source/then", &["--at", &at, "--path", "a"], 0);
    assert_eq!(said.number("copied"), 2, "{said:?}");
    assert_eq!(pair.source.get("then/a/1").unwrap().body, b"old");
    assert!(pair.source.get("then/a/2").is_some() && pair.source.get("then/b/1").is_none());
    let said = restore(&pair, "s3://source/now", &[], 0);
    assert_eq!(said.number("copied"), 2);
    assert_eq!(pair.source.get("now/a/1").unwrap().body, b"newer");

    pair.source.put("now/a/1", b"changed since");
    let said = restore(&pair, "s3://source/now", &[], 0);
    assert_eq!((said.number("copied"), said.number("kept")), (0, 1), "{said:?}");
    let said = restore(&pair, "s3://source/now", &["--overwrite", "always"], 0);
    assert_eq!(said.number("copied"), 1, "{said:?}");
    assert_eq!(pair.source.get("now/a/1").unwrap().body, b"newer");
    restore(&pair, "s3://source/x", &["--delete"], 2);
    let said = restore(&pair, "s3://source/x", &["--path", "nowhere"], 4);
    assert_eq!(said.number("copied"), 0);
}

#[test]
fn what_is_as_large_and_newer_there_is_not_taken_for_right() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.copies.put("y", b"hello y");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    Bucket::create(&server.reach, "rebuilt").put("y", b"XXXXX y");
    let said = restore(&pair, "s3://rebuilt", &["--overwrite", "if-newer"], 0);
    assert_eq!((said.number("kept"), said.number("copied")), (1, 0), "{said:?}");
    assert!(said.stderr.contains("kept: y"), "{said:?}");
    let said = restore(&pair, "s3://rebuilt", &["--overwrite", "if-changed"], 0);
    assert_eq!((said.number("kept"), said.number("copied")), (0, 1), "{said:?}");
    let said = restore(&pair, "s3://rebuilt", &["--overwrite", "if-changed"], 0);
    assert_eq!((said.number("unchanged"), said.number("copied")), (1, 0), "{said:?}");
}
