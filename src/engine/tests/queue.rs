//! What starts, in which order, and how much at a time.

use super::*;
use crate::plan::{LookAgain, Skip};

#[test]
fn one_operation_per_key_and_no_hint_is_lost() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    rig.find(&[job("a", 1)]);
    assert_eq!(rig.ops(), ["a"]);
    rig.finish("a", DONE);
    assert_eq!(rig.ops(), [""; 0]);
    rig.wait(SETTLE_MS);
    assert_eq!(rig.looked_at(), ["a"], "what was sent may be out of date");
}

#[test]
fn the_newest_plan_wins() {
    let mut rig = Rig::at_rest(Settings { ops_max: 1, ..DAEMON });
    rig.find(&[job("a", 1), job("b", 1)]);
    rig.find(&[Job { task: Task::Check, ..job("b", 1) }]);
    rig.finish("a", DONE);
    assert_eq!(rig.ops(), ["a", "b"]);
    assert_eq!(rig.task("b"), Task::Check);
    rig.finish("b", DONE);
    assert_eq!(rig.ops(), [""; 0]);
}

#[test]
fn operations_have_a_budget() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1), job("b", 1), job("c", 1), job("d", 1), job("e", 1)]);
    assert_eq!(rig.ops(), ["a", "b", "c"]);
    rig.finish("b", DONE);
    assert_eq!(rig.ops(), ["d"]);
}

#[test]
fn bytes_have_a_budget() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 60), job("b", 50), job("c", 1)]);
    assert_eq!(rig.ops(), ["a"], "and nothing overtakes");
    rig.finish("a", DONE);
    assert_eq!(rig.ops(), ["b", "c"]);
}

#[test]
fn large_files_have_a_lane_of_their_own() {
    let mut rig = Rig::at_rest(Settings { ops_max: 9, ..DAEMON });
    let large = |name| job(name, 1_000_000);
    rig.find(&[large("a"), large("b"), large("c"), job("d", 30), job("e", 30)]);
    assert_eq!(rig.ops(), ["a", "b", "d"]);
    rig.finish("d", DONE);
    assert_eq!(rig.ops(), ["e"]);
    rig.finish("a", DONE);
    rig.finish("b", DONE);
    assert_eq!(rig.ops(), ["c"]);
}

#[test]
fn a_file_larger_than_the_budget_goes_alone() {
    let mut rig = Rig::at_rest(Settings { large_bytes: u64::MAX, ..DAEMON });
    rig.find(&[job("a", 1_000), job("b", 1)]);
    assert_eq!(rig.ops(), ["a"]);
    rig.finish("a", DONE);
    assert_eq!(rig.ops(), ["b"]);
}

#[test]
fn looks_wait_while_enough_is_ready() {
    let mut rig = Rig::at_rest(Settings { ops_max: 1, ready_max: 2, ..DAEMON });
    rig.find(&[job("a", 1), job("b", 1), job("c", 1)]);
    assert!(!rig.engine.wants_jobs());
    rig.hint("d");
    rig.wait(2 * SETTLE_MS);
    assert_eq!(rig.looked_at(), [""; 0]);
    rig.finish("a", DONE);
    assert!(rig.engine.wants_jobs());
    assert_eq!(rig.looked_at(), ["d"]);
}

#[test]
fn a_server_that_is_throttling_gets_half_and_earns_it_back() {
    let mut rig = Rig::at_rest(Settings { ops_max: 4, ready_max: 100, ..DAEMON });
    let names: Vec<String> = (0..30).map(|n| format!("{n:02}")).collect();
    rig.find(&names.iter().map(|name| job(name, 1)).collect::<Vec<_>>());
    assert_eq!(rig.ops(), names[..4]);
    rig.fail("00", ErrorClass::Throttled);
    rig.finish("01", DONE);
    assert_eq!(rig.ops(), [""; 0], "two are still in flight, and two are allowed");
    rig.finish("02", DONE);
    assert_eq!(rig.ops(), ["04", "05"], "after two successes three are allowed");
    for name in ["03", "04", "05"] {
        rig.finish(name, DONE);
    }
    assert_eq!(rig.flying.len(), 4, "and at last all four");
}

#[test]
fn a_failed_request_is_tried_again_at_growing_distances() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1), job("other", 1)]);
    assert_eq!(rig.ops(), ["a", "other"]);
    for wanted_ms in [500, 1_000, 2_000, 4_000, 8_000, 16_000] {
        let failed_at = rig.now;
        rig.fail("a", ErrorClass::Server);
        while rig.ops().is_empty() {
            rig.wait(10);
        }
        assert!(is_about(rig.now.since(failed_at), wanted_ms), "{wanted_ms}");
        assert_eq!(rig.task("a"), Task::Resolve, "the reply alone may have been lost");
    }
    assert_eq!(rig.problems().len(), 2, "from the fifth attempt on it is a failed path");
    rig.finish("a", DONE);
    assert_eq!(rig.engine.snapshot().failing, 0);
}

#[test]
fn a_path_that_cannot_be_sent_is_told_at_once_and_tried_every_minutes() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1), job("b", 1)]);
    rig.fail("a", ErrorClass::Path);
    assert_eq!(rig.problems(), [Trouble::Failed(failure(ErrorClass::Path))]);
    rig.find(&[job("a", 1)]);
    assert_eq!(rig.ops(), ["a", "b"], "a new plan does not cut the wait short");
    rig.wait(MINUTE_MS * 5 / 4);
    assert_eq!(rig.ops(), ["a"]);
}

#[test]
fn a_file_that_keeps_changing_is_told_and_looked_at_less_often() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    for torn in 1..=5 {
        rig.finish("a", Outcome::Torn);
        let since = rig.now;
        rig.until_look();
        assert_eq!(rig.now.since(since) >= MAX_WAIT_MS, torn == 5, "{torn}");
        rig.plan(&[job("a", 1)]);
        rig.end_look(LookResult::Complete);
    }
    assert_eq!(rig.problems(), [Trouble::Skipped(Skip::Changing)]);
}

#[test]
fn a_skipped_path_is_told_and_not_tried_again() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    rig.finish("a", Outcome::Skipped(Skip::Special));
    rig.wait(30 * MINUTE_MS);
    assert_eq!(rig.problems(), [Trouble::Skipped(Skip::Special)]);
    assert_eq!(rig.ops(), ["a"]);
}

#[test]
fn an_object_that_is_not_as_believed_is_asked_about() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    rig.finish("a", Outcome::Look(LookAgain::Target));
    assert_eq!(rig.ops(), ["a", "a"]);
    assert_eq!(rig.task("a"), Task::Resolve);
}

#[test]
fn a_plan_older_than_what_was_done_meanwhile_is_made_anew() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    rig.send(Event::Rescan);
    rig.finish("a", DONE);
    rig.plan(&[job("a", 1), job("b", 1)]);
    assert_eq!(rig.ops(), ["a", "b"]);
    rig.wait(SETTLE_MS);
    assert_eq!(rig.looked_at(), ["everything", "a"]);
}

#[test]
fn paused_it_starts_nothing_and_forgets_nothing() {
    let mut rig = Rig::at_rest(Settings { ops_max: 2, ..DAEMON });
    rig.find(&[job("a", 1), job("b", 1), job("c", 1)]);
    assert_eq!(rig.ops(), ["a", "b"]);
    rig.send(Event::Pause);
    rig.finish("a", DONE);
    rig.finish("b", Outcome::Cancelled);
    rig.hint("d");
    rig.send(Event::Overflow);
    rig.wait(100 * MINUTE_MS);
    assert_eq!((rig.ops(), rig.looked_at()), (vec![], vec![]));
    assert!(rig.engine.snapshot().paused);
    let waits = rig.engine.snapshot().oldest.unwrap();
    assert!(rig.now.since(waits) > 99 * MINUTE_MS, "the oldest change is as old as it is");
    rig.send(Event::Resume);
    assert_eq!(rig.ops(), ["c", "b"], "what was cut off is asked for again");
    assert_eq!(rig.task("b"), Task::Resolve);
    let mut looked = rig.looked_at();
    looked.sort();
    assert_eq!(looked, ["d", "everything"]);
}

#[test]
fn paused_it_can_be_stopped() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    rig.send(Event::Pause);
    rig.send(Event::Shutdown);
    assert_eq!(rig.exit(), None, "what is in flight ends first");
    rig.finish("a", Outcome::Cancelled);
    assert_eq!(rig.exit(), Some(Exit::Stopped));
}
