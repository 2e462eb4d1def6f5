//! What a daemon runs by its configuration, backups and mirrors alike: started, tried again, kept
//! or changed by a new configuration, stopped. What they do is no matter of this file.
//!
//! Each has a task of its own, from its start to its end: one that waits for a server, or for its
//! disk, holds up nothing else, and whoever runs them all never waits for one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::app::control::Command;
use crate::app::{CONDITION, Ended};

use super::ask::Called;
use super::doors::{Door, Doors, Starting};
use super::error::CliError;
use super::run::Following;

/// Before one that could not be started is tried again: at first, and at most.
pub const AGAIN_FIRST: Duration = Duration::from_secs(2);
pub const AGAIN_MAX: Duration = Duration::from_secs(300);
/// A driver gives what is in flight its own time; it does not get much more.
const END_WITHIN: Duration = Duration::from_secs(14);

/// One that is driven, and how to reach its driver.
pub struct Driven {
    pub commands: mpsc::Sender<Command>,
    pub driving: JoinHandle<Ended>,
    /// Nobody looks on in a test.
    pub following: Option<Following>,
}

/// How those of one kind are started.
pub trait Kind: Send + Sync + 'static {
    /// What is configured of one.
    type Config: Clone + PartialEq + Send + Sync + 'static;

    /// What a person may call it.
    fn called(&self, config: &Self::Config) -> Called;

    /// Puts one together and has it driven; its door is open then. Tells what it waits for
    /// meanwhile. May be dropped at any point before.
    fn start(
        &self,
        config: &Self::Config,
        start: &Starting,
    ) -> impl Future<Output = Result<Driven, CliError>> + Send;
}

/// One that is meant to run.
struct Kept<C> {
    /// Tells its task from that of an earlier one of its name.
    id: u64,
    config: C,
    /// What runs again where this cannot be started.
    former: Option<C>,
    ran: Arc<AtomicBool>,
    /// Only a new configuration, or the same one read again, has it tried again.
    refused: bool,
    stop: CancellationToken,
    /// Try it again now.
    again: Arc<Notify>,
    gone: CancellationToken,
}

/// Those that end, by their names: what is new begins after them, for it may be about the same.
#[derive(Default)]
pub struct Leaving(Vec<(String, CancellationToken)>);

impl Leaving {
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(leaving, gone)| leaving == name && !gone.is_cancelled())
    }

    fn all(&mut self) -> Vec<CancellationToken> {
        self.0.retain(|(_, gone)| !gone.is_cancelled());
        self.0.iter().map(|(_, gone)| gone.clone()).collect()
    }
}

/// How one has left its task.
enum Left {
    Stopped,
    /// It cannot be started as it is configured.
    Refused(CliError),
    /// Its driver ended by itself, which none should.
    Died,
}

/// What has become of one.
pub enum News {
    Stopped,
    Refused(CliError),
    /// It goes on as it was before.
    Returned,
    Died,
}

/// Those of one kind, by their names.
pub struct Group<K: Kind> {
    kind: Arc<K>,
    doors: Doors,
    all: BTreeMap<String, Kept<K::Config>>,
    tasks: JoinSet<(String, u64, Left)>,
    next: u64,
}

/// What a new configuration asks to start: with what ran under that name before, if anything did.
pub type Wanted<C> = Vec<(C, Option<C>)>;

/// What comes of a new configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub kept: usize,
    pub ended: usize,
    pub begun: usize,
}

impl std::ops::Add for Changes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            kept: self.kept + other.kept,
            ended: self.ended + other.ended,
            begun: self.begun + other.begun,
        }
    }
}

impl<K: Kind> Group<K> {
    pub fn new(kind: K, doors: Doors) -> Self {
        let (all, tasks) = (BTreeMap::new(), JoinSet::new());
        Self { kind: Arc::new(kind), doors, all, tasks, next: 0 }
    }

    /// Whether nothing runs, is being started, or is going to be tried again.
    pub fn is_idle(&self) -> bool {
        self.all.values().all(|kept| kept.refused)
    }

    pub fn has(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    /// Ends what is gone from the configuration or was changed in it; the others go on, and what
    /// waits to be tried again is tried at once. Answers with what is to be started.
    pub fn end_changed(
        &mut self,
        configs: Vec<K::Config>,
        leaving: &mut Leaving,
    ) -> (Wanted<K::Config>, Changes) {
        let (mut gone, mut wanted) = (std::mem::take(&mut self.all), vec![]);
        let mut changes = Changes::default();
        let mut end = |name: String, kept: Kept<K::Config>| {
            kept.stop.cancel();
            leaving.0.push((name, kept.gone));
            changes.ended += 1;
        };
        for config in configs {
            let name = self.kind.called(&config).name;
            match gone.remove(&name) {
                None => wanted.push((config, None)),
                Some(kept) if kept.refused => wanted.push((config, None)),
                Some(kept) if kept.config == config => {
                    kept.again.notify_one();
                    self.all.insert(name, kept);
                }
                Some(mut kept) => {
                    let former = match kept.ran.load(Ordering::Relaxed) {
                        true => Some(kept.config.clone()),
                        false => kept.former.take(),
                    };
                    wanted.push((config, former));
                    end(name, kept);
                }
            }
        }
        gone.into_iter().filter(|(_, kept)| !kept.refused).for_each(|(name, kept)| end(name, kept));
        let changes = Changes { kept: self.all.len(), begun: wanted.len(), ..changes };
        (wanted, changes)
    }

    /// Begins to start these, after what is leaving.
    pub fn start(&mut self, wanted: Wanted<K::Config>, leaving: &mut Leaving) {
        for (config, former) in wanted {
            self.start_one(config, former, leaving.all());
        }
    }

    fn start_one(
        &mut self,
        config: K::Config,
        former: Option<K::Config>,
        after: Vec<CancellationToken>,
    ) {
        let called = self.kind.called(&config);
        let (name, id) = (called.name.clone(), self.next);
        self.next += 1;
        let kept = Kept {
            id,
            config: config.clone(),
            former,
            ran: Arc::default(),
            refused: false,
            stop: CancellationToken::new(),
            again: Arc::default(),
            gone: CancellationToken::new(),
        };
        let one = One {
            kind: self.kind.clone(),
            doors: self.doors.clone(),
            called,
            config,
            ran: kept.ran.clone(),
            stop: kept.stop.clone(),
            again: kept.again.clone(),
            start: Starting::begin(),
            _gone: kept.gone.clone().drop_guard(),
        };
        self.doors.set(Door::opening(one.called.clone(), one.start.clone()));
        self.all.insert(name.clone(), kept);
        self.tasks.spawn(async move { (name, id, one.keep(after).await) });
    }

    /// What becomes of the next one; `None` where there is none. One that ran before and cannot be
    /// started as it is written now goes on as it was.
    pub async fn news(&mut self) -> Option<News> {
        let (name, id, left) = match self.tasks.join_next().await? {
            Ok(left) => left,
            Err(error) => {
                tracing::error!(%error, "a task ended unexpectedly");
                return Some(News::Died);
            }
        };
        let error = match left {
            Left::Stopped => return Some(News::Stopped),
            Left::Died => return Some(News::Died),
            Left::Refused(error) => error,
        };
        // Another of its name is there already.
        let Some(kept) = self.all.get_mut(&name).filter(|kept| kept.id == id) else {
            return Some(News::Stopped);
        };
        let why = error.with_hints();
        tracing::error!(target: CONDITION, backup = name, "not started: {why}");
        let Some(former) = kept.former.take() else {
            kept.refused = true;
            self.doors.set(Door::shut(self.kind.called(&kept.config), error.clone()));
            return Some(News::Refused(error));
        };
        tracing::warn!(target: CONDITION, backup = name, "goes on as it was");
        self.start_one(former, None, vec![]);
        Some(News::Returned)
    }

    /// Stops all: what is being started is dropped, what is in flight is waited for.
    pub async fn stop(mut self) {
        self.all.values().for_each(|kept| kept.stop.cancel());
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The task of one.
struct One<K: Kind> {
    kind: Arc<K>,
    doors: Doors,
    called: Called,
    config: K::Config,
    ran: Arc<AtomicBool>,
    stop: CancellationToken,
    again: Arc<Notify>,
    start: Starting,
    _gone: DropGuard,
}

impl<K: Kind> One<K> {
    async fn keep(self, after: Vec<CancellationToken>) -> Left {
        let started = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Left::Stopped,
            started = self.start(after) => started,
        };
        let Driven { commands, mut driving, following } = match started {
            Ok(driven) => driven,
            Err(error) => return Left::Refused(error),
        };
        self.ran.store(true, Ordering::Relaxed);
        tokio::select! {
            () = self.stop.cancelled() => {}
            ended = &mut driving => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a driver ended unexpectedly");
                }
                return Left::Died;
            }
        }
        let ended = timeout(END_WITHIN, async {
            commands.send(Command::Stop).await.ok();
            (&mut driving).await.ok();
        });
        if ended.await.is_err() {
            // What it was about is found by the next start: that is what records are for.
            tracing::warn!(backup = self.called.name, "does not end by itself: it is left");
            driving.abort();
            driving.await.ok();
        }
        if let Some(following) = following {
            following.finish();
        }
        Left::Stopped
    }

    /// Tries it until it runs, or cannot.
    async fn start(&self, after: Vec<CancellationToken>) -> Result<Driven, CliError> {
        self.start.waits_for("the end of what it replaces");
        for former in after {
            former.cancelled().await;
        }
        let (mut pause, mut told) = (AGAIN_FIRST, None);
        loop {
            let error = match self.kind.start(&self.config, &self.start).await {
                Err(error) if error.may_pass => error,
                result => return result,
            };
            if told.as_ref() != Some(&error) {
                let (name, why) = (&self.called.name, error.with_hints());
                tracing::error!(target: CONDITION, backup = name, "waiting to be started: {why}");
                self.doors.set(Door::shut(self.called.clone(), error.clone()));
                told = Some(error);
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(AGAIN_MAX),
                () = self.again.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use crate::engine::Exit;

    use super::super::error::Code;
    use super::*;

    /// Configurations say what starting them comes to.
    #[derive(Default)]
    struct Scripted {
        tries: Mutex<Vec<Instant>>,
    }

    type Config = (&'static str, &'static str);

    impl Kind for Scripted {
        type Config = Config;

        fn called(&self, config: &Config) -> Called {
            Called { name: config.0.to_owned(), ..Called::default() }
        }

        async fn start(&self, config: &Config, _: &Starting) -> Result<Driven, CliError> {
            self.tries.lock().unwrap().push(Instant::now());
            let failed = |may_pass| CliError { may_pass, ..CliError::new(Code::NeedsPerson, "") };
            match config.1 {
                "hangs" => std::future::pending().await,
                "wrong" => Err(failed(false)),
                "away" => Err(failed(true)),
                _ => {
                    let (commands, mut inbox) = mpsc::channel(1);
                    let driving = tokio::spawn(async move {
                        inbox.recv().await;
                        let (failed, skipped) = (vec![], vec![]);
                        Ended { exit: Exit::Stopped, held: 0, failed, skipped }
                    });
                    Ok(Driven { commands, driving, following: None })
                }
            }
        }
    }

    fn group() -> (Group<Scripted>, Leaving) {
        (Group::new(Scripted::default(), Doors::default()), Leaving::default())
    }

    fn configure(
        group: &mut Group<Scripted>,
        leaving: &mut Leaving,
        configs: &[Config],
    ) -> Changes {
        let (wanted, changes) = group.end_changed(configs.to_vec(), leaving);
        group.start(wanted, leaving);
        changes
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_with_growing_pauses() {
        let (mut group, mut leaving) = group();
        configure(&mut group, &mut leaving, &[("a", "away")]);
        let began = Instant::now();
        assert!(timeout(Duration::from_secs(2_000), group.news()).await.is_err(), "no end");
        let at = |tries: &[Instant]| -> Vec<u64> {
            tries.iter().map(|at| at.duration_since(began).as_secs()).collect()
        };
        let tries = at(&group.kind.tries.lock().unwrap());
        assert_eq!(tries[..6], [0, 2, 6, 14, 30, 62]);
        assert_eq!(tries[tries.len() - 1] - tries[tries.len() - 2], 300);
        // Read again, it is tried at once.
        let before = group.kind.tries.lock().unwrap().len();
        let changes = configure(&mut group, &mut leaving, &[("a", "away")]);
        assert_eq!(changes, Changes { kept: 1, ended: 0, begun: 0 });
        assert!(timeout(Duration::from_secs(1), group.news()).await.is_err());
        assert_eq!(group.kind.tries.lock().unwrap().len(), before + 1);
        group.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_keeps_nothing_from_anything() {
        let (mut group, mut leaving) = group();
        configure(&mut group, &mut leaving, &[("a", "hangs"), ("b", "wrong"), ("c", "runs")]);
        assert!(matches!(group.news().await, Some(News::Refused(_))));
        assert!(!group.is_idle());
        // What is wrong is tried again by whoever reads it again, what runs is kept.
        let all = [("a", "hangs"), ("b", "wrong"), ("c", "runs")];
        let changes = configure(&mut group, &mut leaving, &all);
        assert_eq!(changes, Changes { kept: 2, ended: 0, begun: 1 });
        assert!(matches!(group.news().await, Some(News::Refused(_))));
        let began = Instant::now();
        group.stop().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ran_goes_on_where_the_new_is_wrong() {
        let (mut group, mut leaving) = group();
        configure(&mut group, &mut leaving, &[("a", "runs")]);
        assert!(timeout(Duration::from_secs(1), group.news()).await.is_err());
        configure(&mut group, &mut leaving, &[("a", "hangs")]);
        assert!(leaving.has("a"));
        assert!(matches!(group.news().await, Some(News::Stopped)));
        assert!(!leaving.has("a"));
        // One that was never up is not what it was.
        let changes = configure(&mut group, &mut leaving, &[("a", "wrong")]);
        assert_eq!(changes, Changes { kept: 0, ended: 1, begun: 1 });
        assert!(matches!(group.news().await, Some(News::Stopped)));
        assert!(matches!(group.news().await, Some(News::Returned)));
        assert_eq!(group.all["a"].config, ("a", "runs"));
        group.stop().await;
    }
}
