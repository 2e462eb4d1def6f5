//! Programs that tests run beside keepwatch. `tests/run` installs them under `tests/.cache`.

use std::path::PathBuf;

fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/.cache")
}

/// A tool from Python's registry: `moto_server`, `rclone`, `s5cmd`, `aws`, `python`.
pub fn python_tool(name: &str) -> PathBuf {
    need(cache().join("venv/bin").join(name))
}

pub fn garage() -> PathBuf {
    need(cache().join("garage/bin/garage"))
}

fn need(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is not there: tests/run installs it", path.display());
    path
}
