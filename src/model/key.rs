//! Object keys, and the codec between paths and keys.
//!
//! A key is the path with `/` between its segments. Plain UTF-8 names stay as they are. What cannot
//! be in a key is written as rclone writes it under
//! `--s3-encoding Slash,InvalidUtf8,Dot,Ctl,Del` (rclone `lib/encoder`):
//!
//! | in the name | in the key |
//! | --- | --- |
//! | a byte of invalid UTF-8 | `‛` (U+201B) and two upper-case hex digits |
//! | control characters 0x01 to 0x1F, 0x7F | their pictures U+2401 to U+241F, U+2421 |
//! | a literal picture (U+2400 to U+241F, U+2421) or `／` (U+FF0F) | `‛` and the character |
//! | the whole name `．` or `．．` (U+FF0E) | `‛` before each |
//! | a literal `‛` | `‛‛` |
//!
//! The mapping is injective both ways: a key decodes only in canonical form, that is when encoding
//! it again gives the same key.
//!
//! The order of keys is that of their bytes, S3's and SQLite's. A folder sorts as `name/`, so
//! `a-b` < `a/x` < `a.b` is *not* the order of paths: '-' is 0x2D, '.' 0x2E, '/' 0x2F.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

use super::path::{Escaped, RelPath};

const QUOTE: char = '\u{201B}';
/// S3's limit for a whole key, prefix included, in bytes.
pub const KEY_MAX_BYTES: usize = 1024;

/// Key of an object, relative to the destination's prefix. A folder marker ends with `/`.
///
/// Any UTF-8 text can be a key in a bucket; those made by [`Key::file`] and [`Key::folder`] are
/// canonical and decode to their path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

/// What a canonical key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyTarget {
    /// A file or a symbolic link.
    File(RelPath),
    /// A folder marker.
    Folder(RelPath),
}

impl Key {
    /// The key of a file or symbolic link.
    pub fn file(path: &RelPath) -> Self {
        Self(encode_path(path, false).into())
    }

    /// The key of a folder's marker, `path/`. The source itself has the empty key.
    pub fn folder(path: &RelPath) -> Self {
        Self(encode_path(path, !path.is_root()).into())
    }

    /// A key as found in a bucket.
    pub fn literal(text: &str) -> Self {
        Self(text.into())
    }

    /// The path this key stands for, when it is canonical.
    pub fn target(&self) -> Option<KeyTarget> {
        let (text, folder) = match self.0.strip_suffix('/') {
            Some(text) => (text, true),
            None => (&*self.0, false),
        };
        if text.is_empty() {
            return None;
        }
        let mut bytes = Vec::with_capacity(text.len());
        for (index, name) in text.split('/').enumerate() {
            if index > 0 {
                bytes.push(b'/');
            }
            decode_name(name, &mut bytes);
        }
        let path = RelPath::new(&bytes).ok()?;
        let (again, target) = match folder {
            true => (Key::folder(&path), KeyTarget::Folder(path)),
            false => (Key::file(&path), KeyTarget::File(path)),
        };
        (again == *self).then_some(target)
    }

    /// Whether this is a folder marker's key.
    pub fn is_folder(&self) -> bool {
        self.0.ends_with('/')
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether this key belongs to the destination's own records (`.keepwatch/…`), which
    /// listings, mirrors and restores leave out.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_FOLDER)
    }
}

/// Where the owner record lives under the prefix. Also a name that a source cannot use at its top.
pub const RESERVED_FOLDER: &str = ".keepwatch/";
/// [`RESERVED_FOLDER`] without the slash: the name at the top of a source that is left out.
pub const RESERVED_NAME: &[u8] = b".keepwatch";

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.0.as_bytes()).fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The destination's prefix: empty, or text ending in `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

#[derive(Debug, Error, PartialEq, Eq)]
#[error("the key would be {bytes} bytes long, S3 allows {KEY_MAX_BYTES}")]
pub struct KeyTooLong {
    pub bytes: usize,
}

impl Prefix {
    /// Takes the part of a URL behind the bucket; slashes at both ends do not matter.
    pub fn new(text: &str) -> Self {
        match text.trim_matches('/') {
            "" => Self(String::new()),
            inner => Self(format!("{inner}/")),
        }
    }

    /// The prefixes that this one lies in, nearest first; the last is the whole bucket.
    pub fn above(&self) -> impl Iterator<Item = Self> {
        let ends = self.0.rmatch_indices('/').skip(1).map(|(at, _)| at + 1);
        let ends = ends.chain((!self.0.is_empty()).then_some(0));
        ends.map(|end| Self(self.0[..end].to_owned()))
    }

    /// The key in the bucket.
    pub fn absolute(&self, key: &Key) -> Result<String, KeyTooLong> {
        let bytes = self.0.len() + key.0.len();
        if bytes > KEY_MAX_BYTES {
            return Err(KeyTooLong { bytes });
        }
        Ok(format!("{}{}", self.0, key.0))
    }

    /// The key below this prefix, of a key in the bucket.
    pub fn relative(&self, absolute: &str) -> Option<Key> {
        absolute.strip_prefix(&self.0).filter(|k| !k.is_empty()).map(Key::literal)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a name becomes inside a key. Also the text by which a sorted walk orders names.
pub fn encode_name(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(text) if !needs_encoding(text) => Cow::Borrowed(text),
        _ => {
            let mut out = String::with_capacity(name.len() + 16);
            encode_name_into(name, &mut out);
            Cow::Owned(out)
        }
    }
}

fn encode_path(path: &RelPath, folder: bool) -> String {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(bytes.len() + 1);
    match std::str::from_utf8(bytes) {
        // '/' never needs encoding, so the whole path can be judged at once.
        Ok(text) if !needs_encoding(text) => out.push_str(text),
        _ => {
            for (index, name) in path.segments().enumerate() {
                if index > 0 {
                    out.push('/');
                }
                out.push_str(&encode_name(name));
            }
        }
    }
    if folder {
        out.push('/');
    }
    out
}

/// Whether any character may need encoding. U+FF0E counts although only two names need it.
fn needs_encoding(text: &str) -> bool {
    text.bytes().any(|b| b < 0x20 || b == 0x7f || b == 0xe2 || b == 0xef)
        && text.chars().any(|c| c < ' ' || c == '\x7f' || is_quotable(c) || c == '\u{FF0E}')
}

/// Characters that stand for something else in a key, and so are quoted when literal.
fn is_quotable(c: char) -> bool {
    matches!(c, '\u{2400}'..='\u{241F}' | '\u{2421}' | '\u{FF0F}' | QUOTE)
}

fn encode_name_into(name: &[u8], out: &mut String) {
    match name {
        b"\xef\xbc\x8e" => return out.push_str("\u{201B}\u{FF0E}"),
        b"\xef\xbc\x8e\xef\xbc\x8e" => return out.push_str("\u{201B}\u{FF0E}\u{201B}\u{FF0E}"),
        _ => {}
    }
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\x01'..='\x1f' => out.push(picture(c as u32)),
                '\x7f' => out.push('\u{2421}'),
                c if is_quotable(c) => out.extend([QUOTE, c]),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push(QUOTE);
            out.extend([hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
    }
}

/// The picture of a control character.
fn picture(control: u32) -> char {
    char::from_u32(0x2400 + control).unwrap_or('\u{2400}')
}

fn hex_digit(nibble: u8) -> char {
    char::from(if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 })
}

/// Undoes [`encode_name`] as far as it can; the caller checks that the result is canonical.
fn decode_name(name: &str, out: &mut Vec<u8>) {
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        let plain = match c {
            QUOTE => match hex_byte(chars.as_str()) {
                Some(byte) => {
                    out.push(byte);
                    chars.nth(1);
                    continue;
                }
                None => chars.next().unwrap_or(QUOTE),
            },
            '\u{2401}'..='\u{241F}' => char::from_u32(c as u32 - 0x2400).unwrap_or(c),
            '\u{2421}' => '\x7f',
            c => c,
        };
        out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.get(..2)?;
    let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    if digits.bytes().all(upper) { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> String {
        Key::file(&RelPath::new(bytes).unwrap()).as_str().to_owned()
    }

    #[test]
    fn encodes_as_rclone_does() {
        for (name, expected) in [
            (&b"plain name+100%.txt"[..], "plain name+100%.txt"),
            ("naïve/日本語/🎉".as_bytes(), "naïve/日本語/🎉"),
            (b"gro\xdf", "gro‛DF"),
            (b"a\nb\x01\x1f\x7f", "a␊b␁␟␡"),
            ("␊".as_bytes(), "‛␊"),
            ("␀".as_bytes(), "‛␀"),
            ("␠␤".as_bytes(), "␠␤"),
            ("‛".as_bytes(), "‛‛"),
            ("‛DF".as_bytes(), "‛‛DF"),
            ("a／b".as_bytes(), "a‛／b"),
            ("．/．．/．．．/x．".as_bytes(), "‛．/‛．‛．/．．．/x．"),
            (b"\xed\xa0\x80", "‛ED‛A0‛80"),
            (b"\xe2\x80", "‛E2‛80"),
            ("\u{fffd}".as_bytes(), "\u{fffd}"),
        ] {
            assert_eq!(key(name), expected, "{}", Escaped(name));
        }
    }

    #[test]
    fn every_short_name_round_trips_and_no_two_share_a_key() {
        // Pieces that meet at every edge of the codec, in all sequences of up to four.
        let pieces: [&[u8]; 12] = [
            b"a",
            b"D",
            b"F",
            b"\n",
            b"\x7f",
            b"\xdf",
            b"\xe2",
            b"\x80\x9b",
            "‛".as_bytes(),
            "␊".as_bytes(),
            "．".as_bytes(),
            "／".as_bytes(),
        ];
        let mut keys = std::collections::BTreeMap::new();
        let mut names: Vec<Vec<u8>> = vec![vec![]];
        for _ in 0..4 {
            names = names
                .iter()
                .flat_map(|n| pieces.iter().map(move |p| [n.as_slice(), p].concat()))
                .collect();
            for name in &names {
                let path = RelPath::new(name).unwrap();
                let key = Key::file(&path);
                assert_eq!(key.target(), Some(KeyTarget::File(path.clone())), "{key}");
                let other = keys.insert(key, path.clone());
                assert!(other.is_none_or(|o| o == path), "{path} shares its key");
            }
        }
    }

    #[test]
    fn refuses_keys_that_are_not_canonical() {
        for text in [
            "‛41",
            "‛df",
            "a‛",
            "‛x",
            "‛2E‛2E/x",
            "a‛2Fb",
            "‛00",
            "a//b",
            "/a",
            "..",
            "a/./b",
            "/",
            "",
            "\n",
            "\x7f",
            "‛E2‛80‛9B",
            "．",
            "␀",
        ] {
            assert_eq!(Key::literal(text).target(), None, "{text:?}");
        }
        let folder = Key::literal("a/b/").target();
        assert_eq!(folder, Some(KeyTarget::Folder(RelPath::new(b"a/b").unwrap())));
    }

    #[test]
    fn names_sort_as_keys_do() {
        let mut keys: Vec<_> = ["a/x", "a-b", "a.b", "a", "a0"].map(|p| key(p.as_bytes())).into();
        keys.sort();
        assert_eq!(keys, ["a", "a-b", "a.b", "a/x", "a0"]);
    }

    #[test]
    fn prefixes() {
        for text in ["x/y", "/x/y/", "x/y/"] {
            assert_eq!(Prefix::new(text).as_str(), "x/y/");
        }
        assert_eq!(Prefix::new("/").as_str(), "");
        let above = |text| Prefix::new(text).above().map(|p| p.0).collect::<Vec<_>>();
        assert_eq!(above("a/b/c"), ["a/b/", "a/", ""]);
        assert_eq!((above("a"), above("")), (vec![String::new()], vec![]));
        let prefix = Prefix::new("p");
        assert_eq!(prefix.absolute(&Key::literal("a")).unwrap(), "p/a");
        assert_eq!(prefix.relative("p/a"), Some(Key::literal("a")));
        assert_eq!(prefix.relative("q/a"), None);
        assert_eq!(prefix.relative("p/"), None);
        let long = Key::literal(&"x".repeat(1022));
        assert_eq!(prefix.absolute(&long).unwrap().len(), 1024);
        let longer = Key::literal(&"x".repeat(1023));
        assert_eq!(prefix.absolute(&longer), Err(KeyTooLong { bytes: 1025 }));
    }
}
