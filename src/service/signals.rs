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
///
/// The thread that listens never waits for whoever is told: else nobody would hear a second
/// signal.
#[expect(clippy::exit, reason = "a second signal leaves at once")]
pub fn listen(exit_code: i32) -> std::io::Result<mpsc::Receiver<Wish>> {
    let (sender, wishes) = mpsc::channel(2);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut told = false;
        for signal in signals.forever() {
            match signal {
                // What is in flight is found by the next start: that is what records are for.
                SIGTERM | SIGINT if told => std::process::exit(exit_code),
                SIGTERM | SIGINT => {
                    told = true;
                    sender.try_send(Wish::Stop).ok();
                }
                _ => wish_reload(&sender),
            }
        }
    })?;
    Ok(wishes)
}

/// One that waits to be heard is as good as many; the last place is that of the one wish to stop.
fn wish_reload(sender: &mpsc::Sender<Wish>) {
    if sender.capacity() > 1 {
        sender.try_send(Wish::Reload).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_often_a_reload_is_wished_there_is_room_for_a_stop() {
        let (sender, mut wishes) = mpsc::channel(2);
        (0..9).for_each(|_| wish_reload(&sender));
        sender.try_send(Wish::Stop).unwrap();
        assert_eq!(wishes.try_recv(), Ok(Wish::Reload));
        assert_eq!(wishes.try_recv(), Ok(Wish::Stop));
    }
}
