//! Trees of files, and whether a bucket holds what they ask for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use keepwatch::model::{Key, RelPath, Timestamp};
use tempfile::TempDir;

use super::bucket::{Bucket, Seen};

/// A folder to keep.
pub struct Tree {
    pub folder: TempDir,
}

impl Tree {
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let tree = Self { folder: tempfile::tempdir().unwrap() };
        for (name, content) in files {
            tree.write(name, content);
        }
        tree
    }

    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.path().join(name.as_ref())
    }

    pub fn write(&self, name: impl AsRef<OsStr>, content: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn chmod(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        let path = self.path(name);
        match path.symlink_metadata().unwrap().is_dir() {
            true => std::fs::remove_dir_all(path).unwrap(),
            false => std::fs::remove_file(path).unwrap(),
        }
    }

    /// Keys, bodies and metadata that the tree asks for, below `prefix`.
    pub fn expected(&self, prefix: &str) -> BTreeMap<String, (Vec<u8>, BTreeMap<String, String>)> {
        let mut expected = BTreeMap::new();
        collect(self.folder.path(), self.folder.path(), prefix, &mut expected);
        expected
    }
}

type Expected = BTreeMap<String, (Vec<u8>, BTreeMap<String, String>)>;

/// Walks with the standard library alone; only the spelling of keys is keepwatch's own.
fn collect(root: &Path, folder: &Path, prefix: &str, expected: &mut Expected) {
    let mut empty = true;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let kind = metadata.file_type();
        let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let relative = RelPath::new(relative).unwrap();
        let body = if kind.is_dir() {
            empty = false;
            collect(root, &path, prefix, expected);
            continue;
        } else if kind.is_symlink() {
            std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if kind.is_file() {
            std::fs::read(&path).unwrap()
        } else {
            continue;
        };
        empty = false;
        let mut meta = owner_and_mode(&metadata);
        let mtime = Timestamp::new(metadata.mtime(), metadata.mtime_nsec() as u32);
        meta.insert("mtime".to_owned(), mtime.to_string());
        expected.insert(format!("{prefix}{}", Key::file(&relative).as_str()), (body, meta));
    }
    let metadata = folder.symlink_metadata().unwrap();
    let own_mode = !matches!(metadata.mode() & 0o7777, 0o755 | 0o775);
    if folder != root && (empty || own_mode) {
        let relative = folder.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let key = Key::folder(&RelPath::new(relative).unwrap());
        let meta = owner_and_mode(&metadata);
        expected.insert(format!("{prefix}{}", key.as_str()), (vec![], meta));
    }
}

fn owner_and_mode(metadata: &std::fs::Metadata) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("mode".to_owned(), format!("{:o}", metadata.mode())),
        ("uid".to_owned(), metadata.uid().to_string()),
        ("gid".to_owned(), metadata.gid().to_string()),
    ])
}

/// How a bucket differs from what a tree asks for; empty when it does not.
pub fn differences(tree: &Tree, bucket: &Bucket, prefix: &str) -> Vec<String> {
    compare(&tree.expected(prefix), &bucket.objects())
}

fn compare(expected: &Expected, objects: &BTreeMap<String, Seen>) -> Vec<String> {
    let mut differences = vec![];
    for (key, (body, meta)) in expected {
        match objects.get(key) {
            None => differences.push(format!("{key:?} is missing")),
            Some(seen) if seen.body != *body => {
                differences.push(format!("{key:?} has another body"));
            }
            Some(seen) if seen.meta != *meta => {
                differences.push(format!("{key:?} has {:?} instead of {meta:?}", seen.meta));
            }
            Some(_) => {}
        }
    }
    let extra = objects.keys().filter(|key| !expected.contains_key(*key));
    differences.extend(extra.map(|key| format!("{key:?} should not be there")));
    differences
}

/// Names with every byte and character that is special to somebody.
pub fn odd_names() -> Vec<Vec<u8>> {
    let text = [
        "with space",
        " leading",
        "trailing ",
        "trailing.",
        "it's \"quoted\"",
        "back\\slash",
        "new\nline",
        "tab\tand\rreturn",
        "bell\x07",
        "del\x7f",
        "100%",
        "%2F",
        "%00",
        "a+b",
        "+",
        "?*[x]",
        "<&;>|$(x)`",
        "#hash",
        "-dash",
        "~tilde",
        "a:b",
        "a=b,c",
        "...",
        "....",
        ".hidden",
        "emoji 🦀👩‍👩‍👧",
        "日本語",
        "caf\u{e9}",
        "cafe\u{301}",
        "‛quoted",
        "‛‛",
        "‛FF",
        "␊picture",
        "␀",
        "␡",
        "．",
        "．．",
        "．x",
        "full／width",
        "\u{fffd}",
        "\u{feff}bom",
        "\u{202e}rtl",
        "\u{10ffff}",
        "CON",
        "x\u{300}\u{301}",
    ];
    let mut names: Vec<Vec<u8>> = text.iter().map(|name| name.as_bytes().to_vec()).collect();
    names.extend([b"\xff".to_vec(), b"latin-\xe9".to_vec(), b"cut \xe2\x80".to_vec()]);
    names.extend([b"\xed\xa0\x80 surrogate".to_vec(), b"mixed \xf0\x9f\x98\xff \n".to_vec()]);
    // Every byte that a name can have.
    let bytes = (1..=255).filter(|byte| *byte != b'/');
    names.extend(bytes.map(|byte| vec![b'b', byte, b'z']));
    names
}
