//! Whether two folders are the same: by a walk with the standard library, and by rsync where it is
//! installed.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

/// What is compared of a file, link or folder.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    /// `None` for folders.
    pub content: Option<Vec<u8>>,
    /// With the type. The times of folders are not kept.
    pub mode: u32,
    pub mtime: Option<(i64, i64)>,
    pub owner: (u32, u32),
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let content = self.content.as_deref().map(|content| &content[..content.len().min(40)]);
        let content = content.map(String::from_utf8_lossy);
        write!(f, "{:o} {:?} {:?} {content:?}", self.mode, self.mtime, self.owner)
    }
}

/// Everything below a folder, by path.
pub fn seen(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let content = if stat.is_dir() {
                None
            } else if stat.is_symlink() {
                Some(std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
            } else if stat.is_file() {
                Some(std::fs::read(&path).unwrap())
            } else {
                panic!("{} is a special file", path.display());
            };
            let mtime = (!stat.is_dir()).then(|| (stat.mtime(), stat.mtime_nsec()));
            let owner = (stat.uid(), stat.gid());
            found.insert(name, Seen { content, mode: stat.mode(), mtime, owner });
            if stat.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

/// What is different in `right`, in words.
pub fn differences(left: &Path, right: &Path) -> Vec<String> {
    let (left, mut right) = (seen(left), seen(right));
    let mut different = vec![];
    for (name, expected) in left {
        let shown = String::from_utf8_lossy(&name).into_owned();
        match right.remove(&name) {
            None => different.push(format!("{shown:?} is missing")),
            Some(found) if found != expected => {
                different.push(format!("{shown:?} is {found:?} instead of {expected:?}"));
            }
            Some(_) => {}
        }
    }
    let extra = right.into_keys().map(|name| String::from_utf8_lossy(&name).into_owned());
    different.extend(extra.map(|name| format!("{name:?} should not be there")));
    different
}

/// Both folders hold the same, in the opinion of everybody.
pub fn assert_same(left: &Path, right: &Path) {
    let different = differences(left, right);
    assert_eq!(different, [""; 0], "{} differences", different.len());
    let with_slash = |path: &Path| format!("{}/", path.display());
    let rsync = Command::new("rsync")
        .args(["-nrlptgoci", "--delete", "--omit-dir-times", "--modify-window=-1"])
        .args([with_slash(left), with_slash(right)])
        .output();
    match rsync {
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            // The mode of the top folder is not part of a backup.
            let told: Vec<&str> = told.lines().filter(|line| !line.ends_with(" ./")).collect();
            assert!(output.status.success(), "{output:?}");
            assert_eq!(told, [""; 0], "what rsync would change");
        }
        Err(error) => println!("rsync was not asked: {error}"),
    }
}
