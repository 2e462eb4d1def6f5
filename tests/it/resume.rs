//! A multipart upload that was cut goes on from its parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::program::Daemon;
use crate::support::scene::{Scene, TO};
use crate::support::server::{Embedded, Fault, Seen};
use crate::support::wait_for;

const MIB: usize = 1024 * 1024;
const PARTS: usize = 8;
const OPTIONS: [&str; 4] = ["--multipart-threshold", "5MiB", "--part-size", "5MiB"];

fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    fastrand::Rng::with_seed(seed).fill(&mut content);
    content
}

fn large(seed: u64) -> Vec<u8> {
    content(seed, PARTS * 5 * MIB)
}

/// Three parts arrive; the fate of all others is this.
fn cut_after_three(server: &Embedded, fate: Fault) {
    let sent = AtomicUsize::new(0);
    server.rule(move |seen| {
        let part = seen.method == "PUT" && seen.query.contains("partNumber=");
        let cut = part && sent.fetch_add(1, Ordering::SeqCst) >= 3;
        if cut { fate.clone() } else { Fault::Pass }
    });
}

/// A daemon that was killed in the middle of an upload. Answers with the upload's id.
fn killed_in_the_middle(scene: &Scene) -> String {
    scene.tree.write("large", &large(1));
    cut_after_three(&scene.server, Fault::Hang);
    let daemon = scene.user.start(&scene.quick(&OPTIONS));
    wait_for("three parts", || scene.uploads("UploadPart").len() == 3);
    // The records of parts come before the answer, which is read behind them.
    wait_for("the daemon to answer", || daemon.status().is_some());
    daemon.kill();
    scene.server.no_rule();
    let begun = scene.uploads("UploadPart");
    scene.server.clear_log();
    begun[0].clone()
}

/// An upload of the same key, as another tool opens it.
fn opened_by_another(scene: &Scene) -> String {
    let open = scene.bucket.client.create_multipart_upload().bucket("bucket").key("p/large").send();
    scene.bucket.run(open).unwrap().upload_id().unwrap().to_owned()
}

fn go_on(scene: &Scene) -> Daemon<'_> {
    let daemon = scene.follow(&OPTIONS);
    scene.comes_right(&daemon);
    assert_eq!(scene.bucket.open_uploads(), [""; 0]);
    daemon
}

#[test]
fn goes_on_from_its_parts_after_a_kill() {
    let scene = Scene::new(&[]);
    let id = killed_in_the_middle(&scene);
    let daemon = go_on(&scene);
    assert_eq!(scene.uploads("UploadPart"), vec![id.clone(); PARTS - 3]);
    assert_eq!(scene.uploads("CompleteMultipartUpload"), [id]);
    assert_eq!(scene.server.count("CreateMultipartUpload"), 0);
    assert!(daemon.log().contains("going on with an upload"), "{}", daemon.log());
}

#[test]
fn goes_on_from_its_parts_after_lost_replies() {
    let scene = Scene::new(&[("large", &large(1))]);
    cut_after_three(&scene.server, Fault::DropReply);
    let daemon = scene.user.watch(&scene.quick(&OPTIONS));
    wait_for("parts to be sent again", || scene.uploads("UploadPart").len() > PARTS);
    scene.server.no_rule();
    scene.comes_right(&daemon);
    let all = scene.uploads("UploadPart");
    assert!(all.iter().all(|id| *id == all[0]), "one upload: {all:?}");
    let sent: Vec<_> = scene.server.log().into_iter().filter_map(|a| a.part_number).collect();
    let once = sent.iter().filter(|part| sent.iter().filter(|other| other == part).count() == 1);
    assert!(once.count() >= 3, "what was acknowledged is not sent again: {sent:?}");
    assert_eq!(scene.server.count("CreateMultipartUpload"), 1);
    assert_eq!(scene.bucket.open_uploads(), [""; 0]);
}

#[test]
fn starts_over_when_the_file_changed() {
    let scene = Scene::new(&[]);
    let id = killed_in_the_middle(&scene);
    // As large as before, and the first parts are the same.
    let mut changed = large(1);
    changed[38 * MIB..].copy_from_slice(&content(2, 2 * MIB));
    scene.tree.write("large", &changed);
    go_on(&scene);
    assert_eq!(scene.uploads("AbortMultipartUpload"), [id.as_str()]);
    let parts = scene.uploads("UploadPart");
    assert_eq!(parts.len(), PARTS);
    assert!(!parts.contains(&id));
}

#[test]
fn leaves_no_upload_behind_when_the_file_shrank_or_went() {
    let scene = Scene::new(&[]);
    let id = killed_in_the_middle(&scene);
    scene.tree.write("large", b"small by now");
    let daemon = go_on(&scene);
    assert_eq!(scene.uploads("AbortMultipartUpload"), [id]);
    assert_eq!(scene.server.count("UploadPart"), 0);
    assert_eq!(daemon.stop(), 0);

    let id = killed_in_the_middle(&scene);
    scene.tree.remove("large");
    go_on(&scene);
    assert_eq!(scene.uploads("AbortMultipartUpload"), [id]);
    assert_eq!(scene.get("large"), None);
}

#[test]
fn sync_goes_on_with_what_an_interrupted_sync_began() {
    let scene = Scene::new(&[("large", &large(1))]);
    cut_after_three(&scene.server, Fault::Hang);
    let source = scene.source();
    let mut command = scene.user.command(&["sync", source, TO]);
    command.args(OPTIONS);
    let sync = scene.user.spawn(command);
    wait_for("three parts", || scene.uploads("UploadPart").len() == 3);
    sync.signal("INT");
    wait_for("it to be told", || sync.log().contains("stopping"));
    // A second signal leaves at once, whatever hangs.
    sync.signal("INT");
    assert_eq!(sync.wait(), 130);
    scene.server.no_rule();
    let id = scene.uploads("UploadPart").swap_remove(0);
    let said = scene.sync(&OPTIONS, 0);
    assert_eq!(said.number("uploaded"), 1);
    assert_eq!(scene.uploads("UploadPart"), vec![id.clone(); PARTS - 3]);
    assert_eq!(scene.uploads("CompleteMultipartUpload"), [id]);
}

#[test]
fn what_a_lost_state_left_open_is_aborted() {
    let scene = Scene::new(&[("a", b"1")]);
    killed_in_the_middle(&scene);
    assert_eq!(scene.bucket.open_uploads().len(), 1);
    for entry in std::fs::read_dir(scene.user.state_folder()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    scene.tree.remove("large");
    let said = scene.sync(&[], 0);
    assert_eq!(scene.bucket.open_uploads(), [""; 0]);
    assert_eq!(said.number("aborted_uploads"), 1);
    assert!(said.stderr.contains("aborted an upload of large that was left open"), "{said:?}");
    scene.is_settled(0);
}

/// A request that opens an upload.
fn opens(seen: &Seen<'_>) -> bool {
    seen.method == "POST" && seen.query.starts_with("uploads")
}

#[test]
fn an_upload_of_which_nobody_heard_is_aborted_and_no_other() {
    let scene = Scene::new(&[("small", b"1")]);
    scene.sync(&OPTIONS, 0);
    let other = opened_by_another(&scene);
    scene.tree.write("large", &large(1));
    let lost = AtomicUsize::new(0);
    scene.server.rule(move |seen| match opens(seen) && lost.fetch_add(1, Ordering::SeqCst) == 0 {
        true => Fault::DropReply,
        false => Fault::Pass,
    });
    assert_eq!(scene.sync(&OPTIONS, 0).number("uploaded"), 1);
    assert_eq!(scene.uploads("CreateMultipartUpload").len(), 2);
    assert_eq!(scene.bucket.open_ids(), std::slice::from_ref(&other));

    // The same, and killed before it can look for it; and the file is small when it goes on.
    for next in [large(3), b"small by now".to_vec()] {
        scene.tree.write("large", &large(2));
        let (begun, hangs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let hung = hangs.clone();
        scene.server.rule(move |seen| match (opens(seen), begun.load(Ordering::SeqCst)) {
            (true, _) => {
                begun.store(1, Ordering::SeqCst);
                Fault::DropReply
            }
            (_, 1) => {
                hangs.store(1, Ordering::SeqCst);
                Fault::Hang
            }
            _ => Fault::Pass,
        });
        let mut command = scene.user.command(&["sync", scene.source(), TO]);
        command.args(OPTIONS);
        let running = scene.user.spawn(command);
        wait_for("the look for it", || hung.load(Ordering::SeqCst) > 0);
        running.kill();
        scene.server.no_rule();
        assert_eq!(scene.bucket.open_ids().len(), 2);
        scene.tree.write("large", &next);
        scene.sync(&OPTIONS, 0);
        assert_eq!(scene.bucket.open_ids(), std::slice::from_ref(&other));
        scene.is_kept();
    }
}

/// Who may not list uploads, or whose server does not, has a backup of large files all the same.
#[test]
fn uploads_that_cannot_be_listed_stop_none() {
    for (status, code) in [(403, "AccessDenied"), (501, "NotImplemented"), (400, "InvalidArgument")]
    {
        let scene = Scene::new(&[("large", &large(1))]);
        scene.server.rule(move |seen| {
            match seen.method == "GET" && seen.query.contains("uploads") {
                true => Fault::Error(status, code),
                false => Fault::Pass,
            }
        });
        assert_eq!(scene.sync(&OPTIONS, 0).number("uploaded"), 1, "{code}");
        scene.is_kept();
    }
}
