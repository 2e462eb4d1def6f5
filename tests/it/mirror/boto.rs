//! Mirrors as boto3 sees them: the copies' metadata, tags, classes and headers are the sources'.

use std::process::Command;

use crate::support::external::{External, moto, served};
use crate::support::program::User;
use crate::support::tools;

/// `boto.py` by hand with 20,000 instead: it says what it does at its beginning.
fn many_are_the_same(server: &External) {
    let user = User::of(&server.reach);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/mirror/boto.py");
    let keepwatch = env!("CARGO_BIN_EXE_keepwatch");
    let output = Command::new(tools::python_tool("python"))
        .args([script, &server.reach.endpoint, keepwatch, "60"])
        .env_clear()
        .env("HOME", user.home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ACCESS_KEY_ID", &server.reach.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &server.reach.secret_key)
        .env("AWS_REGION", &server.reach.region)
        .env("AWS_DEFAULT_REGION", &server.reach.region)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.ends_with("all the same\n"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn many_are_the_same_on_moto() {
    many_are_the_same(&moto());
}

#[test]
fn many_are_the_same_on_the_embedded_store() {
    many_are_the_same(&served());
}
