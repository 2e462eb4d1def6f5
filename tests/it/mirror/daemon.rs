//! Mirrors in the daemon, beside its backups.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::Pair;
use crate::support::program::Daemon;
use crate::support::server::{Embedded, Fault};
use crate::support::tree::Tree;
use crate::support::wait_for;

fn configure(pair: &Pair, text: &str) {
    let folder = pair.user.home.path().join(".config/keepwatch");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("keepwatch.toml"), text).unwrap();
}

fn mirror_entry(every: &str, more: &str) -> String {
    format!(
        "[[mirror]]\nname = \"offsite\"\nsource = \"s3://source\"\n\
         destination = \"s3://copies\"\nevery = \"{every}\"\n{more}\n"
    )
}

fn status_of(daemon: &Daemon<'_>, name: &str) -> Value {
    let status = daemon.status().unwrap_or_default();
    let all = status["backups"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["name"] == name).unwrap_or_default()
}

#[test]
fn a_backup_and_its_mirror() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let tree = Tree::new(&[("a", b"1"), ("b/c", b"2")]);
    let source = tree.folder.path().display();
    let backup = format!(
        "[[backup]]\nname = \"docs\"\nsource = \"{source}\"\ndestination = \"s3://source/docs\"\n\
         settle = \"100ms\"\n"
    );
    configure(&pair, &(backup.clone() + &mirror_entry("1s", "")));
    let checked = pair.user.run(&["config", "check"]);
    assert!(checked.stdout.contains("1 backup, 1 mirror, no faults"), "{checked:?}");
    let shown = pair.user.run(&["config", "show"]);
    for words in ["[[mirror]]", "deletions = \"tag\"", "every = \"1s\"", "compare = \"modified\""] {
        assert!(shown.stdout.contains(words), "{words} in {shown:?}");
    }
    let daemon = pair.user.watch(&[]);
    daemon.flush();
    wait_for("the mirror to copy the backup", || {
        let there = pair.copies.listed();
        there.contains_key("docs/a") && there.contains_key("docs/b/c")
    });
    let status = status_of(&daemon, "offsite");
    assert_eq!(
        (status["kind"].as_str(), status["every_ms"].as_u64()),
        (Some("mirror"), Some(1_000))
    );
    assert_eq!(status["source"], "s3://source/");
    wait_for("a clean run", || status_of(&daemon, "offsite")["watermark_ms"].is_i64());
    assert_eq!(pair.user.run(&["status", "--check"]).code, 0);
    pair.source.delete("docs/a");
    wait_for("the tag", || pair.tags("docs/a").contains_key("Deleted"));

    // The file is read again: the mirror's interval changes, and what is wrong is refused.
    configure(&pair, &(backup.clone() + &mirror_entry("6h", "compare = \"checksum\"")));
    daemon.signal("HUP");
    wait_for("the new interval", || status_of(&daemon, "offsite")["every_ms"] == 21_600_000);
    configure(&pair, &(backup.clone() + &mirror_entry("6h", "compare = \"colour\"")));
    daemon.signal("HUP");
    wait_for("the refusal", || daemon.log().contains("compare cannot be \"colour\""));
    assert_eq!(status_of(&daemon, "offsite")["every_ms"], 21_600_000);
    configure(&pair, &backup);
    daemon.signal("HUP");
    wait_for("the end of the mirror", || status_of(&daemon, "offsite").is_null());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn only_mirrors_and_deletions_that_wait() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    (0..4).for_each(|n| pair.source.put(&format!("k/{n}"), b"1"));
    configure(&pair, &mirror_entry("1s", "max_delete = 1"));
    let said = pair.user.run(&["sync"]);
    assert!(said.code == 4 && said.stderr.contains("only mirrors"), "{said:?}");
    let daemon = pair.user.watch(&[]);
    wait_for("the copies", || pair.copies.listed().len() == 4);
    (0..2).for_each(|n| pair.source.delete(&format!("k/{n}")));
    wait_for("the hold", || status_of(&daemon, "offsite")["held"] == 2);
    wait_for("its name", || status_of(&daemon, "offsite")["condition"] == "held");
    let listed = pair.user.run(&["deletions", "list"]);
    assert!(listed.stdout.contains("missing    k/1"), "{listed:?}");
    assert_eq!(pair.user.run(&["deletions", "approve", "offsite"]).code, 0);
    wait_for("the tags", || pair.tags("k/0").contains_key("Deleted"));
    let said = pair.user.run(&["mirror"]);
    assert_eq!(said.code, 4, "the daemon has the state: {said:?}");
    assert_eq!(daemon.stop(), 0);
    let said = pair.user.run(&["mirror", "offsite", "--json"]);
    assert_eq!((said.code, said.number("copied")), (0, 0), "{said:?}");
}

#[test]
fn what_is_held_is_not_proven_and_a_pause_ends_a_flush() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    (0..4).for_each(|n| pair.source.put(&format!("k/{n}"), b"1"));
    configure(&pair, &mirror_entry("1s", "max_delete = 1"));
    let daemon = pair.user.watch(&[]);
    let number = |name: &str| status_of(&daemon, "offsite")[name].as_i64();
    wait_for("a clean run", || number("watermark_ms").is_some());
    assert_eq!(pair.user.run(&["flush"]).code, 0);
    (0..2).for_each(|n| pair.source.delete(&format!("k/{n}")));
    wait_for("the hold", || number("held") == Some(2));
    let (proven, first) = (number("watermark_ms"), number("last_pass_ms"));
    for _ in 0..2 {
        let last = number("last_pass_ms");
        wait_for("another run", || number("last_pass_ms") > last);
    }
    assert!(number("last_pass_ms") > first);
    assert_eq!(number("watermark_ms"), proven, "what is gone is not marked yet");
    assert_eq!(pair.user.run(&["pause", "offsite"]).code, 0);
    let said = pair.user.run(&["flush"]);
    assert!(said.code == 4 && said.stderr.contains("paused"), "{said:?}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_flush_waits_for_a_run_of_its_own() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("a", b"1");
    configure(&pair, &mirror_entry("6h", ""));
    let daemon = pair.user.watch(&[]);
    daemon.flush();
    assert!(pair.copies.listed().contains_key("a"));
    pair.source.put("b", b"1");
    daemon.flush();
    assert!(pair.copies.listed().contains_key("b"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_pause_stops_a_run_where_it_is() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    (0..6).for_each(|n| pair.source.put(&format!("k/{n}"), b"1"));
    let go_on = Arc::new(AtomicBool::new(false));
    let held_up = go_on.clone();
    server.rule(move |seen| match seen.method == "PUT" && seen.path.starts_with("/copies/k/") {
        true => Fault::Until(held_up.clone()),
        false => Fault::Pass,
    });
    configure(&pair, &mirror_entry("6h", "transfers = 1"));
    let daemon = pair.user.watch(&[]);
    wait_for("a copy to begin", || status_of(&daemon, "offsite")["pending_files"] == 6);
    assert_eq!(pair.user.run(&["pause", "offsite"]).code, 0);
    assert_eq!(status_of(&daemon, "offsite")["condition"], "paused");
    go_on.store(true, Ordering::SeqCst);
    wait_for("the run to end", || status_of(&daemon, "offsite")["pending_files"] == 0);
    assert!(pair.copies.listed().len() <= 1, "at most the one that was under way");
    assert_eq!(pair.user.run(&["resume", "offsite"]).code, 0);
    wait_for("the copies", || pair.copies.listed().len() == 6);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_mirror_that_cannot_run_says_why_and_goes_on_by_itself() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("a", b"1");
    server.rule(|seen| match seen.path.starts_with("/copies") {
        true => Fault::Error(403, "AccessDenied"),
        false => Fault::Pass,
    });
    configure(&pair, &mirror_entry("1s", ""));
    let daemon = pair.user.watch(&[]);
    wait_for("the reason", || {
        let waiting = status_of(&daemon, "offsite")["waiting_for"].to_string();
        waiting.contains("AccessDenied")
    });
    assert_eq!(pair.user.run(&["status", "--check"]).code, 6);
    server.no_rule();
    wait_for("the copy", || pair.copies.listed().contains_key("a"));
    wait_for("the end of the trouble", || {
        status_of(&daemon, "offsite")["condition"] == "up-to-date"
    });
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn faults_of_mirrors_are_told_with_all_others() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    configure(
        &pair,
        "[[backup]]\nname = \"a\"\nsource = \"/tmp\"\ndestination = \"s3://copies/docs\"\n\
         [[mirror]]\nname = \"a\"\nsource = \"s3://source\"\ndestination = \"s3://copies\"\n\
         [[mirror]]\nname = \"b\"\nsource = \"s3://copies/x\"\ndestination = \"s3://copies\"\n\
         evry = \"6h\"\n[[mirror]]\nname = \"c\"\nsource = \"s3://source\"\n",
    );
    let said = pair.user.run(&["config", "check"]);
    assert_eq!(said.code, 4);
    for words in [
        "the name a is taken",
        "the backup a writes to the same place",
        "the mirror a writes to the same place",
        "the source lies inside the destination",
        "unknown key evry",
        "there is an option every",
        "this entry has no destination",
    ] {
        assert!(said.stderr.contains(words), "{words} in\n{}", said.stderr);
    }
}

#[test]
fn a_pair_that_is_typed_has_the_options_of_its_entry_however_its_buckets_are_reached() {
    for reached in ["", "region = \"eu-central-1\"", "path_style = true", "source_region = \"x-1\""]
    {
        let server = Embedded::start();
        let pair = Pair::new(&server.reach);
        configure(&pair, &mirror_entry("6h", &format!("deletions = \"keep\"\n{reached}")));
        ["a", "b"].iter().for_each(|key| pair.source.put(key, b"1"));
        pair.mirror(&[], 0);
        pair.source.delete("a");
        let said = pair.mirror(&[], 0);
        assert_eq!(said.number("tagged"), 0, "{reached}: {said:?}");
        assert!(said.stderr.contains("these are its places"), "{said:?}");
    }
}

#[test]
fn mirrors_in_a_circle_are_refused() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let mirror = |name: &str, source: &str, destination: &str| {
        format!(
            "[[mirror]]\nname = \"{name}\"\nsource = \"{source}\"\n\
             destination = \"{destination}\"\n"
        )
    };
    let line = mirror("a", "s3://one/x", "s3://two/x") + &mirror("b", "s3://two", "s3://three/y");
    configure(&pair, &line);
    assert_eq!(pair.user.run(&["config", "check"]).code, 0);
    // Another prefix of the first bucket is no circle; the one that is copied is.
    configure(&pair, &(line.clone() + &mirror("c", "s3://three/y/z", "s3://one/w")));
    assert_eq!(pair.user.run(&["config", "check"]).code, 0);
    configure(&pair, &(line + &mirror("c", "s3://three/y/z", "s3://one/x/w")));
    let said = pair.user.run(&["config", "check"]);
    assert_eq!(said.code, 4);
    let words = "with the mirror b the copies come back to the source";
    assert!(said.stderr.contains(words), "{}", said.stderr);
    assert!(said.stderr.contains(":12:"), "{}", said.stderr);
}
