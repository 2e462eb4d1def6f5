//! The same random work of a person in memory and on a disk: both look the same at every step.

use keepwatch::model::{Entry, Fingerprint, Key, KeyTarget, Kind};
use keepwatch::sim::Chance;
use keepwatch::sim::world::in_virtual_time;

use super::source::{Person, Source, path};
use super::tree::walk;

const NAMES: [&str; 10] =
    ["a", "a-b", "a/b", "a/b/c", "a/d", "a0", "d", "d/e", "d/e/f/g", "\u{e9}"];

/// What of an entry must be the same: all but times and numbers of inodes.
fn face(entry: &Entry) -> (Kind, u64, u32) {
    (entry.kind, entry.fingerprint.size_bytes, entry.mode)
}

async fn content(source: &Source, key: &str) -> Vec<u8> {
    let Some(KeyTarget::File(path)) = Key::literal(key).target() else { return vec![] };
    match source.tree.read_link(path.clone()).await {
        Ok((_, target)) => target.to_vec(),
        Err(_) => source.tree.read_whole(path, 999).await.unwrap().bytes.to_vec(),
    }
}

/// Something that a person may do, for both alike.
fn work(chance: &Chance) -> impl Fn(&dyn Person) {
    let what = chance.below(10);
    let (name, other) = (*chance.pick(&NAMES), *chance.pick(&NAMES));
    let content = vec![b'x'; usize::try_from(chance.below(9)).unwrap()];
    let mode = *chance.pick(&[0o644, 0o600, 0o755, 0o700]);
    move |person| match what {
        0..=3 => person.write(name, &content),
        4 => person.make_folder(name),
        // Where a link leads to something, the disk would follow it.
        5 => person.link(name, b"nowhere"),
        6 => person.remove(name),
        7 => person.rename(name, other),
        8 => person.chmod(name, mode),
        _ => person.rewrite_quietly(name),
    }
}

async fn history(seed: u64) {
    let chance = Chance::new(seed);
    let (fake, disk) = (Source::in_memory(), Source::on_disk());
    let mut before: Vec<(String, Fingerprint, Fingerprint)> = vec![];
    for step in 0..40 {
        let work = work(&chance);
        work(&*fake.person);
        work(&*disk.person);
        let (wanted, found) = (walk(&fake, "").await, walk(&disk, "").await);
        let faces = |seen: &[(String, Entry)]| -> Vec<_> {
            seen.iter().map(|(key, entry)| (key.clone(), face(entry))).collect()
        };
        assert_eq!(faces(&found), faces(&wanted), "seed {seed}, step {step}");
        let paths: Vec<_> = NAMES.map(path).to_vec();
        let looks = (fake.tree.stat(paths.clone()).await, disk.tree.stat(paths).await);
        for (fake, disk) in looks.0.unwrap().iter().zip(looks.1.unwrap()) {
            let alike = std::mem::discriminant(fake) == std::mem::discriminant(&disk);
            assert!(alike, "seed {seed}, step {step}: {disk:?} is no {fake:?}");
        }
        let mut now = vec![];
        for ((key, wanted), (_, found)) in wanted.iter().zip(&found) {
            assert_eq!(content(&disk, key).await, content(&fake, key).await, "seed {seed}: {key}");
            // What did not change in memory did not change on the disk.
            let unchanged = before.iter().find(|(k, f, _)| k == key && *f == wanted.fingerprint);
            if let Some((_, _, known)) = unchanged {
                assert_eq!(found.fingerprint, *known, "seed {seed}, step {step}: {key}");
            }
            now.push((key.clone(), wanted.fingerprint, found.fingerprint));
        }
        before = now;
        // In memory every change has a moment of its own, as long as time goes on.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[test]
fn files_in_memory_and_on_a_disk_look_the_same() {
    let wanted = std::env::var("KEEPWATCH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = wanted.map_or(0..40, |seed: u64| seed..seed + 1);
    for seed in seeds {
        in_virtual_time(history(seed));
    }
}
