//! Two buckets compared, and nothing written.

use super::Pair;
use crate::support::server::Embedded;

#[test]
fn differences_are_named_and_nothing_is_written() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    (0..5).for_each(|n| pair.source.put(&format!("k/{n}"), format!("{n}").as_bytes()));
    let verify = |more: &[&str], code: i32| {
        server.clear_log();
        let args = [&["verify", "s3://source", "s3://copies", "--json"], more].concat();
        let said = pair.user.run(&args);
        assert_eq!(said.code, code, "{said:?}");
        let reads = ["ListObjectsV2", "HeadObject", "GetObjectTagging"];
        for access in server.log() {
            assert!(reads.contains(&access.operation.as_str()), "{access:?}");
        }
        said
    };
    assert_eq!(verify(&[], 1).number("missing"), 5);
    pair.mirror(&[], 0);
    let said = verify(&[], 0);
    assert_eq!((said.number("verified"), said.number("requests.list")), (5, 2), "{said:?}");
    assert_eq!(said.number("requests.head") + said.number("requests.other"), 0);

    pair.source.delete("k/0");
    pair.mirror(&[], 0);
    assert_eq!(verify(&[], 0).number("tagged"), 1, "what is tagged as deleted is as it should be");
    // Times of objects are of one second: what is written now is newer than its source.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    pair.copies.put("k/1", b"spoilt");
    pair.copies.put("k/2", b"X");
    pair.copies.delete("k/3");
    pair.copies.put("strange", b"1");
    let said = verify(&[], 1);
    let told: Vec<String> = said
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|line| Some(format!("{} {}", line["difference"].as_str()?, line["path"])))
        .collect();
    assert!(told.contains(&"differs \"k/1\"".to_owned()), "{told:?}");
    assert!(told.contains(&"missing \"k/3\"".to_owned()), "{told:?}");
    assert!(told.contains(&"extra \"strange\"".to_owned()), "{told:?}");
    assert_eq!(told.len(), 3, "{told:?}");
    // Of the same size, and the copy is the newer: only the content tells.
    let said = verify(&["--compare", "checksum"], 1);
    assert_eq!(said.number("differing"), 2, "{said:?}");
    let said = verify(&["--exclude", "k/", "--exclude", "strange"], 0);
    assert_eq!(said.number("scanned"), 0);

    // The mirror mends what somebody else changed.
    let said = pair.mirror(&[], 0);
    assert_eq!(said.number("copied"), 3, "{said:?}");
    assert_eq!(verify(&["--compare", "checksum", "--exclude", "strange"], 0).number("verified"), 4);
}
