//! A destination that is away: nothing is sent but probes, and nothing counts against a path.

use super::*;

#[test]
fn what_is_everybodys_trouble_stops_everything_but_probes() {
    for class in [
        ErrorClass::Unreachable,
        ErrorClass::Credentials,
        ErrorClass::Configuration,
        ErrorClass::State,
    ] {
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
        assert_eq!(rig.notices(), [Notice::Resumed { after_ms }]);
        assert_eq!(rig.ops(), ["d", "a"]);
        assert_eq!(rig.task("a"), Task::Resolve, "the request may have arrived");
        assert_eq!(rig.problems(), []);
    }
}

#[test]
fn probes_come_at_growing_distances_for_ever() {
    let mut rig = Rig::daemon();
    rig.find(&[job("a", 1)]);
    rig.fail("a", ErrorClass::Unreachable);
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
