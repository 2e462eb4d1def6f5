//! From notify's events to hints. Pure.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use notify::Event;
use notify::event::{CreateKind, EventKind, ModifyKind, RemoveKind, RenameMode};

use crate::model::RelPath;
use crate::plan::Hint;

/// What an event is worth.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Translated {
    pub hints: Vec<Hint>,
    /// Names that are gone, or belong to something else now: their watches mean nothing.
    pub gone: Vec<RelPath>,
    /// The source itself went.
    pub source_gone: bool,
}

pub fn hints(root: &Path, event: &Event) -> Translated {
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
        let Ok(below) = path.strip_prefix(root) else { continue };
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

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{AccessKind, AccessMode, DataChange, MetadataKind};

    fn translate(kind: EventKind, path: &str) -> Translated {
        hints(Path::new("/src"), &Event::new(kind).add_path(path.into()))
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

    #[test]
    fn what_is_not_below_the_source_says_nothing() {
        assert_eq!(translate(EventKind::Create(CreateKind::File), "/other"), Translated::default());
        assert!(translate(EventKind::Remove(RemoveKind::Folder), "/src").source_gone);
        let metadata = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        assert_eq!(translate(metadata, "/src"), Translated::default());
    }
}
