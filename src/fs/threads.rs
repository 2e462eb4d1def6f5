//! A folder's share of the runtime's blocking threads. Work that never returns, as on a network
//! mount that hangs, uses up the share of its own folder, and no other's.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// As many as help on a disk; what is read is hashed on the same threads.
const SHARE: usize = 8;

#[derive(Clone)]
pub struct Threads(Arc<Semaphore>);

impl Default for Threads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARE)))
    }
}

impl Threads {
    /// Runs blocking work when it is its turn; `None` after a panic in it. Work that nobody waits
    /// for any more keeps its thread, and its turn, until it is done.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = self.0.clone().acquire_owned().await.ok()?;
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}

/// Runs blocking work of which few are started at a time anyway.
pub async fn with_own_turns<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_folder_that_hangs_takes_no_others_threads() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (hung, other) = (Threads::default(), Threads::default());
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(std::sync::Mutex::new(released));
        runtime.block_on(async {
            let hang = |threads: Threads| {
                let released = released.clone();
                tokio::spawn(
                    async move { threads.run(move || released.lock().unwrap().recv()).await },
                )
            };
            let all: Vec<_> = (0..100).map(|_| hang(hung.clone())).collect();
            let soon = Duration::from_secs(10);
            assert_eq!(tokio::time::timeout(soon, other.run(|| 1)).await, Ok(Some(1)));
            // A panic gives its turn back as well.
            for _ in 0..2 * SHARE {
                assert_eq!(other.run(|| assert!(std::hint::black_box(false))).await, None);
            }
            assert_eq!(tokio::time::timeout(soon, other.run(|| 2)).await, Ok(Some(2)));
            // What nobody waits for any more still has its threads.
            all.iter().for_each(tokio::task::JoinHandle::abort);
            let late = tokio::time::timeout(Duration::from_millis(50), hung.run(|| 3)).await;
            assert!(late.is_err(), "{late:?}");
            drop(release);
            assert_eq!(tokio::time::timeout(soon, hung.run(|| 4)).await, Ok(Some(4)));
        });
    }
}
