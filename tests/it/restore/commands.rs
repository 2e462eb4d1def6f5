//! The command line of a restore: names, targets, errors, deletions, signals, what is said.

use std::path::Path;

use crate::support::bucket::Bucket;
use crate::support::external::{free_port, garage};
use crate::support::program::{Said, User};
use crate::support::scene::{Scene, TO};
use crate::support::scripted::Scripted;
use crate::support::server::{Fault, Reach};
use crate::support::tree::Tree;
use crate::support::wait_for;

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn names(back: &Tree) -> Vec<String> {
    back.expected("").into_keys().collect()
}

/// The command must end with this code, and its words be among what was said on stderr.
fn ends(user: &User, args: &[&str], code: i32, words: &[&str]) -> Said {
    let said = user.run(args);
    assert_eq!(said.code, code, "{args:?}: {said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "{args:?}: {word:?} is not in:\n{}", said.stderr);
    }
    said
}

fn configure(user: &User, text: &str) {
    let folder = user.home.path().join(".config/keepwatch");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("keepwatch.toml"), text).unwrap();
}

/// Two configured backups, in the bucket.
fn two_backups() -> (Scene, Tree) {
    let (scene, other) = (Scene::new(&[("a", b"1"), ("d/b", b"2")]), Tree::new(&[("c", b"3")]));
    configure(
        &scene.user,
        &format!(
            "[[backup]]\nname = \"docs\"\nsource = \"{}\"\ndestination = \"{TO}\"\n\
             exclude = [\"*.tmp\"]\nmax_file_size = \"1MiB\"\n\
             [[backup]]\nname = \"pics\"\nsource = \"{}\"\ndestination = \"bucket::pics\"\n",
            scene.source(),
            path(other.folder.path())
        ),
    );
    ends(&scene.user, &["sync"], 0, &[]);
    scene.server.clear_log();
    (scene, other)
}

#[test]
fn configured_backups_come_back_by_name() {
    let (scene, other) = two_backups();
    let user = &scene.user;
    let (docs, pics) = (scene.tree.expected(""), other.expected(""));
    let to = Tree::new(&[]);
    let folder = path(to.folder.path());
    ends(user, &["--restore", "pics", "--to", &folder], 0, &[]);
    assert_eq!(to.expected(""), pics, "one comes into the folder itself");
    let both = path(&to.path("both"));
    let said = ends(user, &["--restore", "--to", &both, "--json"], 0, &[]);
    assert_eq!(said.number("downloaded"), 3, "{said:?}");
    let both = to.expected("");
    let below = |name: &str| -> Vec<_> {
        let prefix = format!("both/{name}/");
        let all = both.iter().filter_map(|(key, file)| Some((key.strip_prefix(&prefix)?, file)));
        all.map(|(key, file)| (key.to_owned(), file.clone())).collect()
    };
    assert_eq!(below("docs"), docs.clone().into_iter().collect::<Vec<_>>());
    assert_eq!(below("pics"), pics.clone().into_iter().collect::<Vec<_>>());

    let words = ["error: there is no backup \"docks\"", "hint: there are: docs, pics"];
    ends(user, &["--restore", "docks", "--to", &folder], 2, &words);
    ends(user, &["--restore", "docs", "--json"], 0, &[]);
    ends(user, &["--to", &folder], 2, &["--restore"]);
    ends(user, &["--restore", "docs", "status"], 2, &["there is no backup \"status\""]);
    ends(&User::new(), &["--restore"], 4, &["there is no configuration file", "hint: without one"]);
    let text = "[[backup]]\nname = \"docs\"\ndestination = \"default\"\n";
    let text = format!("{text}source = \"{}\"\n", scene.source());
    configure(user, &text);
    ends(user, &["--restore"], 4, &["is `default`", "`keepwatch status` shows its bucket"]);
}

#[test]
fn over_the_sources_and_then_there_is_nothing_to_upload() {
    let (scene, other) = two_backups();
    let expected = (scene.tree.expected(""), other.expected(""));
    let daemon = scene.user.spawn(scene.user.command(&[]));
    wait_for("the daemon", || daemon.status().is_some());
    let words = ["error: another keepwatch (process ", "uses the state in", "hint: "];
    let said = ends(&scene.user, &["--restore", "--json"], 4, &words);
    assert_eq!(said.json()["result"], "error");
    let to = Tree::new(&[]);
    ends(&scene.user, &["--restore", "docs", "--to", &path(to.folder.path())], 0, &[]);
    ends(&scene.user, &["--restore", "--dry-run"], 0, &[]);
    assert_eq!(daemon.stop(), 0);

    for lost_state in [false, true] {
        scene.tree.remove("d");
        scene.tree.write("a", b"older");
        let file = std::fs::File::options().write(true).open(scene.tree.path("a")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        other.remove("c");
        if lost_state {
            std::fs::remove_dir_all(scene.user.state_folder()).unwrap();
        }
        let said = ends(&scene.user, &["--restore", "--json"], 0, &[]);
        assert_eq!(said.number("downloaded"), 3, "{said:?}");
        assert_eq!((scene.tree.expected(""), other.expected("")), expected);
        scene.server.clear_log();
        let said = ends(&scene.user, &["sync", "--json"], 0, &[]);
        assert_eq!((said.number("uploaded"), said.number("retouched")), (0, 0), "{said:?}");
        for operation in ["PutObject", "CopyObject", "DeleteObject", "DeleteObjects"] {
            let log = scene.server.log();
            let of_files = log.iter().filter(|access| {
                access.operation == operation
                    && !access.key.as_ref().is_some_and(|key| key.contains(".keepwatch/"))
            });
            assert_eq!(of_files.count(), 0, "{operation}, lost_state: {lost_state}");
        }
    }
}

#[test]
fn places_and_targets_of_every_kind() {
    let scene = Scene::new(&[("a", b"1"), ("d/b", b"2")]);
    scene.sync(&[], 0);
    let (user, expected) = (&scene.user, scene.tree.expected(""));
    let to = Tree::new(&[]);
    let target = |name: &str| path(&to.path(name));
    for (name, from) in [("1", "s3://bucket/p"), ("2", "s3://bucket/p/"), ("3", "bucket::p")] {
        ends(user, &["restore", from, &target(name)], 0, &[]);
        let back = to.expected("");
        let of = |prefix: &str| back.keys().filter(|key| key.starts_with(prefix)).count();
        assert_eq!(of(&format!("{name}/")), expected.len(), "{from}");
    }
    // The embedded store in a folder, named as it is typed.
    let kept = Tree::new(&[]);
    let store = format!("file://{}", path(&kept.path("store")));
    let nobody = User::new();
    nobody.sync(scene.tree.folder.path(), &store, &["--create-bucket"], 0);
    let back = Tree::new(&[]);
    let said = ends(&nobody, &["restore", &store, &path(back.folder.path())], 0, &[]);
    assert_eq!(back.expected(""), expected);
    let listed = ends(&nobody, &["ls", &store], 0, &[]);
    assert_eq!(listed.stdout.lines().count(), 2);
    assert!(said.stderr.contains(&format!("{store}/ has 2 objects: 2 to fetch (2 B)")), "{said:?}");
    assert!(said.stdout.starts_with("restored 2 files (2 B) in "), "{said:?}");
    assert!(said.stdout.contains("verified: 2 by CRC64NVME"), "{said:?}");

    // One inside the other.
    let words = ["contain each other", "choose another folder"];
    ends(&nobody, &["restore", &store, &path(kept.folder.path())], 4, &words);
    ends(&nobody, &["restore", &store, &path(&kept.path("store/back"))], 4, &words);
    let link = back.path("link");
    std::os::unix::fs::symlink(kept.folder.path(), &link).unwrap();
    ends(&nobody, &["restore", &store, &path(&link.join("store/x/y"))], 4, &words);
    let source = path(scene.tree.folder.path());
    configure(
        &nobody,
        &format!("[[backup]]\nname = \"docs\"\nsource = \"{source}\"\ndestination = \"{store}\"\n"),
    );
    ends(&nobody, &["--restore", "--to", &path(kept.folder.path())], 4, &words);
    assert!(!kept.path("store/back").exists() && !kept.path("store/x").exists());
}

#[test]
fn errors_name_the_thing_the_cause_and_the_next_step() {
    let scene = Scene::new(&[("a", b"1"), ("file", b"2")]);
    scene.sync(&[], 0);
    let (reach, user) = (scene.server.reach.clone(), &scene.user);
    let to = Tree::new(&[("file", b"here")]);
    let back = path(&to.path("back"));
    let soon = ["--retry-for", "300ms"];
    let run = |user: &User, from: &str, more: &[&str], code: i32, words: &[&str]| {
        let said = ends(user, &[&["restore", from, &back], more].concat(), code, words);
        assert_eq!(said.stdout, "", "an error is no summary");
        assert!(!to.path("back").exists(), "{words:?}");
    };
    let at = |endpoint: &str| User::of(&Reach { endpoint: endpoint.to_owned(), ..reach.clone() });
    run(user, "s3://nobody/p", &[], 4, &["error: ", "s3://nobody/p/", "NoSuchBucket", "hint: "]);
    run(
        user,
        "s3://bucket/q",
        &[],
        4,
        &["error: there is nothing in s3://bucket/q/", "hint: check"],
    );
    run(user, "p", &[], 2, &["\"p\" is not a destination; write s3://bucket/prefix"]);
    run(user, "default", &[], 2, &["`default` does not say which bucket", "hint: name it"]);
    run(
        user,
        "file:///not/there",
        &[],
        4,
        &["there is no store in /not/there", "hint: check that"],
    );
    run(user, TO, &["--path", "no/such"], 4, &["error: s3://bucket/p/ has no no/such", "hint: "]);
    run(
        user,
        TO,
        &["--path", "/a"],
        2,
        &["--path /a is no path below the backup", "hint: write it"],
    );
    let nobody = User::of(&Reach { access_key: "nobody".to_owned(), ..reach.clone() });
    run(
        &nobody,
        TO,
        &[],
        4,
        &["error: cannot list s3://bucket/p/", "InvalidAccessKeyId", "hint: "],
    );
    let wrong = User::of(&Reach { secret_key: "wr0ng".to_owned(), ..reach.clone() });
    run(&wrong, TO, &[], 4, &["SignatureDoesNotMatch", "hint: check the access key"]);
    let closed = at(&format!("http://127.0.0.1:{}", free_port()));
    run(&closed, TO, &soon, 5, &["error: cannot list s3://bucket/p/", "refused", "hint: "]);
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\
                connection: close\r\n\r\n<html></html>";
    let web = Scripted::start(move |_| page.to_owned());
    run(&at(&web.reach.endpoint), TO, &soon, 5, &["error: cannot list s3://bucket/p/", "hint: "]);

    // The target.
    let bad = |target: &str, words: &[&str]| ends(user, &["restore", TO, target], 4, words);
    bad(&path(&to.path("file")), &["file is not a folder", "hint: name a folder"]);
    bad(&path(&to.path("no/such/folder")), &["there is no folder to make", "hint: check the path"]);
    assert_eq!(std::fs::read(to.path("file")).unwrap(), b"here");
    assert!(!to.path("no").exists());
    // The bucket is in another region: found by itself where the server says so.
    scene.server.rule(|seen| match seen.region.as_str() {
        "eu-west-1" => Fault::Pass,
        _ => Fault::InRegion("eu-west-1"),
    });
    ends(user, &["restore", TO, &back], 0, &[]);
}

#[test]
fn wrong_credentials_on_garage() {
    let server = garage();
    Bucket::create(&server.reach, "bucket").put("p/a", b"1");
    let to = Tree::new(&[]);
    let back = path(&to.path("back"));
    for reach in [
        Reach { access_key: format!("GK{}", "00".repeat(12)), ..server.reach.clone() },
        Reach { secret_key: "00".repeat(32), ..server.reach.clone() },
    ] {
        let words = ["error: cannot list s3://bucket/p/", "AccessDenied", "hint: "];
        ends(&User::of(&reach), &["restore", TO, &back], 4, &words);
    }
    assert!(!to.path("back").exists());
    ends(&User::of(&server.reach), &["restore", TO, &back], 0, &[]);
}

#[test]
fn deletes_only_when_asked_and_only_what_the_backup_would_have() {
    let (scene, _other) = two_backups();
    let back = &scene.tree;
    back.write(".keepwatchignore", b"*.log\n");
    std::fs::create_dir(back.path("marked")).unwrap();
    ends(&scene.user, &["sync"], 0, &[]);
    let kept = names(back);
    // Extra: plain ones, below folders, an empty folder, a folder with a mode of its own.
    for name in ["x", "d/y", "new/deep/z", "marked/w"] {
        back.write(name, b"extra");
    }
    std::fs::create_dir(back.path("hollow")).unwrap();
    back.chmod("new", 0o700);
    // Not in the backup because of its rules.
    for name in ["a.tmp", "kept/b.tmp", "c.log", "logs/d.log"] {
        back.write(name, b"ruled out");
    }
    back.write("large", &vec![7; 1024 * 1024 + 1]);
    let all = names(back);
    let restore = |more: &[&str], code: i32| {
        ends(&scene.user, &[&["--restore", "docs", "--json"], more].concat(), code, &[])
    };
    assert_eq!(restore(&[], 0).number("deleted"), 0);
    assert_eq!(names(back), all, "nothing is deleted unasked");
    // A part of it.
    let said = restore(&["--delete", "--dry-run", "--include", "new/"], 0);
    assert_eq!(said.number("deleted"), 1, "{said:?}");
    let said = restore(&["--delete", "--dry-run", "--exclude", "/x", "--exclude", "new"], 0);
    assert_eq!(said.number("deleted"), 2, "{said:?}");
    let said = restore(&["--delete", "--dry-run", "--path", "d"], 0);
    assert_eq!(said.number("deleted"), 1, "{said:?}");
    let said = restore(&["--delete", "--dry-run"], 0);
    let mut planned: Vec<&str> =
        said.stdout.lines().filter(|l| l.contains("\"action\":\"delete\"")).collect();
    planned.sort_unstable();
    assert_eq!(planned.len(), 4, "{said:?}");
    assert_eq!((said.number("deleted"), said.json()["result"].as_str()), (4, Some("ok")));
    assert_eq!(names(back), all, "nothing is deleted in a dry run");
    let said = restore(&["--delete"], 0);
    assert_eq!((said.number("deleted"), said.number("downloaded")), (4, 0), "{said:?}");
    let mut left = kept;
    left.extend(["a.tmp", "kept/b.tmp", "c.log", "logs/d.log", "large"].map(str::to_owned));
    left.sort_unstable();
    assert_eq!(names(back), left);
    assert!(back.path("marked").is_dir() && !back.path("new").exists());
}

#[test]
fn deletions_are_held_when_they_are_many() {
    let scene = Scene::with_files(12);
    scene.sync(&[], 0);
    let back = Tree::new(&[]);
    let to = path(back.folder.path());
    ends(&scene.user, &["restore", TO, &to], 0, &[]);
    (0..101).for_each(|n| back.write(format!("x{n}"), b"extra"));
    let restore = |more: &[&str], code: i32, words: &[&str]| {
        ends(
            &scene.user,
            &[&["restore", TO, &to, "--delete", "--json"], more].concat(),
            code,
            words,
        )
    };
    let said = restore(&["--dry-run"], 7, &["101 files here", "held for safety"]);
    assert_eq!(said.stdout.matches("held for safety").count(), 101);
    assert_eq!((said.number("held"), said.number("deleted")), (101, 0));
    assert_eq!(names(&back).len(), 113);
    back.remove("f/0");
    let said = restore(&[], 7, &["--max-delete off deletes them"]);
    assert_eq!((said.number("held"), said.number("downloaded")), (101, 1));
    assert_eq!(said.json()["result"], "held");
    assert_eq!(names(&back).len(), 113, "the rest is restored");
    back.remove("x0");
    let said = restore(&[], 0, &[]);
    assert_eq!((said.number("deleted"), names(&back).len()), (100, 12));

    // A backup without files does not empty a folder.
    let empty = Tree::new(&[]);
    scene.user.sync(empty.folder.path(), "s3://bucket/empty", &[], 0);
    let full = Tree::new(&[("a", b"1"), ("b", b"2")]);
    let to = path(full.folder.path());
    let words =
        ["the target looks like another folder", "hint: nothing was deleted: the backup has"];
    ends(&scene.user, &["restore", "s3://bucket/empty", &to, "--delete"], 7, &words);
    ends(&scene.user, &["restore", "s3://bucket/empty", &to, "--delete", "-n"], 7, &words[..1]);
    assert_eq!(names(&full), ["a", "b"]);
}

#[test]
fn a_folder_that_is_hardly_the_right_one_is_not_filled_and_emptied() {
    let scene = Scene::with_files(12);
    scene.tree.write("notes", b"1");
    scene.sync(&[], 0);
    let home = Tree::new(&[("notes", b"mine")]);
    (0..30).for_each(|n| home.write(format!("{n}/mine"), b"mine"));
    let (before, to) = (home.expected(""), path(home.folder.path()));
    let delete = ["restore", TO, &to, "--delete", "--json"];
    let words = [
        "only one of its files has its name in the backup",
        "would delete 30 other files",
        "hint: ",
    ];
    // Not the second time either, nor with a budget.
    for more in [&[][..], &[], &["--max-delete", "off"]] {
        let said = ends(&scene.user, &[&delete[..], more].concat(), 7, &words);
        assert_eq!((said.number("held"), said.number("downloaded")), (30, 0), "{said:?}");
        assert_eq!(said.json()["result"], "held");
        assert_eq!(home.expected(""), before);
    }
    let said = ends(&scene.user, &[&delete[..], &["--dry-run"]].concat(), 7, &words[..2]);
    assert_eq!(said.stdout.matches("\"action\":\"delete\"").count(), 30, "{said:?}");
    assert_eq!(home.expected(""), before);
    // Whoever means it says so in two steps.
    ends(&scene.user, &["restore", TO, &to], 0, &[]);
    let said = ends(&scene.user, &delete, 0, &[]);
    assert_eq!(said.number("deleted"), 30, "{said:?}");
    // The one file of a folder may be all that somebody has.
    let back = Tree::new(&[("x", b"extra")]);
    let to = path(back.folder.path());
    let delete = ["restore", TO, &to, "--delete", "--json"];
    ends(&scene.user, &delete, 7, &["none of its files is in the backup"]);
    ends(&scene.user, &["restore", TO, &to], 0, &[]);
    assert_eq!(ends(&scene.user, &delete, 0, &[]).number("deleted"), 1);
    // A folder that is not there yet holds nothing.
    let fresh = path(&back.path("fresh"));
    ends(&scene.user, &["restore", TO, &fresh, "--delete", "--dry-run"], 0, &[]);
    ends(&scene.user, &["restore", TO, &fresh, "--delete"], 0, &[]);
}

#[test]
fn a_name_alone_does_not_make_it_the_right_folder() {
    let scene = Scene::new(&[("notes", b"1"), ("empty", b"")]);
    scene.sync(&[], 0);
    let home = Tree::new(&[("notes", b"mine"), ("empty", b"")]);
    (0..9).for_each(|n| home.write(format!("{n}"), b"mine"));
    let (before, to) = (home.expected(""), path(home.folder.path()));
    let delete = ["restore", TO, &to, "--delete", "--max-delete", "off", "--json"];
    let words = ["only 2 of its files have their names in the backup"];
    ends(&scene.user, &delete, 7, &words);
    assert_eq!(home.expected(""), before);
    // One that looks the same will do, so that a restore that was cut short goes on.
    home.write("notes", b"2");
    ends(&scene.user, &delete, 0, &[]);
    assert_eq!(names(&home), ["empty", "notes"]);
    // The backup is small beside what is here, and all of it is: it was restored before.
    (0..30).for_each(|n| home.write(format!("{n}"), b"mine"));
    home.remove("empty");
    ends(&scene.user, &delete, 7, &["only one of its files has its name in the backup"]);
    ends(&scene.user, &["restore", TO, &to], 0, &[]);
    assert_eq!(ends(&scene.user, &delete, 0, &[]).number("deleted"), 30);
}

#[test]
fn nothing_is_deleted_when_something_failed() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    scene.bucket.put("p/../out", b"hostile");
    let back = Tree::new(&[("x", b"extra"), ("f/0", b"former")]);
    let to = path(back.folder.path());
    let words = ["failed: ../out", "some paths failed, so nothing is deleted"];
    ends(&scene.user, &["restore", TO, &to, "--delete"], 1, &words);
    assert_eq!(names(&back), ["f/0", "f/1", "f/2", "x"]);
}

#[test]
fn signals_stop_it_and_it_goes_on() {
    let scene = Scene::with_files(50);
    scene.sync(&[], 0);
    for (signals, code) in [(&["TERM"][..], 130), (&["INT"], 130), (&["INT", "INT"], 130)] {
        let back = Tree::new(&[]);
        let to = path(back.folder.path());
        // The rest of them never come.
        scene.server.rule(|seen| match seen.method == "GET" && seen.path.contains("/f/4") {
            true => Fault::Hang,
            false => Fault::Pass,
        });
        scene.server.clear_log();
        let args = ["restore", TO, &to, "--transfers", "60", "--json"];
        let running = scene.user.spawn(scene.user.command(&args));
        let come = || names(&back).iter().filter(|name| name.starts_with("f/")).count();
        wait_for("what can come", || come() == 39);
        signals.iter().for_each(|signal| running.signal(signal));
        assert_eq!(running.wait(), code, "{signals:?}");
        assert!(names(&back).iter().all(|name| !name.starts_with("f/4")));
        scene.server.no_rule();
        let said = ends(&scene.user, &args, 0, &[]);
        assert_eq!((said.number("downloaded"), said.number("unchanged")), (11, 39), "{said:?}");
        assert_eq!(back.expected(""), scene.tree.expected(""));
        assert!(!back.path(".keepwatch").exists());
    }
}

#[test]
fn help_is_short_where_one_begins_and_whole_where_one_asks() {
    let user = User::new();
    let root = ends(&user, &["--help"], 0, &[]).stdout;
    assert!(root.contains("--restore") && root.contains("--to <DIR>"), "{root}");
    assert!(root.contains("keepwatch help restore"), "{root}");
    for hidden in ["--overwrite", "--max-delete", "--tier", "--outside-links", "Restore options"] {
        assert!(!root.contains(hidden), "{hidden} in:\n{root}");
    }
    let restore = ends(&user, &["help", "restore"], 0, &[]).stdout;
    for told in ["--at", "--overwrite", "--delete", "--tier", "--no-wait", "--dry-run", "<TARGET>"]
    {
        assert!(restore.contains(told), "{told} is not in:\n{restore}");
    }
    let ls = ends(&user, &["ls", "--help"], 0, &[]).stdout;
    assert!(ls.contains("--versions") && ls.contains("when it was uploaded"), "{ls}");
    // They hold for --restore all the same.
    ends(&user, &["--restore", "--tier", "fast"], 2, &["--tier", "bulk, standard, expedited"]);
}
