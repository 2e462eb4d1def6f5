//! Paths below a source, and how any bytes from outside are shown to people.

use std::fmt;

use thiserror::Error;

/// Path of an entry below its source: the bytes the file system uses, segments joined by `/`.
///
/// INVARIANT: no segment is empty, `.`, `..`, or contains NUL. The empty path is the source itself.
/// The order is that of the bytes; it is *not* the order of keys (see [`crate::model::key`]).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Box<[u8]>);

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    #[error("a path segment is empty")]
    EmptySegment,
    #[error("a path segment is \".\" or \"..\"")]
    DotSegment,
    #[error("the path contains a NUL byte")]
    Nul,
}

impl RelPath {
    pub fn root() -> Self {
        Self(Box::default())
    }

    /// Checks and takes a `/`-joined path; empty means the source itself.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        bytes.split(|b| *b == b'/').try_for_each(check_name)?;
        Ok(Self(bytes.into()))
    }

    /// The path of `name` inside this folder.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        if name.contains(&b'/') {
            return Err(PathError::EmptySegment);
        }
        check_name(name)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Ok(Self(bytes.into()))
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The folder this entry is in; the source itself has none.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].into()))
    }

    /// The last segment; empty for the source itself.
    pub fn name(&self) -> &[u8] {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(cut) => &self.0[cut + 1..],
            None => &self.0,
        }
    }

    /// Segments from the top down; none for the source itself.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|s| !s.is_empty())
    }

    /// Whether `self` is `folder` or lies below it.
    pub fn is_within(&self, folder: &Self) -> bool {
        folder.is_root()
            || self.0.strip_prefix(&*folder.0).is_some_and(|r| r.is_empty() || r[0] == b'/')
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::EmptySegment),
        b"." | b".." => Err(PathError::DotSegment),
        _ if name.contains(&0) => Err(PathError::Nul),
        _ => Ok(()),
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Bytes from outside, made safe for terminals, logs and JSON: control characters, bidirectional
/// overrides, backslashes and invalid UTF-8 are shown as escapes; all else as it is. Injective.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    '\\' => f.write_str("\\\\")?,
                    c if is_unsafe_to_show(c) => write!(f, "\\u{{{:x}}}", c as u32)?,
                    c => fmt::Write::write_char(f, c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Control characters, and the invisible ones that reorder or hide what follows.
pub fn is_unsafe_to_show(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_leave_the_source() {
        for (bytes, error) in [
            (&b"a//b"[..], PathError::EmptySegment),
            (b"/a", PathError::EmptySegment),
            (b"a/", PathError::EmptySegment),
            (b"a/../b", PathError::DotSegment),
            (b".", PathError::DotSegment),
            (b"a\0b", PathError::Nul),
        ] {
            assert_eq!(RelPath::new(bytes), Err(error), "{}", Escaped(bytes));
        }
        assert!(RelPath::root().join(b"a/b").is_err());
        assert!(RelPath::root().join(b"").is_err());
    }

    #[test]
    fn parts() {
        let path = RelPath::new(b"a/b/c").unwrap();
        assert_eq!(path.name(), b"c");
        assert_eq!(path.parent().unwrap(), RelPath::new(b"a/b").unwrap());
        assert_eq!(RelPath::new(b"a").unwrap().parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
        assert!(path.is_within(&RelPath::new(b"a").unwrap()));
        assert!(path.is_within(&RelPath::root()) && path.is_within(&path));
        assert!(!RelPath::new(b"ab").unwrap().is_within(&RelPath::new(b"a").unwrap()));
        assert_eq!(path.segments().count(), 3);
        assert_eq!(RelPath::root().segments().count(), 0);
    }

    #[test]
    fn shows_nothing_that_could_act_on_a_terminal() {
        let shown = Escaped("a\x1b[31m\n\u{202e}é\u{7f}\\".as_bytes()).to_string();
        assert_eq!(shown, "a\\u{1b}[31m\\n\\u{202e}é\\u{7f}\\\\");
        assert_eq!(Escaped(b"gro\xdf").to_string(), "gro\\xdf");
    }
}
