//! How long a request of a one-shot run is tried again, whose a failure is (this path's, or
//! everybody's), and why a path or a run goes no further.
//!
//! A path that fails while others pass is a failed path. Where no other is under way, another
//! object is read to tell: a server that is away is never taken for an object that is damaged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Backoff, Jitter};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{Fut, ObjectId, ObjectReader, StoreError};

use super::failure_of;
use super::halt::Halt;

/// Attempts at one object while others pass.
const ATTEMPTS: u32 = 6;
const THROTTLED_ATTEMPTS: u32 = 20;
/// That others pass must have been seen so often between two attempts: when a server comes back,
/// the first of them pass before the last have failed.
const ALONE: u32 = 3;
/// Attempts after which another object is read to tell, where none passes by itself.
const ASK_AFTER: u32 = 3;
/// Between two such questions.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Objects of the listing that are read to tell, when none was read well before.
const ASKED: usize = 3;
/// The longest pause before another attempt. None is longer than the server may be away.
const PAUSE_MAX_MS: u64 = 10_000;

/// Why one path, or everything, goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// This path failed; the rest goes on.
    Path(String),
    /// This path is left out, and why.
    Skip(String),
    /// What is there, or the object, is not what it was: look again.
    Again,
    /// It is being thawed: its turn comes later.
    Frozen,
    /// A folder with content is here, which is deleted last of all: its turn comes then.
    AfterDelete,
    /// Nothing is begun, for safety.
    Held(Failure),
    All(Failure),
    Interrupted,
}

/// Shared by all requests of a run.
pub(crate) struct Patience {
    retry_for: Duration,
    backoff: Backoff,
    cancel: Halt,
    asks: Asks,
    last_good: Mutex<Option<Instant>>,
    /// The object that was read well last.
    read_well: Mutex<Option<ObjectId>>,
    /// When another object was last read in vain; held while one is.
    asked: tokio::sync::Mutex<Option<Instant>>,
    waiting: AtomicBool,
    jitter: Mutex<Jitter>,
}

/// Who is asked, where no other request tells whether the server answers.
enum Asks {
    Nobody,
    /// Another object is read here.
    Another(Arc<dyn ObjectReader>),
    /// Other objects are looked at on both sides of a copy.
    Both([Arc<dyn ObjectReader>; 2]),
}

/// One request's attempts.
pub(crate) struct Attempts {
    count: u32,
    failing_since: Option<Instant>,
    last_failure: Option<Instant>,
    /// How often others were seen to pass since the attempt before.
    alone: u32,
    /// How often of these only because another object was read to tell.
    told: u32,
    /// What fails is everybody's: a listing.
    everybody: bool,
}

impl Attempts {
    /// At something that concerns one path.
    pub(crate) fn new() -> Self {
        Self {
            count: 0,
            failing_since: None,
            last_failure: None,
            alone: 0,
            told: 0,
            everybody: false,
        }
    }

    /// At something without which nothing goes on.
    pub(crate) fn of_all() -> Self {
        Self { everybody: true, ..Self::new() }
    }

    pub(crate) fn failed(&self) -> bool {
        self.count > 0
    }
}

impl Patience {
    pub(crate) fn new(retry_for_ms: u64, cancel: Halt) -> Self {
        Self {
            retry_for: Duration::from_millis(retry_for_ms),
            backoff: Backoff { first_ms: 500, max_ms: retry_for_ms.clamp(500, PAUSE_MAX_MS) },
            cancel,
            asks: Asks::Nobody,
            last_good: Mutex::new(None),
            read_well: Mutex::new(None),
            asked: tokio::sync::Mutex::new(None),
            waiting: AtomicBool::new(false),
            jitter: Mutex::new(Jitter::new(retry_for_ms)),
        }
    }

    /// Another object is read here, where nothing else tells whether the server answers.
    pub(crate) fn asking(self, reader: Arc<dyn ObjectReader>) -> Self {
        Self { asks: Asks::Another(reader), ..self }
    }

    /// Both sides of a copy are asked: that one of them answers says nothing of the other.
    pub(crate) fn asking_all(self, sides: [Arc<dyn ObjectReader>; 2]) -> Self {
        Self { asks: Asks::Both(sides), ..self }
    }

    /// A request went well.
    pub(crate) fn good(&self) {
        *lock(&self.last_good) = Some(Instant::now());
        if self.waiting.swap(false, Ordering::Relaxed) {
            tracing::info!("the bucket answers again, going on");
        }
    }

    /// The content of this object came to its end.
    pub(crate) fn came_whole(&self, id: &ObjectId) {
        *lock(&self.read_well) = Some(id.clone());
        self.good();
    }

    fn last_good(&self) -> Option<Instant> {
        *lock(&self.last_good)
    }

    /// Sends a request for one path until it goes well, or is given up.
    pub(crate) async fn insist<'a, T>(
        &self,
        request: impl FnMut() -> Fut<'a, Result<T, StoreError>>,
    ) -> Result<T, Stop> {
        self.try_again(Attempts::new(), request).await
    }

    /// The same for what is everybody's.
    pub(crate) async fn insist_for_all<'a, T>(
        &self,
        request: impl FnMut() -> Fut<'a, Result<T, StoreError>>,
    ) -> Result<T, Stop> {
        self.try_again(Attempts::of_all(), request).await
    }

    async fn try_again<'a, T>(
        &self,
        mut attempts: Attempts,
        mut request: impl FnMut() -> Fut<'a, Result<T, StoreError>>,
    ) -> Result<T, Stop> {
        loop {
            match request().await {
                Ok(reply) => {
                    self.good();
                    return Ok(reply);
                }
                Err(error) => {
                    self.pause(&mut attempts, failure_of(error, "read the backup")).await?;
                }
            }
        }
    }

    /// Waits before the next attempt. An error when there is to be none.
    pub(crate) async fn pause(
        &self,
        attempts: &mut Attempts,
        failure: Failure,
    ) -> Result<(), Stop> {
        let ever_good = self.last_good().is_some();
        match failure.class {
            ErrorClass::Path => return Err(of_path(&failure)),
            ErrorClass::Denied if ever_good && !attempts.everybody => {
                return Err(of_path(&failure));
            }
            ErrorClass::Denied
            | ErrorClass::Configuration
            | ErrorClass::Full
            | ErrorClass::State => {
                return Err(Stop::All(failure));
            }
            ErrorClass::Credentials if !ever_good => return Err(Stop::All(failure)),
            ErrorClass::Credentials
            | ErrorClass::Throttled
            | ErrorClass::Server
            | ErrorClass::Unreachable => {}
        }
        attempts.count += 1;
        let may_be_this_paths = failure.class != ErrorClass::Credentials && !attempts.everybody;
        let is_alone = self.is_alone(attempts, may_be_this_paths).await?;
        if is_alone && may_be_this_paths && attempts.is_given_up(failure.class, self.retry_for) {
            return Err(of_path(&failure));
        }
        if !is_alone && self.silence(attempts) >= self.retry_for {
            return Err(Stop::All(failure));
        }
        if !is_alone && attempts.count > 1 && !self.waiting.swap(true, Ordering::Relaxed) {
            tracing::warn!("waiting: {failure}");
        }
        let delay = {
            let mut jitter = lock(&self.jitter);
            self.backoff.delay_ms(attempts.count, &mut jitter)
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(delay)) => Ok(()),
            () = self.cancel.cancelled() => Err(Stop::Interrupted),
        }
    }

    /// Takes note of a failure, and tells whether others have passed since the one before.
    async fn is_alone(&self, attempts: &mut Attempts, may_ask: bool) -> Result<bool, Stop> {
        let now = Instant::now();
        attempts.failing_since.get_or_insert(now);
        let Some(before) = attempts.last_failure.replace(now) else { return Ok(false) };
        if self.last_good().is_none_or(|at| at <= before) {
            let is_last_word = self.silence(attempts) >= self.retry_for;
            let asks = may_ask && (attempts.count > ASK_AFTER || is_last_word);
            if !asks || !self.ask(before, is_last_word).await? {
                return Ok(false);
            }
            attempts.told += 1;
        }
        attempts.alone += 1;
        Ok(true)
    }

    /// For how long nothing at all went well, as far as these attempts can tell.
    fn silence(&self, attempts: &Attempts) -> Duration {
        let since = attempts.failing_since.unwrap_or_else(Instant::now);
        self.last_good().map_or(since, |good| good.max(since)).elapsed()
    }

    /// Reads another object, unless that was just tried or something passed meanwhile.
    async fn ask(&self, since: Instant, is_last_word: bool) -> Result<bool, Stop> {
        let asking = async {
            let mut asked = self.asked.lock().await;
            if self.last_good().is_some_and(|at| at > since) {
                return true;
            }
            if !is_last_word && asked.is_some_and(|at| at.elapsed() < ASK_EVERY) {
                return false;
            }
            let passes = self.another_passes().await;
            *asked = (!passes).then(Instant::now);
            passes
        };
        let passes = tokio::select! {
            passes = asking => passes,
            () = self.cancel.cancelled() => return Err(Stop::Interrupted),
        };
        if passes {
            self.good();
        }
        Ok(passes)
    }

    async fn another_passes(&self) -> bool {
        match &self.asks {
            Asks::Nobody => false,
            Asks::Another(reader) => self.can_be_read(&**reader).await,
            Asks::Both([source, copies]) => answers(&**source).await && answers(&**copies).await,
        }
    }

    /// Whether the server can be read: the object that was read well last; without one, some of the
    /// first that are listed. Where there is one object only, the listing speaks for the server.
    async fn can_be_read(&self, reader: &dyn ObjectReader) -> bool {
        let read_well = lock(&self.read_well).clone();
        if let Some(id) = read_well {
            return reader.read(&id, None).await.is_ok();
        }
        let Ok(page) = reader.list(None).await else { return false };
        if page.objects.len() == 1 && page.more_after.is_none() {
            return true;
        }
        for listed in page.objects.into_iter().take(ASKED) {
            let id = ObjectId { key: listed.key, version: None, etag: None };
            if reader.read(&id, None).await.is_ok() {
                return true;
            }
        }
        false
    }
}

/// Whether a place can be listed, and an object of the first page looked at. Where it has one or
/// none, the listing speaks for the server.
async fn answers(reader: &dyn ObjectReader) -> bool {
    let Ok(page) = reader.list(None).await else { return false };
    let count = page.objects.len();
    if count <= 1 && page.more_after.is_none() {
        return true;
    }
    // Neighbours may fail alike.
    for listed in page.objects.into_iter().step_by(count.div_ceil(ASKED).max(1)) {
        let id = ObjectId { key: listed.key, version: None, etag: None };
        if reader.head(&id).await.is_ok() {
            return true;
        }
    }
    false
}

impl Attempts {
    /// Whether it has been tried often enough for something that fails alone.
    fn is_given_up(&self, class: ErrorClass, retry_for: Duration) -> bool {
        let enough = match class {
            ErrorClass::Throttled => THROTTLED_ATTEMPTS,
            _ => ATTEMPTS,
        };
        // Nothing else is left to do while this goes on.
        let is_late = self.failing_since.is_some_and(|since| since.elapsed() >= retry_for);
        self.alone >= ALONE && (self.count >= enough || self.told >= ALONE && is_late)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A failure of one path, in one line.
fn of_path(failure: &Failure) -> Stop {
    Stop::Path(failure.in_one_line())
}
