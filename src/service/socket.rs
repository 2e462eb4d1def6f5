//! The control socket: a running daemon answers `status`, `flush` and `deletions` on it.
//!
//! One line of JSON asks, one line answers. Only the daemon's own user and root may ask.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Longest request and answer, in bytes.
const LINE_MAX: u64 = 16 * 1024 * 1024;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    Status,
    Flush,
    /// A page of the files of a backup, after this key.
    Files {
        name: String,
        after: Option<String>,
    },
    Deletions {
        verb: DeletionVerb,
        names: Vec<String>,
        all: bool,
        new_root: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeletionVerb {
    List,
    Approve,
    Discard,
}

/// What is answered: a result, or an error with its exit code and next step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Ok(serde_json::Value),
    Error { code: u8, message: String, hint: Option<String> },
}

/// The listening end.
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens, in place of a socket that a killed daemon left behind. The caller holds the lock of
    /// the state, so nobody else listens here.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The next connection from somebody who may ask.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let peer = stream.peer_cred()?.uid();
            if peer == 0 || peer == rustix::process::getuid().as_raw() {
                return Ok(stream);
            }
            tracing::warn!(uid = peer, "a stranger was turned away from the control socket");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

/// Reads the request of a connection.
pub async fn receive(stream: &mut UnixStream) -> io::Result<Request> {
    let line = read_line(stream).await?;
    serde_json::from_str(&line).map_err(io::Error::other)
}

pub async fn send_answer(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Asks the daemon of a state folder. `None` when nobody listens there.
pub async fn ask(path: &Path, request: &Request) -> io::Result<Option<Answer>> {
    let mut stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error),
            };
        }
    };
    let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let answer = read_line(&mut stream).await?;
    serde_json::from_str(&answer).map(Some).map_err(io::Error::other)
}

async fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_MAX)).read_line(&mut line).await?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side said nothing"));
    }
    Ok(line)
}
