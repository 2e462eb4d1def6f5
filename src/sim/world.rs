//! A whole world in virtual time: a person changes files, a lossy watcher tells some of it, a
//! server fails, disks go and come back, the program is killed and starts again. Safety is checked
//! at every change of the bucket; at the end, when things go quiet, the bucket equals the source.
//!
//! ```text
//! KEEPWATCH_SEED=123 cargo nextest run simulate     runs one world again
//! ```

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::app::control::Command;
use crate::app::driver::Watching;
use crate::app::owner::OwnerIdentity;
use crate::app::status::BackupStatus;
use crate::app::{Backup, BackupSettings, Driver, Ended};
use crate::engine::Mode;
use crate::model::{Key, KeyTarget, Kind, Record, RelPath, Trust};
use crate::plan::{Compare, Deletions, ErrorClass, MaxDelete};
use crate::ports::{Change, Identity, ObjectStore as _};

use super::chance::Chance;
use super::clock::SimClock;
use super::faults::{Fate, Faults};
use super::fs::{SimFs, SwappedSource};
use super::state::SimState;
use super::store::{SimStore, Writing};

/// Names that meet at the edges of the order: `a` as file and folder, beside `a-` and `a.b`.
const NAMES: [&str; 14] =
    ["a", "a-", "a.b", "a/a", "a/b", "a/a/c", "b", "b/x", "b/x/y", "c/d", "c/e", "c/d/f", "z", "ü"];

/// What was broken.
pub type Broken = Arc<Mutex<Vec<String>>>;

/// The parts of a world that outlive the program.
pub struct World {
    pub seed: u64,
    pub chance: Chance,
    pub clock: SimClock,
    pub fs: SimFs,
    pub store: SimStore,
    pub state: SimState,
    pub settings: BackupSettings,
    broken: Broken,
    trace: Arc<Mutex<DefaultHasher>>,
    program: Option<Program>,
}

struct Program {
    commands: mpsc::Sender<Command>,
    running: JoinHandle<Ended>,
}

fn path(name: &str) -> RelPath {
    RelPath::new(name.as_bytes()).unwrap_or_else(|_| RelPath::root())
}

fn settings(seed: u64, chance: &Chance) -> BackupSettings {
    BackupSettings {
        name: "sim".to_owned(),
        mode: Mode::Daemon,
        deletions: if seed % 4 == 3 { Deletions::Tag } else { Deletions::Delete },
        delete_delay_ms: *chance.pick(&[0, 5_000, 60_000]),
        max_delete: MaxDelete::default(),
        compare: Compare::Fingerprint,
        settle_ms: 2_000,
        max_wait_ms: 20_000,
        rescan_ms: 30 * 60_000,
        verify_every_ms: 60 * 60_000,
        multipart_threshold: 24,
        part_size: Some(10),
        transfers: 3,
        create_bucket: false,
        take_over: false,
        failed_only: false,
        owner: OwnerIdentity::default(),
        seed: chance.below(u64::MAX),
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let chance = Chance::new(seed);
        let clock = SimClock::start();
        let fs = SimFs::new(clock, &chance);
        let faults = Faults::none(&chance);
        let store = SimStore::new(clock, faults, chance.percent(60));
        let (broken, trace) = (Broken::default(), Arc::default());
        let settings = settings(seed, &chance);
        let state = SimState::new();
        let world =
            Self { seed, chance, clock, fs, store, state, settings, broken, trace, program: None };
        world.watch_promises();
        world
    }

    /// Checks every change of the bucket before it happens, and every record of success.
    fn watch_promises(&self) {
        let (fs, state, clock) = (self.fs.clone(), self.state.clone(), self.clock);
        let (broken, trace) = (self.broken.clone(), self.trace.clone());
        self.store.set_witness(Arc::new(move |writing| {
            if let Some(complaint) = judge(&fs, &state, clock, writing) {
                broken.lock().unwrap_or_else(PoisonError::into_inner).push(complaint);
            }
            tracing::debug!("the bucket: {writing:?}");
            let mut hasher = trace.lock().unwrap_or_else(PoisonError::into_inner);
            (format!("{writing:?}"), clock.stamp().secs).hash(&mut *hasher);
        }));
        let (store, broken) = (self.store.clone(), self.broken.clone());
        self.state.set_witness(Arc::new(move |change| {
            tracing::debug!("the state: {change:?}");
            if let Change::Synced { key, record } = change
                && record.trust == Trust::Synced
                && record.missing_since.is_none()
            {
                let there = store.objects().get(key).map(|object| object.etag.clone());
                if there != record.etag {
                    let complaint =
                        format!("{key} is recorded as {:?}, and is {there:?}", record.etag);
                    broken.lock().unwrap_or_else(PoisonError::into_inner).push(complaint);
                }
            }
        }));
    }

    /// What was broken so far.
    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A digest of every change of the bucket and its time.
    pub fn trace(&self) -> u64 {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).finish()
    }

    pub fn backup(&self) -> Arc<Backup> {
        let clock = Arc::new(self.clock);
        let (tree, store) = (Arc::new(self.fs.clone()), Arc::new(self.store.clone()));
        let state = Arc::new(self.state.clone());
        Arc::new(Backup::new(self.settings.clone(), tree, store, state, clock, None))
    }

    pub fn start(&mut self) {
        let (hints, folders) = self.fs.watch();
        let watching = Watching { hints: Box::new(hints), folders };
        let (commands, inbox) = mpsc::channel(4);
        let running = tokio::spawn(Driver::new(self.backup(), Some(watching)).run(inbox));
        self.program = Some(Program { commands, running });
    }

    /// Kills the program at whatever it is waiting for.
    pub async fn crash(&mut self) {
        if let Some(program) = self.program.take() {
            program.running.abort();
            if let Err(error) = program.running.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    /// What the running program says of itself.
    pub async fn status(&self) -> Option<BackupStatus> {
        let (answer, answered) = oneshot::channel();
        let program = self.program.as_ref()?;
        program.commands.send(Command::Status(answer)).await.ok()?;
        answered.await.ok()
    }

    pub async fn approve(&self) {
        if let Some(program) = &self.program {
            let (answer, answered) = oneshot::channel();
            // The first pass may have found the wrong disk and taken it for the source.
            let command = Command::Approve { new_root: true, answer };
            if program.commands.send(command).await.is_ok() {
                answered.await.ok();
            }
        }
    }

    /// One thing that a person does to the files.
    pub fn user(&self) {
        let any = || {
            let path = path(self.chance.pick::<&str>(&NAMES));
            tracing::debug!("a person touches {path}");
            path
        };
        let size = usize::try_from(self.chance.below(70)).unwrap_or(0);
        let content: Vec<u8> = (0..size).map(|_| self.chance.below(256) as u8).collect();
        match self.chance.below(20) {
            0..=8 => {
                self.fs.write(&any(), &content);
            }
            9 | 10 => self.fs.remove(&any()),
            11 | 12 => self.fs.rename(&any(), &any()),
            13 => self.fs.rewrite_quietly(&any()),
            14 => self.fs.chmod(&any(), *self.chance.pick(&[0o644, 0o600, 0o755, 0o700])),
            15 => {
                self.fs.link(&any(), b"somewhere");
            }
            16 => {
                self.fs.make_folder(&any());
            }
            // A file becomes a folder, or the other way round.
            17 => {
                let path = any();
                self.fs.remove(&path);
                match self.chance.percent(50) {
                    true => self.fs.make_folder(&path),
                    false => self.fs.write(&path, &content),
                };
            }
            // An atomic save.
            18 => {
                let (path, temporary) = (any(), any());
                self.fs.write(&temporary, &content);
                self.fs.rename(&temporary, &path);
            }
            _ => {
                let path = any();
                if let Some((_, old)) = self.fs.content(&path) {
                    self.fs.write(&path, &[&old[..], &content].concat());
                }
            }
        }
    }

    /// The objects that the source asks for.
    pub fn expected(&self) -> BTreeMap<Key, (Bytes, crate::model::Meta)> {
        let paths = self.fs.paths();
        let mut expected = BTreeMap::new();
        for path in &paths {
            let Some((entry, content)) = self.fs.content(path) else { continue };
            if entry.kind != Kind::Folder {
                expected.insert(Key::file(path), (content, entry.meta()));
                continue;
            }
            let empty = !paths.iter().any(|p| p.parent().as_ref() == Some(path));
            if empty || !matches!(entry.mode & 0o7777, 0o755 | 0o775) {
                expected.insert(Key::folder(path), (Bytes::new(), entry.meta()));
            }
        }
        expected
    }

    /// How the bucket differs from the source.
    pub fn differences(&self) -> Vec<String> {
        let (expected, objects) = (self.expected(), self.store.objects());
        let mut differences = vec![];
        for (key, (content, meta)) in &expected {
            match objects.get(key) {
                None => differences.push(format!("{key} is missing")),
                Some(object) if object.body != *content => {
                    differences.push(format!("{key} has other content"));
                }
                Some(object) if object.meta != *meta => {
                    differences.push(format!("{key} has {:?}, not {meta:?}", object.meta));
                }
                Some(_) => {}
            }
        }
        for (key, object) in &objects {
            match (expected.contains_key(key), self.settings.deletions) {
                (true, _) if object.deleted_tag => {
                    differences.push(format!("{key} is there, and tagged as deleted"));
                }
                (false, Deletions::Tag) if !object.deleted_tag => {
                    differences.push(format!("{key} should be tagged as deleted"));
                }
                (false, Deletions::Delete) => {
                    differences.push(format!("{key} should not be there"));
                }
                _ => {}
            }
        }
        if self.store.open_uploads() > 0 {
            differences.push("an upload is left open".to_owned());
        }
        differences
    }

    async fn pause(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Lives through a random time of changes, faults and crashes.
    pub async fn live(&mut self) {
        for _ in 0..self.chance.below(8) {
            self.user();
        }
        self.store.faults.set_slow(self.chance.percent(70));
        self.start();
        let mut swapped: Option<SwappedSource> = None;
        for _ in 0..10 + self.chance.below(25) {
            match self.chance.below(42) {
                0..=25 => self.user(),
                26 | 27 => self.store.faults.set_percent(*self.chance.pick(&[0, 10, 50])),
                28 => {
                    let class = *self.chance.pick(&[
                        ErrorClass::Unreachable,
                        ErrorClass::Credentials,
                        ErrorClass::Server,
                        ErrorClass::Configuration,
                    ]);
                    self.store.faults.set_away(Some(class));
                }
                29 | 30 => self.store.faults.set_away(None),
                31 | 32 => {
                    self.crash().await;
                    self.pause(self.chance.below(5_000)).await;
                    self.start();
                }
                33 => {
                    let fate = *self.chance.pick(&[Fate::CrashBefore, Fate::CrashAfter]);
                    self.crash_at(self.chance.below(6) + 1, fate).await;
                }
                34 => {
                    self.fs.set_watcher(self.chance.below(100), *self.chance.pick(&[0, 50, 100]));
                }
                35 => self.fs.set_torn(*self.chance.pick(&[0, 5, 30])),
                36 => {
                    let folder = path(self.chance.pick::<&str>(&["a", "b", "c"]));
                    self.fs.set_unreadable(&folder, self.chance.percent(50));
                }
                37 => self.fs.set_missing(self.chance.percent(40)),
                38 if swapped.is_none() => {
                    swapped = Some(self.fs.swap_source(SwappedSource::empty()));
                }
                38 | 39 => {
                    if let Some(old) = swapped.take() {
                        self.fs.swap_source(old);
                    }
                }
                _ => self.fs.set_mounted(&path("b"), self.chance.percent(50)),
            }
            let longest = *self.chance.pick(&[5, 500, 5_000, 90_000]);
            self.pause(self.chance.below(longest)).await;
        }
        if let Some(old) = swapped {
            self.fs.swap_source(old);
        }
    }

    /// Kills the program at its n-th request from now, if it comes to that, and starts it again.
    pub async fn crash_at(&mut self, n: u64, fate: Fate) {
        let faults = self.store.faults.clone();
        faults.on_nth(n, fate);
        let minute = Duration::from_secs(60);
        let mut crashed = tokio::time::timeout(minute, faults.crash()).await;
        faults.clear_nth();
        if crashed.is_err() {
            // The call may have been on its way when time ran out.
            crashed = tokio::time::timeout(Duration::from_secs(1), faults.crash()).await;
        }
        if crashed.is_ok() {
            self.crash().await;
            self.start();
        }
    }

    /// Faults end and things go quiet; a person approves what is held. Then all must be right.
    pub async fn calm(&mut self) {
        self.store.faults.set_percent(0);
        self.store.faults.set_away(None);
        self.fs.set_watcher(0, 0);
        self.fs.set_torn(0);
        self.fs.set_missing(false);
        if self.chance.percent(50) {
            self.fs.set_mounted(&path("b"), true);
        }
        for folder in ["a", "b", "c"] {
            self.fs.set_unreadable(&path(folder), false);
        }
        // Long enough for a pass, for what was missing to be due, and for retries.
        self.pause(90 * 60_000).await;
        self.approve().await;
        self.pause(30 * 60_000).await;
    }
}

/// The safety of one change of the bucket; the complaint if it is not safe.
fn judge(fs: &SimFs, state: &SimState, clock: SimClock, writing: &Writing<'_>) -> Option<String> {
    let (key, wanted) = match writing {
        Writing::Put(key, _) | Writing::Retouch(key) | Writing::Upload(key) => {
            (*key, Trust::Uploading)
        }
        Writing::Delete(key) => (*key, Trust::Deleting),
    };
    if key.is_reserved() {
        return None;
    }
    let record = state.record(key).filter(|record| record.trust == wanted);
    let Some(record) = record else {
        return Some(format!("{writing:?} without a record that says so"));
    };
    let Some(target) = key.target() else { return Some(format!("{key} stands for no path")) };
    match (writing, target) {
        (Writing::Put(_, body), KeyTarget::File(path)) if !fs.ever_had(&path, body) => {
            Some(format!("a torn object: {key} never had this content"))
        }
        (Writing::Upload(_), _) if !state.has_upload(key) => {
            Some(format!("an upload of {key} without a journal"))
        }
        (Writing::Delete(_), target) => {
            judge_deletion(fs, state.identity(), clock, key, target, &record)
        }
        _ => None,
    }
}

/// RACE: a file that comes back between the last look at it and the request is deleted from the
/// bucket all the same, and uploaded again when it is looked at. So what is as young as a request
/// takes is no offence.
fn judge_deletion(
    fs: &SimFs,
    recorded: Option<Identity>,
    clock: SimClock,
    key: &Key,
    target: KeyTarget,
    record: &Record,
) -> Option<String> {
    const REQUEST_SECS: i64 = 3;
    let steady = clock.stamp().secs - fs.swapped_at() > REQUEST_SECS;
    let same = fs.identity_now().is_some() && fs.identity_now() == recorded;
    if steady && !same {
        return Some(format!("{key} is deleted while another source is in its place"));
    }
    let (path, folder) = match target {
        KeyTarget::File(path) => (path, false),
        KeyTarget::Folder(path) => (path, true),
    };
    if steady && !record.approved && record.entry.fingerprint.device != fs.device(&path) {
        return Some(format!("{key} is deleted while its disk is not there"));
    }
    let (entry, _) = fs.content(&path)?;
    let here = (entry.kind == Kind::Folder) == folder;
    let young = !steady || clock.stamp().secs - entry.fingerprint.ctime.secs <= REQUEST_SECS;
    // Whether a folder needs its marker depends on what is in it.
    (here && !folder && !young).then(|| format!("{key} is deleted although its file is there"))
}

/// Runs a world in a runtime of its own, in virtual time.
#[expect(clippy::panic, reason = "used by tests only")]
pub fn in_virtual_time<T>(run: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(run),
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// Lives one world through to its end. Answers with its trace, or with what is wrong.
pub fn run(seed: u64) -> Result<u64, String> {
    in_virtual_time(async {
        let mut world = World::new(seed);
        world.live().await;
        world.calm().await;
        let requests = world.store.requests();
        world.crash().await;
        let mut wrong = world.broken();
        wrong.extend(world.differences());
        match wrong.is_empty() {
            true => Ok(world.trace() ^ requests.put),
            false => Err(format!("seed {seed}: {}", wrong.join("; "))),
        }
    })
}

use std::future::Future;
