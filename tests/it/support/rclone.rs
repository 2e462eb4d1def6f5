//! rclone: a second opinion on what is in a bucket, and another program that puts things there.

use std::process::Command;

use super::server::Reach;
use super::tools;

/// How keepwatch spells names in keys, in rclone's words; and all names are what they are.
pub const SPELLING: [&str; 3] =
    ["--s3-encoding", "Slash,InvalidUtf8,Dot,Ctl,Del", "--no-unicode-normalization"];

/// A place on a server, as an argument.
pub fn remote(reach: &Reach, path: &str) -> String {
    let Reach { endpoint, access_key, secret_key, region } = reach;
    format!(
        ":s3,provider=Other,endpoint=\"{endpoint}\",access_key_id={access_key},\
         secret_access_key={secret_key},region={region}:{path}"
    )
}

/// Runs rclone; it must succeed. Answers with its output, both streams together.
pub fn run(args: &[&str]) -> String {
    let mut rclone = Command::new(tools::python_tool("rclone"));
    let output = rclone.args(["--config", "/dev/null"]).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let end: Vec<&str> = text.lines().rev().take(5).collect();
    assert!(output.status.success(), "rclone {args:?}: {end:?}");
    text
}
