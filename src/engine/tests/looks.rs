//! When paths and everything are looked at.

use super::*;

#[test]
fn a_path_is_looked_at_once_it_has_settled() {
    let mut rig = Rig::daemon();
    rig.hint("a");
    rig.wait(SETTLE_MS - 1);
    rig.hint("a");
    rig.wait(SETTLE_MS - 1);
    assert_eq!(rig.looked_at(), [""; 0]);
    rig.wait(1);
    assert_eq!(rig.looked_at(), ["a"]);
}

#[test]
fn a_path_that_never_settles_is_looked_at_after_max_wait() {
    let mut rig = Rig::daemon();
    for _ in 0..MAX_WAIT_MS / 1_000 {
        assert_eq!(rig.looked_at(), [""; 0]);
        rig.hint("a");
        rig.wait(1_000);
    }
    assert_eq!(rig.looked_at(), ["a"]);
}

#[test]
fn a_deep_hint_looks_below_the_path_too() {
    let mut rig = Rig::daemon();
    rig.send(Event::Hints(vec![Hint { path: path("a"), deep: true }]));
    rig.hint("a");
    rig.wait(SETTLE_MS);
    assert_eq!(rig.looked_at(), ["a/**"]);
}

#[test]
fn one_small_look_at_a_time() {
    let mut rig = Rig::daemon();
    rig.hint("a");
    rig.wait(SETTLE_MS);
    rig.hint("b");
    rig.wait(SETTLE_MS);
    assert_eq!(rig.looked_at(), ["a"]);
    rig.end_look(LookResult::Complete);
    assert_eq!(rig.looked_at(), ["b"]);
}

#[test]
fn too_many_dirty_paths_are_a_look_at_everything() {
    let mut rig = Rig::daemon();
    for n in 0..=DAEMON.dirty_max {
        rig.hint(&n.to_string());
    }
    rig.wait(SETTLE_MS);
    assert_eq!(rig.looked_at(), ["everything"]);
}

#[test]
fn everything_is_looked_at_once_an_hour() {
    let mut rig = Rig::daemon();
    rig.wait(DAEMON.rescan_ms * 7 / 10);
    assert_eq!(rig.looked_at(), [""; 0]);
    rig.wait(DAEMON.rescan_ms * 6 / 10);
    assert_eq!(rig.looked_at(), ["everything"]);
}

#[test]
fn what_the_watcher_does_not_see_is_looked_at_every_minute() {
    let mut rig = Rig::daemon();
    rig.send(Event::Sight(Sight::Partial));
    // A look that takes long is not made more often than one twentieth of the time allows.
    for (took_ms, pause_ms) in [(10, MINUTE_MS), (10, MINUTE_MS), (30_000, 20 * 30_000)] {
        rig.until_look();
        rig.wait(took_ms);
        rig.end_look(LookResult::Complete);
        let ended = rig.now;
        rig.until_look();
        assert!(is_about(rig.now.since(ended), pause_ms));
        rig.end_look(LookResult::Complete);
        assert_eq!(rig.looked_at(), ["everything", "everything"]);
    }
}

#[test]
fn an_overflow_is_a_look_at_everything_at_once() {
    let mut rig = Rig::daemon();
    rig.wait(MINUTE_MS);
    rig.send(Event::Overflow);
    assert_eq!(rig.looked_at(), ["everything"]);
    assert_eq!(rig.notices(), [Notice::Overflow]);
}

#[test]
fn a_source_that_goes_is_looked_for_at_once_and_is_no_overflow() {
    let mut rig = Rig::daemon();
    rig.wait(MINUTE_MS);
    rig.send(Event::SourceGone);
    assert_eq!(rig.looked_at(), ["everything"]);
    assert_eq!(rig.notices(), [Notice::SourceGone]);
}

#[test]
fn overflows_that_go_on_are_looked_at_less_and_less_often() {
    let mut rig = Rig::daemon();
    rig.wait(MINUTE_MS);
    rig.send(Event::Overflow);
    let mut looks = vec![];
    while rig.now < Tick(10 * MINUTE_MS) {
        // Another one while the look is running: its own work overflows the queue again.
        rig.wait(100);
        if !rig.looks.is_empty() {
            looks.push(rig.now);
            rig.send(Event::Overflow);
            rig.end_look(LookResult::Complete);
        }
    }
    assert!((5..15).contains(&looks.len()), "{looks:?}");
    let last = looks.windows(2).last().map(|pair| pair[1].since(pair[0]));
    assert!(last.is_some_and(|ms| ms > MINUTE_MS), "{looks:?}");
}

#[test]
fn a_missing_source_is_told_once_and_looked_for() {
    let mut rig = Rig::daemon();
    rig.hint("a");
    rig.wait(SETTLE_MS);
    let missing = || LookResult::SourceMissing(failure(ErrorClass::Configuration));
    rig.end_look(missing());
    rig.hint("a");
    rig.wait(3 * SETTLE_MS);
    assert_eq!(rig.looked_at(), ["a"], "a look at a path would find nothing");
    for _ in 0..3 {
        rig.wait(13_000);
        assert_eq!(rig.looked_at(), ["everything"]);
        rig.end_look(missing());
    }
    assert_eq!(rig.notices(), [Notice::SourceMissing(failure(ErrorClass::Configuration))]);
    rig.wait(13_000);
    rig.end_look(LookResult::Complete);
    assert_eq!(rig.looked_at(), ["everything", "a"]);
}

#[test]
fn a_failed_look_at_everything_is_tried_again() {
    let mut rig = Rig::started(DAEMON);
    rig.end_look(LookResult::Failed(failure(ErrorClass::Path)));
    assert!(!rig.engine.snapshot().looked_once);
    rig.wait(13_000);
    assert_eq!(rig.looked_at(), ["everything"]);
    rig.end_look(LookResult::Complete);
    assert!(rig.engine.snapshot().looked_once);
}

#[test]
fn what_was_lost_is_as_old_as_it_may_be() {
    let oldest = |rig: &Rig| rig.engine.snapshot().oldest;
    let mut rig = Rig::daemon();
    rig.wait(10 * MINUTE_MS);
    assert_eq!(oldest(&rig), None);
    let lost = rig.now;
    rig.send(Event::Overflow);
    rig.wait(1);
    assert_eq!(oldest(&rig), Some(lost), "nobody knows what changed");
    rig.plan(&[job("a", 1)]);
    rig.end_look(LookResult::Complete);
    assert_eq!(oldest(&rig), Some(lost), "and what is found is as old as that");
    rig.finish("a", DONE);
    assert_eq!(oldest(&rig), None);
    // Too many hints are as good as lost.
    let many = Settings { dirty_max: 2, settle_ms: 5_000, ..DAEMON };
    let mut rig = Rig::at_rest(many);
    rig.hint("a");
    let first = rig.now;
    rig.wait(1_000);
    ["b", "c"].iter().for_each(|name| rig.hint(name));
    assert_eq!((rig.engine.snapshot().dirty, oldest(&rig)), (0, Some(first)));
    // What no hint told of may have changed since the look before.
    let mut rig = Rig::daemon();
    rig.wait(5);
    rig.send(Event::Rescan);
    let before = rig.engine.snapshot().last_full;
    rig.wait(5);
    rig.plan(&[job("a", 1)]);
    assert_eq!(oldest(&rig), before);
}
