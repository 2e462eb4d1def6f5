//! Ends: the drain of a shutdown, the answer to a flush, the exit of a one-shot run.

use super::*;

fn flush(rig: &mut Rig) {
    rig.send(Event::Flush(FlushId(7)));
}

/// Failed paths of each answered flush.
fn flushed(rig: &mut Rig) -> Vec<u64> {
    let answer = |effect: &Effect| match effect {
        Effect::Flushed { failed_paths, .. } => Some(*failed_paths),
        _ => None,
    };
    rig.take(answer).into_iter().map(|(_, failed_paths)| failed_paths).collect()
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_starts_nothing() {
    let mut rig = Rig::at_rest(Settings { ops_max: 2, ..DAEMON });
    rig.find(&[job("a", 1), job("b", 1), job("c", 1)]);
    rig.send(Event::Shutdown);
    rig.hint("d");
    rig.send(Event::Overflow);
    rig.wait(MINUTE_MS);
    rig.fail("a", ErrorClass::Server);
    assert_eq!(rig.exit(), None);
    rig.finish("b", DONE);
    assert_eq!(rig.exit(), Some(Exit::Stopped));
    assert_eq!((rig.ops(), rig.looked_at()), (vec!["a".to_owned(), "b".to_owned()], vec![]));
    assert_eq!(rig.engine.next_wake(), None);
}

#[test]
fn a_drain_does_not_wait_for_looks_or_probes() {
    let mut rig = Rig::started(DAEMON);
    rig.plan(&[job("a", 1)]);
    rig.fail("a", ErrorClass::Unreachable);
    rig.send(Event::Shutdown);
    assert_eq!(rig.exit(), Some(Exit::Stopped));
}

#[test]
fn a_flush_hurries_and_is_answered_when_all_is_sent() {
    let mut rig = Rig::daemon();
    rig.hint("a");
    flush(&mut rig);
    assert_eq!(rig.looked_at(), ["everything", "a"], "without settling");
    rig.end_look(LookResult::Complete);
    rig.plan(&[job("a", 1)]);
    rig.end_look(LookResult::Complete);
    rig.wait(MINUTE_MS);
    assert_eq!(flushed(&mut rig), [0; 0]);
    rig.finish("a", DONE);
    assert_eq!(flushed(&mut rig), [0]);
}

#[test]
fn a_flush_needs_a_look_that_began_after_it() {
    let mut rig = Rig::daemon();
    rig.send(Event::Rescan);
    rig.wait(10);
    flush(&mut rig);
    rig.end_look(LookResult::Complete);
    assert_eq!(flushed(&mut rig), [0; 0]);
    assert_eq!(rig.looked_at(), ["everything", "everything"]);
    rig.end_look(LookResult::Complete);
    assert_eq!(flushed(&mut rig), [0]);
}

#[test]
fn a_flush_is_not_answered_while_looking_is_impossible() {
    let mut rig = Rig::daemon();
    rig.hint("a");
    rig.wait(SETTLE_MS);
    rig.send(Event::Rescan);
    rig.wait(10);
    flush(&mut rig);
    rig.end_look(LookResult::Failed(failure(ErrorClass::Unreachable)));
    rig.end_look(LookResult::Complete);
    assert_eq!(flushed(&mut rig), [0; 0], "the look that ended began before the flush");
}

#[test]
fn a_flush_does_not_wait_for_paths_that_fail() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    rig.fail("a", ErrorClass::Path);
    flush(&mut rig);
    rig.end_look(LookResult::Complete);
    assert_eq!(flushed(&mut rig), [1]);
}

#[test]
fn a_flush_does_not_wait_for_what_changed_after_its_look() {
    let mut rig = Rig::daemon();
    flush(&mut rig);
    rig.plan(&[job("a", 1)]);
    rig.end_look(LookResult::Complete);
    assert_eq!(flushed(&mut rig), [0; 0]);
    rig.wait(10);
    rig.hint("later");
    rig.finish("a", DONE);
    assert_eq!(flushed(&mut rig), [0]);
}

#[test]
fn one_shot_is_done_when_all_is_sent() {
    let mut rig = Rig::started(ONE_SHOT);
    rig.plan(&[job("a", 1)]);
    rig.end_look(LookResult::Complete);
    assert_eq!(rig.exit(), None);
    rig.finish("a", DONE);
    assert_eq!(rig.exit(), Some(Exit::Done));
}

#[test]
fn one_shot_deletes_what_is_due_and_waits_for_nothing() {
    for (due_in_ms, fetches) in [(Some(0), 1), (Some(1), 0), (None, 0)] {
        let mut rig = Rig::started(ONE_SHOT);
        rig.end_look_due(LookResult::Complete, due_in_ms);
        assert_eq!(rig.fetches(), fetches);
        if fetches > 0 {
            assert_eq!(rig.exit(), None);
            rig.send(Event::Due(DueReport { hold: Some(held()), ..DueReport::default() }));
        }
        assert_eq!(rig.exit(), Some(Exit::Done));
    }
}

#[test]
fn one_shot_gives_a_failing_path_up() {
    let mut rig = Rig::started(ONE_SHOT);
    rig.plan(&[job("a", 1)]);
    rig.end_look(LookResult::Complete);
    for _ in 0..4 {
        rig.fail("a", ErrorClass::Server);
        rig.send(Event::Probed(Ok(())));
        rig.wait(5_000);
        assert_eq!(rig.exit(), None);
    }
    rig.fail("a", ErrorClass::Server);
    rig.send(Event::Probed(Ok(())));
    assert_eq!(rig.problems().len(), 1);
    assert_eq!(rig.exit(), Some(Exit::Done));
}

#[test]
fn one_shot_gives_a_destination_up_that_stays_away() {
    let mut rig = Rig::started(ONE_SHOT);
    rig.plan(&[job("a", 1)]);
    let away = failure(ErrorClass::Unreachable);
    rig.fail("a", ErrorClass::Unreachable);
    rig.probes();
    rig.send(Event::Probed(Err(away.clone())));
    for _ in 0..MINUTE_MS / 100 - 1 {
        rig.wait(100);
        if !rig.probes().is_empty() {
            rig.send(Event::Probed(Err(away.clone())));
        }
    }
    assert_eq!(rig.exit(), None);
    rig.wait(100);
    assert_eq!(rig.exit(), Some(Exit::GaveUp(away)));
}

#[test]
fn one_shot_leaves_to_a_person_what_only_a_person_can_mend() {
    for class in [ErrorClass::Credentials, ErrorClass::Configuration, ErrorClass::State] {
        let mut rig = Rig::started(ONE_SHOT);
        rig.plan(&[job("a", 1)]);
        rig.fail("a", class);
        assert_eq!(rig.exit(), Some(Exit::NeedsPerson(failure(class))));
    }
    let mut rig = Rig::started(ONE_SHOT);
    rig.end_look(LookResult::SourceMissing(failure(ErrorClass::Configuration)));
    assert_eq!(rig.exit(), Some(Exit::NeedsPerson(failure(ErrorClass::Configuration))));
}
