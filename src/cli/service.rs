//! `service install|uninstall|show`: keepwatch as a service of this machine or this user.
//!
//! What the service manager is given is text of [`crate::service::unit`]; here it is written, the
//! service manager is told, and a person hears what was done and what is left to do.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::config::BackupOptions;
use crate::service::unit::{For, Manager, Service, UNIT, is_ours};
use crate::service::{machine, paths};
use crate::wire::state_folder;

use super::args::{self, Global};
use super::configured::resolve_whole;
use super::error::{CliError, Code};
use super::out::print_line;
use super::sync::config_file;

pub fn run(global: &Global, options: &args::Service) -> Result<Code, CliError> {
    if !matches!(options.verb, args::ServiceVerb::Uninstall) {
        refuse_unwritten(global)?;
    }
    let service = wanted(global, options)?;
    match &options.verb {
        args::ServiceVerb::Show => {
            print_line(text_of(&service)?.trim_end());
            Ok(Code::Done)
        }
        args::ServiceVerb::Install { start, no_enable } => {
            install(global, &service, *start, !*no_enable)
        }
        args::ServiceVerb::Uninstall => uninstall(global, &service),
    }
}

/// What a service does is in its configuration; words of the command line would be lost.
fn refuse_unwritten(global: &Global) -> Result<(), CliError> {
    let given = [
        ("endpoint-url", global.endpoint_url.is_some()),
        ("region", global.region.is_some()),
        ("profile", global.profile.is_some()),
        ("path-style", global.path_style),
        ("credentials-file", global.credentials_file.is_some()),
    ];
    let Some((option, _)) = given.into_iter().find(|(_, is_given)| *is_given) else {
        return Ok(());
    };
    let key = option.replace('-', "_");
    let message = format!("--{option} (or KEEPWATCH_{}) is not for a service", key.to_uppercase());
    Err(CliError::new(Code::Usage, message)
        .hint(format!("it runs by its configuration: write {key} there, and leave this out")))
}

/// The service of this program, this configuration, and whom it was asked for.
fn wanted(global: &Global, options: &args::Service) -> Result<Service, CliError> {
    let manager = match options.manager {
        Some(args::ManagerWord::Systemd) => Manager::Systemd,
        Some(args::ManagerWord::Launchd) => Manager::Launchd,
        None => Manager::here(),
    };
    let who = match (options.user, options.system) {
        (true, _) => For::User,
        (_, true) => For::System,
        _ if machine::is_root() => For::System,
        _ => For::User,
    };
    let home = match (paths::home(), who) {
        (Some(home), _) => home,
        (None, For::System) => PathBuf::from("/"),
        (None, For::User) => {
            return Err(CliError::new(Code::NeedsPerson, "there is no home folder")
                .hint("set HOME, or install for the machine with --system"));
        }
    };
    let failed = |what: &str, e: &std::io::Error| {
        CliError::new(Code::NeedsPerson, format!("cannot find {what}")).caused_by(e)
    };
    let program = std::env::current_exe()
        .and_then(|path| path.canonicalize())
        .map_err(|e| failed("this program", &e))?;
    let config = match (&global.config, who) {
        (Some(path), _) => path.clone(),
        (None, For::System) => PathBuf::from("/etc/keepwatch/keepwatch.toml"),
        (None, For::User) => users_config().unwrap_or_default(),
    };
    let config = std::path::absolute(config).map_err(|e| failed("the configuration", &e))?;
    let state = match (&global.state_dir, who, manager) {
        (Some(_), For::System, Manager::Systemd) => {
            let message = "the service of the machine keeps its state in /var/lib/keepwatch";
            return Err(CliError::new(Code::Usage, message).hint("leave out --state-dir"));
        }
        (Some(folder), ..) => {
            Some(std::path::absolute(folder).map_err(|e| failed("the state folder", &e))?)
        }
        (None, For::System, Manager::Launchd) => {
            Some(PathBuf::from("/Library/Application Support/keepwatch"))
        }
        (None, ..) => None,
    };
    let config_home = paths::config_home();
    Ok(Service { manager, who, program, config, state, home, config_home })
}

/// The user's own file: the one that is there, or the place for one. That of the machine is for the
/// machine's service.
fn users_config() -> Option<PathBuf> {
    let files = paths::config_files();
    let own = || files.iter().filter(|path| !path.starts_with("/etc"));
    own().find(|path| path.exists()).or_else(|| own().next()).cloned()
}

fn text_of(service: &Service) -> Result<String, CliError> {
    service.text().map_err(|error| {
        CliError::new(Code::NeedsPerson, error.to_string()).hint("move it to a path of plain text")
    })
}

/// What was done, and what is left.
#[derive(Default)]
struct Told {
    done: Vec<String>,
    left: Vec<String>,
}

impl Told {
    fn tell(&self, global: &Global) {
        if global.json {
            print_line(&json!({ "done": self.done, "left": self.left }).to_string());
        } else if !global.quiet {
            self.done.iter().for_each(|line| print_line(line));
            if !self.left.is_empty() {
                print_line("left to do:");
                self.left.iter().for_each(|line| print_line(&format!("  {line}")));
            }
        }
    }
}

fn install(
    global: &Global,
    service: &Service,
    start: bool,
    enable: bool,
) -> Result<Code, CliError> {
    may_write(service, "install")?;
    can_be_used(global, service)?;
    let (path, text) = (service.path(), text_of(service)?);
    let there = what_is_there(&path)?;
    let shipped = service.shipped_path().filter(|shipped| is_same(service, shipped));
    if global.dry_run {
        print_line(&match shipped {
            Some(shipped) => format!("would use {}, which is there", shipped.display()),
            None => format!("would write {}:\n\n{}", path.display(), text.trim_end()),
        });
        return Ok(Code::Done);
    }
    let mut told = Told::default();
    match shipped {
        Some(shipped) => told.done.push(format!("{} is there already", shipped.display())),
        None => {
            let former = write(&path, &text, there.as_deref())?;
            told.done.push(format!("wrote {}", path.display()));
            if let Some(former) = former {
                told.done.push(format!("what was there is kept as {}", former.display()));
            }
        }
    }
    let result = match service.manager {
        Manager::Systemd => tell_systemd(service, start, enable, &mut told),
        Manager::Launchd => tell_launchd(service, start, &mut told),
    };
    told.tell(global);
    result.map(|()| Code::Done)
}

/// Whether what a package has brought runs the same program with the same configuration.
fn is_same(service: &Service, shipped: &Path) -> bool {
    let usual = service.program == Path::new("/usr/bin/keepwatch") && service.state.is_none();
    let config = match service.who {
        For::System => service.config == Path::new("/etc/keepwatch/keepwatch.toml"),
        For::User => Some(&service.config) == users_config().as_ref(),
    };
    usual && config && shipped.exists() && !service.path().exists()
}

fn may_write(service: &Service, verb: &str) -> Result<(), CliError> {
    if service.who == For::User || machine::is_root() {
        return Ok(());
    }
    let message = format!("only root may {verb} the service of the machine");
    Err(CliError::new(Code::NeedsPerson, message)
        .hint(format!("sudo keepwatch service {verb} --system"))
        .hint(format!("or for yourself alone: keepwatch service {verb} --user")))
}

/// A service that cannot start is not worth installing.
fn can_be_used(global: &Global, service: &Service) -> Result<(), CliError> {
    let config = service.config.display();
    if !service.config.exists() {
        let message = format!("there is no configuration {config}");
        let missing = service.config.parent().filter(|folder| !folder.exists());
        let folder = missing.map(|folder| format!("mkdir -p {} && ", folder.display()));
        let folder = folder.unwrap_or_default();
        return Err(CliError::new(Code::NeedsPerson, message)
            .hint(format!("begin with: {folder}keepwatch config example > {config}")));
    }
    let is_shut_in = service.who == For::System && service.manager == Manager::Systemd;
    let hidden = ["/tmp", "/var/tmp"].iter().find(|folder| service.config.starts_with(folder));
    if let Some(folder) = hidden.filter(|_| is_shut_in) {
        let message = format!("the service has a {folder} of its own, and would not see {config}");
        return Err(CliError::new(Code::NeedsPerson, message)
            .hint("the usual place is /etc/keepwatch/keepwatch.toml"));
    }
    let global = Global { config: Some(service.config.clone()), ..global.clone() };
    if let Some(file) = config_file(&global)? {
        let flags = BackupOptions::default();
        // The machine's service has no home folder.
        let home = (!is_shut_in).then_some(service.home.as_path());
        let state = match is_shut_in {
            true => PathBuf::from("/var/lib/keepwatch"),
            false => state_folder(service.state.as_deref())?,
        };
        resolve_whole(&file, &flags, home, &state, &global)?;
    }
    if is_shut_in && let Some(closed) = closed_to_others(&service.program) {
        let program = service.program.display();
        let message = format!("the service has a user of its own, who cannot enter {closed}");
        return Err(CliError::new(Code::NeedsPerson, message)
            .hint(format!("install -m 755 {program} /usr/local/bin/keepwatch"))
            .hint("then: /usr/local/bin/keepwatch service install --system"));
    }
    Ok(())
}

/// The part of the path that users other than its owner cannot pass.
fn closed_to_others(program: &Path) -> Option<String> {
    let is_closed = |path: &&Path| {
        path.metadata().map_or(true, |metadata| metadata.permissions().mode() & 0o001 == 0)
    };
    program.ancestors().find(is_closed).map(|path| path.display().to_string())
}

/// The former text of a service, which no service manager looks at: a person may have changed it.
fn former(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".old");
    PathBuf::from(name)
}

/// The text of an earlier installation, if there is one. What others have written is left alone.
fn what_is_there(path: &Path) -> Result<Option<Vec<u8>>, CliError> {
    match std::fs::read(path) {
        Ok(there) if is_ours(&String::from_utf8_lossy(&there)) => Ok(Some(there)),
        Ok(_) => {
            let message = format!("{} is there, and not from keepwatch", path.display());
            Err(CliError::new(Code::NeedsPerson, message)
                .hint("look at it, and move it away if nothing needs it"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let message = format!("cannot read {}", path.display());
            Err(CliError::new(Code::NeedsPerson, message).caused_by(&error))
        }
    }
}

/// Whole or not at all. Answers with where the former text is kept, if there was another.
fn write(path: &Path, text: &str, there: Option<&[u8]>) -> Result<Option<PathBuf>, CliError> {
    let failed = |e: &std::io::Error| {
        CliError::new(Code::NeedsPerson, format!("cannot write {}", path.display())).caused_by(e)
    };
    let beside = path.with_extension("new");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
    }
    let written = std::fs::File::create(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.sync_all()
    });
    let former = there.is_some_and(|there| there != text.as_bytes()).then(|| former(path));
    let kept = |()| former.as_ref().map_or(Ok(0), |former| std::fs::copy(path, former));
    written.and_then(kept).and_then(|_| std::fs::rename(&beside, path)).map_err(|e| failed(&e))?;
    Ok(former)
}

fn systemctl(service: &Service, words: &[&str]) -> Vec<String> {
    let scope = match service.who {
        For::User => Some("--user"),
        For::System => None,
    };
    std::iter::once("systemctl")
        .chain(scope)
        .chain(words.iter().copied())
        .map(str::to_owned)
        .collect()
}

fn tell_systemd(
    service: &Service,
    start: bool,
    enable: bool,
    told: &mut Told,
) -> Result<(), CliError> {
    let (when, status) = match service.who {
        For::User => ("login", "systemctl --user status keepwatch"),
        For::System => ("boot", "systemctl status keepwatch"),
    };
    call(&systemctl(service, &["daemon-reload"]))?;
    if enable {
        call(&systemctl(service, &["enable", UNIT]))?;
        told.done.push(format!("it starts at every {when}"));
    } else {
        let command = systemctl(service, &["enable", UNIT]).join(" ");
        told.left.push(format!("let it start at every {when}: {command}"));
    }
    if start {
        // One that runs has the former unit.
        call(&systemctl(service, &["restart", UNIT]))?;
        told.done.push(format!("started; see: {status}"));
    } else if call(&systemctl(service, &["is-active", "--quiet", UNIT])).is_ok() {
        let command = systemctl(service, &["restart", UNIT]).join(" ");
        told.left.push(format!("it runs as it was before; let it take this up: {command}"));
    } else {
        let command = systemctl(service, &["start", UNIT]).join(" ");
        told.left.push(format!("start it now: {command}"));
    }
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_some_and(|key| !key.is_empty()) {
        told.left.push(
            "the keys in this shell's environment are not the service's: put them into \
             ~/.aws/credentials, or name a credentials_file in the configuration"
                .to_owned(),
        );
    }
    let user = machine::user_name();
    if service.who == For::User && !Path::new("/var/lib/systemd/linger").join(&user).exists() {
        told.left.push("let it run while you are not logged in: loginctl enable-linger".to_owned());
    }
    Ok(())
}

fn domain(service: &Service) -> String {
    match service.who {
        For::User => format!("gui/{}", machine::user_id()),
        For::System => "system".to_owned(),
    }
}

fn tell_launchd(service: &Service, start: bool, told: &mut Told) -> Result<(), CliError> {
    let (domain, path) = (domain(service), service.path().display().to_string());
    let bootstrap = ["launchctl", "bootstrap", &domain, &path].map(str::to_owned);
    told.done.push(match service.who {
        For::User => "it starts at every login".to_owned(),
        For::System => "it starts with the machine".to_owned(),
    });
    if start {
        // One that runs has the former list; that none runs is no error.
        let target = format!("{domain}/{}", service.label());
        call(&["launchctl", "bootout", &target].map(str::to_owned)).ok();
        call(&bootstrap)?;
        told.done.push("started; see: keepwatch status".to_owned());
    } else {
        told.left.push(format!("start it now: launchctl bootstrap {domain} '{path}'"));
    }
    told.left.push(format!(
        "let it read every folder: System Settings, Privacy & Security, Full Disk Access, add {}",
        service.program.display()
    ));
    Ok(())
}

fn uninstall(global: &Global, service: &Service) -> Result<Code, CliError> {
    may_write(service, "uninstall")?;
    let path = service.path();
    let mut told = Told::default();
    let there = std::fs::read(&path).ok().map(|text| String::from_utf8_lossy(&text).into_owned());
    let is_shipped = service.shipped_path().is_some_and(|shipped| shipped.exists());
    match &there {
        None if !is_shipped => {
            told.done.push(format!("nothing is installed: there is no {}", path.display()));
            told.tell(global);
            return Ok(Code::Done);
        }
        Some(text) if !is_ours(text) => {
            let message = format!("{} is not from keepwatch service install", path.display());
            return Err(CliError::new(Code::NeedsPerson, message)
                .hint("whoever wrote it may want to keep it"));
        }
        _ => {}
    }
    if global.dry_run {
        print_line(&format!("would stop the service and remove {}", path.display()));
        return Ok(Code::Done);
    }
    // Where there is no systemd any more nothing runs, and the unit can go.
    let is_managed = service.manager == Manager::Launchd || has_systemctl();
    let stopped = match service.manager {
        Manager::Systemd if !is_managed => Ok(()),
        Manager::Systemd => call(&systemctl(service, &["disable", "--now", UNIT])),
        Manager::Launchd => {
            let target = format!("{}/{}", domain(service), service.label());
            // That it does not run is no error.
            call(&["launchctl", "bootout", &target].map(str::to_owned)).ok();
            Ok(())
        }
    };
    stopped?;
    told.done.push("stopped, and does not start by itself any more".to_owned());
    if there.is_some() {
        std::fs::remove_file(&path).map_err(|e| {
            CliError::new(Code::NeedsPerson, format!("cannot remove {}", path.display()))
                .caused_by(&e)
        })?;
        std::fs::remove_file(former(&path)).ok();
        told.done.push(format!("removed {}", path.display()));
    }
    if service.manager == Manager::Systemd && is_managed {
        call(&systemctl(service, &["daemon-reload"]))?;
    }
    told.done.push(format!("the configuration {} and the state stay", service.config.display()));
    told.tell(global);
    Ok(Code::Done)
}

fn has_systemctl() -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join("systemctl").exists())
}

/// Runs a command of the service manager to its end.
fn call(words: &[String]) -> Result<(), CliError> {
    let line = words.join(" ");
    let Some((program, rest)) = words.split_first() else { return Ok(()) };
    let output = Command::new(program).args(rest).stdin(Stdio::null()).output().map_err(|e| {
        CliError::new(Code::NeedsPerson, format!("cannot run {line}"))
            .caused_by(&e)
            .hint("the service manager does not seem to run here")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    let mut error = CliError::new(Code::NeedsPerson, format!("{line} failed"));
    error.causes.push(if said.is_empty() { output.status.to_string() } else { said });
    Err(match rest.first().is_some_and(|word| word == "--user") {
        true => error.hint(
            "log in as this user itself, not by su or sudo; or set \
             XDG_RUNTIME_DIR=/run/user/$(id -u)",
        ),
        false => error.hint("mend that, then run this again; it does no harm to do it twice"),
    })
}
