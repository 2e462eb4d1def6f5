//! The table of a mirror: every combination, compared with a golden file, and laws over all rows.

use super::*;
use crate::model::ETag;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/mirror.txt");
const COMPARE: [MirrorCompare; 3] =
    [MirrorCompare::Modified, MirrorCompare::Checksum, MirrorCompare::Size];

fn object(size_bytes: u64, etag: &str, modified_s: i64) -> Object {
    let modified = Millis(modified_s * 1_000);
    Object { size_bytes, etag: ETag::new(etag), modified, archived: false }
}

/// Of a source that was copied as `v1` at 10; the copy was made at 20.
fn sources() -> Vec<(&'static str, Object)> {
    vec![
        ("as-copied", object(2, "v1", 10)),
        ("resized", object(3, "v2", 30)),
        ("rewritten", object(2, "v2", 30)),
        ("rolled-back", object(2, "v0", 5)),
        ("same-again", object(2, "v1", 30)),
        ("same-second", object(2, "v2", 20)),
    ]
}

fn bases() -> Vec<(&'static str, Option<Record>)> {
    let known = record_of(&object(2, "v1", 10), &object(2, "v1", 20));
    let with = |trust| Some(Record { trust, ..known.clone() });
    vec![
        ("none", None),
        ("synced", Some(known.clone())),
        ("parts", Some(Record { etag: Some(ETag::new("p-2")), ..known.clone() })),
        ("missing", Some(Record { missing_since: Some(Millis(1)), ..known.clone() })),
        ("uploading", Some(Record { etag: None, trust: Trust::Uploading, ..known.clone() })),
        ("over", with(Trust::Uploading)),
        ("deleting", with(Trust::Deleting)),
        ("tagged", with(Trust::Tagged)),
    ]
}

fn copies() -> Vec<(&'static str, Option<Object>)> {
    vec![
        ("absent", None),
        ("recorded", Some(object(2, "v1", 20))),
        ("in-parts", Some(object(2, "p-2", 20))),
        ("other", Some(object(4, "x", 20))),
    ]
}

/// Calls `f` with every row of the table.
fn each_row(mut f: impl FnMut(&str, SourceSide<'_>, Option<&Record>, Option<&Object>, Step)) {
    let objects = sources();
    let mut sides = vec![
        ("excluded".to_owned(), SourceSide::Excluded),
        ("absent".to_owned(), SourceSide::Absent),
    ];
    for (name, object) in &objects {
        sides.push(((*name).to_owned(), SourceSide::Present(object)));
        sides.push((format!("older:{name}"), SourceSide::Older(object)));
    }
    for compare in COMPARE {
        for ask in [AskTags::Never, AskTags::Adopting, AskTags::Sweeping] {
            for (source_name, source) in &sides {
                for (base_name, base) in bases() {
                    for (copy_name, copy) in copies() {
                        let step = decide(*source, base.as_ref(), copy.as_ref(), compare, ask);
                        let sweep = match ask {
                            AskTags::Never => "",
                            AskTags::Adopting => " adopting",
                            AskTags::Sweeping => " sweeping",
                        };
                        let row =
                            format!("{source_name} {base_name} {copy_name} {compare:?}{sweep}");
                        f(&row, *source, base.as_ref(), copy.as_ref(), step);
                    }
                }
            }
        }
    }
}

#[test]
fn every_row_is_as_it_was_reviewed() {
    let mut table = String::new();
    each_row(|row, _, _, _, step| table += &format!("{row:<48} {step:?}\n"));
    if std::env::var_os("KEEPWATCH_BLESS").is_some() {
        std::fs::write(GOLDEN, &table).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    let changed: Vec<_> = table.lines().zip(golden.lines()).filter(|(a, b)| a != b).collect();
    assert!(changed.is_empty() && table == golden, "decisions changed: {changed:#?}");
}

#[test]
fn laws() {
    each_row(|row, source, base, copy, step| {
        let is_there = matches!(source, SourceSide::Present(_) | SourceSide::Older(_));
        if matches!(step, Step::Gone) {
            assert_eq!(source, SourceSide::Absent, "{row}: only what is absent is gone");
            assert!(base.is_some() && copy.is_some(), "{row}: only what is ours is touched");
        }
        if matches!(step, Step::Copy(_) | Step::Look) {
            assert!(matches!(source, SourceSide::Present(_)), "{row}");
        }
        if matches!(step, Step::Untag | Step::Adopt | Step::AdoptUntagged | Step::Found) {
            assert!(is_there && copy.is_some(), "{row}");
        }
        if let (Some(record), true) = (base, is_there)
            && record.trust == Trust::Tagged
            && copy.is_some()
            && !row.starts_with("older")
        {
            assert_ne!(step, Step::Nothing, "{row}: what is back is not left tagged");
        }
        if let (Some(record), SourceSide::Present(_)) = (base, source)
            && record.trust == Trust::Uploading
        {
            assert!(
                matches!(step, Step::Copy(_) | Step::AdoptUntagged),
                "{row}: what was under way is not believed, nor its tags"
            );
        }
        if base.is_none() && row.ends_with("ing") {
            assert_ne!(step, Step::Adopt, "{row}: adopting looks at the tags");
        }
        if let (SourceSide::Present(_), None) = (source, copy) {
            assert_eq!(step, Step::Copy(Reason::Missing), "{row}");
        }
    });
}

#[test]
fn the_record_beats_clocks_and_etags() {
    // The server's clock of the copy is behind, and the copy's ETag is another.
    let (source, copy) = (object(2, "v1", 1_000), object(2, "p-2", 10));
    let record = record_of(&source, &copy);
    for compare in COMPARE {
        let step = decide(
            SourceSide::Present(&source),
            Some(&record),
            Some(&copy),
            compare,
            AskTags::Never,
        );
        assert_eq!(step, Step::Nothing, "{compare:?}");
    }
    assert_eq!(
        by_listing(&source, &copy, MirrorCompare::Modified),
        Verdict::Differs(Reason::Newer)
    );
}

#[test]
fn without_a_record_etags_beat_clocks() {
    let (one, other) = ("0".repeat(32), "1".repeat(32));
    let (source, later) = (object(2, &one, 10), object(2, &other, 20));
    let ask = |compare, base: Option<&Record>| {
        decide(SourceSide::Present(&source), base, Some(&later), compare, AskTags::Never)
    };
    assert_eq!(ask(MirrorCompare::Modified, None), Step::Look);
    assert_eq!(ask(MirrorCompare::Size, None), Step::Adopt);
    let record = record_of(&source, &later);
    assert_eq!(ask(MirrorCompare::Modified, Some(&record)), Step::Nothing, "under encryption");
}

#[test]
fn what_is_brought_back() {
    use crate::plan::restore::Kept;
    let saved = object(2, "v1", 10);
    let there = |size, etag, modified| Some(object(size, etag, modified));
    for (there, overwrite, expected) in [
        (None, Overwrite::Never, Back::Copy(Reason::Missing)),
        (there(2, "v1", 5), Overwrite::Always, Back::Right),
        (there(2, "v2", 5), Overwrite::Never, Back::Kept(Kept::Exists)),
        (there(2, "v2", 5), Overwrite::IfNewer, Back::Copy(Reason::Content)),
        (there(3, "v2", 50), Overwrite::IfNewer, Back::Kept(Kept::Newer)),
        (there(3, "v2", 10), Overwrite::IfNewer, Back::Kept(Kept::Newer)),
        (there(3, "v2", 50), Overwrite::IfChanged, Back::Copy(Reason::Size)),
        (there(2, "p-2", 50), Overwrite::IfNewer, Back::Look),
        (there(2, "v2", 50), Overwrite::IfChanged, Back::Look),
        (there(2, "p-2", 50), Overwrite::Always, Back::Copy(Reason::Content)),
    ] {
        assert_eq!(bring_back(&saved, there.as_ref(), overwrite), expected, "{there:?}");
    }
}

#[test]
fn places_that_overlap() {
    for (source, destination, expected) in [
        ("", "", Some(Overlap::Same)),
        ("a/", "a/", Some(Overlap::Same)),
        ("", "a/", Some(Overlap::DestinationInside)),
        ("a/", "a/b/", Some(Overlap::DestinationInside)),
        ("a/b/", "a/", Some(Overlap::SourceInside)),
        ("a/", "ab/", None),
        ("a/", "b/", None),
    ] {
        assert_eq!(overlap(source, destination), expected, "{source} {destination}");
    }
}
