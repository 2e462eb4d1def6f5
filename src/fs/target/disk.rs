//! One file system in the target: what it keeps beside content, and how content becomes durable.
//!
//! A rename can reach the disk before the content of the file that it names. After a power cut such
//! a file would have its size and its time, count as right, and hold nothing. So content is made
//! durable first; and because that costs for a hundred files little more than for one, those that
//! wait at the same time share one sync.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{Gid, Mode, Uid, fchmod, fchown, fstat};
use rustix::io::Errno;
use tokio::sync::Mutex;

use crate::fs::threads::with_own_turns;
use crate::ports::Attributes;

pub struct Disk {
    /// A folder on it.
    folder: Arc<OwnedFd>,
    /// For people.
    shown: String,
    keeps: Keeps,
    /// Whether it was said what is not kept: permissions, owners.
    said: [AtomicBool; 2],
    turns: Turns,
}

/// What a file system keeps of what it is given. FAT, and some network shares, have one owner and
/// one mode for all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    pub modes: bool,
    pub owners: bool,
}

impl Keeps {
    /// Tries it on a new file of ours, which is as it was afterwards.
    pub fn probe(file: &OwnedFd) -> Result<Self, Errno> {
        let (read, both) = (Mode::RUSR, Mode::RUSR | Mode::WUSR);
        let modes = match fchmod(file, read) {
            Ok(()) => Mode::from_raw_mode(fstat(file)?.st_mode) == read,
            Err(errno) => !is_refusal(errno),
        };
        if modes {
            fchmod(file, both)?;
        }
        // Nobody but root gives files away.
        let (root, other) = ((Uid::ROOT, Gid::ROOT), (Uid::from_raw(1), Gid::from_raw(1)));
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { modes, owners: true });
        }
        let owners = match fchown(file, Some(other.0), Some(other.1)) {
            Ok(()) => fstat(file)?.st_uid == other.0.as_raw(),
            Err(errno) => !is_refusal(errno),
        };
        if owners {
            // Where this user of all is not known, the file still is root's.
            fchown(file, Some(root.0), Some(root.1)).ok();
        }
        Ok(Self { modes, owners })
    }
}

fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::NOTSUP | Errno::NOSYS)
}

impl Disk {
    pub fn new(folder: OwnedFd, shown: &Path, keeps: Keeps) -> Self {
        let shown = shown.display().to_string();
        let folder = Arc::new(folder);
        Self { folder, shown, keeps, said: Default::default(), turns: Turns::default() }
    }

    pub fn keeps_modes(&self) -> bool {
        self.keeps.modes
    }

    pub fn keeps_owners(&self) -> bool {
        self.keeps.owners
    }

    /// Leaves out what is not kept here, and says so once.
    pub fn kept(&self, asked: &Attributes) -> Attributes {
        let mut kept = *asked;
        for (keeps, asked, said, what) in [
            (self.keeps.modes, asked.permissions.is_some(), &self.said[0], "permissions"),
            (self.keeps.owners, asked.owner.is_some(), &self.said[1], "owners"),
        ] {
            if asked && !keeps && !said.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "the file system at {} does not keep {what}: files are restored without",
                    self.shown
                );
            }
        }
        kept.permissions = kept.permissions.filter(|_| self.keeps.modes);
        kept.owner = kept.owner.filter(|_| self.keeps.owners);
        kept
    }

    /// Makes durable what was written to this file until now.
    pub async fn settle(&self, file: &Arc<File>) -> Result<(), Errno> {
        if cfg!(target_os = "linux") {
            let folder = self.folder.clone();
            return self.turns.take(move || sync(&folder)).await;
        }
        let file = file.clone();
        let synced = with_own_turns(move || file.sync_data()).await;
        match synced {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            None => Err(Errno::IO),
        }
    }

    /// Makes all of it durable.
    pub fn sync(&self) -> Result<(), Errno> {
        sync(&self.folder)
    }
}

#[cfg(target_os = "linux")]
fn sync(folder: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::syncfs(folder)
}

#[cfg(not(target_os = "linux"))]
fn sync(_: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::sync();
    Ok(())
}

/// Work that everybody who waits for it shares. One turn runs at a time; those who come while it
/// runs share the next.
#[derive(Default)]
struct Turns {
    begun: AtomicU64,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    ended: u64,
    /// Which content a failed sync has lost is not known, and the next one would not tell again.
    failed: Option<Errno>,
}

impl Turns {
    /// Ends when a turn has ended that began after this call.
    async fn take(
        &self,
        work: impl FnOnce() -> Result<(), Errno> + Send + 'static,
    ) -> Result<(), Errno> {
        let wanted = self.begun.load(Ordering::SeqCst) + 1;
        let mut last = self.last.lock().await;
        if last.ended < wanted && last.failed.is_none() {
            let turn = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            last.failed = with_own_turns(work).await.unwrap_or(Err(Errno::IO)).err();
            last.ended = turn;
        }
        last.failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_share_a_turn() {
        let turns = Arc::new(Turns::default());
        let (work, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Barrier::new(2)));
        let take = |held: bool| {
            let (turns, work, gate) = (turns.clone(), work.clone(), gate.clone());
            tokio::spawn(async move {
                let work = move || {
                    work.fetch_add(1, Ordering::SeqCst);
                    if held {
                        gate.wait();
                    }
                    Ok(())
                };
                turns.take(work).await
            })
        };
        let first = take(true);
        while work.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // All of these come while the first turn runs, which may not count for them.
        let others: Vec<_> = (0..1_000).map(|_| take(false)).collect();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        gate.wait();
        assert_eq!(first.await.unwrap(), Ok(()));
        for other in others {
            assert_eq!(other.await.unwrap(), Ok(()));
        }
        assert_eq!(work.load(Ordering::SeqCst), 2);
        assert_eq!(take(false).await.unwrap(), Ok(()));
        assert_eq!(work.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_failure_is_not_forgotten() {
        let turns = Turns::default();
        assert_eq!(turns.take(|| Err(Errno::NOSPC)).await, Err(Errno::NOSPC));
        assert_eq!(turns.take(|| Ok(())).await, Err(Errno::NOSPC));
    }

    #[test]
    fn what_is_not_kept_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let open = || OwnedFd::from(File::open(folder.path()).unwrap());
        let asked = Attributes { mtime: None, permissions: Some(0o600), owner: Some((1, 2)) };
        for (modes, owners) in [(true, true), (true, false), (false, true), (false, false)] {
            let disk = Disk::new(open(), folder.path(), Keeps { modes, owners });
            let kept = disk.kept(&asked);
            assert_eq!((kept.permissions.is_some(), kept.owner.is_some()), (modes, owners));
            assert_eq!(disk.said[0].load(Ordering::Relaxed), !modes);
            assert_eq!(disk.said[1].load(Ordering::Relaxed), !owners);
        }
        let file = File::options().write(true).create_new(true).open(folder.path().join("file"));
        let keeps = Keeps::probe(&file.unwrap().into()).unwrap();
        assert!(keeps.modes, "{keeps:?}");
    }
}
