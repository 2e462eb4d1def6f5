//! The control socket: a running daemon answers `status`, `flush`, `pause`, `resume` and
//! `deletions` on it.
//!
//! One line of JSON asks, an empty one says at once that it was heard, one answers. So a process
//! that is stuck can be told from one that has much to count. Only the daemon's own user and root
//! may ask.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout_at};

/// How long a process that is alive may take to say that it has heard.
const PROMPT: Duration = Duration::from_secs(5);
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
        source: String,
        destination: String,
        after: Option<String>,
    },
    /// Send nothing until told to go on; or go on.
    Pause {
        paused: bool,
        names: Vec<String>,
        all: bool,
    },
    /// Drop what is on record of these.
    Forget {
        names: Vec<String>,
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

/// Reads the request of a connection, and says that it was heard; `None` for what is no request of
/// this program, as that of a newer one.
pub async fn receive(stream: &mut UnixStream) -> io::Result<Option<Request>> {
    let line = read_line(&mut BufReader::new(&mut *stream)).await?;
    stream.write_all(b"\n").await?;
    let request = serde_json::from_str(&line);
    Ok(request.inspect_err(|error| tracing::debug!(%error, "an unknown request")).ok())
}

pub async fn send_answer(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// It has not even heard, as a process that was stopped.
    Silent {
        pid: Option<i32>,
    },
    /// It has heard, and has no answer yet.
    Late {
        pid: Option<i32>,
    },
    /// Another user than the state's, or root, listens there: nothing that it says is believed.
    Stranger {
        uid: u32,
    },
    Io(io::Error),
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Asks the daemon of a state folder, for so long at most. `None` when nobody listens there.
pub async fn ask(
    state_folder: &Path,
    request: &Request,
    within: Duration,
) -> Result<Option<Answer>, AskError> {
    let by = Instant::now() + within;
    let mut stream = match UnixStream::connect(super::paths::control_socket(state_folder)).await {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                // So many wait there that no more are let in.
                io::ErrorKind::WouldBlock => Err(AskError::Silent { pid: None }),
                _ => Err(error.into()),
            };
        }
    };
    let peer = stream.peer_cred().ok();
    let pid = peer.and_then(|peer| peer.pid());
    let me = rustix::process::geteuid().as_raw();
    let is_own = peer.is_some_and(|peer| peer.uid() == me);
    if let Some(uid) = peer.map(|peer| peer.uid()).filter(|uid| *uid != me && *uid != 0)
        && owner_of(state_folder) != Some(uid)
    {
        return Err(AskError::Stranger { uid });
    }
    let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
    line.push(b'\n');
    let sent = stream.write_all(&line).await;
    let mut stream = BufReader::new(stream);
    let heard = timeout_at(by.min(Instant::now() + PROMPT), read_line(&mut stream)).await;
    let heard = heard.map_err(|_| AskError::Silent { pid })?;
    match sent.and(heard.map(drop)) {
        // Whoever listened has ended meanwhile. A stranger is turned away in the same way.
        Err(error) if is_own && is_gone(&error) => return Ok(None),
        heard => heard?,
    }
    let answer = timeout_at(by, read_line(&mut stream)).await;
    let answer = answer.map_err(|_| AskError::Late { pid })??;
    Ok(Some(serde_json::from_str(&answer).map_err(io::Error::other)?))
}

fn owner_of(folder: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    folder.metadata().ok().map(|is| is.uid())
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = String::new();
    stream.take(LINE_MAX).read_line(&mut line).await?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side said nothing"));
    }
    Ok(line)
}
