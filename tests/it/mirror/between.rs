//! From one server to another, with credentials of their own: the content comes through here.

use std::process::Command;

use aws_sdk_s3::types::{
    ChecksumType, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
};

use super::large::{
    CHECKSUMS, SMALL_PARTS, put_cut, put_uneven, put_with_all_checksums, put_with_checksum,
};
use super::{Pair, rich, whole};
use crate::support::bucket::Bucket;
use crate::support::external::{garage, moto};
use crate::support::program::{Said, User};
use crate::support::server::{Embedded, Fault, Reach};

/// A user who has the keys of both servers in files.
struct Between {
    source: Bucket,
    copies: Bucket,
    user: User,
    args: Vec<String>,
}

impl Between {
    fn new(from: &Reach, to: &Reach) -> Self {
        let user = User::new();
        let file = |name: &str, reach: &Reach| {
            let path = user.home.path().join(name);
            let text = format!(
                "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
                reach.access_key, reach.secret_key
            );
            crate::support::write_secret(&path, &text);
            path.to_str().unwrap().to_owned()
        };
        let args = ["mirror", "s3://source", "s3://copies", "--json"].map(str::to_owned).to_vec();
        let sides = [
            ("--source-endpoint-url", from.endpoint.clone()),
            ("--source-region", from.region.clone()),
            ("--source-credentials-file", file("from", from)),
            ("--endpoint-url", to.endpoint.clone()),
            ("--region", to.region.clone()),
            ("--credentials-file", file("to", to)),
        ];
        let sides = sides.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        Self {
            source: Bucket::create(from, "source"),
            copies: Bucket::create(to, "copies"),
            args: args.into_iter().chain(sides).collect(),
            user,
        }
    }

    fn command(&self, more: &[&str]) -> Command {
        let args: Vec<&str> =
            self.args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.user.command(&args)
    }

    fn mirror(&self, more: &[&str], code: i32) -> Said {
        let args: Vec<&str> =
            self.args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let said = self.user.run(&args);
        assert_eq!(said.code, code, "{said:?}");
        said
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n / 5 + n * 3) % 251).unwrap()).collect()
}

#[test]
fn from_garage_to_moto() {
    let (from, to) = (garage(), moto());
    let both = Between::new(&from.reach, &to.reach);
    for n in 0..30 {
        let put = both.source.client.put_object().bucket("source").key(format!("s/{n}"));
        let put = put.content_type("text/x-rich").cache_control("no-cache").metadata("own", "word");
        both.source.run(put.body(format!("{n}").into_bytes().into()).send()).unwrap();
    }
    // Larger than the memory that content may take on its way is not needed to be seen in parts.
    both.source.put("large", &bytes(40 << 20));
    let said = both.mirror(&[], 0);
    assert_eq!((said.number("copied"), said.number("requests.copy")), (31, 0), "{said:?}");
    let (source, copies) = (whole(&both.source), whole(&both.copies));
    for (key, object) in &source {
        let copy = &copies[key];
        assert!(object.body == copy.body, "{key}");
        assert_eq!((&object.headers[..7], &object.metadata), (&copy.headers[..7], &copy.metadata));
    }
    let said = both.mirror(&[], 0);
    assert_eq!((said.number("copied"), said.number("adopted")), (0, 0), "{said:?}");
    both.source.delete("s/3");
    both.source.put("s/4", b"another one");
    let said = both.mirror(&[], 0);
    assert_eq!((said.number("copied"), said.number("tagged")), (1, 1), "{said:?}");
}

#[test]
fn tags_come_along_and_broken_connections_are_taken_up() {
    let (from, to) = (Embedded::start(), Embedded::start());
    let both = Between::new(&from.reach, &to.reach);
    both.source.run(rich(&both.source, "rich", b"words").send()).unwrap();
    both.source.put("large", &bytes(30 << 20));
    let broken = std::sync::atomic::AtomicUsize::new(0);
    from.rule(move |seen| {
        let is_large = seen.method == "GET" && seen.path.ends_with("large");
        match is_large && broken.fetch_add(1, std::sync::atomic::Ordering::SeqCst).is_multiple_of(2)
        {
            true => Fault::Cut(3_000_000),
            false => Fault::Pass,
        }
    });
    let said = both.mirror(&["--transfers", "4"], 0);
    assert_eq!(said.number("copied"), 2, "{said:?}");
    from.no_rule();
    assert_eq!(whole(&both.source), whole(&both.copies));
}

#[test]
fn streamed_copies_have_the_checksums_of_their_sources() {
    let (from, to) = (Embedded::start(), Embedded::start());
    let both = Between::new(&from.reach, &to.reach);
    let count = put_with_all_checksums(&both.source, &[]);
    let small = both.source.client.put_object().bucket("source").key("small");
    let small = small.checksum_algorithm("SHA1".into()).body(b"words".to_vec().into());
    both.source.run(small.send()).unwrap();
    let said = both.mirror(&SMALL_PARTS, 0);
    assert_eq!(usize::try_from(said.number("copied")), Ok(count + 1), "{said:?}");
    let (source, copies) = (whole(&both.source), whole(&both.copies));
    for (key, object) in &source {
        let copy = &copies[key];
        assert!(object.body == copy.body, "{key}");
        let ((algorithm, of_source), (of_copy, value)) =
            (object.checksum.clone().unwrap(), copy.checksum.clone().unwrap());
        assert_eq!(algorithm, of_copy, "{key}");
        // One of a content that is too large to be sent at once becomes one over its parts.
        assert_eq!(of_source == value, !key.starts_with("whole"), "{key}");
    }
}

#[test]
fn a_streamed_copy_that_was_cut_goes_on_with_the_checksums_of_its_parts() {
    for checksum in CHECKSUMS {
        let (from, to) = (Embedded::start(), Embedded::start());
        let both = Between::new(&from.reach, &to.reach);
        put_with_checksum(&both.source, "large", &bytes(30 << 20), 5 << 20, checksum.clone());
        to.rule(|seen| match seen.query.contains("partNumber=5") {
            true => Fault::Hang,
            false => Fault::Pass,
        });
        let running = both.user.spawn(both.command(&SMALL_PARTS));
        crate::support::wait_for("the other parts", || to.count("UploadPart") >= 5);
        running.kill();
        to.no_rule();
        to.clear_log();
        let said = both.mirror(&SMALL_PARTS, 0);
        assert!(said.stderr.contains("going on with the copy of large"), "{said:?}");
        assert!((1..=5).contains(&to.count("UploadPart")), "{}", to.count("UploadPart"));
        assert!(whole(&both.source) == whole(&both.copies), "{checksum:?}");
    }
}

#[test]
fn where_a_checksum_is_refused_the_copy_has_the_usual_one() {
    let (from, to) = (Embedded::start(), Embedded::start());
    let both = Between::new(&from.reach, &to.reach);
    let checksum = ("CRC32", ChecksumType::FullObject);
    put_with_checksum(&both.source, "large", &bytes(12 << 20), 5 << 20, checksum);
    let opened = std::sync::atomic::AtomicUsize::new(0);
    to.rule(move |seen| match seen.method == "POST" && seen.query.starts_with("uploads") {
        true if opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => {
            Fault::Error(501, "NotImplemented")
        }
        _ => Fault::Pass,
    });
    assert_eq!(both.mirror(&SMALL_PARTS, 0).number("copied"), 1);
    let copy = &whole(&both.copies)["large"];
    assert!(copy.body == bytes(12 << 20));
    assert_eq!(copy.checksum.as_ref().map(|(algorithm, _)| *algorithm), Some("CRC64NVME"));
    assert!(both.copies.open_uploads().is_empty());
}

#[test]
fn a_small_object_has_the_usual_checksum_where_its_own_is_refused() {
    let (from, to) = (Embedded::start(), Embedded::start());
    let both = Between::new(&from.reach, &to.reach);
    let put = both.source.client.put_object().bucket("source").key("small");
    let put = put.checksum_algorithm("SHA256".into()).body(b"words".to_vec().into());
    both.source.run(put.send()).unwrap();
    let refused = std::sync::atomic::AtomicUsize::new(0);
    to.rule(move |seen| match seen.method == "PUT" && seen.path.ends_with("/small") {
        true if refused.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => {
            Fault::Error(400, "InvalidRequest")
        }
        _ => Fault::Pass,
    });
    let said = both.mirror(&[], 0);
    assert_eq!(said.number("copied"), 1);
    assert!(said.stderr.contains("has not the checksum of its source"), "{said:?}");
    let copy = &whole(&both.copies)["small"];
    assert_eq!(copy.checksum.as_ref().map(|(algorithm, _)| *algorithm), Some("CRC64NVME"));
}

#[test]
fn one_object_that_a_server_does_not_offer_something_for_stops_no_other() {
    for (method, query) in [("POST", "uploadId"), ("HEAD", ""), ("GET", "")] {
        let (from, to) = (Embedded::start(), Embedded::start());
        let both = Between::new(&from.reach, &to.reach);
        both.source.put("a", b"1");
        both.source.put("large", &bytes(20 << 20));
        both.source.put("z", b"2");
        let side = if method == "POST" { &to } else { &from };
        side.rule(move |seen| {
            let is_it = seen.method == method && seen.path.ends_with("/large");
            match is_it && seen.query.contains(query) {
                true => Fault::Error(501, "NotImplemented"),
                false => Fault::Pass,
            }
        });
        let said = both.mirror(&[], 1);
        let numbers = (said.number("copied"), said.number("failed"));
        assert_eq!(numbers, (2, 1), "{method}: {said:?}");
        assert!(said.stderr.contains("failed: large: "), "{method}: {said:?}");
        assert!(both.copies.open_uploads().is_empty(), "{method}");
    }
}

#[test]
fn parts_of_several_sizes_are_streamed() {
    let (from, to) = (Embedded::start(), Embedded::start());
    let both = Between::new(&from.reach, &to.reach);
    put_uneven(&both.source);
    let said = both.mirror(&[], 0);
    assert_eq!(usize::try_from(said.number("copied")), Ok(CHECKSUMS.len()));
    let (source, copies) = (whole(&both.source), whole(&both.copies));
    for (key, object) in &source {
        assert!(object.body == copies[key].body, "{key}");
    }
}

/// An object with nothing to tell its content but its ETag, over one part too large for memory.
fn put_in_one_part(bucket: &Bucket, key: &str, body: Vec<u8>) {
    bucket.run(async {
        let upload = bucket.client.create_multipart_upload().bucket("source").key(key);
        let upload = upload.send().await.unwrap();
        let id = upload.upload_id().unwrap();
        let sent = bucket.client.upload_part().bucket("source").key(key).upload_id(id);
        let sent = sent.part_number(1).body(body.into()).send().await.unwrap();
        let part = CompletedPart::builder().part_number(1).e_tag(sent.e_tag().unwrap()).build();
        let all = CompletedMultipartUpload::builder().parts(part).build();
        let complete = bucket.client.complete_multipart_upload().bucket("source").key(key);
        complete.upload_id(id).multipart_upload(all).send().await.unwrap();
    });
}

/// Objects that have one thing to tell their content by, over all of it or over its parts.
#[test]
fn content_that_does_not_add_up_is_not_joined() {
    let (from, to) = (Embedded::start(), Embedded::start());
    let both = Between::new(&from.reach, &to.reach);
    let body = bytes(40 << 20);
    let cut = |part: usize| body.chunks(part).collect::<Vec<_>>();
    let of_parts = |name| (name, ChecksumType::Composite);
    // A part too large to be kept in memory is cut anew: its ETag is over other parts.
    put_cut(&both.source, "a", &cut(40 << 20), ("CRC32", ChecksumType::FullObject), false);
    put_cut(&both.source, "b", &cut(35 << 20), of_parts("SHA256"), false);
    put_cut(&both.source, "c", &cut(8 << 20), of_parts("SHA256"), true);
    put_cut(&both.source, "d", &cut(40 << 20), of_parts("CRC32C"), true);
    put_cut(&both.source, "e", &cut(6 << 20)[..2], of_parts("CRC32C"), true);
    put_in_one_part(&both.source, "f", body.clone());
    for algorithm in ["SHA1", "SHA256"] {
        let put = both.source.client.put_object().bucket("source").key(algorithm);
        let put = put.server_side_encryption(ServerSideEncryption::AwsKms);
        let put = put.checksum_algorithm(algorithm.into()).body(body.clone().into());
        both.source.run(put.send()).unwrap();
    }
    from.rule(|seen| match seen.method == "GET" && !seen.query.contains("list-type") {
        true => Fault::WrongByte(5),
        false => Fault::Pass,
    });
    let said = both.mirror(&[], 1);
    assert_eq!((said.number("failed"), said.number("copied")), (8, 0), "{said:?}");
    for name in ["CRC32", "CRC32C", "SHA1", "SHA256"] {
        let words = format!("is not what the source's {name} says");
        assert!(said.stderr.contains(&words), "{name}: {said:?}");
    }
    assert!(both.copies.listed().is_empty() && both.copies.open_uploads().is_empty());
    from.no_rule();
    assert_eq!(both.mirror(&[], 0).number("copied"), 8);
}

#[test]
fn content_that_is_not_what_its_checksum_says_is_not_kept() {
    let (from, to) = (Embedded::start(), Embedded::start());
    let both = Between::new(&from.reach, &to.reach);
    both.source.put("small", b"some words");
    both.source.put("large", &bytes(20 << 20));
    from.rule(|seen| match seen.method == "GET" && !seen.query.contains("list-type") {
        true => Fault::WrongByte(5),
        false => Fault::Pass,
    });
    let said = both.mirror(&[], 1);
    assert_eq!((said.number("failed"), said.number("copied")), (2, 0), "{said:?}");
    assert!(said.stderr.contains("is not what the source's"), "{said:?}");
    assert!(both.copies.listed().is_empty() && both.copies.open_uploads().is_empty());
    from.no_rule();
    assert_eq!(both.mirror(&[], 0).number("copied"), 2);
}

#[test]
fn a_streamed_copy_that_was_cut_goes_on() {
    let (from, to) = (Embedded::start(), Embedded::start());
    let both = Between::new(&from.reach, &to.reach);
    both.source.put("large", &bytes(64 << 20));
    to.rule(|seen| match seen.query.contains("partNumber=5") {
        true => Fault::Hang,
        false => Fault::Pass,
    });
    let running = both.user.spawn(both.command(&[]));
    // Four at once: all but the last few are in the journal, too.
    crate::support::wait_for("the other parts", || to.count("UploadPart") >= 7);
    running.kill();
    to.no_rule();
    to.clear_log();
    let said = both.mirror(&[], 0);
    assert!(said.stderr.contains("going on with the copy of large"), "{said:?}");
    assert!((1..=5).contains(&to.count("UploadPart")), "{}", to.count("UploadPart"));
    assert!(both.copies.get("large").unwrap().body == bytes(64 << 20));
}

#[test]
fn one_server_with_other_credentials_is_two() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("a", b"1");
    let file = pair.user.home.path().join("keys");
    crate::support::write_secret(
        &file,
        &format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            server.reach.access_key, server.reach.secret_key
        ),
    );
    let said = pair.mirror(&["--source-credentials-file", file.to_str().unwrap()], 0);
    assert_eq!((said.number("copied"), said.number("requests.copy")), (1, 0), "{said:?}");
    pair.is_kept();
}

#[test]
fn stores_in_folders() {
    let user = User::new();
    let folder = |name: &str| user.home.path().join(name).to_str().unwrap().to_owned();
    let tree = crate::support::tree::Tree::new(&[("a", b"1"), ("b/c", b"2")]);
    let source = format!("file://{}", folder("one"));
    user.sync(tree.folder.path(), &source, &["--create-bucket"], 0);
    for (destination, copies) in
        [(format!("file://{}#second", folder("one")), 2), (format!("file://{}", folder("two")), 2)]
    {
        let said = user.run(&["mirror", &source, &destination, "--json", "--create-bucket"]);
        assert_eq!((said.code, said.number("copied")), (0, copies), "{said:?}");
        let said = user.run(&["verify", &source, &destination, "--json"]);
        assert_eq!((said.code, said.number("verified")), (0, 2), "{said:?}");
    }
    let back = user.run(&["restore", &format!("file://{}", folder("two")), &folder("back")]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(std::fs::read(user.home.path().join("back/b/c")).unwrap(), b"2");
}

#[test]
fn what_the_destination_does_not_offer_for_one_object_stops_no_other() {
    let (from, to) = (moto(), Embedded::start());
    let both = Between::new(&from.reach, &to.reach);
    for key in ["a", "b", "c"] {
        let put = both.source.client.put_object().bucket("source").key(key);
        let put = put.body(b"1".to_vec().into());
        let put = if key == "b" { put.website_redirect_location("/else") } else { put };
        both.source.run(put.send()).unwrap();
    }
    let said = both.mirror(&[], 1);
    assert_eq!((said.number("copied"), said.number("failed")), (2, 1), "{said:?}");
    assert!(said.stderr.contains("failed: b: cannot copy b: "), "{said:?}");
}
