//! The service manager: what systemd is told through its notify socket, as sd_notify(3) says.
//!
//! Where nobody asked to be told (`NOTIFY_SOCKET` is not set) every call does nothing. What cannot
//! be sent is not worth a stop: the service manager finds out by its own clocks.
//!
//! The variables stay in the environment, for to remove one is not safe among threads. Processes
//! that keepwatch starts, as a `credential_process`, therefore see them; the units say
//! `NotifyAccess=main`, so what these would send does not count.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Longest status, in characters: it is a line in `systemctl status`.
const STATUS_MAX: usize = 300;
/// A manager that does not read must not hold us up for longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whoever started this process and wants to hear of it.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<OsString>,
    watchdog: Option<Duration>,
    /// It has heard that the start is over.
    is_told: AtomicBool,
}

impl ServiceManager {
    /// As the environment names it: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_env() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        // Meant for another process, where it was inherited.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
        let watchdog = watchdog.map(Duration::from_micros);
        Self { socket, watchdog, ..Self::default() }
    }

    /// Whether somebody listens.
    pub fn listens(&self) -> bool {
        self.socket.is_some()
    }

    /// Within this time it must hear [`Self::alive`] again and again, or it restarts us.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.listens())
    }

    /// The start is over.
    pub fn ready(&self) {
        self.is_told.store(true, Ordering::Relaxed);
        self.send("READY=1\n");
    }

    /// One line that a person reads in `systemctl status`.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}\n", one_line(line)));
    }

    /// The configuration is being read again, until [`Self::reloaded`]. Before the start is over
    /// this is a part of it.
    pub fn reloading(&self) {
        if !self.is_told.load(Ordering::Relaxed) {
            return;
        }
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\n"));
    }

    pub fn reloaded(&self) {
        if self.is_told.load(Ordering::Relaxed) {
            self.ready();
        }
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping: finishing what is in flight\n");
    }

    /// The start takes longer, for so long at least, and goes on.
    pub fn more_time(&self, at_least: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}\n", at_least.as_micros()));
    }

    /// Feeds the watchdog.
    pub fn alive(&self) {
        self.send("WATCHDOG=1\n");
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send_to(socket, message) {
            tracing::debug!(%error, "telling the service manager");
        }
    }
}

fn send_to(name: &OsStr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(message.as_bytes(), &address(name)?)?;
    Ok(())
}

/// A path, or on Linux a name that begins with `@` and lies in no folder.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt as _;
        if let Some(abstract_name) = name.as_encoded_bytes().strip_prefix(b"@") {
            return SocketAddr::from_abstract_name(abstract_name);
        }
    }
    SocketAddr::from_pathname(name)
}

/// What comes from outside cannot forge another assignment.
fn one_line(text: &str) -> String {
    text.chars().take(STATUS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(one_line("a\nREADY=1"), "a READY=1");
        assert_eq!(one_line(&"ä".repeat(STATUS_MAX + 1)).chars().count(), STATUS_MAX);
    }

    #[test]
    fn what_is_said_arrives_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let mut all = vec![(path.into_os_string(), by_path)];
        #[cfg(target_os = "linux")]
        {
            let name = format!("@keepwatch-test-{}", std::process::id());
            let address = address(OsStr::new(&name)).unwrap();
            all.push((name.into(), UnixDatagram::bind_addr(&address).unwrap()));
        }
        for (name, listener) in all {
            let manager = ServiceManager { socket: Some(name), ..ServiceManager::default() };
            manager.status("fine");
            let mut buffer = [0; 64];
            let length = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"STATUS=fine\n");
        }
    }

    #[test]
    fn nobody_listens_and_nothing_happens() {
        let manager = ServiceManager::default();
        manager.ready();
        let gone = ServiceManager { socket: Some("/nowhere/notify".into()), ..manager };
        gone.ready();
        assert!(gone.listens() && gone.watchdog().is_none());
    }
}
