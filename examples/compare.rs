//! Compares two buckets, names what is not the same, and writes nothing.
//!
//! cargo run --example compare -- s3://my-bucket s3://my-bucket-offsite

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program says what it did")]

use keepwatch::{Compare, Outcome};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, destination] = &args[..] else {
        return Err("usage: compare SOURCE DESTINATION".into());
    };
    let report = Compare::new(source, destination)
        .on_difference(|key, why| println!("{key}: {why}"))
        .run_blocking()?;
    println!("{} the same", report.numbers.unchanged);
    match report.outcome {
        Outcome::Done => Ok(()),
        _ => Err("they are not the same".into()),
    }
}
