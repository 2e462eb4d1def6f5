//! Signals: TERM and INT ask to stop, a second one leaves at once, HUP asks to read the
//! configuration again.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Stop,
    Reload,
}

/// Starts listening. `exit_code` is that of a process that is told twice.
#[expect(clippy::exit, reason = "a second signal leaves at once")]
pub fn listen(exit_code: i32) -> std::io::Result<mpsc::Receiver<Wish>> {
    let (sender, wishes) = mpsc::channel(4);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut told = false;
        for signal in signals.forever() {
            match signal {
                // What is in flight is found by the next start: that is what records are for.
                SIGTERM | SIGINT if told => std::process::exit(exit_code),
                SIGTERM | SIGINT => {
                    told = true;
                    sender.blocking_send(Wish::Stop).ok();
                }
                _ => {
                    sender.try_send(Wish::Reload).ok();
                }
            }
        }
    })?;
    Ok(wishes)
}
