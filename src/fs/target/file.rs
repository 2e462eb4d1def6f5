//! A file without a name yet: written in stretches, read back, and put in its place.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::{fstat, ftruncate};
use rustix::io::Errno;

use crate::fs::read;
use crate::model::content::Digester;
use crate::model::{ContentMd5, Crc64, RelPath};
use crate::ports::{Attributes, Fut, LocalLook, NewFile, Stretch, TargetError, Written};

use super::root::{Root, unwritable};
use super::staging::Staging;
use super::unfinished::Unfinished;
use super::{crashed, of_reading};

/// Zeros that fill a block of this size, at a multiple of it, are left out.
const BLOCK: usize = 4096;
/// Bytes that are gathered before they are written.
const GATHERED: usize = 256 * 1024;

pub struct Unnamed {
    unfinished: Unfinished,
    file: Arc<File>,
    path: RelPath,
    /// How far it was written, holes included.
    end: Arc<AtomicU64>,
}

impl Unnamed {
    pub fn create(staging: Arc<Staging>, path: RelPath) -> Result<Self, TargetError> {
        let (unfinished, file) = Unfinished::file(staging, &path)?;
        Ok(Self { unfinished, file: Arc::new(file.into()), path, end: Arc::default() })
    }

    /// Gives it its size and its attributes.
    fn complete(&self, size_bytes: u64, attributes: &Attributes) -> Result<(), TargetError> {
        let Unfinished { staging, disk, .. } = &self.unfinished;
        set_length(&staging.root, &self.file, size_bytes)?;
        let default = disk.keeps_modes().then_some(staging.default_permissions);
        let kept = disk.kept(attributes);
        let attributes = Attributes { permissions: kept.permissions.or(default), ..kept };
        super::attributes::of_file(&staging.root, &self.file, &attributes)
    }
}

impl NewFile for Unnamed {
    fn stretch(&self, offset: u64, md5: bool) -> Box<dyn Stretch> {
        let sums = match md5 {
            true => Sums::Both(Box::default()),
            false => Sums::Crc64(Crc64::EMPTY, 0),
        };
        Box::new(Writer(Some(Writing {
            staging: self.unfinished.staging.clone(),
            file: self.file.clone(),
            end: self.end.clone(),
            offset,
            gathered: vec![],
            sums,
        })))
    }

    fn digest(&self, part_size: Option<u64>) -> Fut<'_, Result<(ContentMd5, Crc64), TargetError>> {
        let (staging, file) = (self.unfinished.staging.clone(), self.file.clone());
        let size_bytes = self.end.load(Ordering::Relaxed);
        Box::pin(async move {
            let threads = staging.threads.clone();
            let digest = threads.run(move || {
                // Zeros at the end were left out, too.
                set_length(&staging.root, &file, size_bytes)?;
                read::digest(&file, size_bytes, part_size).map_err(of_reading)
            });
            digest.await.ok_or_else(crashed)?
        })
    }

    fn commit(
        self: Box<Self>,
        size_bytes: u64,
        attributes: Attributes,
        over: LocalLook,
    ) -> Fut<'static, Result<(), TargetError>> {
        Box::pin(async move {
            let threads = self.unfinished.staging.threads.clone();
            let complete = threads.run(move || {
                self.complete(size_bytes, &attributes)?;
                Ok(self)
            });
            let file = complete.await.ok_or_else(crashed)??;
            let Unfinished { staging, disk, .. } = &file.unfinished;
            let durable = disk.settle(&file.file).await;
            durable.map_err(|errno| TargetError::Failed(unwritable(&staging.root.path, errno)))?;
            let publish = threads.run(move || file.unfinished.publish(&file.path, &over));
            publish.await.ok_or_else(crashed)?
        })
    }
}

fn set_length(root: &Root, file: &File, size_bytes: u64) -> Result<(), TargetError> {
    let refused = |errno| root.refused(errno);
    match u64::try_from(fstat(file).map_err(refused)?.st_size) == Ok(size_bytes) {
        true => Ok(()),
        false => ftruncate(file, size_bytes).map_err(refused),
    }
}

/// Empty while its content is on a blocking thread. It stays so when the write is given up.
struct Writer(Option<Writing>);

struct Writing {
    staging: Arc<Staging>,
    file: Arc<File>,
    end: Arc<AtomicU64>,
    /// Where the gathered bytes belong.
    offset: u64,
    gathered: Vec<u8>,
    sums: Sums,
}

enum Sums {
    Both(Box<Digester>),
    Crc64(Crc64, u64),
}

impl Stretch for Writer {
    fn write(&mut self, bytes: Bytes) -> Fut<'_, Result<(), TargetError>> {
        Box::pin(async move {
            let mut writing = self.0.take().ok_or_else(crashed)?;
            if writing.gathered.len() + bytes.len() < GATHERED {
                writing.gathered.extend_from_slice(&bytes);
                self.0 = Some(writing);
                return Ok(());
            }
            let threads = writing.staging.threads.clone();
            let write = threads.run(move || {
                writing.gathered.extend_from_slice(&bytes);
                // What begins a block waits for the rest of it, which may be zeros as well.
                let end = writing.offset + writing.gathered.len() as u64;
                let cut = writing.gathered.len() - (end % BLOCK as u64) as usize;
                writing.write_out(cut)?;
                Ok(writing)
            });
            self.0 = Some(write.await.ok_or_else(crashed)??);
            Ok(())
        })
    }

    fn finish(self: Box<Self>) -> Fut<'static, Result<Written, TargetError>> {
        Box::pin(async move {
            let mut writing = self.0.ok_or_else(crashed)?;
            let threads = writing.staging.threads.clone();
            let finish = threads.run(move || {
                writing.write_out(writing.gathered.len())?;
                Ok(writing.sums.finish())
            });
            finish.await.ok_or_else(crashed)?
        })
    }
}

impl Writing {
    /// Hashes and writes the first bytes of those that are gathered.
    fn write_out(&mut self, length: usize) -> Result<(), TargetError> {
        let bytes = &self.gathered[..length];
        self.sums.update(bytes);
        write_sparsely(&self.file, self.offset, bytes).map_err(|error| {
            self.staging.root.refused(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })?;
        self.offset += length as u64;
        self.end.fetch_max(self.offset, Ordering::Relaxed);
        self.gathered.drain(..length);
        Ok(())
    }
}

impl Sums {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Both(digester) => digester.update(bytes),
            Self::Crc64(crc64, count) => {
                let length = bytes.len() as u64;
                *crc64 = crc64.then(Crc64::of(bytes), length);
                *count += length;
            }
        }
    }

    fn finish(self) -> Written {
        match self {
            Self::Both(digester) => {
                let bytes = digester.bytes();
                let (md5, crc64) = digester.finish();
                Written { bytes, crc64, md5: Some(md5) }
            }
            Self::Crc64(crc64, bytes) => Written { bytes, crc64, md5: None },
        }
    }
}

/// Writes all but whole blocks of zeros, which a new file has anyway.
fn write_sparsely(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    let (mut from, mut to) = (0, 0);
    while to < bytes.len() {
        let into_block = ((offset + to as u64) % BLOCK as u64) as usize;
        let next = bytes.len().min(to + BLOCK - into_block);
        if bytes[to..next] == [0; BLOCK] {
            file.write_all_at(&bytes[from..to], offset + from as u64)?;
            from = next;
        }
        to = next;
    }
    file.write_all_at(&bytes[from..], offset + from as u64)
}
