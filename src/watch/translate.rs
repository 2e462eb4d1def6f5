//! From notify's events to hints. Pure.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use notify::Event;
use notify::event::{CreateKind, EventKind, ModifyKind, RemoveKind, RenameMode};

use crate::model::RelPath;
use crate::plan::Hint;

use super::Layout;

/// What an event is worth.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Translated {
    pub hints: Vec<Hint>,
    /// Names that are gone, or belong to something else now: their watches mean nothing.
    pub gone: Vec<RelPath>,
    /// The source itself went.
    pub source_gone: bool,
}

pub fn hints(layout: Layout, root: &Path, event: &Event) -> Translated {
    let mut translated = Translated::default();
    // A rename within view comes three times: from, to, and both together.
    if event.kind == EventKind::Modify(ModifyKind::Name(RenameMode::Both)) {
        return translated;
    }
    let gone = matches!(
        event.kind,
        EventKind::Remove(RemoveKind::Folder | RemoveKind::Any | RemoveKind::Other)
            | EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::Any))
    );
    // What a folder that is new here brought along made no events.
    let deep = matches!(
        event.kind,
        EventKind::Create(CreateKind::Folder | CreateKind::Any | CreateKind::Other)
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Any))
            | EventKind::Any
            | EventKind::Other
    );
    for path in &event.paths {
        let Some(below) = below(layout, root, path) else { continue };
        let Ok(path) = RelPath::new(below.as_os_str().as_bytes()) else { continue };
        if path.is_root() {
            translated.source_gone |= gone;
            continue;
        }
        if gone {
            translated.gone.push(path.clone());
        }
        translated.hints.push(Hint { path, deep });
    }
    translated
}

/// The path as it is below the source.
fn below<'a>(layout: Layout, root: &Path, path: &'a Path) -> Option<&'a Path> {
    match (path.strip_prefix(root), layout) {
        (Ok(below), _) => Some(below),
        (Err(_), Layout::EachFolder) => None,
        // FSEvents spells every path as the disk does, which may take other letters for the same
        // name. What its only watch reports lies below the source all the same.
        (Err(_), Layout::Whole) => {
            let mut parts = path.components();
            root.components().all(|_| parts.next().is_some()).then_some(parts.as_path())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{AccessKind, AccessMode, DataChange, MetadataKind};

    fn translate(kind: EventKind, path: &str) -> Translated {
        hints(Layout::EachFolder, Path::new("/src"), &Event::new(kind).add_path(path.into()))
    }

    #[test]
    fn events_become_hints() {
        let rename = |mode| EventKind::Modify(ModifyKind::Name(mode));
        for (kind, deep, gone) in [
            (EventKind::Create(CreateKind::File), false, false),
            (EventKind::Create(CreateKind::Folder), true, false),
            (EventKind::Modify(ModifyKind::Data(DataChange::Any)), false, false),
            (EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)), false, false),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), false, false),
            (EventKind::Remove(RemoveKind::File), false, false),
            (EventKind::Remove(RemoveKind::Folder), false, true),
            (rename(RenameMode::From), false, true),
            (rename(RenameMode::To), true, false),
        ] {
            let translated = translate(kind, "/src/a/b");
            let path = RelPath::new(b"a/b").unwrap();
            assert_eq!(translated.hints, [Hint { path: path.clone(), deep }], "{kind:?}");
            assert_eq!(translated.gone, if gone { vec![path] } else { vec![] }, "{kind:?}");
        }
        assert_eq!(translate(rename(RenameMode::Both), "/src/a"), Translated::default());
    }

    /// Kinds as notify makes them of the flags of FSEvents, which joins what happened to a path in
    /// a moment and keeps no order: what matters is that each path is named, deeply where a folder
    /// may have come with all it holds.
    #[test]
    fn what_fsevents_reports_becomes_hints_for_every_path() {
        use {CreateKind as C, RemoveKind as R};
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::Any));
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Content));
        let meta = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        let hinted = |root: &str, kinds: &[EventKind], path: &str| {
            let all = kinds.iter().map(|kind| {
                let event = Event::new(*kind).add_path(path.into());
                hints(Layout::Whole, Path::new(root), &event)
            });
            all.fold((vec![], false), |(mut paths, gone), t| {
                paths.extend(t.hints.into_iter().map(|hint| (hint.path.to_string(), hint.deep)));
                (paths, gone || t.source_gone)
            })
        };
        let root = "/Users/ann/Documents";
        for (kinds, deep) in [
            // A file that was made, written and dated; saved by renaming; gone; made and gone.
            (&[EventKind::Create(C::File), meta, written][..], false),
            (&[renamed], true),
            (&[EventKind::Remove(R::File)], false),
            (&[EventKind::Create(C::File), written, EventKind::Remove(R::File)], false),
            // A folder that was made, or moved in or out; a link; a disk that came.
            (&[EventKind::Create(C::Folder)], true),
            (&[EventKind::Create(C::Folder), renamed, EventKind::Remove(R::Folder)], true),
            (&[EventKind::Create(C::Any)], true),
            (&[EventKind::Create(C::Other)], true),
        ] {
            // As it is named; and as the disk spells it.
            for path in ["/Users/ann/Documents/a/b", "/Users/Ann/documents/a/b"] {
                let (paths, source_gone) = hinted(root, kinds, path);
                assert_eq!(paths.len(), kinds.len(), "{kinds:?}");
                assert!(paths.iter().all(|(path, _)| path == "a/b"), "{paths:?}");
                assert_eq!(paths.iter().any(|(_, is_deep)| *is_deep), deep, "{kinds:?}");
                assert!(!source_gone);
            }
        }
        // The source itself: touched, and moved or removed.
        assert_eq!(hinted(root, &[meta], root), (vec![], false));
        for kind in [R::Folder, R::Any] {
            assert_eq!(hinted(root, &[EventKind::Remove(kind)], root), (vec![], true));
        }
        let moved = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        assert_eq!(hinted(root, &[moved], root), (vec![], true));
        assert_eq!(hinted(root, &[written], "/Users"), (vec![], false), "not below");
    }

    #[test]
    fn what_is_not_below_the_source_says_nothing() {
        assert_eq!(translate(EventKind::Create(CreateKind::File), "/other"), Translated::default());
        assert!(translate(EventKind::Remove(RemoveKind::Folder), "/src").source_gone);
        let metadata = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        assert_eq!(translate(metadata, "/src"), Translated::default());
    }
}
