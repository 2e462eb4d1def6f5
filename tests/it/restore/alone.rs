//! Whose an error is: an object that alone gets server errors is a failed path, also when nothing
//! else is left to do; a server that is away is everybody's trouble, whatever was in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::program::Said;
use crate::support::scene::{Scene, TO};
use crate::support::server::Fault;
use crate::support::tree::Tree;

/// For so long the server may be away.
const PATIENCE: [&str; 2] = ["--retry-for", "1s"];

fn restore(scene: &Scene, back: &Tree) -> Said {
    let target = back.folder.path().to_str().unwrap();
    scene.user.run(&[&["restore", TO, target, "--json"][..], &PATIENCE].concat())
}

fn is_named_alone(said: &Said, name: &str) {
    assert_eq!((said.code, said.number("failed")), (1, 1), "{said:?}");
    assert_eq!(said.json()["result"], "failed");
    let named = |line: &str| line.starts_with(&format!("failed: {name}: "));
    assert!(said.stderr.lines().any(named), "{said:?}");
}

/// The others are long done when the last attempt at the one fails.
#[test]
fn one_object_that_fails_for_ever_is_named() {
    for error in [Fault::Error(500, "InternalError"), Fault::Error(503, "SlowDown"), Fault::Close] {
        let scene = Scene::with_files(4);
        scene.sync(&[], 0);
        scene.server.rule(move |seen| match seen.path.ends_with("/p/f/1") {
            true => error.clone(),
            false => Fault::Pass,
        });
        let back = Tree::new(&[]);
        let said = restore(&scene, &back);
        is_named_alone(&said, "f/1");
        let names: Vec<String> = back.expected("").into_keys().collect();
        assert_eq!(names, ["f/0", "f/2", "f/3"]);
        // What is right now is not fetched again, and nothing else can be asked but by name.
        is_named_alone(&restore(&scene, &back), "f/1");
        scene.server.no_rule();
        assert_eq!(restore(&scene, &back).code, 0);
    }
}

#[test]
fn the_only_object_that_there_is_fails() {
    let scene = Scene::new(&[("only", b"1")]);
    scene.sync(&[], 0);
    scene.server.rule(|seen| match seen.path.ends_with("/p/only") {
        true => Fault::Error(500, "InternalError"),
        false => Fault::Pass,
    });
    is_named_alone(&restore(&scene, &Tree::new(&[])), "only");
}

#[test]
fn the_server_goes_away_while_one_object_is_left() {
    let scene = Scene::with_files(4);
    scene.sync(&[], 0);
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = fetched.clone();
    scene.server.rule(move |seen| {
        if seen.path.ends_with("/p/f/1") || count.load(Ordering::SeqCst) == 3 {
            return Fault::Error(500, "InternalError");
        }
        count.fetch_add(usize::from(seen.path.contains("/p/f/")), Ordering::SeqCst);
        Fault::Pass
    });
    let back = Tree::new(&[]);
    let said = restore(&scene, &back);
    assert_eq!((said.code, said.number("failed")), (5, 0), "{said:?}");
    assert_eq!(fetched.load(Ordering::SeqCst), 3);
    assert_eq!(back.expected("").len(), 3, "what had come stays");
    scene.server.no_rule();
    let said = restore(&scene, &back);
    assert_eq!((said.code, said.number("downloaded")), (0, 1), "{said:?}");
}
