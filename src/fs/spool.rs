//! Lines kept aside: in memory while they are few, then in a file that has no name any more.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::plan::{ErrorClass, Failure};
use crate::ports::{Fut, LineQueue, Scratch};

/// Bytes in memory for each of the two ends of a queue.
const CHUNK_BYTES: usize = 256 * 1024;

/// Queues whose files lie in one folder.
pub struct Spools {
    folder: PathBuf,
}

impl Spools {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }
}

impl Scratch for Spools {
    fn queue(&self) -> Box<dyn LineQueue> {
        Box::new(Spool { folder: self.folder.clone(), ..Spool::default() })
    }
}

#[derive(Default)]
struct Spool {
    folder: PathBuf,
    /// What came and is not in the file.
    tail: Vec<u8>,
    file: Option<Arc<File>>,
    written: u64,
    read: u64,
    /// What was read and is not taken yet, from `taken` on.
    head: Vec<u8>,
    taken: usize,
    count: u64,
}

impl Spool {
    async fn spill(&mut self) -> Result<(), Failure> {
        let bytes = std::mem::take(&mut self.tail);
        self.written += bytes.len() as u64;
        let (folder, file) = (self.folder.clone(), self.file.clone());
        let written = tokio::task::spawn_blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(nameless(&folder)?),
            };
            (&*file).write_all(&bytes).map(|()| file)
        });
        let written = written.await.map_err(|e| failed(&self.folder, &e.to_string()))?;
        self.file = Some(written.map_err(|e| failed(&self.folder, &e.to_string()))?);
        Ok(())
    }

    /// Whether more lines are in `head` than before.
    async fn refill(&mut self) -> Result<bool, Failure> {
        self.head.drain(..self.taken);
        self.taken = 0;
        let Some(file) = self.file.clone().filter(|_| self.read < self.written) else {
            let rest = std::mem::take(&mut self.tail);
            self.head.extend_from_slice(&rest);
            return Ok(!rest.is_empty());
        };
        let (from, left) = (self.read, self.written - self.read);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, from).map(|()| bytes)
        });
        let read = read.await.map_err(|e| failed(&self.folder, &e.to_string()))?;
        let bytes = read.map_err(|e| failed(&self.folder, &e.to_string()))?;
        self.read += bytes.len() as u64;
        self.head.extend_from_slice(&bytes);
        Ok(true)
    }
}

impl LineQueue for Spool {
    fn push(&mut self, line: String) -> Fut<'_, Result<(), Failure>> {
        self.tail.extend_from_slice(line.as_bytes());
        self.tail.push(b'\n');
        self.count += 1;
        if self.tail.len() < CHUNK_BYTES {
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(self.spill())
    }

    fn next(&mut self) -> Fut<'_, Result<Option<String>, Failure>> {
        Box::pin(async move {
            loop {
                let waiting = &self.head[self.taken..];
                if let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
                    let line = String::from_utf8_lossy(&waiting[..end]).into_owned();
                    self.taken += end + 1;
                    return Ok(Some(line));
                }
                if !self.refill().await? {
                    return Ok(None);
                }
            }
        })
    }

    fn count(&self) -> u64 {
        self.count
    }
}

/// A file that nobody else sees, and that is gone when it is closed.
fn nameless(folder: &Path) -> std::io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!(".queue-{}-{number}", std::process::id()));
    let mut options = File::options();
    let file =
        options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn failed(folder: &Path, cause: &str) -> Failure {
    let message = format!("cannot keep a list in {}", folder.display());
    Failure::new(ErrorClass::State, message)
        .because(cause)
        .with_hint("free some space there, or choose another --state-dir")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_back_in_order_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let spools = Spools::new(folder.path());
        for count in [0_u64, 1, 3, 60_000] {
            let mut queue = spools.queue();
            for n in 0..count {
                queue.push(format!("line {n} ü")).await.unwrap();
            }
            assert_eq!(queue.count(), count);
            let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
            for n in 0..count {
                assert_eq!(queue.next().await.unwrap(), Some(format!("line {n} ü")));
            }
            assert_eq!(queue.next().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn without_a_place_it_says_so() {
        let mut queue = Spools::new(Path::new("/nowhere")).queue();
        let long = "x".repeat(CHUNK_BYTES);
        let failure = queue.push(long).await.unwrap_err();
        assert!(failure.to_string().contains("/nowhere"), "{failure}");
    }
}
