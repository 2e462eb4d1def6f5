//! Two buckets compared, and nothing written.

use super::Pair;
use super::large::put_in_parts;
use crate::support::external::moto;
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

#[test]
fn a_copy_that_is_marked_although_its_source_is_there() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    ["a", "b"].iter().for_each(|key| pair.source.put(key, key.as_bytes()));
    pair.mirror(&[], 0);
    let put = pair.copies.client.put_object().bucket("copies").key("a").body(b"a".to_vec().into());
    pair.copies.run(put.tagging("Deleted=True&own=1").send()).unwrap();
    server.clear_log();
    let args = ["verify", "s3://source", "s3://copies", "--compare", "checksum", "--json"];
    let said = pair.user.run(&args);
    assert_eq!((said.code, said.number("differing"), said.number("verified")), (1, 1, 1));
    assert!(said.stdout.contains("tagged as deleted, although it is in the source"), "{said:?}");
    // A look at each copy, and the tags of the one that has some; and the question to the server.
    assert_eq!((server.count("HeadObject"), server.count("GetObjectTagging")), (2, 2));
}

#[test]
fn where_no_checksum_can_be_compared_that_is_said() {
    const MIB: usize = 1024 * 1024;
    let server = moto();
    let pair = Pair::new(&server.reach);
    pair.source.put("large", &vec![b'a'; 6 * MIB]);
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    put_in_parts(&pair.copies, "large", &vec![b'b'; 6 * MIB], 5 * MIB);
    let args = ["verify", "s3://source", "s3://copies", "--compare", "checksum", "--json"];
    let said = pair.user.run(&args);
    assert_eq!((said.code, said.number("unknown"), said.number("verified")), (1, 1, 0), "{said:?}");
    assert!(said.stdout.contains("nobody can tell"), "{said:?}");
}

#[test]
fn an_object_with_the_name_of_the_prefix_is_said() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("pre/", b"1");
    pair.source.put("pre/a", b"1");
    for (command, number) in [("mirror", "copied"), ("verify", "verified")] {
        let said = pair.user.run(&[command, "s3://source/pre", "s3://copies/pre", "--json"]);
        assert_eq!((said.code, said.number(number), said.number("skipped")), (3, 1, 1), "{said:?}");
        assert!(said.stderr.contains("the very name of the prefix"), "{said:?}");
    }
    // The mark of a folder has no content to be missed.
    pair.source.put("pre/", b"");
    let said = pair.user.run(&["verify", "s3://source/pre", "s3://copies/pre", "--json"]);
    assert_eq!((said.code, said.number("skipped")), (0, 0), "{said:?}");
}
