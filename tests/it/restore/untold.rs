//! Servers that do not tell how many tags an object has, and tags that may not be read: what was
//! tagged as deleted is not taken for alive without a word.

use crate::support::bucket::Bucket;
use crate::support::external::moto;
use crate::support::program::{Said, User};
use crate::support::server::{Embedded, Fault, Seen};
use crate::support::tree::Tree;

fn put(bucket: &Bucket, key: &str, tags: &str) {
    let put = bucket.client.put_object().bucket(&bucket.name).key(key).tagging(tags);
    bucket.run(put.body(key.as_bytes().to_vec().into()).send()).unwrap();
}

fn fill(bucket: &Bucket) {
    put(bucket, "a", "own=1");
    put(bucket, "gone", "Deleted=True&DeletedAt=2026-01-01T00%3A00");
    put(bucket, "z", "");
}

fn asks_for_tags(seen: &Seen<'_>) -> bool {
    seen.method == "GET" && seen.query.contains("tagging")
}

fn into_folder(user: &User) -> (Said, Vec<String>) {
    let back = Tree::new(&[]);
    let to = back.folder.path().to_str().unwrap();
    let said = user.run(&["restore", "s3://bucket", to, "--json"]);
    (said, back.expected("").into_keys().collect())
}

fn into_bucket(server: &Embedded, user: &User, to: &str, more: &[&str]) -> (Said, Vec<String>) {
    let to_url = format!("s3://{to}");
    let args = ["restore", "s3://bucket", &to_url, "--create-bucket", "--json"];
    let said = user.run(&[&args[..], more].concat());
    (said, Bucket::open(&server.reach, to).keys())
}

#[test]
fn a_server_that_tells_no_number_is_asked() {
    let server = Embedded::start();
    let (bucket, user) = (Bucket::create(&server.reach, "bucket"), User::of(&server.reach));
    fill(&bucket);
    server.rule(|_| Fault::NoTagCount);
    let (said, files) = into_folder(&user);
    assert_eq!((said.code, said.number("left_out"), said.number("untold")), (0, 1, 0), "{said:?}");
    assert_eq!(files, ["a", "z"]);
    let (said, keys) = into_bucket(&server, &user, "again", &[]);
    assert_eq!((said.code, said.number("left_out"), said.number("untold")), (0, 1, 0), "{said:?}");
    assert_eq!(keys, ["a", "z"]);
}

#[test]
fn a_server_that_tells_the_number_is_not_asked_for_each() {
    let server = Embedded::start();
    let (bucket, user) = (Bucket::create(&server.reach, "bucket"), User::of(&server.reach));
    fill(&bucket);
    (0..20).for_each(|n| bucket.put(&format!("more/{n}"), b"1"));
    server.clear_log();
    let (said, files) = into_folder(&user);
    assert_eq!((said.code, said.number("left_out"), files.len()), (0, 1, 22), "{said:?}");
    // Of those that have tags.
    assert_eq!(server.count("GetObjectTagging"), 2);
}

#[test]
fn on_moto_what_is_tagged_is_left_out() {
    let server = moto();
    let (bucket, user) = (Bucket::create(&server.reach, "bucket"), User::of(&server.reach));
    fill(&bucket);
    let (said, files) = into_folder(&user);
    assert_eq!((said.code, said.number("left_out")), (0, 1), "{said:?}");
    assert_eq!(files, ["a", "z"]);
}

#[test]
fn tags_that_may_not_be_read_are_said_and_counted() {
    let server = Embedded::start();
    let (bucket, user) = (Bucket::create(&server.reach, "bucket"), User::of(&server.reach));
    fill(&bucket);
    server.rule(|seen| match asks_for_tags(seen) && seen.path.starts_with("/bucket/") {
        true => Fault::Error(403, "AccessDenied"),
        false => Fault::NoTagCount,
    });
    let is_said = |said: &Said| {
        let lines = said.stderr.lines();
        let warned = lines.filter(|line| line.contains("s3:GetObjectTagging")).count();
        assert_eq!(warned, 1, "{said:?}");
        assert!(said.stderr.contains("nobody can tell what was tagged as deleted"), "{said:?}");
    };
    let (said, files) = into_folder(&user);
    assert_eq!((said.code, said.number("left_out"), said.number("untold")), (3, 0, 3), "{said:?}");
    assert_eq!(files, ["a", "gone", "z"], "all of it is back");
    is_said(&said);
    let (said, keys) = into_bucket(&server, &user, "again", &[]);
    assert_eq!((said.code, said.number("copied"), said.number("untold")), (3, 3, 3), "{said:?}");
    assert_eq!(keys, ["a", "gone", "z"]);
    is_said(&said);
    // In parts, where the tags do not come with the content by themselves.
    bucket.put("large", &vec![b'l'; 6 << 20]);
    let parts = ["--path", "large", "--bandwidth", "1GiB"];
    let (said, _) = into_bucket(&server, &user, "parts", &parts[..2]);
    assert_eq!((said.code, said.number("copied"), said.number("untold")), (3, 1, 1), "{said:?}");
}
