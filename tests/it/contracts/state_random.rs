//! The state database under random histories: SQLite, closed and opened again now and then, must
//! answer every question as the one in memory does.

use std::collections::BTreeSet;

use keepwatch::model::{Key, Kind, Millis, Record};
use keepwatch::ports::{Change, Identity, KeyRange, StateStore};
use keepwatch::sim::{Chance, SimState};

use super::in_runtime;
use super::state::{NOW, Sqlite, entry, journal, key, object, part, problem, record};

const NAMES: [&str; 9] = ["a", "a-b", "a/", "a/b", "a/b/", "a0", "\u{e9}", "\u{201b}FF", "z"];
const HOUR_MS: u64 = 3_600_000;

/// Everything that a store can be asked, at this time.
async fn answers(state: &dyn StateStore, now: Millis, chance: &Chance) -> Vec<String> {
    let after = chance.percent(50).then(|| name(chance));
    let limit = usize::try_from(1 + chance.below(12)).unwrap();
    let before = now.minus_ms(chance.below(3 * HOUR_MS));
    let keys: Vec<Key> = NAMES.map(key).to_vec();
    let inodes = BTreeSet::from([entry(Kind::File, 1, 1).fingerprint.inode]);
    let mut backup = state.backup().await.unwrap();
    backup.owner_id.clear();
    backup.made_at = None;
    let mut answers = vec![
        format!("{backup:?}"),
        format!("{:?}", state.get(keys.clone()).await.unwrap()),
        format!("{:?}", state.tally(now).await.unwrap()),
        format!("owes {:?}", state.owes(chance.percent(50)).await.unwrap()),
        format!("due {:?}", state.due(before, limit).await.unwrap()),
        format!("racy {:?}", state.racy(before, limit).await.unwrap()),
        format!("named {:?}", state.named(inodes).await.unwrap()),
        format!("problems {:?}", state.problems(after.clone(), limit).await.unwrap()),
        format!("unclaimed {:?}", state.unclaimed(after.clone(), limit).await.unwrap()),
    ];
    for range in [KeyRange::All, KeyRange::Under(key("a/"))] {
        answers.push(format!("{:?}", state.page(range, after.clone(), limit).await.unwrap()));
    }
    for key in &keys {
        answers.push(format!("upload {:?}", state.upload(key).await.unwrap()));
    }
    answers
}

fn name(chance: &Chance) -> Key {
    key(chance.pick::<&str>(&NAMES))
}

fn random_record(chance: &Chance, now: Millis) -> Record {
    let kind = *chance.pick(&[Kind::File, Kind::File, Kind::Link, Kind::Folder]);
    let size_bytes = chance.below(4);
    let secs = now.0 / 1000 - i64::try_from(chance.below(7_200)).unwrap();
    let racy = chance.percent(30);
    Record { entry: entry(kind, size_bytes, secs), racy, ..record(size_bytes, secs) }
}

fn change(chance: &Chance, at: Millis) -> Change {
    let key = name(chance);
    let upload_id = format!("id-{}", chance.below(3));
    match chance.below(30) {
        0..=4 => Change::Synced { record: random_record(chance, at), key },
        5 | 6 => Change::Uploading { entry: random_record(chance, at).entry, key },
        7..=9 => Change::Missing { key, at },
        10 => Change::Found { key, disk: chance.percent(50).then_some(1 << 63) },
        11 => Change::Forget { keep: chance.percent(50).then(|| object(2)), key },
        12 | 13 => Change::Deleting { keys: vec![key, name(chance)], counted: chance.below(3), at },
        14 => Change::Deleted { key },
        15 => Change::Tagged { key },
        16 => Change::UploadOpening(journal(key.as_str())),
        17 => Change::UploadOpened { key, upload_id },
        18 => Change::PartDone { key, part: part(u32::try_from(chance.below(4)).unwrap()) },
        19 => Change::UploadDropped { key },
        20 | 21 => {
            let attempts = u32::try_from(chance.below(9)).unwrap();
            let problem = problem(key.as_str(), chance.percent(50), attempts);
            Change::Problem { problem, at }
        }
        22 => Change::ProblemSolved { key },
        23 => chance.pick(&[Change::SkipsBegan, Change::SkipSolved { key }]).clone(),
        24 => Change::SkipsEnded,
        25 => Change::Unclaimed { key, object: object(chance.below(9)) },
        26 => {
            let before = at.minus_ms(chance.below(HOUR_MS));
            let changes = [
                Change::ListingBegan,
                Change::Listed { at },
                Change::Passed { at },
                Change::Paused { at: chance.percent(50).then_some(at) },
                Change::Proven { before, now: before.plus_ms(chance.below(HOUR_MS)) },
            ];
            chance.pick(&changes).clone()
        }
        27 => Change::Files { count: chance.below(9), at },
        28 => chance.pick(&[Change::Approve, Change::Discard, Change::Acknowledge]).clone(),
        _ => {
            let born_ns = chance.percent(50).then_some(at.0);
            Change::Identity(Identity { filesystem: chance.below(9), inode: u64::MAX, born_ns })
        }
    }
}

async fn history(seed: u64) {
    let chance = Chance::new(seed);
    let fake = SimState::new();
    let mut sqlite = Sqlite::new();
    let mut records = sqlite.records().await;
    let mut now = NOW;
    for step in 0..60 {
        now = now.plus_ms(chance.below(if chance.percent(10) { 9 * HOUR_MS } else { 9_000 }));
        let changes: Vec<Change> = (0..chance.below(6)).map(|_| change(&chance, now)).collect();
        fake.apply(changes.clone()).await.unwrap();
        records.apply(changes.clone()).await.unwrap();
        if chance.percent(5) {
            sqlite.reopen();
            records = sqlite.records().await;
        }
        let asked = chance.below(u64::MAX);
        let wanted = answers(&fake, now, &Chance::new(asked)).await;
        let found = answers(&records, now, &Chance::new(asked)).await;
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found, wanted, "seed {seed}, step {step}, after {changes:?}");
        }
    }
}

#[test]
fn sqlite_and_its_fake_agree_over_random_histories() {
    let wanted = std::env::var("KEEPWATCH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = wanted.map_or(0..64, |seed: u64| seed..seed + 1);
    std::thread::scope(|scope| {
        for seed in seeds {
            scope.spawn(move || in_runtime(history(seed)));
        }
    });
}
