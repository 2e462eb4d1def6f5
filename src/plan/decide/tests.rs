//! The decision table: every combination, compared with a golden file, and the laws over all rows.

use super::*;
use crate::model::{ContentMd5, ETag, Fingerprint, Md5, Millis, Timestamp};
use crate::plan::Deletions;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/decide.txt");

fn entry(size_bytes: u64, mtime_secs: i64) -> Entry {
    let mtime = Timestamp::new(mtime_secs, 0);
    Entry {
        kind: Kind::File,
        fingerprint: Fingerprint { size_bytes, mtime, ctime: mtime, inode: 1, device: 1 },
        mode: 0o100_644,
        uid: 0,
        gid: 0,
    }
}

fn recorded() -> Record {
    let content = ContentMd5::whole(Md5::of(b"v1"));
    Record::synced(entry(2, 10), content, ETag::new("v1"), false)
}

fn object(etag: &str) -> Object {
    let modified = Millis(0);
    Object { size_bytes: 2, etag: ETag::new(etag), modified, archived: false }
}

fn sources() -> Vec<(&'static str, Source)> {
    let linked = Entry { kind: Kind::Link, ..entry(2, 10) };
    vec![
        ("unknown", Source::Unknown),
        ("excluded", Source::Excluded),
        ("absent", Source::Absent),
        ("same", Source::Present(entry(2, 10))),
        ("touched", Source::Present(entry(2, 11))),
        ("resized", Source::Present(entry(3, 11))),
        ("now-link", Source::Present(linked)),
    ]
}

fn bases() -> Vec<(&'static str, Option<Record>)> {
    let with = |trust| Some(Record { trust, ..recorded() });
    vec![
        ("none", None),
        ("synced", with(Trust::Synced)),
        ("racy", Some(Record { racy: true, ..recorded() })),
        ("missing", Some(Record { missing_since: Some(Millis(1)), ..recorded() })),
        ("uploading", with(Trust::Uploading)),
        ("first-up", Some(Record { etag: None, trust: Trust::Uploading, ..recorded() })),
        ("deleting", with(Trust::Deleting)),
        (
            "unsure-gone",
            Some(Record { trust: Trust::Deleting, missing_since: Some(Millis(1)), ..recorded() }),
        ),
        ("tagged", with(Trust::Tagged)),
    ]
}

fn targets() -> Vec<(&'static str, Observed<Object>)> {
    vec![
        ("unknown", Observed::Unknown),
        ("absent", Observed::Absent),
        ("recorded", Observed::Present(object("v1"))),
        ("other", Observed::Present(object("v2"))),
    ]
}

const COMPARE: [Compare; 3] = [Compare::Fingerprint, Compare::Md5, Compare::Size];
const DELETIONS: [Deletions; 3] = [Deletions::Delete, Deletions::Tag, Deletions::Keep];

/// Calls `f` with every row of the table.
fn each_row(mut f: impl FnMut(&str, &Source, Option<&Record>, &Observed<Object>, Decision)) {
    for compare in COMPARE {
        for (source_name, source) in sources() {
            for (base_name, base) in bases() {
                for (target_name, target) in targets() {
                    let decision = decide(&source, base.as_ref(), target.as_ref(), compare);
                    let row = format!("{source_name} {base_name} {target_name} {compare:?}");
                    f(&row, &source, base.as_ref(), &target, decision);
                }
            }
        }
    }
}

#[test]
fn table_is_the_golden_one() {
    // Rows that all ways to compare agree on are printed once.
    let mut lines: Vec<(String, Vec<(String, String)>)> = vec![];
    each_row(|row, _, _, _, decision| {
        let (key, compare) = row.rsplit_once(' ').unwrap();
        let decision = format!("{decision:?}");
        match lines.iter_mut().find(|(k, _)| k == key) {
            Some((_, seen)) => seen.push((compare.to_owned(), decision)),
            None => lines.push((key.to_owned(), vec![(compare.to_owned(), decision)])),
        }
    });
    let mut text = String::from("# source base target [compare]: decision\n");
    for (key, seen) in &lines {
        assert_eq!(seen.len(), 3, "every way to compare is in the table");
        if seen.iter().all(|(_, d)| *d == seen[0].1) {
            text += &format!("{key}: {}\n", seen[0].1);
        } else {
            for (compare, decision) in seen {
                text += &format!("{key} [{compare}]: {decision}\n");
            }
        }
    }
    text += "# last word: source base deletions\n";
    for (source_name, source) in sources() {
        for (base_name, base) in bases() {
            for deletions in DELETIONS {
                let Some(record) = &base else { continue };
                let word = last_word(&source, record, deletions);
                text += &format!("{source_name} {base_name} {deletions:?}: {word:?}\n");
                if matches!(word, LastWord::Delete | LastWord::Tag) {
                    assert!(
                        source == Source::Absent && ["missing", "unsure-gone"].contains(&base_name)
                    );
                    assert_ne!(deletions, Deletions::Keep);
                }
            }
        }
    }
    if std::env::var_os("KEEPWATCH_BLESS").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    assert!(text == golden, "the table differs from {GOLDEN}; KEEPWATCH_BLESS=1 rewrites it");
}

#[test]
fn laws_hold_in_every_row() {
    let mut rows = 0;
    each_row(|row, source, base, target, decision| {
        rows += 1;
        let marks = matches!(decision, Decision::MarkMissing);
        let drops = matches!(decision, Decision::Forget(_) | Decision::Disown(_));
        let writes = matches!(
            decision,
            Decision::Upload(_) | Decision::Check(_) | Decision::Compare(_) | Decision::Resolve(_)
        );
        if *source == Source::Unknown {
            assert_eq!(decision, Decision::Nothing(Why::NotObserved), "{row}");
        }
        // A deletion can only follow from proven absence of something we recorded.
        if marks {
            assert_eq!(*source, Source::Absent, "{row}");
            assert!(
                base.is_some_and(|b| matches!(b.trust, Trust::Synced | Trust::Deleting)),
                "{row}"
            );
        }
        if matches!(source, Source::Present(_)) {
            assert!(!drops && !marks, "{row}: a present file is never given up");
        }
        // What may have been under way is never believed to be right without asking.
        if base.is_some_and(|b| b.trust == Trust::Uploading) && matches!(source, Source::Present(_))
        {
            assert!(writes, "{row}");
        }
        // What is known to be lost or different in the destination is mended.
        if matches!(source, Source::Present(_)) && *target == Observed::Absent {
            assert!(matches!(decision, Decision::Upload(_)), "{row}");
        }
        if base.is_none() {
            assert!(!drops && !marks, "{row}: nothing to drop without a record");
        }
        // An object that stays behind without a record is always counted as unclaimed.
        if matches!(decision, Decision::Forget(_)) {
            assert_eq!(*target, Observed::Absent, "{row}");
        }
    });
    assert_eq!(rows, 7 * 9 * 4 * 3);
}

#[test]
fn folders_compare_by_metadata_alone() {
    let folder = |mode| Entry {
        kind: Kind::Folder,
        fingerprint: Fingerprint::default(),
        mode,
        ..entry(0, 0)
    };
    let content = ContentMd5::whole(Md5::of(b""));
    let base = Record::synced(folder(0o40_700), content, ETag::new("x"), true);
    for (mode, expected) in
        [(0o40_700, Decision::Nothing(Why::Same)), (0o40_755, Decision::Upload(Why::Changed))]
    {
        for compare in COMPARE {
            let source = Source::Present(folder(mode));
            let decision = decide(&source, Some(&base), Observed::Unknown, compare);
            assert_eq!(decision, expected);
        }
    }
}
