//! Brings a bucket up to date with another one; what is gone from the source is tagged.
//!
//! cargo run --example mirror -- s3://my-bucket s3://my-bucket-offsite

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program says what it did")]

use keepwatch::{Mirror, Outcome};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, destination] = &args[..] else {
        return Err("usage: mirror SOURCE DESTINATION".into());
    };
    let report = Mirror::new(source, destination)
        .create_bucket(true)
        .on_progress(|progress| eprintln!("{} of {} copied", progress.done, progress.known))
        .run_blocking()?;
    report.failed.iter().for_each(|failed| eprintln!("{}: {}", failed.path, failed.why));
    println!("{} copied, {} tagged", report.numbers.copied, report.numbers.tagged);
    match report.outcome {
        Outcome::Done => Ok(()),
        outcome => Err(outcome.word().into()),
    }
}
