//! What a service manager is given: a unit of systemd, or a property list of launchd. Text only;
//! nothing is written or run here.
//!
//! The files in `systemd/` and `launchd/` are the templates: what is shipped and what is installed
//! differ in the words of the command and in the paths of a user, and in nothing else.

use std::path::{Path, PathBuf};

use thiserror::Error;

const SYSTEM_UNIT: &str = include_str!("../../systemd/keepwatch.service");
const USER_UNIT: &str = include_str!("../../systemd/user/keepwatch.service");
const AGENT: &str = include_str!("../../launchd/io.github.keepwatch.agent.plist");
const DAEMON: &str = include_str!("../../launchd/io.github.keepwatch.daemon.plist");

/// By this line a file is known that `keepwatch service install` wrote.
const MARK: &str =
    "Written by `keepwatch service install`; `keepwatch service uninstall` removes it.";
/// The log of the agent in its template.
const AGENT_LOG: &str = "/Users/YOU/Library/Logs/keepwatch.log";

/// Name of the unit.
pub const UNIT: &str = "keepwatch.service";

/// Who runs services on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    Systemd,
    Launchd,
}

impl Manager {
    /// That of this system.
    pub fn here() -> Self {
        if cfg!(target_os = "macos") { Self::Launchd } else { Self::Systemd }
    }
}

/// For whom a service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// One user, as that user.
    User,
    /// The machine.
    System,
}

/// A service to be installed.
#[derive(Clone, Debug)]
pub struct Service {
    pub manager: Manager,
    pub who: For,
    /// Absolute paths, all of them.
    pub program: PathBuf,
    pub config: PathBuf,
    /// Where it is not the usual one.
    pub state: Option<PathBuf>,
    /// The user's home folder; unused for the system.
    pub home: PathBuf,
    /// The user's folder for configuration, where it is not the usual one.
    pub config_home: Option<PathBuf>,
}

/// A path that the service manager has no way to write.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{} cannot be named in a service: its name is no plain text, or has quotes", .0.display())]
pub struct Unwritable(pub PathBuf);

impl Service {
    /// Where the service manager looks for it.
    pub fn path(&self) -> PathBuf {
        match (self.manager, self.who) {
            (Manager::Systemd, For::System) => Path::new("/etc/systemd/system").join(UNIT),
            (Manager::Systemd, For::User) => {
                let usual = || self.home.join(".config");
                let folder = self.config_home.clone().unwrap_or_else(usual);
                folder.join("systemd/user").join(UNIT)
            }
            (Manager::Launchd, For::System) => {
                Path::new("/Library/LaunchDaemons").join(format!("{}.plist", self.label()))
            }
            (Manager::Launchd, For::User) => {
                self.home.join("Library/LaunchAgents").join(format!("{}.plist", self.label()))
            }
        }
    }

    /// Where a package puts the same service for everybody.
    pub fn shipped_path(&self) -> Option<PathBuf> {
        match (self.manager, self.who) {
            (Manager::Systemd, For::System) => {
                Some(Path::new("/usr/lib/systemd/system").join(UNIT))
            }
            (Manager::Systemd, For::User) => Some(Path::new("/usr/lib/systemd/user").join(UNIT)),
            (Manager::Launchd, _) => None,
        }
    }

    /// The name that launchd knows it by.
    pub fn label(&self) -> &'static str {
        match self.who {
            For::User => "io.github.keepwatch.agent",
            For::System => "io.github.keepwatch.daemon",
        }
    }

    /// The file that is to lie at [`Self::path`].
    pub fn text(&self) -> Result<String, Unwritable> {
        match self.manager {
            Manager::Systemd => self.unit(),
            Manager::Launchd => self.property_list(),
        }
    }

    /// The words of the command.
    fn words(&self) -> Vec<PathBuf> {
        let mut words = vec![self.program.clone(), "--config".into(), self.config.clone()];
        if let Some(state) = &self.state {
            words.extend(["--state-dir".into(), state.clone()]);
        }
        words
    }

    fn unit(&self) -> Result<String, Unwritable> {
        let template = match self.who {
            For::System => SYSTEM_UNIT,
            For::User => USER_UNIT,
        };
        let words = self.words();
        let words: Vec<String> = words
            .iter()
            .enumerate()
            .map(|(at, word)| unit_word(word, at == 0))
            .collect::<Result<_, _>>()?;
        let mut text = format!("# {MARK}\n");
        for line in template.lines() {
            match line.starts_with("ExecStart=") {
                true => text.push_str(&format!("ExecStart={}", words.join(" "))),
                false => text.push_str(line),
            }
            text.push('\n');
        }
        Ok(text)
    }

    fn property_list(&self) -> Result<String, Unwritable> {
        let template = match self.who {
            For::System => DAEMON,
            For::User => AGENT,
        };
        let mut words = String::new();
        for word in self.words() {
            words.push_str(&format!("        <string>{}</string>\n", xml(&word)?));
        }
        let log = xml(&self.home.join("Library/Logs/keepwatch.log"))?;
        let mut text = String::new();
        let mut inside = false;
        for line in template.lines() {
            match line.trim() {
                "</array>" => {
                    inside = false;
                    text.push_str(&words);
                }
                "<plist version=\"1.0\">" => text.push_str(&format!("<!-- {MARK} -->\n")),
                _ => {}
            }
            if !inside {
                text.push_str(&line.replace(AGENT_LOG, &log));
                text.push('\n');
            }
            inside |= line.trim() == "<array>";
        }
        Ok(text)
    }
}

/// Whether `keepwatch service install` wrote this file.
pub fn is_ours(text: &str) -> bool {
    text.contains(MARK)
}

/// A word of a command line of systemd, quoted as systemd.syntax(7) and systemd.service(5) say. In
/// the program itself no variables are replaced.
fn unit_word(word: &Path, is_program: bool) -> Result<String, Unwritable> {
    let text = word.to_str().ok_or_else(|| Unwritable(word.to_owned()))?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,=@~".contains(c);
    if text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    // However they are written, systemd does not run a program that has one of these in its name.
    if is_program && text.contains(['"', '\'', '\\']) {
        return Err(Unwritable(word.to_owned()));
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            '$' if !is_program => quoted.push_str("$$"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

/// Text between tags. XML has no way to write control characters.
fn xml(path: &Path) -> Result<String, Unwritable> {
    let unwritable = || Unwritable(path.to_owned());
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    let text = text.ok_or_else(unwritable)?;
    Ok(text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(manager: Manager, who: For) -> Service {
        Service {
            manager,
            who,
            program: "/usr/bin/keepwatch".into(),
            config: "/etc/keepwatch/keepwatch.toml".into(),
            state: None,
            home: "/home/ann".into(),
            config_home: None,
        }
    }

    fn exec_start(service: &Service) -> String {
        let text = service.text().unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("ExecStart=")).collect();
        assert_eq!(lines.len(), 1);
        lines[0].to_owned()
    }

    #[test]
    fn what_is_installed_is_what_is_shipped() {
        let system = service(Manager::Systemd, For::System);
        assert_eq!(system.text().unwrap(), format!("# {MARK}\n{SYSTEM_UNIT}"));
        assert!(is_ours(&system.text().unwrap()) && !is_ours(SYSTEM_UNIT));
        let daemon = Service {
            program: "/usr/local/bin/keepwatch".into(),
            state: Some("/Library/Application Support/keepwatch".into()),
            ..service(Manager::Launchd, For::System)
        };
        let unmarked = daemon.text().unwrap().replace(&format!("<!-- {MARK} -->\n"), "");
        assert_eq!(unmarked, DAEMON);
        let agent = Service {
            program: "/usr/local/bin/keepwatch".into(),
            config: "/Users/YOU/Library/Application Support/keepwatch/keepwatch.toml".into(),
            home: "/Users/YOU".into(),
            ..service(Manager::Launchd, For::User)
        };
        let unmarked = agent.text().unwrap().replace(&format!("<!-- {MARK} -->\n"), "");
        assert_eq!(unmarked, AGENT);
        assert!(is_ours(&agent.text().unwrap()));
    }

    #[test]
    fn paths_are_quoted_as_systemd_reads_them() {
        let odd = Service {
            program: "/home/a n/100%/$x/keepwatch".into(),
            config: "/etc/k \"w\"/a\\b/$HOME/50%\t.toml".into(),
            state: Some("/srv/ü".into()),
            ..service(Manager::Systemd, For::User)
        };
        assert_eq!(
            exec_start(&odd),
            "ExecStart=\"/home/a n/100%%/$x/keepwatch\" --config \
             \"/etc/k \\\"w\\\"/a\\\\b/$$HOME/50%%\\x09.toml\" --state-dir \"/srv/ü\""
        );
        use std::os::unix::ffi::OsStrExt as _;
        let bytes = PathBuf::from(std::ffi::OsStr::from_bytes(b"/\xff/keepwatch"));
        let bad = Service { program: bytes.clone(), ..service(Manager::Systemd, For::User) };
        assert_eq!(bad.text(), Err(Unwritable(bytes)));
        for path in ["/opt/it's/keepwatch", "/opt/\"k\"/keepwatch", "/opt/a\\b/keepwatch"] {
            let quoted = Service { program: path.into(), ..odd.clone() };
            assert_eq!(quoted.text(), Err(Unwritable(path.into())));
        }
    }

    #[test]
    fn paths_are_escaped_as_xml() {
        let odd = Service {
            program: "/Users/a & b/<k>/keepwatch".into(),
            home: "/Users/a & b".into(),
            ..service(Manager::Launchd, For::User)
        };
        let text = odd.text().unwrap();
        assert!(text.contains("<string>/Users/a &amp; b/&lt;k&gt;/keepwatch</string>"), "{text}");
        assert!(text.contains("<string>/Users/a &amp; b/Library/Logs/keepwatch.log</string>"));
        assert!(!text.contains("YOU/"), "nothing of the template's user is left: {text}");
        let newline = Service { config: "/a\nb".into(), ..odd };
        assert_eq!(newline.text(), Err(Unwritable("/a\nb".into())));
    }

    #[test]
    fn each_has_its_own_place() {
        let path = |manager, who| service(manager, who).path().display().to_string();
        assert_eq!(path(Manager::Systemd, For::System), "/etc/systemd/system/keepwatch.service");
        assert_eq!(
            path(Manager::Systemd, For::User),
            "/home/ann/.config/systemd/user/keepwatch.service"
        );
        assert_eq!(
            path(Manager::Launchd, For::User),
            "/home/ann/Library/LaunchAgents/io.github.keepwatch.agent.plist"
        );
        assert_eq!(
            path(Manager::Launchd, For::System),
            "/Library/LaunchDaemons/io.github.keepwatch.daemon.plist"
        );
    }
}
