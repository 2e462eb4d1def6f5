//! A multipart upload that was cut goes on from its parts.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::program::Daemon;
use crate::support::server::{Embedded, Fault};
use crate::support::stage::Stage;
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
fn killed_in_the_middle(stage: &Stage) -> String {
    stage.tree.write("large", &large(1));
    cut_after_three(&stage.server, Fault::Hang);
    let daemon = stage.user.start(&stage.args(&OPTIONS));
    wait_for("three parts", || stage.uploads("UploadPart").len() == 3);
    // The records of parts come before the answer, which is read behind them.
    wait_for("the daemon to answer", || daemon.status().is_some());
    daemon.kill();
    stage.server.no_rule();
    let begun = stage.uploads("UploadPart");
    stage.server.clear_log();
    begun[0].clone()
}

fn go_on(stage: &Stage) -> Daemon<'_> {
    let daemon = stage.watch(&OPTIONS);
    stage.settle(&daemon);
    assert_eq!(stage.bucket.open_uploads(), [""; 0]);
    daemon
}

#[test]
fn goes_on_from_its_parts_after_a_kill() {
    let stage = Stage::new(&[]);
    let id = killed_in_the_middle(&stage);
    let daemon = go_on(&stage);
    assert_eq!(stage.uploads("UploadPart"), vec![id.clone(); PARTS - 3]);
    assert_eq!(stage.uploads("CompleteMultipartUpload"), [id]);
    assert_eq!(stage.server.count("CreateMultipartUpload"), 0);
    assert!(daemon.log().contains("going on with an upload"), "{}", daemon.log());
}

#[test]
fn goes_on_from_its_parts_after_lost_replies() {
    let stage = Stage::new(&[("large", &large(1))]);
    cut_after_three(&stage.server, Fault::DropReply);
    let daemon = stage.user.watch(&stage.args(&OPTIONS));
    wait_for("it to wait for the server", || daemon.backup()["waiting_for"].is_string());
    let before = stage.uploads("UploadPart");
    stage.server.no_rule();
    stage.settle(&daemon);
    let all = stage.uploads("UploadPart");
    assert!(all.iter().all(|id| *id == all[0]), "one upload: {all:?}");
    assert!(all.len() - before.len() < PARTS, "not everything again: {}", all.len());
    assert_eq!(stage.server.count("CreateMultipartUpload"), 1);
    assert_eq!(stage.bucket.open_uploads(), [""; 0]);
}

#[test]
fn starts_over_when_the_file_changed() {
    let stage = Stage::new(&[]);
    let id = killed_in_the_middle(&stage);
    // As large as before, and the first parts are the same.
    let mut changed = large(1);
    changed[38 * MIB..].copy_from_slice(&content(2, 2 * MIB));
    stage.tree.write("large", &changed);
    go_on(&stage);
    assert_eq!(stage.uploads("AbortMultipartUpload"), [id.as_str()]);
    let parts = stage.uploads("UploadPart");
    assert_eq!(parts.len(), PARTS);
    assert!(!parts.contains(&id));
}

#[test]
fn leaves_no_upload_behind_when_the_file_shrank_or_went() {
    let stage = Stage::new(&[]);
    let id = killed_in_the_middle(&stage);
    stage.tree.write("large", b"small by now");
    let daemon = go_on(&stage);
    assert_eq!(stage.uploads("AbortMultipartUpload"), [id]);
    assert_eq!(stage.server.count("UploadPart"), 0);
    assert_eq!(daemon.stop(), 0);

    let id = killed_in_the_middle(&stage);
    stage.tree.remove("large");
    go_on(&stage);
    assert_eq!(stage.uploads("AbortMultipartUpload"), [id]);
    assert_eq!(stage.bucket.get("large"), None);
}

#[test]
fn sync_goes_on_with_what_an_interrupted_sync_began() {
    let stage = Stage::new(&[("large", &large(1))]);
    cut_after_three(&stage.server, Fault::Hang);
    let source = stage.tree.folder.path().to_str().unwrap();
    let mut command = stage.user.command(&["sync", source, "s3://bucket"]);
    command.args(OPTIONS);
    let sync = stage.user.spawn(command);
    wait_for("three parts", || stage.uploads("UploadPart").len() == 3);
    sync.signal("INT");
    wait_for("it to be told", || sync.log().contains("stopping"));
    // A second signal leaves at once, whatever hangs.
    sync.signal("INT");
    assert_eq!(sync.wait(), 130);
    stage.server.no_rule();
    let id = stage.uploads("UploadPart").swap_remove(0);
    stage.server.clear_log();
    let said = stage.user.sync(stage.tree.folder.path(), "s3://bucket", &OPTIONS, 0);
    assert_eq!(said.number("uploaded"), 1);
    assert_eq!(stage.uploads("UploadPart"), vec![id.clone(); PARTS - 3]);
    assert_eq!(stage.uploads("CompleteMultipartUpload"), [id]);
}
