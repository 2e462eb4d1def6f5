//! The folder that a restore fills, on disks that are full, read-only, mounted into each other, and
//! not ours. Each case runs once more in a mount namespace of its own, where that is permitted.

use std::os::unix::fs::MetadataExt as _;

use bytes::Bytes;
use keepwatch::fs::Target;
use keepwatch::plan::ErrorClass;
use keepwatch::ports::{Attributes, LocalLook, TargetError, TargetTree};

use super::in_runtime;
use super::target::{PLAIN, Scene, path};
use crate::support::mounts::{behind, behind_as};

#[test]
fn a_disk_that_fills_up() {
    let test = "contracts::target_disks::a_disk_that_fills_up";
    let Some(folder) = behind(test, "mount -t tmpfs -o size=1m small target") else { return };
    in_runtime(async {
        let scene = Scene::at_folder(&folder);
        let facts = scene.target.prepare().await.unwrap();
        assert!(facts.free_bytes <= 1 << 20, "{facts:?}");
        let mut done = vec![];
        let error = loop {
            let name = format!("a/{}", done.len());
            match scene.make_plain(name.as_bytes(), &[1; 100_000]).await {
                Ok(()) => done.push(name),
                Err(error) => break error,
            }
        };
        let TargetError::Failed(failure) = error else { panic!("{error:?}") };
        assert_eq!(failure.class, ErrorClass::Configuration);
        assert!(failure.message.starts_with("there is no room left in "), "{failure:?}");
        assert!(failure.message.ends_with("/target") && failure.hint.is_some(), "{failure:?}");
        assert!(done.len() > 3);
        // All or nothing.
        done.iter().for_each(|name| assert_eq!(scene.at(name).metadata().unwrap().size(), 100_000));
        scene.target.finish().await.unwrap();
        assert_eq!(scene.names().len(), done.len() + 1);
    });
}

#[test]
fn a_disk_that_is_read_only() {
    let test = "contracts::target_disks::a_disk_that_is_read_only";
    let mounts = "mkdir target/sub; mount -t tmpfs -o ro fixed target/sub";
    let Some(folder) = behind(test, mounts) else { return };
    in_runtime(async {
        let scene = Scene::at_folder(&folder);
        let fixed = Target::new(&scene.at("sub"));
        fixed.facts().await.unwrap();
        let failure = fixed.prepare().await.unwrap_err();
        assert!(failure.message.ends_with("/target/sub is read-only"), "{failure:?}");
        assert!(failure.hint.is_some());
        scene.target.prepare().await.unwrap();
        let error = scene.make_plain(b"sub/file", b"x").await.unwrap_err();
        assert!(matches!(error, TargetError::Failed(_)), "{error:?}");
        assert_eq!(scene.target.folder(path(b"sub")).await, Ok(false));
        scene.target.finish().await.unwrap();
        assert_eq!(scene.names(), ["sub"]);
    });
}

/// Another disk, and the same disk at a second place: no rename gets there from outside.
#[test]
fn disks_that_are_mounted_in_the_target() {
    let test = "contracts::target_disks::disks_that_are_mounted_in_the_target";
    let mounts = "mkdir bound target/disk target/bound
        mount -t tmpfs other target/disk; mount --bind bound target/bound";
    let Some(folder) = behind(test, mounts) else { return };
    in_runtime(async {
        let mut scene = Scene::at_folder(&folder);
        scene.target.prepare().await.unwrap();
        for disk in ["disk", "bound"] {
            let (file, link) = (format!("{disk}/a/file"), format!("{disk}/a/link"));
            for content in [b"one", b"two"] {
                let over = scene.look(file.as_bytes()).await;
                scene.make(file.as_bytes(), content, PLAIN, over).await.unwrap();
                assert_eq!(std::fs::read(scene.at(&file)).unwrap(), content);
                let over = scene.look(link.as_bytes()).await;
                let to = Bytes::from_static(content);
                scene.target.link(path(link.as_bytes()), to, PLAIN, over).await.unwrap();
            }
        }
        let all = ["bound", "bound/a", "bound/a/file", "bound/a/link"];
        let all = [all, ["disk", "disk/a", "disk/a/file", "disk/a/link"]].concat();
        assert_eq!(scene.names()[1..], all);
        // Given up, and left over by a restore that was killed.
        drop(scene.target.create(path(b"disk/a/new")).await.unwrap());
        assert_eq!(scene.names()[1..], all);
        let killed = scene.target.create(path(b"disk/a/new")).await.unwrap();
        assert_eq!(scene.names().len(), all.len() + 3);
        let copy = |of: &str| {
            let name = scene.names().into_iter().find(|name| name.contains(of)).unwrap();
            let note = std::fs::read_link(scene.at(&name)).ok();
            move |scene: &Scene| match &note {
                Some(note) => std::os::unix::fs::symlink(note, scene.at(&name)).unwrap(),
                None => std::fs::write(scene.at(&name), b"half").unwrap(),
            }
        };
        let left_over = [copy("/elsewhere-"), copy("/.keepwatch-unfinished-")];
        drop(killed);
        scene.target.finish().await.unwrap();
        std::fs::create_dir(scene.at(".keepwatch")).unwrap();
        left_over.iter().for_each(|put_back| put_back(&scene));
        assert_eq!(scene.names().len(), all.len() + 3);
        scene.target = Target::new(&scene.at(""));
        scene.target.prepare().await.unwrap();
        assert_eq!(scene.names()[1..], all);
        scene.target.finish().await.unwrap();
        assert_eq!(scene.names(), all);
    });
}

/// Without root, which may write everywhere.
#[test]
fn folders_that_belong_to_somebody_else() {
    let test = "contracts::target_disks::folders_that_belong_to_somebody_else";
    // The user of the inner run owns the target, but not all that is in it.
    let commands = "touch program; mount --bind \"$0\" program
        mkdir target/theirs; echo x > target/theirs/file
        chmod 755 . target target/theirs; chown 65534:65534 target
        set -- --reuid 65534 --regid 65534 --clear-groups ./program \"$@\"
        setpriv --reuid 65534 --regid 65534 --clear-groups true";
    let Some(folder) = behind_as("setpriv", test, commands) else { return };
    in_runtime(async {
        let scene = Scene::at_folder(&folder);
        let failure = Target::new(&scene.at("theirs")).prepare().await.unwrap_err();
        assert!(failure.message.starts_with("not permitted to write to "), "{failure:?}");
        assert!(failure.message.ends_with("/target/theirs") && failure.hint.is_some());
        scene.target.prepare().await.unwrap();
        let denied = || TargetError::Path("Permission denied".to_owned());
        // Before anything is fetched.
        let create = scene.target.create(path(b"theirs/new")).await;
        assert_eq!(create.err(), Some(denied()));
        assert_eq!(scene.target.folder(path(b"theirs/new/er")).await, Err(denied()));
        let is = scene.look(b"theirs/file").await;
        assert_eq!(scene.target.remove(path(b"theirs/file"), is.clone()).await, Err(denied()));
        let permissions = Attributes { permissions: Some(0o600), ..PLAIN };
        let refused = scene.target.set(path(b"theirs/file"), is, permissions).await;
        let why = "cannot set its permissions: Operation not permitted".to_owned();
        assert_eq!(refused, Err(TargetError::Path(why)));
        let given = Attributes { owner: Some((0, 0)), ..PLAIN };
        let refused = scene.make(b"given", b"", given, LocalLook::Absent).await;
        let why = "cannot give it to user 0, group 0: Operation not permitted; that takes root";
        assert_eq!(refused, Err(TargetError::Path(why.to_owned())));
        // What is ours and closed to us can be opened up.
        let closed = Attributes { permissions: Some(0), ..PLAIN };
        scene.make(b"ours", b"", closed, LocalLook::Absent).await.unwrap();
        let is = scene.look(b"ours").await;
        scene.target.set(path(b"ours"), is, permissions).await.unwrap();
        assert_eq!(scene.at("ours").metadata().unwrap().mode() & 0o777, 0o600);
        scene.target.finish().await.unwrap();
        assert_eq!(scene.names(), ["ours", "theirs", "theirs/file"]);
    });
}
