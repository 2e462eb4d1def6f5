//! The engine under random histories in virtual time: a small world with a lossy watcher, failing
//! requests and a person at the source, and the module's ten promises checked at every step.

mod outside;

use std::collections::BTreeMap;

use super::*;
use crate::model::{ContentMd5, RelPath};
use crate::model::{ETag, Entry, Fingerprint, Kind, Md5, Millis, Record, Tick};
use crate::plan::ErrorClass;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
pub(super) const SETTLE_MS: u64 = 2_000;
pub(super) const MAX_WAIT_MS: u64 = 10_000;
const RESCAN_MS: u64 = 3_600_000;
const DELAY_MS: u64 = 5_000;

/// A daemon with limits so low that they are met.
pub(super) const DAEMON: Settings = Settings {
    mode: Mode::Daemon,
    settle_ms: SETTLE_MS,
    max_wait_ms: MAX_WAIT_MS,
    rescan_ms: RESCAN_MS,
    deletions: Deletions::Delete,
    ops_max: 3,
    bytes_max: 100,
    large_bytes: 80,
    dirty_max: 5,
    ready_max: 4,
    seed: 1,
};

/// A seeded source of chance, independent of the engine's own jitter.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next(100) < percent
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct File {
    /// Version in the source, the destination and the record; 0 means absent.
    source: u32,
    target: u32,
    record: u32,
    /// The record says that a request may have been under way.
    uncertain: bool,
    missing_since: Option<Tick>,
}

enum Later {
    Event(Event),
    /// A look observes this name, then hands in what it found.
    Observe(LookId, Vec<usize>, bool),
    Run(OpId, Work, u32),
}

struct World {
    seed: u64,
    chance: Chance,
    engine: Engine,
    now: Tick,
    files: [File; 6],
    /// Of the latest content; no two are equal.
    version: u32,
    later: BTreeMap<(Tick, u64), Later>,
    count: u64,
    calm: bool,
    away: bool,
    paused: bool,
    held: bool,
    // What the promises are checked with.
    busy: BTreeMap<OpId, (Vec<usize>, u64, bool)>,
    hinted: BTreeMap<usize, (Tick, Tick)>,
    not_before: BTreeMap<usize, Tick>,
    overflow_open: bool,
    looked_all: bool,
    all_running: bool,
    shutdown: bool,
    exit: Option<Exit>,
    due_since: Option<Tick>,
    /// The source when a flush was asked for.
    flushing: BTreeMap<FlushId, [u32; 6]>,
}

fn path(i: usize) -> RelPath {
    RelPath::new(NAMES[i].as_bytes()).unwrap()
}

fn index(path: &RelPath) -> usize {
    NAMES.iter().position(|n| n.as_bytes() == path.as_bytes()).unwrap()
}

pub(super) fn entry(size_bytes: u64) -> Entry {
    let fingerprint = Fingerprint { size_bytes, ..Fingerprint::default() };
    Entry { kind: Kind::File, fingerprint, mode: 0, uid: 0, gid: 0 }
}

pub(super) fn record() -> Record {
    Record {
        missing_since: Some(Millis(0)),
        ..Record::synced(entry(0), ContentMd5::whole(Md5::of(b"")), ETag::new("x"), false)
    }
}

pub(super) fn failure(class: ErrorClass) -> Failure {
    Failure::new(class, "made up")
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            engine: Engine::new(Settings { seed, ..DAEMON }),
            now: Tick(0),
            files: [File::default(); 6],
            version: 0,
            later: BTreeMap::new(),
            count: 0,
            calm: false,
            away: false,
            paused: false,
            held: false,
            busy: BTreeMap::new(),
            hinted: BTreeMap::new(),
            not_before: BTreeMap::new(),
            overflow_open: false,
            looked_all: false,
            all_running: false,
            shutdown: false,
            exit: None,
            due_since: None,
            flushing: BTreeMap::new(),
        }
    }

    fn push(&mut self, delay_ms: u64, later: Later) {
        self.count += 1;
        self.later.insert((self.now.plus_ms(delay_ms), self.count), later);
    }

    /// The person at the source, and the watcher that may or may not tell.
    fn user(&mut self) {
        let i = self.chance.next(6) as usize;
        self.version += 1;
        self.files[i].source = if self.chance.percent(30) { 0 } else { self.version };
        if self.files[i].source == 0 {
            // What is gone by now was not there to stay.
            self.flushing.values_mut().for_each(|then| then[i] = 0);
        }
        match self.chance.next(10) {
            0 => self.overflow(),
            1 => self.overflow(),
            _ => self.hint(i),
        }
    }

    fn hint(&mut self, i: usize) {
        let first = self.engine.dirty.first(&path(i)).unwrap_or(self.now);
        self.hinted.insert(i, (first, self.now));
        let deep = self.chance.percent(20);
        self.send(Event::Hints(vec![Hint { path: path(i), deep }]));
        // Too many dirty paths become a look at everything.
        self.hinted.retain(|i, _| self.engine.dirty.contains(&path(*i)));
    }

    fn overflow(&mut self) {
        self.overflow_open = true;
        self.send(Event::Overflow);
    }

    fn send(&mut self, event: Event) {
        let effects = self.engine.handle(event, self.now);
        let waiting = self.engine.snapshot().waiting.is_some();
        for effect in effects {
            self.carry_out(effect, waiting);
        }
        if let (Some(wake), None) = (self.engine.next_wake(), &self.exit) {
            assert!(wake > self.now, "seed {}: the engine spins", self.seed);
        }
        self.check_waiting();
    }

    /// Promise 3, the other half: nothing hinted waits longer than `max_wait` where it may be
    /// looked at.
    fn check_waiting(&self) {
        if !self.engine.may_look_small() || self.exit.is_some() || self.shutdown {
            return;
        }
        for (i, (first, _)) in &self.hinted {
            if self.engine.dirty.first(&path(*i)) == Some(*first) {
                let latest = first.plus_ms(MAX_WAIT_MS);
                let next = self.engine.next_look();
                assert!(
                    next.is_some_and(|t| t <= latest.max(self.now)),
                    "seed {}: promise 3: too late",
                    self.seed
                );
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, waiting: bool) {
        let seed = self.seed;
        assert!(self.exit.is_none(), "seed {seed}: an effect after the exit");
        let starts = matches!(
            effect,
            Effect::Look { .. } | Effect::Start { .. } | Effect::FetchDue | Effect::Probe
        );
        assert!(!(starts && self.paused), "seed {seed}: promise 9: {effect:?} while paused");
        match effect {
            Effect::Look { look, scopes, .. } => {
                assert!(!self.shutdown, "seed {seed}: promise 5: a look after the shutdown");
                self.look(look, &scopes);
            }
            Effect::Start { op, work } => {
                assert!(!self.shutdown, "seed {seed}: promise 5: a start after the shutdown");
                assert!(!waiting, "seed {seed}: promise 9: a start while away");
                self.start(op, work);
            }
            Effect::FetchDue => {
                assert!(self.looked_all, "seed {seed}: promise 6: before a complete look");
                assert!(!self.all_running, "seed {seed}: promise 6: during a look");
                self.due_since = self.engine.deletions.asked();
                let delay = self.chance.next(20);
                let report = self.due_report();
                self.push(delay, Later::Event(Event::Due(report)));
            }
            Effect::Probe => {
                let delay = self.chance.next(500);
                let result = match self.away {
                    true => Err(failure(ErrorClass::Unreachable)),
                    false => Ok(()),
                };
                self.push(delay, Later::Event(Event::Probed(result)));
            }
            Effect::Exit(exit) => {
                assert!(self.shutdown && exit == Exit::Stopped, "seed {seed}: {exit:?}");
                self.exit = Some(exit);
            }
            Effect::Flushed { flush, failed_paths } => self.flushed(flush, failed_paths),
            Effect::Problem(_) | Effect::Notice(_) => {}
        }
    }

    fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.send(if paused { Event::Pause } else { Event::Resume });
    }

    fn flush(&mut self) {
        self.count += 1;
        let id = FlushId(self.count);
        self.flushing.insert(id, self.files.map(|file| file.source));
        self.send(Event::Flush(id));
    }

    /// Promise 10: what was there is in the destination, or has gone since, or is told.
    fn flushed(&mut self, flush: FlushId, failed_paths: u64) {
        let then = self.flushing.remove(&flush).unwrap();
        let older = (0..6).filter(|i| self.files[*i].record < then[*i]).count();
        let seed = self.seed;
        assert!(older as u64 <= failed_paths, "seed {seed}: promise 10: flushed too early");
    }

    fn step(&mut self, end: Tick) -> bool {
        let wake = self.engine.next_wake().filter(|_| self.exit.is_none());
        let next = self.later.keys().next().map(|(at, _)| *at);
        // While the engine holds more jobs than it wants, it asks to be left alone.
        let at = match (next, wake.filter(|w| *w > self.now)) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) => a,
            (None, Some(b)) => b,
            (None, None) => return false,
        };
        if at > end {
            return false;
        }
        self.now = at.max(self.now);
        match self.later.first_entry() {
            Some(first) if first.key().0 <= self.now => match first.remove() {
                Later::Event(event) => self.send(event),
                Later::Observe(look, names, all) => self.observe(look, names, all),
                Later::Run(op, work, read) => self.run(op, work, read),
            },
            _ => self.send(Event::Wake),
        }
        true
    }

    fn run_until(&mut self, end: Tick) {
        let mut steps = 0;
        while self.step(end) {
            steps += 1;
            assert!(steps < 20_000, "seed {}: no end", self.seed);
        }
        self.now = end.max(self.now);
        self.send(Event::Wake);
    }
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    world.send(Event::Start);
    let steps = 3 + world.chance.next(12);
    for _ in 0..steps {
        match world.chance.next(13) {
            0 => world.away = !world.away,
            1 => world.held = !world.held,
            2 => {
                world.hinted.clear();
                world.flush();
            }
            3 => world.pause(!world.paused),
            _ => world.user(),
        }
        let pause = [10, 500, 3_000, 30_000][world.chance.next(4) as usize];
        let pause = world.chance.next(pause) + 1;
        world.run_until(world.now.plus_ms(pause));
    }
    let seed = world.seed;
    if world.chance.percent(30) {
        world.shutdown = true;
        world.send(Event::Shutdown);
        world.run_until(world.now.plus_ms(60_000));
        assert!(world.exit.is_some(), "seed {seed}: promise 5: the drain does not end");
        return;
    }
    // Faults end. Everything that was hinted, or lost in an overflow, comes to be right.
    (world.calm, world.away) = (true, false);
    world.pause(false);
    world.run_until(world.now.plus_ms(45 * 60_000));
    assert!(!world.overflow_open, "seed {seed}: promise 4: no look after an overflow");
    for (i, file) in world.files.iter().enumerate() {
        let name = NAMES[i];
        assert_eq!(file.source, file.target, "seed {seed}: {name} is wrong: {file:?}");
        assert_eq!(file.source, file.record, "seed {seed}: {name} is not recorded: {file:?}");
    }
    let snapshot = world.engine.snapshot();
    assert!(snapshot.pending == 0 && snapshot.oldest.is_none(), "seed {seed}: {snapshot:?}");
    assert!(world.flushing.is_empty(), "seed {seed}: promise 10: a flush does not end");
}

fn histories() -> u64 {
    let wanted = std::env::var("KEEPWATCH_HISTORIES").ok().and_then(|n| n.parse().ok());
    wanted.unwrap_or(100_000)
}

#[test]
fn promises_hold_over_random_histories() {
    if let Some(seed) = std::env::var("KEEPWATCH_SEED").ok().and_then(|s| s.parse().ok()) {
        return history(seed);
    }
    let all = histories();
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (thread..all).step_by(threads as usize).for_each(history));
        }
    });
}

#[test]
fn same_seed_same_history() {
    let trace = |seed| {
        let mut world = World::new(seed);
        world.send(Event::Start);
        for _ in 0..8 {
            world.user();
            world.run_until(world.now.plus_ms(5_000));
        }
        (world.count, world.now, world.files)
    };
    for seed in 0..50 {
        assert_eq!(trace(seed), trace(seed));
    }
}
