//! What five earlier programs did, walked through as their documents show it. Which row of
//! `docs/earlier-systems.md` each test stands for is said there.

mod fifth;
mod first;
mod fourth;
mod second;
mod third;

use serde_json::Value;

use crate::support::program::Said;
use crate::support::scene::Scene;

/// What must have been said on stderr.
fn tells(said: &Said, words: &[&str]) {
    for word in words {
        assert!(said.stderr.contains(word), "{word:?} is not in:\n{}", said.stderr);
    }
}

/// The state as a person can read it: path, whether uploaded, MD5, time.
fn files(scene: &Scene) -> Vec<Value> {
    let status = scene.user.run(&["status", "--json", "--files"]).json();
    status["backups"][0]["paths"].as_array().cloned().unwrap_or_default()
}

/// Paths of the state, and whether they are uploaded.
fn uploaded(scene: &Scene) -> Vec<(String, bool)> {
    let file = |file: &Value| (file["path"].as_str().unwrap().to_owned(), file["uploaded"] == true);
    files(scene).iter().map(file).collect()
}
