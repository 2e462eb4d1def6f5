//! Brings a bucket up to date with a folder, and tells how far it is.
//!
//! cargo run --example sync -- ~/Documents s3://my-bucket/documents

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program says what it did")]

use keepwatch::{Error, Outcome, Progress, Report, Sync};

/// What is told of the progress.
pub fn line(progress: &Progress) -> String {
    let Progress { done, known, done_bytes, known_bytes, .. } = progress;
    format!("{done} of {known} files, {done_bytes} of {known_bytes} bytes")
}

/// The part that another program would take over.
pub async fn sync(
    source: &str,
    destination: &str,
    mut tell: impl FnMut(String) + Send + 'static,
) -> Result<Report, Error> {
    Sync::new(source, destination)
        .exclude("*.tmp")
        .create_bucket(true)
        .on_progress(move |progress| tell(line(progress)))
        .run()
        .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, destination] = &args[..] else {
        return Err("usage: sync FOLDER DESTINATION".into());
    };
    let report = match sync(source, destination, |line| eprintln!("{line}")).await {
        Ok(report) => report,
        Err(error) => {
            error.hints().iter().for_each(|hint| eprintln!("hint: {hint}"));
            return Err(error.into());
        }
    };
    report.failed.iter().for_each(|failed| eprintln!("{}: {}", failed.path, failed.why));
    println!("{} files uploaded, {} unchanged", report.numbers.uploaded, report.numbers.unchanged);
    match report.outcome {
        Outcome::Done | Outcome::Skipped => Ok(()),
        outcome => Err(outcome.word().into()),
    }
}
