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

fn on_disk(device: u64, entry: Entry) -> Entry {
    Entry { fingerprint: Fingerprint { device, ..entry.fingerprint }, ..entry }
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
        ("moved", Source::Present(on_disk(2, entry(2, 10)))),
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
        ("approved", Some(Record { missing_since: Some(Millis(1)), approved: true, ..recorded() })),
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

/// Calls `f` with every row of the table of last words.
fn each_last_word(mut f: impl FnMut(&str, &Source, &Record, LastWord)) {
    let disks = [("there", Some(1)), ("elsewhere", Some(2)), ("nowhere", None)];
    for (source_name, source) in sources() {
        for (disk_name, disk) in disks {
            for (base_name, base) in bases() {
                for deletions in DELETIONS {
                    let Some(record) = &base else { continue };
                    let word = last_word(&source, disk, record, deletions);
                    let row = format!("{source_name} {disk_name} {base_name} {deletions:?}");
                    f(&row, &source, record, word);
                }
            }
        }
    }
}

#[test]
fn last_words_are_spoken_on_proof_alone() {
    each_last_word(|row, source, record, word| {
        let goes = matches!(word, LastWord::Delete | LastWord::Tag);
        if goes {
            assert_eq!(*source, Source::Absent, "{row}");
            assert!(record.missing_since.is_some(), "{row}");
            assert!(matches!(record.trust, Trust::Synced | Trust::Deleting), "{row}");
            assert!(row.contains(" there ") || record.approved, "{row}");
            assert!(!row.ends_with("Keep"), "{row}");
        }
        if *source == Source::Unknown {
            assert_eq!(word, LastWord::Wait, "{row}");
        }
        if matches!(source, Source::Present(_)) {
            assert_eq!(word, LastWord::Back, "{row}");
        }
    });
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
    text += "# last word: source disk base deletions\n";
    each_last_word(|row, _, _, word| text += &format!("{row}: {word:?}\n"));
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
    assert_eq!(rows, 8 * 10 * 4 * 3);
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
    let elsewhere = Source::Present(on_disk(2, folder(0o40_700)));
    for compare in COMPARE {
        let decision = decide(&elsewhere, Some(&base), Observed::Unknown, compare);
        assert_eq!(decision, Decision::Found, "its disk is noted");
    }
}
