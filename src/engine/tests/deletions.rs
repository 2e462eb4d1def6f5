//! Deletions: last, on fresh facts, and held when a person must decide.

use super::*;
use crate::plan::Deletion;

/// A look finds that deletions are due.
fn make_due(rig: &mut Rig) {
    rig.hint("gone");
    rig.wait(SETTLE_MS);
    rig.looked_at();
    rig.end_look_due(LookResult::Complete, Some(0));
}

#[test]
fn not_before_a_complete_look_at_everything() {
    let mut rig = Rig::started(DAEMON);
    rig.end_look_due(LookResult::Failed(failure(ErrorClass::Path)), Some(0));
    rig.wait(8_000);
    assert_eq!(rig.fetches(), 0);
    rig.wait(5_000);
    assert_eq!((rig.looked_at().len(), rig.fetches()), (1, 0));
    rig.end_look(LookResult::Complete);
    assert_eq!(rig.fetches(), 1);
}

#[test]
fn not_while_everything_is_looked_at() {
    let mut rig = Rig::daemon();
    make_due(&mut rig);
    assert_eq!(rig.fetches(), 1);
    rig.due(&[]);
    rig.send(Event::Rescan);
    rig.send(Event::Approved);
    assert_eq!(rig.fetches(), 0);
    rig.end_look(LookResult::Complete);
    assert_eq!(rig.fetches(), 1);
}

#[test]
fn after_the_delay() {
    let mut rig = Rig::daemon();
    rig.hint("gone");
    rig.wait(SETTLE_MS);
    rig.end_look_due(LookResult::Complete, Some(5_000));
    rig.wait(4_999);
    assert_eq!(rig.fetches(), 0);
    rig.wait(1);
    assert_eq!(rig.fetches(), 1);
    rig.due(&["a", "b"]);
    assert_eq!(rig.ops(), ["-a,b"]);
}

#[test]
fn uploads_go_first() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    make_due(&mut rig);
    rig.wait(MAX_WAIT_MS / 2);
    assert_eq!(rig.fetches(), 0);
    rig.finish("a", DONE);
    assert_eq!(rig.fetches(), 1);
    // An upload that begins while the facts are fetched goes first too.
    rig.find(&[job("b", 1)]);
    rig.due(&["gone"]);
    assert_eq!(rig.ops(), ["a", "b"]);
    rig.finish("b", DONE);
    assert_eq!(rig.fetches(), 1, "with fresh facts");
    rig.due(&["gone"]);
    assert_eq!(rig.ops(), ["-gone"]);
}

#[test]
fn uploads_that_never_end_hold_them_up_for_max_wait_only() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    make_due(&mut rig);
    rig.wait(MAX_WAIT_MS - 1);
    assert_eq!(rig.fetches(), 0);
    rig.wait(1);
    assert_eq!(rig.fetches(), 1);
    rig.due(&["a", "gone"]);
    assert_eq!(rig.ops(), ["a", "-gone"], "never of a key that is being written");
}

#[test]
fn held_until_released_while_uploads_go_on() {
    let mut rig = Rig::daemon();
    make_due(&mut rig);
    let report = || DueReport { items: vec![], hold: Some(held()), ..DueReport::default() };
    rig.send(Event::Due(report()));
    assert_eq!(rig.notices(), [Notice::Held(held())]);
    rig.find(&[job("a", 1)]);
    assert_eq!(rig.ops(), ["a"]);
    rig.finish("a", DONE);
    assert_eq!(rig.engine.snapshot().hold, Some(held()));
    assert_eq!(rig.fetches(), 1);

    rig.wait(MINUTE_MS);
    assert_eq!(rig.fetches(), 1, "a disk may have been mounted again");
    rig.send(Event::Due(report()));
    assert_eq!(rig.notices(), [], "told once");

    rig.send(Event::Approved);
    assert_eq!(rig.fetches(), 1);
    rig.due(&["gone"]);
    assert_eq!(rig.notices(), [Notice::Released]);
    assert_eq!(rig.ops(), ["-gone"]);
}

#[test]
fn one_batch_after_the_other() {
    let mut rig = Rig::daemon();
    make_due(&mut rig);
    rig.due(&["a"]);
    rig.wait(MINUTE_MS);
    assert_eq!(rig.fetches(), 1);
    rig.finish("-a", Outcome::Deleted(vec![(item("a"), Deletion::Deleted)]));
    assert_eq!(rig.fetches(), 1);
}

#[test]
fn a_spared_path_is_looked_at_again() {
    let mut rig = Rig::daemon();
    make_due(&mut rig);
    rig.due(&["a"]);
    rig.finish("-a", Outcome::Deleted(vec![(item("a"), Deletion::Spared)]));
    assert_eq!(rig.fetches(), 1, "the same answer would come again");
    rig.wait(SETTLE_MS);
    assert_eq!(rig.looked_at(), ["a"]);
}

#[test]
fn a_failed_batch_is_tried_again_later() {
    let mut rig = Rig::daemon();
    make_due(&mut rig);
    rig.due(&["a"]);
    assert_eq!(rig.fetches(), 1);
    let failed = Deletion::Failed(failure(ErrorClass::Path));
    rig.finish("-a", Outcome::Deleted(vec![(item("a"), failed)]));
    assert_eq!((rig.problems().len(), rig.fetches()), (1, 0));
    rig.wait(1_000);
    assert_eq!(rig.fetches(), 1);
}

#[test]
fn a_one_shot_run_tries_again_what_may_pass_and_what_is_behind_it() {
    let failed = |class| Deletion::Failed(failure(class));
    let batch = |deletion: Deletion| Outcome::Deleted(vec![(item("a"), deletion)]);
    let mut rig = Rig::started(ONE_SHOT);
    rig.end_look_due(LookResult::Complete, Some(0));
    assert_eq!(rig.fetches(), 1);
    rig.due(&["a"]);
    rig.finish("-a", batch(failed(ErrorClass::Server)));
    rig.send(Event::Probed(Ok(())));
    // What is deleted beside it counts, as often as it does.
    for _ in 0..20 {
        rig.wait(2_000);
        assert_eq!((rig.exit(), rig.fetches()), (None, 1));
        rig.due(&["a", "b"]);
        let both = vec![(item("a"), failed(ErrorClass::Path)), (item("b"), Deletion::Tagged)];
        rig.finish("-a,b", Outcome::Deleted(both));
    }
    rig.wait(2_000);
    assert_eq!((rig.exit(), rig.fetches()), (None, 1));
    rig.due(&["a"]);
    rig.finish("-a", batch(failed(ErrorClass::Path)));
    assert_eq!(rig.exit(), Some(Exit::Done));
}

#[test]
fn never_where_everything_is_kept() {
    let mut rig = Rig::at_rest(Settings { deletions: Deletions::Keep, ..DAEMON });
    make_due(&mut rig);
    rig.send(Event::Approved);
    rig.wait(MINUTE_MS);
    assert_eq!(rig.fetches(), 0);
}

#[test]
fn a_one_shot_run_makes_room_where_the_destination_is_full() {
    let full = || failure(ErrorClass::Full);
    let mut rig = Rig::started(ONE_SHOT);
    rig.plan(&[job("a", 1), job("b", 1)]);
    assert_eq!(rig.ops(), ["a", "b"]);
    rig.fail("a", ErrorClass::Full);
    rig.plan(&[job("c", 1)]);
    rig.fail("b", ErrorClass::Full);
    rig.end_look_due(LookResult::Complete, Some(0));
    assert_eq!((rig.exit(), rig.fetches(), rig.ops().len()), (None, 1, 0));
    assert_eq!(rig.engine.snapshot().pending, 2, "what waits keeps all from being proven");
    rig.due(&["gone"]);
    assert_eq!(rig.ops(), ["-gone"]);
    rig.finish("-gone", Outcome::Deleted(vec![(item("gone"), Deletion::Deleted)]));
    assert_eq!(rig.fetches(), 1);
    rig.due(&[]);
    assert_eq!(rig.exit(), Some(Exit::NeedsPerson(full())));
    // With nothing to delete it ends once all has been looked at.
    let mut rig = Rig::started(ONE_SHOT);
    rig.plan(&[job("a", 1)]);
    rig.fail("a", ErrorClass::Full);
    assert_eq!(rig.exit(), None);
    rig.end_look(LookResult::Complete);
    assert_eq!(rig.exit(), Some(Exit::NeedsPerson(full())));
}
