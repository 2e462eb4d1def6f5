//! Objects in archive classes: asked for, waited for, fetched; stopped and gone on with.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_s3::types::StorageClass;

use crate::support::bucket::Bucket;
use crate::support::external::moto;
use crate::support::program::{Said, User};
use crate::support::scene::{Scene, TO};
use crate::support::server::Reach;
use crate::support::tree::Tree;
use crate::support::wait_for;

const COLD: usize = 100;

/// A hundred files in a hot class and a hundred in a cold one, put there by keepwatch.
fn half_archived() -> Scene {
    let scene = Scene::new(&[]);
    (0..COLD).for_each(|n| scene.tree.write(format!("{n}/warm"), format!("warm {n}").as_bytes()));
    scene.sync(&[], 0);
    (0..COLD).for_each(|n| scene.tree.write(format!("{n}/cold"), format!("cold {n}").as_bytes()));
    scene.sync(&["--storage-class", "GLACIER"], 0);
    scene.server.clear_log();
    scene
}

fn restore(scene: &Scene, back: &Tree, more: &[&str], code: i32) -> Said {
    let said = scene.user.run(&[&["restore", TO, &to(back), "--json"], more].concat());
    assert_eq!(said.code, code, "{more:?}: {said:?}");
    said
}

fn to(back: &Tree) -> String {
    back.folder.path().to_str().unwrap().to_owned()
}

fn says(said: &Said, words: &[&str]) {
    for word in words {
        assert!(said.stderr.contains(word), "{word:?} is not in:\n{}", said.stderr);
    }
}

#[test]
fn what_is_archived_is_asked_for_and_waited_for() {
    let scene = half_archived();
    let back = Tree::new(&[]);
    let said = restore(&scene, &back, &["--dry-run"], 3);
    assert_eq!((said.number("downloaded"), said.number("frozen")), (100, 100), "{said:?}");
    assert_eq!(said.stdout.matches("archived: it must be thawed first").count(), COLD);
    assert_eq!(scene.server.count("RestoreObject"), 0);
    scene.server.clear_log();

    let said = restore(&scene, &back, &["--poll", "400ms"], 0);
    says(
        &said,
        &[
            "200 to fetch (",
            "of these, 100 archived objects (",
            "must be thawed first, which takes 3 to 12 hours",
            "waiting for 100 archived objects, looking again every 0.4 s",
        ],
    );
    assert_eq!((said.number("downloaded"), said.number("verified")), (200, 200), "{said:?}");
    assert_eq!(back.expected(""), scene.tree.expected(""));
    // One look and one request each; then a page of a listing at each look at all of them.
    let count = |operation| scene.server.count(operation);
    assert_eq!((count("HeadObject"), count("RestoreObject"), count("GetObject")), (100, 100, 200));
    let looks = said.stderr.matches("still waiting for ").count();
    assert!(looks >= 2, "{said:?}");
    assert_eq!(count("ListObjectsV2"), 2 + looks + 1);

    // The copies are there for some days: they are neither asked nor waited for.
    scene.server.clear_log();
    let again = Tree::new(&[]);
    let said = restore(&scene, &again, &[], 0);
    assert!(!said.stderr.contains("archived"), "{said:?}");
    assert_eq!(again.expected(""), scene.tree.expected(""));
    assert_eq!(count("RestoreObject"), 0);
}

#[test]
fn stopped_while_it_waits_and_gone_on_with() {
    let scene = half_archived();
    let back = Tree::new(&[]);
    let command = scene.user.command(&["restore", TO, &to(&back), "--poll", "10m"]);
    let running = scene.user.spawn(command);
    wait_for("the wait", || running.log().contains("waiting for 100 archived objects"));
    assert_eq!(scene.server.count("RestoreObject"), COLD);
    running.signal("INT");
    assert_eq!(running.wait(), 130);
    let there = back.expected("");
    assert_eq!(there.len(), 100, "all that could be read is there");
    assert!(there.keys().all(|key| key.ends_with("/warm")));

    let said = restore(&scene, &back, &["--no-wait"], 3);
    assert_eq!((said.number("frozen"), said.number("downloaded")), (100, 0), "{said:?}");
    let said = restore(&scene, &back, &["--poll", "200ms"], 0);
    assert_eq!((said.number("unchanged"), said.number("downloaded")), (100, 100), "{said:?}");
    assert_eq!(back.expected(""), scene.tree.expected(""));
    assert_eq!(scene.server.count("RestoreObject"), COLD, "each was asked for once");
}

#[test]
fn asked_for_and_left_alone() {
    let scene = half_archived();
    let back = Tree::new(&[]);
    let said = scene.user.run(&["restore", TO, &to(&back), "--no-wait", "--tier", "bulk"]);
    assert_eq!(said.code, 3, "{said:?}");
    says(&said, &["must be thawed first, which takes 5 to 48 hours"]);
    assert!(said.stdout.contains("100 archived objects being thawed: run this again later"));
    assert_eq!((back.expected("").len(), scene.server.count("RestoreObject")), (100, COLD));
    // As long as it was asked to.
    let head = |key: &str| {
        let head = scene.bucket.client.head_object().bucket("bucket").key(key);
        scene.bucket.run(head.send()).unwrap().restore().unwrap_or_default().to_owned()
    };
    assert!(head("p/7/cold").contains("ongoing-request=\"true\""));
    restore(&scene, &back, &["--poll", "200ms"], 0);
    let expiry = |header: String| -> i64 {
        let date = header.split("expiry-date=\"").nth(1).unwrap().trim_end_matches('"').to_owned();
        jiff::fmt::rfc2822::parse(&date).unwrap().timestamp().as_second()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let days = (expiry(head("p/7/cold")) - now) / 86_400;
    assert!((7..=8).contains(&days), "{days}");
}

#[test]
fn days_and_a_tier_that_the_class_does_not_have() {
    let scene = Scene::new(&[("a", b"1")]);
    scene.sync(&["--storage-class", "DEEP_ARCHIVE"], 0);
    let back = Tree::new(&[]);
    let said = restore(&scene, &back, &["--tier", "expedited"], 1);
    says(&said, &["failed: a: ", "--tier standard"]);
    let said = restore(&scene, &back, &["--days", "30", "--poll", "100ms"], 0);
    assert_eq!(said.number("downloaded"), 1);
    let head = scene.bucket.client.head_object().bucket("bucket").key("p/a");
    let header = scene.bucket.run(head.send()).unwrap().restore().unwrap().to_owned();
    let date = header.split("expiry-date=\"").nth(1).unwrap().trim_end_matches('"').to_owned();
    let until = jiff::fmt::rfc2822::parse(&date).unwrap().timestamp().as_second();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    assert!((30..=31).contains(&((until - now) / 86_400)), "{header}");
    let said = scene.user.run(&["restore", TO, &to(&back), "--days", "0"]);
    assert_eq!(said.code, 2, "{said:?}");
}

/// moto takes a restore to be over when it was looked at so many times.
fn holds_thaws(reach: &Reach, times: u32) {
    let body = format!(
        "{{\"model_name\":\"s3::keyrestore\",\"transition\":\
         {{\"progression\":\"manual\",\"times\":{times}}}}}"
    );
    let address = reach.endpoint.trim_start_matches("http://");
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    write!(
        socket,
        "POST /moto-api/state-manager/set-transition HTTP/1.1\r\nhost: {address}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 20"), "{reply}");
}

#[test]
fn what_moto_holds_back_comes_in_the_end() {
    let server = moto();
    holds_thaws(&server.reach, 3);
    let (user, bucket) = (User::of(&server.reach), Bucket::create(&server.reach, "bucket"));
    let mut expected = BTreeMap::new();
    for n in 0..200 {
        let put = bucket.client.put_object().bucket("bucket").key(format!("p/{n:03}"));
        let class = if n % 2 == 0 { StorageClass::Glacier } else { StorageClass::Standard };
        let body = format!("body {n}").into_bytes();
        bucket.run(put.storage_class(class).body(body.clone().into()).send()).unwrap();
        expected.insert(format!("{n:03}"), body);
    }
    let back = Tree::new(&[]);
    let content = || -> BTreeMap<String, Vec<u8>> {
        back.expected("").into_iter().map(|(key, (body, _))| (key, body)).collect()
    };
    let run = |more: &[&str], code: i32| {
        let said = user.run(&[&["restore", TO, &to(&back), "--json"], more].concat());
        assert_eq!(said.code, code, "{said:?}");
        said
    };
    let said = run(&["--no-wait"], 3);
    assert_eq!((said.number("frozen"), said.number("downloaded")), (100, 100), "{said:?}");
    assert_eq!(content().len(), 100);
    let said = run(&["--poll", "200ms"], 0);
    says(&said, &["waiting for 100 archived objects"]);
    assert_eq!(said.number("downloaded"), 100);
    assert_eq!(content(), expected);
}
