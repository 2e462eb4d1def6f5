//! The Debian package: what is in it, and that it starts nothing by itself.

use std::process::{Command, Output};

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn the_package_has_all_that_it_promises() {
    let there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    if !there("dpkg-deb") || !there("dpkg-shlibdeps") {
        println!("dpkg-dev is not installed: no package is built");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut build = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb"));
    build.args(["--program", env!("CARGO_BIN_EXE_keepwatch"), "--out"]).arg(folder.path());
    // To compress what no one downloads takes a minute.
    run(build.env("DPKG_DEB_COMPRESSOR_TYPE", "none"));
    let package = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();

    let list = run(Command::new("dpkg-deb").arg("-c").arg(&package));
    let list = String::from_utf8(list.stdout).unwrap();
    for file in [
        "usr/bin/keepwatch",
        "usr/lib/systemd/system/keepwatch.service",
        "usr/lib/systemd/system/keepwatch-restore.service",
        "usr/lib/systemd/system/keepwatch-mirror@.service",
        "usr/lib/systemd/system/keepwatch-mirror@.timer",
        "usr/lib/systemd/user/keepwatch.service",
        "usr/share/man/man1/keepwatch.1.gz",
        "usr/share/man/man1/keepwatch-service-install.1.gz",
        "usr/share/bash-completion/completions/keepwatch",
        "usr/share/zsh/vendor-completions/_keepwatch",
        "usr/share/fish/vendor_completions.d/keepwatch.fish",
        "usr/share/doc/keepwatch/examples/keepwatch.toml",
        "usr/share/doc/keepwatch/docs/service.md",
    ] {
        let line = list.lines().find(|line| line.ends_with(&format!(" ./{file}")));
        let line = line.unwrap_or_else(|| panic!("{file} is not in {list}"));
        assert!(line.contains(" root/root "), "{line}");
        assert_eq!(line.starts_with("-rwxr-xr-x"), file == "usr/bin/keepwatch", "{line}");
    }
    let control = run(Command::new("dpkg-deb").arg("-e").arg(&package).arg(folder.path()));
    assert!(control.stdout.is_empty());
    for script in ["postinst", "prerm", "postrm"] {
        let text = std::fs::read_to_string(folder.path().join(script)).unwrap();
        let starts = ["systemctl start", "systemctl restart", "enable"];
        assert!(!starts.iter().any(|words| text.contains(words)), "{script}: {text}");
    }
}
