//! A destination that is away: nothing is sent but probes, and nothing counts against a path.

use super::*;

#[test]
fn what_is_everybodys_trouble_stops_everything_but_probes() {
    for class in [ErrorClass::Credentials, ErrorClass::Configuration, ErrorClass::State] {
        let mut rig = Rig::daemon();
        rig.find(&[job("a", 1), job("b", 1), job("c", 1), job("d", 1)]);
        assert_eq!(rig.ops(), ["a", "b", "c"]);
        rig.fail("a", class);
        rig.finish("b", DONE);
        rig.hint("e");
        rig.wait(500);
        assert_eq!(rig.notices(), [Notice::Waiting(failure(class))]);
        assert_eq!((rig.ops(), rig.looked_at()), (vec![], vec![]));
        rig.wait(700);
        assert_eq!(rig.probes().len(), 1);
        let after_ms = rig.now.since(Tick(SETTLE_MS));
        rig.send(Event::Probed(Ok(())));
        assert_eq!(rig.ops(), ["d", "a"]);
        if class == ErrorClass::Configuration {
            assert_eq!(rig.notices(), [], "whether a write is refused, a probe does not tell");
            rig.finish("d", DONE);
        }
        assert_eq!(rig.notices(), [Notice::Resumed { after_ms }]);
        assert_eq!(rig.task("a"), Task::Resolve, "the request may have arrived");
        assert_eq!(rig.problems(), []);
    }
}

#[test]
fn a_request_without_an_answer_is_followed_by_a_probe_and_nothing_else() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    assert_eq!(rig.ops(), ["a"]);
    for _ in 0..10 {
        rig.fail("a", ErrorClass::Unreachable);
        rig.wait(900);
        assert_eq!((rig.probes().len(), rig.ops(), rig.notices()), (1, vec![], vec![]));
        let away = failure(ErrorClass::Unreachable);
        rig.send(Event::Probed(Err(away.clone())));
        assert_eq!(rig.notices(), [Notice::Waiting(away)]);
        rig.wait(1_300);
        assert_eq!((rig.probes().len(), rig.ops()), (1, vec![]));
        rig.send(Event::Probed(Ok(())));
        assert!(matches!(rig.notices()[..], [Notice::Resumed { .. }]));
        assert_eq!(rig.ops(), ["a"]);
    }
    assert_eq!(rig.problems(), [], "none of it was the fault of this path");
}

#[test]
fn one_key_that_alone_has_no_answer_holds_up_nothing() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    for _ in 0..5 {
        rig.fail("a", ErrorClass::Unreachable);
        assert_eq!(rig.probes().len(), 1);
        rig.send(Event::Probed(Ok(())));
        rig.find(&[job("b", 1)]);
        rig.finish("b", DONE);
        rig.wait(10_000);
    }
    assert_eq!(rig.notices(), []);
    assert_eq!(rig.problems().len(), 1, "the path has failed");
}

#[test]
fn probes_come_at_growing_distances_for_ever() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    rig.fail("a", ErrorClass::Unreachable);
    rig.probes();
    rig.send(Event::Probed(Err(failure(ErrorClass::Unreachable))));
    let mut probes = vec![rig.now.0];
    while rig.now < Tick(60 * MINUTE_MS) {
        rig.wait(100);
        for at in rig.probes() {
            probes.push(at);
            rig.send(Event::Probed(Err(failure(ErrorClass::Unreachable))));
        }
    }
    let distances: Vec<u64> = probes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (at, wanted) in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000].into_iter().enumerate()
    {
        // The test looks every 100 ms.
        assert!(is_about(distances[at], wanted + 100), "{distances:?}");
    }
    assert!(distances.len() > 100, "{} probes in an hour", distances.len());
    assert_eq!(rig.notices().len(), 1, "told once");
}

#[test]
fn one_key_that_fails_while_others_pass_closes_nothing() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1), job("b", 1), job("c", 1), job("d", 1)]);
    rig.fail("a", ErrorClass::Server);
    assert_eq!(rig.ops(), ["a", "b", "c", "d"]);
    rig.finish("b", DONE);
    assert_eq!((rig.probes(), rig.notices()), (vec![], vec![]));
}

#[test]
fn three_keys_that_fail_in_a_row_ask_for_a_probe() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1), job("b", 1), job("c", 1), job("d", 1)]);
    rig.fail("a", ErrorClass::Server);
    rig.fail("b", ErrorClass::Server);
    assert_eq!(rig.probes(), [0; 0]);
    rig.fail("c", ErrorClass::Server);
    assert_eq!(rig.probes().len(), 1);
    rig.send(Event::Probed(Err(failure(ErrorClass::Server))));
    assert_eq!(rig.notices(), [Notice::Waiting(failure(ErrorClass::Server))]);
    rig.ops();
    rig.wait(500);
    assert_eq!(rig.ops(), [""; 0]);
}

#[test]
fn a_success_clears_the_suspicion() {
    let mut rig = Rig::daemon();
    rig.find(&["a", "b", "c", "d", "e"].map(|name| job(name, 1)));
    rig.fail("a", ErrorClass::Server);
    rig.fail("b", ErrorClass::Server);
    rig.finish("c", DONE);
    rig.fail("d", ErrorClass::Server);
    assert_eq!(rig.probes(), [0; 0]);
}

#[test]
fn a_failing_key_that_is_alone_asks_for_a_probe() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    rig.fail("a", ErrorClass::Server);
    assert_eq!(rig.probes().len(), 1);
    rig.send(Event::Probed(Ok(())));
    assert_eq!(rig.notices(), [], "it is this key's own trouble");
}

#[test]
fn a_full_destination_is_tried_less_and_less_often_until_something_fits() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    let began = rig.now;
    let mut tried = vec![];
    for _ in 0..12 {
        while !rig.flying.contains_key("a") {
            rig.wait(500);
            if !rig.probes().is_empty() {
                // The owner's record can be read all the same.
                rig.send(Event::Probed(Ok(())));
            }
        }
        tried.push(rig.now);
        rig.fail("a", ErrorClass::Configuration);
        let waiting = rig.engine.snapshot().waiting.unwrap();
        assert_eq!(waiting.since, began, "since the first refusal");
    }
    let gaps: Vec<u64> = tried.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.iter().take(6).is_sorted(), "{gaps:?}");
    assert!(gaps.iter().skip(9).all(|gap| is_about(*gap, 5 * MINUTE_MS)), "{gaps:?}");
    let waits = |notice: &Notice| matches!(notice, Notice::Waiting(_));
    let notices = rig.notices();
    assert_eq!((notices.len(), notices.iter().filter(|n| waits(n)).count()), (1, 1), "{notices:?}");
    while !rig.flying.contains_key("a") {
        rig.wait(500);
        if !rig.probes().is_empty() {
            rig.send(Event::Probed(Ok(())));
        }
    }
    assert!(rig.engine.snapshot().waiting.is_some(), "it is not known yet whether it fits");
    rig.finish("a", DONE);
    assert!(matches!(rig.notices()[..], [Notice::Resumed { .. }]));
    assert!(rig.engine.snapshot().waiting.is_none());
    // The next trouble is a new one.
    rig.find(&[job("b", 1)]);
    let again = rig.now;
    rig.fail("b", ErrorClass::Configuration);
    assert_eq!(rig.engine.snapshot().waiting.unwrap().since, again);
}
