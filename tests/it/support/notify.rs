//! A service manager's end of the notify socket.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Hears what a daemon says of itself.
pub struct Manager {
    _folder: TempDir,
    pub path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { _folder: folder, path, socket }
    }

    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The next message within this time: lines of assignments.
    pub fn next(&self, within: Duration) -> Option<Vec<String>> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        Some(text.lines().map(str::to_owned).collect())
    }

    /// Waits for a message with such an assignment; answers with all up to and with it.
    pub fn until(&self, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        let started = Instant::now();
        let mut all = vec![];
        loop {
            let left = Duration::from_secs(60).saturating_sub(started.elapsed());
            let next = self.next(left.max(Duration::from_millis(1)));
            let Some(lines) = next else { panic!("waited in vain; heard {all:#?}") };
            let found = lines.iter().any(|line| is_it(line));
            all.extend(lines);
            if found {
                return all;
            }
        }
    }

    /// Takes everything that has been said until now.
    pub fn heard(&self) -> Vec<String> {
        let mut all = vec![];
        while let Some(lines) = self.next(Duration::from_millis(1)) {
            all.extend(lines);
        }
        all
    }
}
