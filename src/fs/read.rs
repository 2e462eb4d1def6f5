//! Stable reads: a file is opened once, and looked at before, after, and by its path. What the
//! three say together is judged by [`crate::plan::judge`], not here.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::fstat;

use crate::model::content::Digester;
use crate::model::{ContentMd5, Crc64, Entry, Kind, Md5, Observed, RelPath};
use crate::ports::{Chunk, Fut, OpenFile, PartDigest, ReadError, WholeRead};

use super::meta::{What, explain, read_error, what};
use super::threads::Threads;
use super::{beneath, crashed};

/// Bytes hashed at a time, while they are still in the processor's cache.
const SLICE: usize = 256 * 1024;

/// Reads a file of up to `limit` bytes in one go. Of a larger one nothing is read.
pub fn whole(root: &Path, path: &RelPath, limit: u64) -> Result<WholeRead, ReadError> {
    let root = beneath::open_root(root).map_err(read_error)?;
    let (file, before) = open(&root, path)?;
    let disk = before.fingerprint.device;
    let size = before.fingerprint.size_bytes;
    let bytes = match size <= limit {
        true => read_exact(&file, 0, size)?,
        false => vec![],
    };
    let after = entry_of(&file, disk)?;
    let by_path = look_at(&root, path);
    let (md5, crc64) = (Md5::of(&bytes), Crc64::of(&bytes));
    Ok(WholeRead { before, after, by_path, bytes: Bytes::from(bytes), md5, crc64 })
}

/// A link's target, with its entry. A link cannot change without becoming another inode.
pub fn link(root: &Path, path: &RelPath) -> Result<(Entry, Bytes), ReadError> {
    let root = beneath::open_root(root).map_err(read_error)?;
    let place = beneath::parent(&root, path).map_err(read_error)?;
    let entry_of_link = || match place.what(path.name()).map_err(read_error)? {
        What::Entry(entry) if entry.kind == Kind::Link => Ok(entry),
        _ => Err(ReadError::Changed),
    };
    let before = entry_of_link()?;
    let target = place.read_link(path.name()).map_err(read_error)?;
    if entry_of_link()? != before {
        return Err(ReadError::Changed);
    }
    Ok((before, Bytes::from(target)))
}

/// Opens what is a regular file before and after opening. Other kinds are not opened.
///
/// RACE: a name that becomes a FIFO or device between the two looks is opened; `O_NONBLOCK` keeps
/// that from blocking, and nothing is read from it.
pub fn open(root: &OwnedFd, path: &RelPath) -> Result<(File, Entry), ReadError> {
    let place = beneath::parent(root, path).map_err(read_error)?;
    match place.what(path.name()).map_err(read_error)? {
        What::Entry(entry) if entry.kind == Kind::File => {}
        _ => return Err(ReadError::Changed),
    }
    let file = place.open_file(path.name()).map_err(read_error)?;
    let entry = entry_of(&file, place.disk)?;
    Ok((file, entry))
}

pub fn entry_of(file: &File, disk: u64) -> Result<Entry, ReadError> {
    match what(&fstat(file).map_err(read_error)?, disk) {
        What::Entry(entry) if entry.kind == Kind::File => Ok(entry),
        _ => Err(ReadError::Changed),
    }
}

fn look_at(root: &OwnedFd, path: &RelPath) -> Observed<Entry> {
    match beneath::parent(root, path).and_then(|place| place.what(path.name())) {
        Ok(What::Entry(entry)) => Observed::Present(entry),
        Ok(What::Folder(_) | What::Special) => Observed::Absent,
        Err(errno) if beneath::is_gone(errno) => Observed::Absent,
        Err(_) => Observed::Unknown,
    }
}

fn read_exact(file: &File, offset: u64, length: u64) -> Result<Vec<u8>, ReadError> {
    let too_large = |_| ReadError::Unreadable("too large for this machine's memory".to_owned());
    let mut bytes = vec![0; usize::try_from(length).map_err(too_large)?];
    let read = read_into(file, &mut bytes, offset)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Fills the buffer, or as much of it as the file still has.
fn read_into(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, ReadError> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let errno = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
                let words = errno.map_or_else(|| error.to_string(), explain);
                return Err(ReadError::Unreadable(words));
            }
        }
    }
    Ok(done)
}

/// A file that stays open.
pub struct Opened {
    file: Arc<File>,
    entry: Entry,
    root: PathBuf,
    path: RelPath,
    threads: Threads,
}

impl Opened {
    pub fn open(root: &Path, path: RelPath, threads: Threads) -> Result<Self, ReadError> {
        let fd = beneath::open_root(root).map_err(read_error)?;
        let (file, entry) = open(&fd, &path)?;
        Ok(Self { file: Arc::new(file), entry, root: root.to_owned(), path, threads })
    }
}

impl OpenFile for Opened {
    fn opened(&self) -> Entry {
        self.entry
    }

    fn read(&self, offset: u64, length: u64) -> Fut<'_, Result<Chunk, ReadError>> {
        let file = self.file.clone();
        Box::pin(async move {
            let read = self.threads.run(move || read_chunk(&file, offset, length));
            read.await.ok_or_else(crashed)?
        })
    }

    fn digest(&self, offset: u64, length: u64) -> Fut<'_, Result<PartDigest, ReadError>> {
        let file = self.file.clone();
        Box::pin(async move {
            let read = self.threads.run(move || digest_range(&file, offset, length));
            read.await.ok_or_else(crashed)?
        })
    }

    fn look(&self) -> Fut<'_, Result<(Entry, Observed<Entry>), ReadError>> {
        let file = self.file.clone();
        let (root, path) = (self.root.clone(), self.path.clone());
        let disk = self.entry.fingerprint.device;
        Box::pin(async move {
            let look = self.threads.run(move || {
                let after = entry_of(&file, disk)?;
                let root = beneath::open_root(&root).map_err(read_error)?;
                Ok((after, look_at(&root, &path)))
            });
            look.await.ok_or_else(crashed)?
        })
    }
}

fn read_chunk(file: &File, offset: u64, length: u64) -> Result<Chunk, ReadError> {
    let too_large = |_| ReadError::Unreadable("too large for this machine's memory".to_owned());
    let mut bytes = vec![0; usize::try_from(length).map_err(too_large)?];
    let mut digester = Digester::default();
    for slice in bytes.chunks_mut(SLICE) {
        let read = read_into(file, slice, offset + digester.bytes())?;
        digester.update(&slice[..read]);
        if read < slice.len() {
            break;
        }
    }
    bytes.truncate(digester.bytes() as usize);
    Ok(Chunk { bytes: Bytes::from(bytes), digest: finish(digester) })
}

/// Reads a file of this size whole, or in parts.
pub fn digest(
    file: &File,
    size_bytes: u64,
    part_size: Option<u64>,
) -> Result<(ContentMd5, Crc64), ReadError> {
    let Some(part_size) = part_size.filter(|size| *size > 0) else {
        let whole = digest_range(file, 0, size_bytes)?;
        return Ok((ContentMd5::whole(whole.md5), whole.crc64));
    };
    let part = |n| digest_range(file, n * part_size, part_size.min(size_bytes - n * part_size));
    let parts = (0..size_bytes.div_ceil(part_size).max(1)).map(part);
    Ok(PartDigest::combine(&parts.collect::<Result<Vec<_>, _>>()?, part_size))
}

fn digest_range(file: &File, offset: u64, length: u64) -> Result<PartDigest, ReadError> {
    let mut buffer = vec![0; SLICE];
    let mut digester = Digester::default();
    while digester.bytes() < length {
        let want = usize::try_from(length - digester.bytes()).unwrap_or(SLICE).min(SLICE);
        let read = read_into(file, &mut buffer[..want], offset + digester.bytes())?;
        digester.update(&buffer[..read]);
        if read < want {
            break;
        }
    }
    Ok(finish(digester))
}

fn finish(digester: Digester) -> PartDigest {
    let bytes = digester.bytes();
    let (md5, crc64) = digester.finish();
    PartDigest { bytes, md5, crc64 }
}
