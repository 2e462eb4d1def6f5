//! The marks of a deletion on objects of a backup: put on nobody else's, charged once, and taken
//! off whatever is there again, for a restore would leave it out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::bucket::Bucket;
use crate::support::program::Said;
use crate::support::scene::Scene;
use crate::support::server::{Fault, Seen};
use crate::support::wait_for;

const TAG: [&str; 4] = ["--deletions", "tag", "--retry-for", "1s"];
const KEY: &str = "p/f/1";

fn tags(bucket: &Bucket, key: &str) -> BTreeMap<String, String> {
    let get = bucket.client.get_object_tagging().bucket(&bucket.name).key(key);
    let reply = bucket.run(get.send()).unwrap();
    let pair = |tag: &aws_sdk_s3::types::Tag| (tag.key().to_owned(), tag.value().to_owned());
    reply.tag_set().iter().map(pair).collect()
}

fn is_marked(scene: &Scene) -> bool {
    tags(&scene.bucket, KEY).get("Deleted").is_some_and(|value| value == "True")
}

fn put(bucket: &Bucket, key: &str, tags: &str) {
    let put = bucket.client.put_object().bucket(&bucket.name).key(key).tagging(tags);
    bucket.run(put.body(b"of somebody else".to_vec().into()).send()).unwrap();
}

/// A file that was taken away, and can come back as it was.
struct Away {
    file: PathBuf,
    aside: tempfile::TempDir,
}

impl Away {
    fn take(scene: &Scene) -> Self {
        let file = scene.tree.folder.path().join("f/1");
        let aside = tempfile::tempdir_in(scene.tree.folder.path().parent().unwrap()).unwrap();
        std::fs::rename(&file, aside.path().join("1")).unwrap();
        Self { file, aside }
    }

    fn comes_back(self) {
        std::fs::rename(self.aside.path().join("1"), self.file).unwrap();
    }
}

/// A request that writes tags, or takes them all off.
fn writes_tags(seen: &Seen<'_>) -> bool {
    matches!(seen.method, "PUT" | "DELETE") && seen.query.contains("tagging")
}

/// Nothing was sent again, and nothing is marked.
fn is_free(scene: &Scene, said: &Said) {
    assert_eq!(
        (said.number("uploaded"), tags(&scene.bucket, KEY)),
        (0, BTreeMap::new()),
        "{said:?}"
    );
    scene.is_settled(0);
}

#[test]
fn what_somebody_else_has_put_is_not_marked() {
    // One that is not known to judge by conditions, and one that is: for tags there is none.
    for in_process in [false, true] {
        let scene = Scene::with_files(4);
        let (to, bucket, key) = match in_process {
            true => {
                let to = format!("file://{}", scene.server.folder.path().display());
                (to, Bucket::create(&scene.server.reach, "keepwatch"), "f/1")
            }
            false => ("s3://bucket/p".to_owned(), Bucket::open(&scene.server.reach, "bucket"), KEY),
        };
        let sync = || scene.user.sync(scene.tree.folder.path(), &to, &TAG, 0);
        assert_eq!(sync().number("uploaded"), 4);
        scene.tree.remove("f/1");
        put(&bucket, key, "mine=1");
        let said = sync();
        assert_eq!((said.number("tagged"), said.number("unclaimed")), (0, 1), "{said:?}");
        let mine = BTreeMap::from([("mine".to_owned(), "1".to_owned())]);
        assert_eq!(tags(&bucket, key), mine, "in process: {in_process}");
    }
}

#[test]
fn what_fails_again_and_again_is_charged_once() {
    let scene = Scene::with_files(40);
    let few = [&TAG[..], &["--max-delete", "10"]].concat();
    scene.sync(&few, 0);
    (0..6).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    scene.server.rule(|seen| match writes_tags(seen) {
        true => Fault::Error(400, "InvalidTag"),
        false => Fault::Pass,
    });
    for n in 0..5 {
        let said = scene.sync(&few, 1);
        let numbers = (said.number("tagged"), said.number("failed"), said.number("held"));
        assert_eq!(numbers, (0, 6, 0), "run {n}: {said:?}");
    }
    scene.server.no_rule();
    assert_eq!(scene.sync(&few, 0).number("tagged"), 6);
    // The budget is spent as far as it is, and no further.
    (6..12).for_each(|n| scene.tree.remove(&format!("f/{n}")));
    assert_eq!(scene.sync(&few, 7).number("held"), 6);
}

#[test]
fn own_tags_with_the_name_of_a_mark_stay() {
    for own in ["Deleted=no&own=1", "DeletedAt=never"] {
        let scene = Scene::with_files(4);
        scene.sync(&TAG, 0);
        let set: Vec<_> = own.split('&').map(|pair| pair.split_once('=').unwrap()).collect();
        let tag = |(name, value): &(&str, &str)| {
            aws_sdk_s3::types::Tag::builder().key(*name).value(*value).build().unwrap()
        };
        let set = set.iter().map(tag).collect();
        let set = aws_sdk_s3::types::Tagging::builder().set_tag_set(Some(set)).build().unwrap();
        let sent = scene.bucket.client.put_object_tagging().bucket("bucket").key(KEY).tagging(set);
        scene.bucket.run(sent.send()).unwrap();
        let before = tags(&scene.bucket, KEY);
        let away = Away::take(&scene);
        let said = scene.sync(&TAG, 1);
        assert_eq!((said.number("tagged"), said.number("failed")), (0, 1), "{said:?}");
        assert!(said.stderr.contains("of its own, where the mark"), "{said:?}");
        assert!(said.stderr.contains("(give that tag another name)"), "{said:?}");
        assert_eq!(said.number("requests.other"), 1, "asked once: {said:?}");
        assert_eq!(tags(&scene.bucket, KEY), before);
        away.comes_back();
        let said = scene.sync(&TAG, 0);
        assert_eq!((said.number("uploaded"), tags(&scene.bucket, KEY)), (0, before), "{said:?}");
        scene.is_settled(0);
    }
}

/// Marked, with the state lost, and back.
fn back_without_a_record() -> Scene {
    let scene = Scene::with_files(4);
    scene.sync(&TAG, 0);
    let away = Away::take(&scene);
    assert_eq!(scene.sync(&TAG, 0).number("tagged"), 1);
    assert!(is_marked(&scene));
    away.comes_back();
    std::fs::remove_dir_all(scene.user.state_folder()).unwrap();
    scene
}

#[test]
fn a_server_that_tells_no_number_of_tags_is_asked() {
    let scene = back_without_a_record();
    scene.server.rule(|_| Fault::NoTagCount);
    let said = scene.sync(&TAG, 0);
    is_free(&scene, &said);
}

#[test]
fn marks_that_could_not_be_taken_off_are_taken_off_later() {
    for reads in [true, false] {
        let scene = back_without_a_record();
        scene.server.rule(move |seen| {
            let fails = match reads {
                true => seen.method == "GET" && seen.query.contains("tagging"),
                false => writes_tags(seen),
            };
            match fails && seen.path.ends_with("f/1") {
                true => Fault::Error(400, "InvalidTag"),
                false => Fault::Pass,
            }
        });
        let said = scene.sync(&TAG, 1);
        assert_eq!((said.number("failed"), said.number("adopted")), (1, 3), "{said:?}");
        scene.server.no_rule();
        assert!(is_marked(&scene));
        let said = scene.sync(&TAG, 0);
        is_free(&scene, &said);
    }
}

/// The marks were put, and nobody heard of it.
#[test]
fn what_is_back_after_a_lost_reply_to_its_marks_is_free() {
    let scene = Scene::with_files(4);
    scene.sync(&TAG, 0);
    let away = Away::take(&scene);
    scene.server.rule(|seen| match writes_tags(seen) {
        true => Fault::DropReply,
        false => Fault::Pass,
    });
    let said = scene.user.sync(scene.tree.folder.path(), "s3://bucket/p", &TAG, 5);
    assert_eq!(said.number("tagged"), 0, "{said:?}");
    assert!(is_marked(&scene));
    scene.server.no_rule();
    away.comes_back();
    let said = scene.sync(&TAG, 0);
    is_free(&scene, &said);
}

/// A file that comes back while its object is being marked: the marks come behind it, or came and
/// nobody heard of it.
#[test]
fn what_comes_back_while_it_is_being_marked_is_freed() {
    for is_heard in [true, false] {
        let scene = Scene::with_files(4);
        let daemon = scene.follow(&TAG[..2]);
        let (asked, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen_at, until) = (asked.clone(), go_on.clone());
        scene.server.rule(move |seen| match writes_tags(seen) && seen.method == "PUT" {
            true if seen_at.fetch_add(1, Ordering::SeqCst) > 0 || !is_heard => Fault::DropReply,
            true => Fault::Until(until.clone()),
            false => Fault::Pass,
        });
        let away = Away::take(&scene);
        wait_for("the marks to be sent", || asked.load(Ordering::SeqCst) > 0);
        if !is_heard {
            wait_for("the marks to be there", || is_marked(&scene));
        }
        away.comes_back();
        go_on.store(true, Ordering::SeqCst);
        wait_for("the marks to be there", || scene.server.count("PutObjectTagging") > 0);
        scene.server.no_rule();
        wait_for("the marks to go", || tags(&scene.bucket, KEY).is_empty());
        scene.comes_right(&daemon);
        assert_eq!(daemon.stop(), 0);
        scene.is_settled(0);
    }
}
