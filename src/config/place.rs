//! Where a path really is, as far as its disk says.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A disk that answers at all has answered after this, also one that had to be woken; one may hang,
/// as a network mount whose server is away.
const ANSWER: Duration = Duration::from_secs(10);

/// The absolute path without links and dots, as far as it exists: two paths that lead to one place
/// become the same, and one that leads into another begins with it. What lies on a disk that does
/// not answer is taken as it is written.
pub fn real_path(path: &Path) -> PathBuf {
    look_at(path).wait()
}

/// Begins to look at a path: who asks for many then waits for all that hang at once.
pub fn look_ahead(path: &Path) {
    look_at(path);
}

/// A look at a path, by a thread of its own, which hangs where the disk does.
struct Look {
    path: PathBuf,
    begun: Instant,
    found: Mutex<Found>,
    ended: Condvar,
}

#[derive(Default)]
struct Found {
    /// A part of the path that is there, and where it is without links.
    so_far: Option<(PathBuf, PathBuf)>,
    end: Option<PathBuf>,
}

/// The looks under way. One that hangs is not begun a second time, and waited for only once.
static LOOKS: Mutex<BTreeMap<PathBuf, Arc<Look>>> = Mutex::new(BTreeMap::new());

fn look_at(path: &Path) -> Arc<Look> {
    let mut looks = LOOKS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(look) = looks.get(path) {
        return look.clone();
    }
    let look = Arc::new(Look {
        path: path.to_owned(),
        begun: Instant::now(),
        found: Mutex::default(),
        ended: Condvar::new(),
    });
    looks.insert(path.to_owned(), look.clone());
    drop(looks);
    let looking = look.clone();
    let thread = std::thread::Builder::new().name("look".to_owned());
    if thread.spawn(move || looking.run()).is_err() {
        look.run();
    }
    look
}

impl Look {
    fn run(&self) {
        let real = resolve_existing(&self.path, |above, real| {
            self.found().so_far = Some((above.to_owned(), real.to_owned()));
        });
        // What was behind a `..` may be a link itself.
        let real = resolve_existing(&real, |_, _| {});
        LOOKS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
        self.found().end = Some(real);
        self.ended.notify_all();
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) -> PathBuf {
        let left = ANSWER.saturating_sub(self.begun.elapsed());
        let waited = self.ended.wait_timeout_while(self.found(), left, |found| found.end.is_none());
        let (found, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match (&found.end, &found.so_far) {
            (Some(real), _) => real.clone(),
            (None, Some((above, real))) => with_rest(real.clone(), above, &self.path),
            (None, None) => with_rest(PathBuf::new(), Path::new(""), &self.path),
        }
    }
}

/// Goes down from the top, and tells of each part that is there.
fn resolve_existing(path: &Path, mut tell: impl FnMut(&Path, &Path)) -> PathBuf {
    let mut found = (Path::new(""), PathBuf::new());
    let above: Vec<&Path> =
        path.ancestors().filter(|above| !above.as_os_str().is_empty()).collect();
    for above in above.into_iter().rev() {
        let Ok(real) = above.canonicalize() else { break };
        tell(above, &real);
        found = (above, real);
    }
    with_rest(found.1, found.0, path)
}

/// The path, of which the part `above` is at `real`, and the rest as it is written.
fn with_rest(mut real: PathBuf, above: &Path, path: &Path) -> PathBuf {
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
