//! The journal of systemd: whether standard error leads there, and its own protocol, by which a
//! line keeps its fields (`journalctl KEEPWATCH_BACKUP=documents`).

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// A way to the journal.
pub struct Journal {
    /// `None` where only standard error leads there.
    socket: Option<UnixDatagram>,
}

impl Journal {
    /// The journal, if that is where standard error leads. `variable` is `JOURNAL_STREAM`, which
    /// names the device and inode of the stream that systemd made.
    pub fn behind_stderr(variable: Option<&OsStr>) -> Option<Self> {
        let stderr = std::io::stderr().as_fd().try_clone_to_owned().ok()?;
        let metadata = File::from(stderr).metadata().ok()?;
        let here = format!("{}:{}", metadata.dev(), metadata.ino());
        (variable? == OsStr::new(&here)).then(|| Self { socket: connect(Path::new(SOCKET)) })
    }

    /// Hands a line over with its fields. What cannot be handed over goes to standard error, which
    /// leads to the same journal.
    pub fn send(&self, fields: &[(String, String)]) -> bool {
        let sent = self.socket.as_ref().map(|socket| socket.send(&encode(fields)));
        matches!(sent, Some(Ok(_)))
    }
}

/// Lines at the priority of an error, for what is written to standard error past the log; `None`
/// where that does not lead to the journal.
pub fn at_error(text: &str) -> Option<String> {
    Journal::behind_stderr(std::env::var_os("JOURNAL_STREAM").as_deref())?;
    Some(text.lines().map(|line| format!("<3>{line}\n")).collect())
}

/// A full journal must not stop a backup: then nothing is waited for.
fn connect(path: &Path) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(path).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// Fields in the form of the native protocol: `NAME=value`, or with its length where the value has
/// more than one line.
fn encode(fields: &[(String, String)]) -> Vec<u8> {
    let mut message = vec![];
    for (name, value) in fields {
        message.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            message.push(b'\n');
            message.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            message.push(b'=');
        }
        message.extend_from_slice(value.as_bytes());
        message.push(b'\n');
    }
    message
}

/// A name as the journal takes it: upper case, and our own.
pub fn field_name(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("KEEPWATCH_{}", name.chars().map(letter).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn lines_keep_their_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listening = UnixDatagram::bind(&path).unwrap();
        let journal = Journal { socket: connect(&path) };
        assert!(journal.send(&[field("MESSAGE", "one"), field("PRIORITY", "4")]));
        let mut buffer = [0; 100];
        let length = listening.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"MESSAGE=one\nPRIORITY=4\n");
        drop(listening);
        assert!(!journal.send(&[field("MESSAGE", "two")]), "then standard error has it");
        assert!(connect(&folder.path().join("none")).is_none());
    }

    #[test]
    fn no_value_is_taken_for_a_field() {
        let encoded = encode(&[field("MESSAGE", "a\nPRIORITY=0"), field("B", "c")]);
        assert_eq!(encoded, b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nB=c\n");
        assert_eq!(field_name("a-b.c"), "KEEPWATCH_A_B_C");
    }

    #[test]
    fn only_the_stream_that_systemd_made_is_the_journal() {
        for other in [None, Some("0:0"), Some("")] {
            assert!(Journal::behind_stderr(other.map(OsStr::new)).is_none());
        }
    }
}
