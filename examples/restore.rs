//! Brings a backup back into a folder, and can be stopped with Enter.
//!
//! cargo run --example restore -- s3://my-bucket/documents /tmp/documents

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program says what it did")]

use keepwatch::choices::Overwrite;
use keepwatch::{Error, Outcome, Report, Restore, Stop};

/// The part that another program would take over: what is here is never replaced.
pub fn restore(source: &str, target: &str, stop: &Stop) -> Result<Report, Error> {
    Restore::new(source, target).overwrite(Overwrite::Never).stop(stop).run_blocking()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, target] = &args[..] else {
        return Err("usage: restore SOURCE FOLDER".into());
    };
    let stop = Stop::new();
    let on_enter = stop.clone();
    std::thread::spawn(move || {
        let read = std::io::stdin().read_line(&mut String::new());
        // The end of the input is no key.
        if read.is_ok_and(|bytes| bytes > 0) {
            on_enter.now();
        }
    });
    let report = restore(source, target, &stop)?;
    report.kept.iter().for_each(|kept| eprintln!("{} is kept: {}", kept.path, kept.why));
    println!("{} files are back, {} were here", report.numbers.downloaded, report.kept.len());
    match report.outcome {
        Outcome::Stopped => Err("stopped; run it again to go on".into()),
        Outcome::Failed => Err("some files could not be restored".into()),
        _ => Ok(()),
    }
}
