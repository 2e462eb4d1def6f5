//! The one select loop: it carries events to the engine and effects to the world.
//!
//! Everything that takes time runs in a task of its own and comes back as an event. The loop itself
//! never waits for anything but the next event, and is the only place that starts tasks.

mod again;
mod notices;
mod pause;
mod proof;
mod settings;
mod silence;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::engine::{
    DueReport, Effect, Engine, Event, Exit, FlushId, LookId, LookReport, OpId, Sight, Work,
};
use crate::model::{Key, Millis, RelPath, Tick};
use crate::plan::{Failure, Hint, Job, Outcome, Skip};
use crate::ports::{FolderWatch, HintSource, WatchEvent};

pub(crate) use pause::is_paused;

use super::backup::Backup;
use super::control::{self, Command, Verdict};
use super::progress::raise;
use super::status::{self, Live};
use super::{deletions, execute, observe, owner, pulse};

/// How long a drain waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(10);
/// And then for what was told to end, as a part on a slow line, which cannot end before it is sent.
const LEAVE: Duration = Duration::from_secs(2);
/// Counting goes through all that is pending: not with every file.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// Problems that are listed by name at the end of a run.
const LISTED_MAX: usize = 1_000;

/// A watcher and its event stream.
pub struct Watching {
    pub hints: Box<dyn HintSource>,
    pub folders: Arc<dyn FolderWatch>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub exit: Exit,
    /// Deletions that wait for a person.
    pub held: u64,
    pub failed: Vec<(RelPath, String)>,
    pub skipped: Vec<(RelPath, Skip)>,
}

/// What a task came back with.
enum Back {
    Op(OpId, Outcome),
    Look(LookId, LookReport),
    Due(DueReport),
    Probed(Result<(), Failure>),
    Racy(Vec<RelPath>),
    Linked(again::LookedLinked),
    Proven(Option<Millis>),
    Paused(bool, Result<bool, Failure>, oneshot::Sender<Result<bool, Failure>>),
    Verdict(Result<Verdict, Failure>, oneshot::Sender<Result<Verdict, Failure>>),
    Nothing,
}

/// Drives one backup until it is done or told to stop.
pub struct Driver {
    backup: Arc<Backup>,
    engine: Engine,
    tasks: JoinSet<Back>,
    looks: Vec<AbortHandle>,
    planned: mpsc::Receiver<(LookId, Vec<Job>)>,
    planner: mpsc::Sender<(LookId, Vec<Job>)>,
    hints: Box<dyn HintSource>,
    folders: Option<Arc<dyn FolderWatch>>,
    started: Instant,
    sight: Option<(Sight, String)>,
    /// Why the source cannot be looked at, and since when.
    source_missing: Option<(String, Tick)>,
    /// When the first look at everything had ended.
    first_pass: Option<Tick>,
    /// It was missing, and no look has seen all of it since.
    was_away: bool,
    proven: proof::Proven,
    flushes: BTreeMap<FlushId, oneshot::Sender<Result<u64, Failure>>>,
    next_flush: u64,
    flying: BTreeMap<OpId, (Key, u64)>,
    failed: BTreeMap<Key, (RelPath, String)>,
    skipped: BTreeMap<Key, (RelPath, Skip)>,
    again_at: Option<Instant>,
    linked: again::Linked,
    unread: again::Unread,
    drain_by: Option<Instant>,
    /// When what is pending is counted again, for whoever looks at the progress.
    count_at: Option<Instant>,
    exit: Option<Exit>,
    #[cfg(feature = "sim")]
    hangs: bool,
}

impl Driver {
    pub fn new(backup: Arc<Backup>, watching: Option<Watching>) -> Self {
        let (planner, planned) = mpsc::channel(1);
        let (hints, folders): (Box<dyn HintSource>, _) = match watching {
            Some(watching) => (watching.hints, Some(watching.folders)),
            None => (Box::new(silence::Silence), None),
        };
        let started = Instant::now();
        Self {
            engine: Engine::new(settings::of(&backup)),
            tasks: JoinSet::new(),
            looks: vec![],
            planned,
            planner,
            hints,
            sight: folders.as_ref().map(|_| (Sight::Full, String::new())),
            again_at: folders.as_ref().map(|_| started + again::EVERY),
            folders,
            started,
            source_missing: None,
            first_pass: None,
            was_away: false,
            proven: proof::Proven::default(),
            flushes: BTreeMap::new(),
            next_flush: 0,
            flying: BTreeMap::new(),
            failed: BTreeMap::new(),
            skipped: BTreeMap::new(),
            linked: again::Linked::default(),
            unread: again::Unread::default(),
            drain_by: None,
            count_at: None,
            exit: None,
            #[cfg(feature = "sim")]
            hangs: false,
            backup,
        }
    }

    /// Runs to the end.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Ended {
        self.begin_paused().await;
        self.handle(Event::Start);
        while self.exit.is_none() {
            self.step(&mut commands).await;
        }
        self.conclude().await;
        self.tasks.shutdown().await;
        self.end()
    }

    async fn step(&mut self, commands: &mut mpsc::Receiver<Command>) {
        #[cfg(feature = "sim")]
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let wake = self.wake_at();
        let wants_jobs = self.engine.wants_jobs();
        tokio::select! {
            biased;
            Some(command) = commands.recv() => self.command(command),
            Some(back) = self.tasks.join_next() => {
                self.back(back);
                // What else has come back is taken at once: one turn of the loop for many files.
                while let Some(back) = self.tasks.try_join_next() {
                    self.back(back);
                }
            }
            Some((look, jobs)) = self.planned.recv(), if wants_jobs => {
                self.handle(Event::Planned { look, jobs });
            }
            event = self.hints.next() => self.watched(event),
            () = tokio::time::sleep_until(wake) => self.woken(),
        }
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn wake_at(&self) -> Instant {
        let engine =
            self.engine.next_wake().map(|tick| self.started + Duration::from_millis(tick.0));
        let wakes = [engine, self.again_at, self.drain_by, self.count_at];
        wakes
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.started + Duration::from_secs(86_400 * 365))
    }

    fn woken(&mut self) {
        let now = Instant::now();
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = Some(now + again::EVERY);
            self.look_for_racy();
            self.look_at_linked();
            self.count_unread();
            self.prove();
        }
        if self.count_at.is_some_and(|at| at <= now) {
            self.count_at = None;
            self.count_pending();
            self.count_unread();
            self.prove_pass();
        }
        if self.drain_by.is_some_and(|at| at <= now) {
            if self.backup.cancel.is_cancelled() {
                // What is still in flight is found by the next start: that is what records are for.
                self.exit.get_or_insert(Exit::Stopped);
            }
            self.drain_by = Some(now + LEAVE);
            self.backup.cancel.cancel();
        }
        self.handle(Event::Wake);
    }

    fn count_pending(&self) {
        let snapshot = self.engine.snapshot();
        let progress = &self.backup.progress;
        progress.plan(snapshot.pending as u64, snapshot.pending_bytes);
        let failing = self.failed.len().max(snapshot.failing);
        progress.failing.store(failing as u64, Ordering::Relaxed);
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        if matches!(event, Event::Planned { .. } | Event::Finished { .. } | Event::LookEnded { .. })
        {
            self.count_at.get_or_insert_with(|| Instant::now() + COUNT_EVERY);
        }
        tracing::trace!(at = now.0, ?event);
        for effect in self.engine.handle(event, now) {
            tracing::trace!(at = now.0, ?effect);
            self.carry_out(effect);
        }
    }

    fn watched(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Hints(hints) => self.handle(Event::Hints(hints)),
            WatchEvent::Overflow => {
                raise(&self.backup.progress.overflows, 1);
                self.handle(Event::Overflow);
            }
            WatchEvent::SourceGone => self.handle(Event::SourceGone),
            WatchEvent::Sight(sight, message) => {
                let name = &self.backup.settings.name;
                let told = match sight {
                    Sight::Full => {
                        tracing::info!(backup = %name, "{message}");
                        String::new()
                    }
                    Sight::Partial | Sight::Blind => {
                        tracing::warn!(backup = %name, "{message}");
                        message
                    }
                };
                self.sight = Some((sight, told));
                self.handle(Event::Sight(sight));
            }
        }
    }

    fn back(&mut self, back: Result<Back, tokio::task::JoinError>) {
        match back {
            Ok(Back::Op(op, outcome)) => self.finished(op, outcome),
            Ok(Back::Look(look, report)) => {
                // What the look has planned comes before its end.
                while let Ok((look, jobs)) = self.planned.try_recv() {
                    self.handle(Event::Planned { look, jobs });
                }
                self.note_source(&report);
                let passes = self.engine.snapshot().last_full;
                self.handle(Event::LookEnded { look, report });
                self.proven.pass_waits |= self.engine.snapshot().last_full != passes;
                if self.first_pass.is_none() && self.engine.snapshot().last_full.is_some() {
                    self.first_pass = Some(self.now());
                }
            }
            Ok(Back::Due(report)) => self.handle(Event::Due(report)),
            Ok(Back::Probed(result)) => self.handle(Event::Probed(result)),
            Ok(Back::Racy(paths)) => {
                let hints = paths.into_iter().map(|path| Hint { path, deep: false }).collect();
                self.handle(Event::Hints(hints));
            }
            Ok(Back::Linked(looked)) => self.linked_looked(looked),
            Ok(Back::Proven(before)) => self.proven.note(before, self.backup.clock.now()),
            Ok(Back::Paused(paused, result, answer)) => self.paused(paused, result, answer),
            Ok(Back::Verdict(verdict, answer)) => {
                let accepted = matches!(&verdict, Ok(verdict) if verdict.new_root);
                answer.send(verdict).ok();
                self.handle(Event::Approved);
                if accepted {
                    self.handle(Event::Rescan);
                }
            }
            Ok(Back::Nothing) => {}
            Err(error) if error.is_cancelled() => {}
            // A bug must not pass for a backup: stop, and let the supervisor start anew.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn note_source(&mut self, report: &LookReport) {
        use crate::engine::LookResult;
        match &report.result {
            LookResult::SourceMissing(failure) => {
                self.source_missing.get_or_insert((failure.to_string(), self.now())).0 =
                    failure.to_string();
                self.was_away = true;
                for answer in std::mem::take(&mut self.flushes).into_values() {
                    answer.send(Err(failure.clone())).ok();
                }
            }
            LookResult::Complete => {
                self.source_missing = None;
                self.was_away = false;
            }
            // A look goes to the source first: what failed then was something else.
            LookResult::Failed(_) => self.source_missing = None,
        }
    }

    fn finished(&mut self, op: OpId, outcome: Outcome) {
        if let Some((key, bytes)) = self.flying.remove(&op) {
            if let Outcome::Done(done) = &outcome {
                self.failed.remove(&key);
                self.skipped.remove(&key);
                self.log_done(&key, *done);
            }
            if matches!(outcome, Outcome::Done(_) | Outcome::Skipped(_)) {
                let progress = &self.backup.progress;
                raise(&progress.handled, 1);
                raise(&progress.handled_bytes, bytes);
            }
        }
        self.handle(Event::Finished { op, outcome });
    }

    fn carry_out(&mut self, effect: Effect) {
        let backup = self.backup.clone();
        match effect {
            Effect::Look { look, scopes, eager } => {
                let (watch, planner) = (self.folders.clone(), self.planner.clone());
                let handle = self.tasks.spawn(async move {
                    Back::Look(
                        look,
                        observe::look(backup, look, scopes, eager, watch, planner).await,
                    )
                });
                self.looks.retain(|look| !look.is_finished());
                self.looks.push(handle);
            }
            Effect::Start { op, work: Work::Sync(job) } => {
                self.flying.insert(op, (job.key.clone(), job.size_bytes()));
                self.tasks.spawn(async move { Back::Op(op, execute::sync(backup, *job).await) });
            }
            Effect::Start { op, work: Work::Delete(items) } => {
                self.tasks
                    .spawn(async move { Back::Op(op, deletions::delete(backup, items).await) });
            }
            Effect::FetchDue => {
                self.tasks.spawn(async move { Back::Due(deletions::due(backup).await) });
            }
            Effect::Probe => {
                self.tasks.spawn(async move { Back::Probed(owner::check_now(&*backup).await) });
            }
            Effect::Flushed { flush, failed_paths } => {
                if let Some(answer) = self.flushes.remove(&flush) {
                    answer.send(Ok(failed_paths)).ok();
                }
                self.prove();
            }
            Effect::Problem(problem) => self.problem(problem),
            Effect::Notice(notice) => self.notice(&notice),
            Effect::Exit(exit) => self.exit = Some(exit),
        }
    }

    fn command(&mut self, command: Command) {
        let backup = self.backup.clone();
        match command {
            Command::Status(answer) => {
                let live = self.live();
                self.tasks.spawn(async move {
                    let Ok(status) = status::status(&backup, &live).await else {
                        return Back::Nothing;
                    };
                    let before = status.watermark_ms.map(Millis);
                    answer.send(status).ok();
                    Back::Proven(before)
                });
            }
            Command::Flush(answer) if self.engine.snapshot().paused => {
                answer.send(Err(is_paused())).ok();
            }
            Command::Flush(answer) => {
                let id = FlushId(self.next_flush);
                self.next_flush += 1;
                self.flushes.insert(id, answer);
                self.handle(Event::Flush(id));
            }
            Command::Approve { new_root, answer } => {
                self.tasks.spawn(async move {
                    Back::Verdict(control::approve(&backup.facts(), new_root).await, answer)
                });
            }
            Command::Discard { answer } => {
                self.tasks.spawn(async move {
                    Back::Verdict(control::discard(&backup.facts()).await, answer)
                });
            }
            Command::List { max, answer } => {
                self.tasks.spawn(async move {
                    let (settings, facts) = (&backup.settings, backup.facts());
                    let list = control::list(&facts, &settings.name, settings.max_delete, max);
                    answer.send(list.await).ok();
                    Back::Nothing
                });
            }
            Command::Pulse(answer) => {
                answer.send(pulse::pulse(&backup, &self.live())).ok();
            }
            #[cfg(feature = "sim")]
            Command::Hang => self.hangs = true,
            Command::Pause { paused, answer } => {
                self.tasks.spawn(async move {
                    let done = control::pause(&*backup.state, &*backup.clock, paused).await;
                    Back::Paused(paused, done, answer)
                });
            }
            Command::Stop => self.stop(),
        }
    }

    /// Begins to drain.
    fn stop(&mut self) {
        if self.drain_by.is_some() || self.exit.is_some() {
            return;
        }
        self.drain_by = Some(Instant::now() + DRAIN);
        for look in self.looks.drain(..) {
            look.abort();
        }
        self.proven.at_stop = Some(self.live());
        self.handle(Event::Shutdown);
    }

    fn live(&self) -> Live {
        Live {
            snapshot: self.engine.snapshot(),
            tick: self.now(),
            at: self.backup.clock.now(),
            sight: self.sight.clone(),
            stopping: self.drain_by.is_some(),
            source_missing: self.source_missing.clone(),
            first_pass: self.first_pass,
            linked_until: self.linked_until(),
            was_away: self.was_away,
            proven: self.proven.before,
        }
    }

    fn end(self) -> Ended {
        let snapshot = self.engine.snapshot();
        let failed = self.failed.len().max(snapshot.failing);
        raise(&self.backup.progress.failed, failed as u64);
        self.backup.progress.failing.store(failed as u64, Ordering::Relaxed);
        Ended {
            exit: self.exit.unwrap_or(Exit::Stopped),
            held: snapshot.hold.map_or(0, |hold| hold.pending),
            failed: self.failed.into_values().collect(),
            skipped: self.skipped.into_values().collect(),
        }
    }
}
