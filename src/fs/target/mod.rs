//! The folder that a restore fills.
//!
//! Everything happens below one handle. Each file is made under another name in a folder that only
//! this user can enter, and gets its own name by one rename into a folder that is opened for this,
//! through no link, at that moment.

mod attributes;
mod disk;
mod file;
mod root;
mod spelling;
mod staging;
mod unfinished;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{AtFlags, fstatvfs, unlinkat};
use rustix::io::Errno;

use crate::model::{ContentMd5, Crc64, RelPath};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{
    Attributes, Fut, LocalLook, NewFile, ReadError, TargetError, TargetFacts, TargetTree,
};

use super::read;
use super::threads::Threads;
use file::Unnamed;
use root::Root;
use staging::Staging;
use unfinished::Unfinished;

/// A folder to restore into.
#[derive(Clone)]
pub struct Target {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// From `prepare` to `finish`.
    staging: Mutex<Option<Arc<Staging>>>,
    threads: Threads,
}

impl Target {
    pub fn new(path: &Path) -> Self {
        let (staging, threads) = (Mutex::default(), Threads::default());
        Self { inner: Arc::new(Inner { path: path.to_owned(), staging, threads }) }
    }

    async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Inner) -> Result<T, TargetError> + Send + 'static,
    ) -> Result<T, TargetError> {
        let inner = self.inner.clone();
        self.inner.threads.run(move || f(&inner)).await.ok_or_else(crashed)?
    }

    async fn run_whole<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Inner) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let inner = self.inner.clone();
        let crashed = || Failure::new(ErrorClass::Path, "a bug in keepwatch: the restore crashed");
        self.inner.threads.run(move || f(&inner)).await.ok_or_else(crashed)?
    }
}

fn crashed() -> TargetError {
    TargetError::Path("a bug in keepwatch: the write ended unexpectedly".to_owned())
}

fn of_reading(error: ReadError) -> TargetError {
    match error {
        ReadError::Changed => TargetError::Changed,
        ReadError::Unreadable(why) => TargetError::Path(why),
        ReadError::Busy(failure) => TargetError::Failed(failure),
    }
}

impl Inner {
    fn prepared(&self) -> Option<Arc<Staging>> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn staging(&self) -> Result<Arc<Staging>, TargetError> {
        self.prepared().ok_or_else(|| {
            let message = format!("a bug in keepwatch: {} is not prepared", self.path.display());
            TargetError::Failed(Failure::new(ErrorClass::Configuration, message))
        })
    }

    /// Runs below the handle that is held; without one, below the folder that is there now.
    fn below<T>(
        &self,
        absent: T,
        f: impl FnOnce(&Root) -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        if let Some(staging) = self.prepared() {
            return f(&staging.root);
        }
        match Root::open(&self.path) {
            Ok(root) => f(&root),
            Err(Errno::NOENT) => Ok(absent),
            Err(errno) => Err(TargetError::Failed(root::unwritable(&self.path, errno))),
        }
    }

    fn prepare(&self) -> Result<TargetFacts, Failure> {
        let staging = Arc::new(Staging::prepare(&self.path, self.threads.clone())?);
        let facts = TargetFacts {
            folds_names: staging.folds_names,
            keeps_modes: staging.disk.keeps_modes(),
            keeps_owners: staging.disk.keeps_owners(),
            ..facts(&self.path, &staging.folder)?
        };
        *self.staging.lock().unwrap_or_else(PoisonError::into_inner) = Some(staging);
        Ok(facts)
    }

    fn remove(&self, path: &RelPath, is: &LocalLook) -> Result<(), TargetError> {
        let staging = self.staging()?;
        staging.admit(path)?;
        let root = &staging.root;
        let parent = root.parent(path)?;
        let name = OsStr::from_bytes(path.name());
        let seen = root.look_in(&parent, name)?;
        if seen != *is || seen == LocalLook::Absent {
            return Err(TargetError::Changed);
        }
        // RACE: another file that takes this name right now is removed in its place. A folder is
        // only removed empty.
        let flags = match is {
            LocalLook::Folder(_) => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        match unlinkat(&parent, name, flags) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(TargetError::InTheWay(path.clone())),
            result => result.map_err(|errno| root.refused(errno)),
        }
    }
}

/// Waits for what was given up and is still under way on other blocking threads: it would leave its
/// unfinished file behind.
fn alone(staging: Arc<Staging>) -> Arc<Staging> {
    while Arc::strong_count(&staging) > 1 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    staging
}

fn facts(path: &Path, folder: &std::os::fd::OwnedFd) -> Result<TargetFacts, Failure> {
    let disk = fstatvfs(folder).map_err(|errno| root::unwritable(path, errno))?;
    let blocks = match rustix::process::geteuid().is_root() {
        true => disk.f_bfree,
        false => disk.f_bavail,
    };
    Ok(TargetFacts {
        free_bytes: blocks.saturating_mul(disk.f_frsize),
        folds_names: false,
        keeps_modes: true,
        keeps_owners: true,
        block_bytes: disk.f_frsize,
    })
}

fn digest(
    root: &Root,
    path: &RelPath,
    part_size: Option<u64>,
) -> Result<(ContentMd5, Crc64), TargetError> {
    let (file, before) = read::open(&root.fd, path).map_err(of_reading)?;
    let size_bytes = before.fingerprint.size_bytes;
    let digest = read::digest(&file, size_bytes, part_size).map_err(of_reading)?;
    match read::entry_of(&file, before.fingerprint.device).map_err(of_reading)? == before {
        true => Ok(digest),
        false => Err(TargetError::Changed),
    }
}

impl TargetTree for Target {
    fn prepare(&self) -> Fut<'_, Result<TargetFacts, Failure>> {
        Box::pin(self.run_whole(Inner::prepare))
    }

    fn facts(&self) -> Fut<'_, Result<TargetFacts, Failure>> {
        Box::pin(self.run_whole(|inner| facts(&inner.path, &staging::existing(&inner.path)?)))
    }

    fn look(&self, path: RelPath) -> Fut<'_, Result<LocalLook, TargetError>> {
        Box::pin(self.run(move |inner| inner.below(LocalLook::Absent, |root| root.look(&path))))
    }

    fn look_at_all(&self, paths: Vec<RelPath>) -> Fut<'_, Vec<Result<LocalLook, TargetError>>> {
        Box::pin(async move {
            let count = paths.len();
            let looks = self.run(move |inner| {
                let absent = paths.iter().map(|_| Ok(LocalLook::Absent)).collect();
                inner.below(absent, |root| Ok(paths.iter().map(|path| root.look(path)).collect()))
            });
            looks.await.unwrap_or_else(|error| vec![Err(error); count])
        })
    }

    fn digest(
        &self,
        path: RelPath,
        part_size: Option<u64>,
    ) -> Fut<'_, Result<(ContentMd5, Crc64), TargetError>> {
        Box::pin(self.run(move |inner| {
            let digest = inner.below(None, |root| digest(root, &path, part_size).map(Some))?;
            digest.ok_or(TargetError::Changed)
        }))
    }

    fn folder(&self, path: RelPath) -> Fut<'_, Result<bool, TargetError>> {
        Box::pin(self.run(move |inner| {
            let staging = inner.staging()?;
            staging.admit(&path)?;
            staging.root.make_folder(&path).map(|(_, made)| made)
        }))
    }

    fn create(&self, path: RelPath) -> Fut<'_, Result<Box<dyn NewFile>, TargetError>> {
        Box::pin(self.run(move |inner| {
            let file = Unnamed::create(inner.staging()?, path)?;
            Ok(Box::new(file) as Box<dyn NewFile>)
        }))
    }

    fn link(
        &self,
        path: RelPath,
        target: Bytes,
        attributes: Attributes,
        over: LocalLook,
    ) -> Fut<'_, Result<(), TargetError>> {
        Box::pin(self.run(move |inner| {
            let link = Unfinished::link(inner.staging()?, &path, &target, &attributes)?;
            link.publish(&path, &over)
        }))
    }

    fn set(
        &self,
        path: RelPath,
        is: LocalLook,
        attributes: Attributes,
    ) -> Fut<'_, Result<(), TargetError>> {
        Box::pin(self.run(move |inner| {
            let staging = inner.staging()?;
            staging.admit(&path)?;
            attributes::set(&staging.root, &path, &is, &staging.disk.kept(&attributes))
        }))
    }

    fn remove(&self, path: RelPath, is: LocalLook) -> Fut<'_, Result<(), TargetError>> {
        Box::pin(self.run(move |inner| inner.remove(&path, &is)))
    }

    fn finish(&self) -> Fut<'_, Result<(), Failure>> {
        Box::pin(self.run_whole(|inner| {
            let staging = inner.staging.lock().unwrap_or_else(PoisonError::into_inner).take();
            staging.map_or(Ok(()), |staging| alone(staging).finish())
        }))
    }
}
