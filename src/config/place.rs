//! Where a path really is.

use std::path::{Component, Path, PathBuf};

/// The absolute path without links and dots, as far as it exists: two paths that lead to one place
/// become the same, and one that leads into another begins with it.
pub fn real_path(path: &Path) -> PathBuf {
    // What was behind a `..` may be a link itself.
    resolve_existing(&resolve_existing(path))
}

fn resolve_existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let (above, mut real) = found.unwrap_or((Path::new(""), PathBuf::new()));
    for component in path.strip_prefix(above).unwrap_or(path).components() {
        match component {
            Component::ParentDir => {
                real.pop();
            }
            Component::CurDir => {}
            _ => real.push(component),
        }
    }
    real
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_dots_lead_where_they_lead() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink(root.join("a/b"), root.join("link")).unwrap();
        for (path, expected) in [
            ("a/b", "a/b"),
            ("a/../a/./b/", "a/b"),
            ("link", "a/b"),
            ("link/new/deep", "a/b/new/deep"),
            ("link/..", "a"),
            ("none/../link/x", "a/b/x"),
            ("none/x/../../a", "a"),
            ("none/../../none", "../none"),
        ] {
            let parent = root.parent().unwrap();
            let expected = match expected.strip_prefix("../") {
                Some(rest) => parent.join(rest),
                None => root.join(expected),
            };
            assert_eq!(real_path(&root.join(path)), expected, "{path}");
        }
    }
}
