//! The engine's rules one by one, each as a short story. The rig is here; each file below is one
//! subject. What must hold in every story at once is in `histories`.

mod away;
mod deletions;
mod ends;
mod looks;
mod queue;

use std::collections::BTreeMap;

use super::histories::{DAEMON, MAX_WAIT_MS, SETTLE_MS, entry, failure, record};
use super::*;
use crate::model::Tick;
use crate::plan::{Done, ErrorClass, HoldReason, Task, Why};

const MINUTE_MS: u64 = 60_000;
const DONE: Outcome = Outcome::Done(Done::Uploaded { bytes: 1 });

const ONE_SHOT: Settings = Settings { mode: Mode::OneShot { retry_for_ms: MINUTE_MS }, ..DAEMON };

/// An engine in virtual time, and everything that it asked for.
struct Rig {
    engine: Engine,
    now: Tick,
    asked: Vec<(Tick, Effect)>,
    /// Looks that have not ended, the oldest first.
    looks: Vec<LookId>,
    flying: BTreeMap<String, (OpId, Work)>,
}

impl Rig {
    /// An engine that has begun its first look at everything.
    fn started(settings: Settings) -> Self {
        let engine = Engine::new(settings);
        let (asked, looks, flying) = (vec![], vec![], BTreeMap::new());
        let mut rig = Self { engine, now: Tick(0), asked, looks, flying };
        rig.send(Event::Start);
        assert_eq!(rig.looked_at(), ["everything"]);
        rig
    }

    /// An engine that has looked at everything and found nothing to do.
    fn at_rest(settings: Settings) -> Self {
        let mut rig = Self::started(settings);
        rig.end_look(LookResult::Complete);
        rig
    }

    fn daemon() -> Self {
        Self::at_rest(DAEMON)
    }

    fn send(&mut self, event: Event) {
        for effect in self.engine.handle(event, self.now) {
            match &effect {
                Effect::Look { look, .. } => self.looks.push(*look),
                Effect::Start { op, work } => {
                    self.flying.insert(name_of(work), (*op, work.clone()));
                }
                _ => {}
            }
            self.asked.push((self.now, effect));
        }
    }

    /// Lets time pass, and wakes the engine when it wants to be woken.
    fn wait(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while let Some(wake) = self.engine.next_wake().filter(|wake| *wake <= end) {
            assert!(wake > self.now, "the engine spins");
            self.now = wake;
            self.send(Event::Wake);
        }
        self.now = end;
    }

    fn until_look(&mut self) {
        while self.looks.is_empty() {
            self.wait(10);
        }
    }

    fn hint(&mut self, name: &str) {
        self.send(Event::Hints(vec![Hint { path: path(name), deep: false }]));
    }

    /// The oldest look hands in these jobs.
    fn plan(&mut self, jobs: &[Job]) {
        let (look, jobs) = (self.looks[0], jobs.to_vec());
        self.send(Event::Planned { look, jobs });
    }

    fn end_look(&mut self, result: LookResult) {
        self.end_look_due(result, None);
    }

    /// The oldest look ends, and deletions are due after so many milliseconds.
    fn end_look_due(&mut self, result: LookResult, deletion_due_in_ms: Option<u64>) {
        let look = self.looks.remove(0);
        let report = LookReport { result, young: vec![], deletion_due_in_ms };
        self.send(Event::LookEnded { look, report });
    }

    /// A hint leads to these jobs.
    fn find(&mut self, jobs: &[Job]) {
        self.hint("hinted");
        self.wait(SETTLE_MS);
        assert!(self.looked_at().contains(&"hinted".to_owned()));
        self.plan(jobs);
        self.end_look(LookResult::Complete);
    }

    /// The running operation ends.
    fn finish(&mut self, name: &str, outcome: Outcome) {
        let (op, _) = self.flying.remove(name).unwrap();
        self.send(Event::Finished { op, outcome });
    }

    fn fail(&mut self, name: &str, class: ErrorClass) {
        self.finish(name, Outcome::Failed(failure(class)));
    }

    fn due(&mut self, names: &[&str]) {
        let items = names.iter().map(|name| item(name)).collect();
        self.send(Event::Due(DueReport { items, ..DueReport::default() }));
    }

    /// Takes what was asked for and fits, with its time.
    fn take<T>(&mut self, fits: impl Fn(&Effect) -> Option<T>) -> Vec<(u64, T)> {
        let taken = self.asked.iter().filter_map(|(at, effect)| Some((at.0, fits(effect)?)));
        let taken = taken.collect();
        self.asked.retain(|(_, effect)| fits(effect).is_none());
        taken
    }

    /// Keys whose operations were started since the last question; `-a` is a deletion.
    fn ops(&mut self) -> Vec<String> {
        let name = |effect: &Effect| match effect {
            Effect::Start { work, .. } => Some(name_of(work)),
            _ => None,
        };
        self.take(name).into_iter().map(|(_, name)| name).collect()
    }

    /// Paths whose looks were started since the last question.
    fn looked_at(&mut self) -> Vec<String> {
        let names = |effect: &Effect| match effect {
            Effect::Look { scopes, .. } => Some(scopes.iter().map(scope_name).collect::<Vec<_>>()),
            _ => None,
        };
        self.take(names).into_iter().flat_map(|(_, names)| names).collect()
    }

    /// When probes were sent since the last question.
    fn probes(&mut self) -> Vec<u64> {
        let probe = |effect: &Effect| (*effect == Effect::Probe).then_some(());
        self.take(probe).into_iter().map(|(at, ())| at).collect()
    }

    fn fetches(&mut self) -> usize {
        self.take(|effect| (*effect == Effect::FetchDue).then_some(())).len()
    }

    fn problems(&mut self) -> Vec<Trouble> {
        let trouble = |effect: &Effect| match effect {
            Effect::Problem(problem) => Some(problem.what.clone()),
            _ => None,
        };
        self.take(trouble).into_iter().map(|(_, what)| what).collect()
    }

    fn notices(&mut self) -> Vec<Notice> {
        let notice = |effect: &Effect| match effect {
            Effect::Notice(notice) => Some(notice.clone()),
            _ => None,
        };
        self.take(notice).into_iter().map(|(_, notice)| notice).collect()
    }

    fn exit(&mut self) -> Option<Exit> {
        let exit = |effect: &Effect| match effect {
            Effect::Exit(exit) => Some(exit.clone()),
            _ => None,
        };
        self.take(exit).pop().map(|(_, exit)| exit)
    }

    fn task(&self, name: &str) -> Task {
        match &self.flying[name].1 {
            Work::Sync(job) => job.task,
            Work::Delete(_) => panic!("{name} is a deletion"),
        }
    }
}

fn path(name: &str) -> RelPath {
    RelPath::new(name.as_bytes()).unwrap()
}

fn job(name: &str, size_bytes: u64) -> Job {
    Job {
        key: Key::file(&path(name)),
        path: path(name),
        task: Task::Upload,
        why: Why::Changed,
        entry: Some(entry(size_bytes)),
        base: None,
        target: None,
    }
}

fn item(name: &str) -> DeleteItem {
    DeleteItem { key: Key::file(&path(name)), path: path(name), record: record() }
}

fn name_of(work: &Work) -> String {
    match work {
        Work::Sync(job) => job.path.to_string(),
        Work::Delete(items) => {
            let names: Vec<String> = items.iter().map(|item| item.path.to_string()).collect();
            format!("-{}", names.join(","))
        }
    }
}

fn scope_name(scope: &Scope) -> String {
    match scope {
        Scope::All => "everything".to_owned(),
        Scope::Tree(path) => format!("{path}/**"),
        Scope::Path(path) => path.to_string(),
    }
}

fn held() -> Hold {
    Hold { reasons: vec![HoldReason::Emptied], pending: 2 }
}

/// Whether a delay is this long, give or take the jitter.
fn is_about(delay_ms: u64, wanted_ms: u64) -> bool {
    delay_ms.abs_diff(wanted_ms) <= wanted_ms / 4
}
