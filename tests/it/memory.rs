//! Memory does not grow with the tree.

use std::process::Command;

use crate::support::program::Daemon;
use crate::support::scene::{Scene, TO};
use crate::support::{tools, wait_for};

const FILES: usize = 20_000;
const PEAK_MAX_KIB: u64 = 100 * 1024;

/// Runs a command to its end, and answers with the largest memory that it had at any moment.
fn peak_kib(command: &Command) -> u64 {
    let measure = "import resource, subprocess, sys\n\
        code = subprocess.call(sys.argv[1:], stdout=sys.stderr)\n\
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n\
        sys.exit(code)";
    let mut measured = Command::new(tools::python_tool("python"));
    measured.args(["-c", measure]).arg(command.get_program()).args(command.get_args());
    measured.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = measured.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    said.trim().parse().unwrap()
}

/// The largest memory of a process that runs.
fn peak_so_far_kib(daemon: &Daemon<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn many_files_need_little_memory() {
    let scene = Scene::new(&[]);
    for n in 0..FILES {
        scene.tree.write(format!("folder{}/file {n}", n % 97), format!("{n}").as_bytes());
    }
    let sync = scene.user.command(&["sync", scene.source(), TO]);
    let first = peak_kib(&sync);
    assert_eq!(scene.bucket.listed().len(), FILES);
    scene.server.clear_log();
    let second = peak_kib(&sync);
    assert_eq!(scene.server.log().len(), 1, "nothing was left to do");
    let daemon = scene.follow(&[]);
    scene.tree.write("one more", b"more");
    scene.tree.remove("folder3");
    let left = FILES - FILES.div_ceil(97) + 1;
    wait_for("the changes", || daemon.backup()["files"] == left && scene.has("one more"));
    wait_for("the deletions", || daemon.backup()["missing"] == 0);
    assert_eq!(scene.bucket.listed().len(), left);
    for (what, peak_kib) in
        [("sync", first), ("a second sync", second), ("watch", peak_so_far_kib(&daemon))]
    {
        println!("{what}: {} MiB", peak_kib / 1024);
        assert!((1024..PEAK_MAX_KIB).contains(&peak_kib), "{what} needed {peak_kib} KiB");
    }
}
