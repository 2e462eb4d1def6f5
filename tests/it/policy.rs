//! What becomes of objects without a file: delete, tag, keep; left out by rules; of others.

use crate::support::scene::Scene;
use crate::support::server::Fault;

fn tags(scene: &Scene, key: &str) -> Vec<(String, String)> {
    let get = scene.bucket.client.get_object_tagging().bucket("bucket").key(format!("p/{key}"));
    let reply = scene.bucket.run(get.send()).unwrap();
    let pair = |tag: &aws_sdk_s3::types::Tag| (tag.key().to_owned(), tag.value().to_owned());
    reply.tag_set().iter().map(pair).collect()
}

#[test]
fn keep_keeps_everything() {
    let scene = Scene::with_files(4);
    scene.sync(&["--deletions", "keep"], 0);
    scene.tree.remove("f/1");
    let said = scene.sync(&["--deletions", "keep"], 0);
    assert_eq!((said.number("deleted"), scene.server.log().len()), (0, 1), "{said:?}");
    scene.tree.remove("f");
    scene.sync(&["--deletions", "keep"], 0);
    assert_eq!(scene.bucket.objects().len(), 4);
    scene.sync(&["--deletions", "delete"], 7);
}

#[test]
fn tag_marks_what_is_gone() {
    let scene = Scene::with_files(4);
    let tag = ["--deletions", "tag"];
    scene.sync(&tag, 0);
    scene.tree.remove("f/1");
    let said = scene.sync(&tag, 0);
    assert_eq!((said.number("tagged"), said.number("deleted")), (1, 0), "{said:?}");
    let found = tags(&scene, "f/1");
    assert_eq!(found[0], ("Deleted".to_owned(), "True".to_owned()));
    let (name, at) = &found[1];
    let shape: String = at.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!((name.as_str(), shape.as_str()), ("DeletedAt", "0000-00-00T00:00"), "{at}");
    assert_eq!(tags(&scene, "f/2"), []);
    // Once is enough.
    assert_eq!(scene.sync(&tag, 0).number("tagged"), 0);
    assert_eq!(scene.server.log().len(), 1);
    // Back again: the object has no tags then.
    scene.tree.write("f/1", b"1");
    assert_eq!(scene.sync(&tag, 0).number("uploaded"), 1);
    assert_eq!(tags(&scene, "f/1"), []);
    scene.is_settled(0);
}

/// A file that is back is not left out of a restore, whatever went wrong when it came.
#[test]
fn what_is_back_has_no_marks_after_a_refusal_or_with_the_state_lost() {
    use crate::support::server::Fault;
    let tag = ["--deletions", "tag", "--retry-for", "1s"];
    for is_lost in [false, true] {
        let scene = Scene::with_files(4);
        scene.sync(&tag, 0);
        let aside = tempfile::tempdir_in(scene.tree.folder.path().parent().unwrap()).unwrap();
        let (file, aside) = (scene.tree.folder.path().join("f/1"), aside.path().join("1"));
        std::fs::rename(&file, &aside).unwrap();
        assert_eq!(scene.sync(&tag, 0).number("tagged"), 1);
        std::fs::rename(&aside, &file).unwrap();
        match is_lost {
            true => std::fs::remove_dir_all(scene.user.state_folder()).unwrap(),
            false => {
                scene.server.rule(|seen| {
                    match seen.method == "PUT" && seen.path.ends_with("f/1") {
                        true => Fault::Error(400, "InvalidRequest"),
                        false => Fault::Pass,
                    }
                });
                scene.sync(&tag, 1);
                scene.server.no_rule();
            }
        }
        let said = scene.sync(&tag, 0);
        assert_eq!((said.number("uploaded"), tags(&scene, "f/1")), (0, vec![]), "{said:?}");
        scene.is_settled(0);
    }
}

#[test]
fn what_was_tagged_is_deleted_once_the_policy_says_so() {
    let scene = Scene::with_files(4);
    scene.sync(&["--deletions", "tag"], 0);
    scene.tree.remove("f/1");
    scene.sync(&["--deletions", "tag"], 0);
    let said = scene.sync(&["--deletions", "keep"], 0);
    assert!(scene.has("f/1"), "{said:?}");
    let said = scene.sync(&["--deletions", "delete"], 0);
    assert_eq!((said.number("deleted"), scene.has("f/1")), (1, false), "{said:?}");
    scene.is_settled(0);
}

#[test]
fn what_the_rules_leave_out_is_kept() {
    let scene =
        Scene::new(&[("a.log", b"1"), ("b.txt", b"2"), ("logs/c", b"3"), ("gone.log", b"4")]);
    scene.sync(&[], 0);
    // Missing and marked, then left out before the deletion: left out wins.
    scene.tree.remove("gone.log");
    scene.sync(&["--delete-delay", "1h"], 0);
    scene.tree.write(".keepwatchignore", b"*.log\nlogs/\n");
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("deleted"), said.number("unclaimed")), (0, 3), "{said:?}");
    assert!(scene.has("a.log") && scene.has("logs/c") && scene.has("b.txt"));
    assert!(scene.has("gone.log"));
    // Deleting what is left out does not delete its object.
    scene.tree.remove("a.log");
    scene.tree.remove("logs");
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("deleted"), said.number("unclaimed")), (0, 3), "{said:?}");
    assert!(scene.has("a.log") && scene.has("logs/c"));
    // Let in again: claimed again. The others are still nobody's.
    scene.tree.write("a.log", b"1");
    scene.tree.remove(".keepwatchignore");
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("deleted"), said.number("unclaimed")), (1, 2), "{said:?}");
    assert!(scene.has("a.log") && scene.has("logs/c"));
}

#[test]
fn what_others_have_written_is_not_deleted() {
    let scene = Scene::new(&[("a", b"1"), ("b", b"2"), ("c", b"3"), ("d", b"4")]);
    scene.sync(&[], 0);
    scene.bucket.put("p/stranger", b"not ours");
    scene.bucket.put("p/a", b"somebody else's");
    scene.bucket.delete("p/b");
    scene.tree.remove("a");
    scene.tree.remove("b");
    scene.tree.remove("c");
    let said = scene.sync(&[], 0);
    assert_eq!(said.number("unclaimed"), 1, "{said:?}");
    let keys: Vec<String> = scene.bucket.objects().into_keys().collect();
    assert_eq!(keys, ["p/a", "p/d", "p/stranger"]);
    assert_eq!(scene.bucket.get("p/a").unwrap().body, b"somebody else's");
    // A listing finds the stranger too.
    let said = scene.sync(&["--verify-every", "0s"], 0);
    assert_eq!((said.number("unclaimed"), said.number("deleted")), (2, 0), "{said:?}");
}

#[test]
fn a_dry_run_only_tells() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    let before = scene.bucket.objects();
    scene.tree.remove("f/0");
    scene.tree.write("f/1", b"changed");
    let said = scene.sync(&["--dry-run"], 0);
    let mut lines: Vec<serde_json::Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.pop();
    let mut told: Vec<String> =
        lines.iter().map(|l| format!("{} {}", l["action"], l["path"]).replace('"', "")).collect();
    told.sort();
    assert_eq!(told, ["delete f/0", "put f/1"]);
    assert!(lines.iter().all(|line| line["why"].is_string()));
    assert_eq!(scene.bucket.objects(), before);
    // Nothing is recorded either: the real run does it all.
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("deleted"), said.number("uploaded")), (1, 1));
}

#[test]
fn a_full_destination_gets_room_by_what_is_gone() {
    let scene = Scene::with_files(4);
    scene.sync(&[], 0);
    scene.tree.remove("f/1");
    (0..3).for_each(|n| scene.tree.write(format!("new/{n}"), b"there is no room"));
    scene.server.rule(|seen| match seen.method {
        "PUT" => Fault::Error(507, "InsufficientStorage"),
        _ => Fault::Pass,
    });
    let said = scene.sync(&[], 4);
    assert_eq!((said.number("uploaded"), said.number("deleted")), (0, 1), "{said:?}");
    assert!(said.stderr.contains("the destination is full"), "{said:?}");
    assert!(!scene.has("f/1"));
    scene.server.no_rule();
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 3);
    scene.is_settled(0);
}
