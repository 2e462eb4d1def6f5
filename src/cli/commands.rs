//! The small commands: `status`, `flush`, `deletions`, `config`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use indicatif::MultiProgress;
use serde_json::{Value, json};

use crate::app::control::{self, DeletionList, Facts, FilePage};
use crate::app::mirror::orders;
use crate::app::status::BackupStatus;
use crate::config::{BackupConfig, ConfigFile, Defaults, EXAMPLE, MirrorConfig, resolve, schema};
use crate::fs::{RuleOptions, Rules, Tree};
use crate::model::Key;
use crate::model::key::KEY_MAX_BYTES;
use crate::plan::MaxDelete;
use crate::ports::Clock as _;
use crate::report::{log, text};
use crate::service::socket::{DeletionVerb, Request};
use crate::service::{machine, paths};
use crate::state::{BackupId, BackupState};
use crate::wire::{OpenState, SystemClock, open_state, open_state_to_read, state_folder};

use super::args::{Config, ConfigVerb, Deletions, Flush, Global, Status};
use super::ask::{Called, as_called, ask_or, ask_to_flush, chosen, starting};
use super::configured::resolve_whole;
use super::doors::{files, recorded};
use super::error::{CliError, Code};
use super::out::print_line;
use super::published::session;
use super::sync::{config_file, faulty};

pub const NO_BACKUP: &str =
    "no backup is on record; start one with: keepwatch watch SOURCE DESTINATION";

pub async fn status(global: &Global, options: &Status) -> Result<Code, CliError> {
    log::init(global.log(false), &MultiProgress::new());
    let mut report = ask_or(global, &Request::Status, recorded_status(global)).await?;
    let backups: Vec<BackupStatus> =
        serde_json::from_value(report["backups"].clone()).unwrap_or_default();
    if options.files {
        for (index, backup) in backups.iter().enumerate() {
            report["backups"][index]["paths"] = all_files(global, backup).await?.into();
        }
    }
    let now = SystemClock.now().0;
    if global.json {
        print_line(&report.to_string());
    } else if !global.quiet {
        show_status(&report, &backups, now);
    }
    if !options.check {
        return Ok(Code::Done);
    }
    if report["config_error"].is_string() || backups.iter().any(|b| b.error.is_some()) {
        return Ok(Code::NeedsPerson);
    }
    let oldest = i64::try_from(options.max_age.millis()).unwrap_or(i64::MAX);
    // A mirror is as old as its last run, and runs only every so often.
    let between = |s: &BackupStatus| i64::try_from(s.every_ms.unwrap_or(0)).unwrap_or(i64::MAX);
    let fresh = |s: &BackupStatus| {
        s.watermark_ms.is_some_and(|at| now - at <= oldest.saturating_add(between(s)))
    };
    let all = !backups.is_empty() && backups.iter().all(fresh);
    Ok(if all { Code::Done } else { Code::Stale })
}

fn show_status(report: &Value, backups: &[BackupStatus], now: i64) {
    if let Some(why) = report["config_error"].as_str() {
        print_line(match report["daemon"] == true {
            true => "the configuration file is refused; what was read before stays in force:",
            false => "the configuration file cannot be used:",
        });
        why.lines().for_each(|line| print_line(&format!("  {line}")));
    }
    if let Some(why) = report["listen_error"].as_str() {
        print_line(&format!("no metrics for now: {why}"));
    }
    if report["sync"] == true {
        print_line(&format!("a sync is running (process {})", report["process"]));
    } else if backups.is_empty() {
        print_line(NO_BACKUP);
    } else if report["daemon"] != true {
        print_line("no daemon is running; this is what is recorded");
    }
    if let Some(other) = paths::state_of_machine()
        && report["daemon"] != true
        && state_folder(None).is_ok_and(|own| own != other)
        && machine::is_root()
    {
        let other = other.display();
        print_line(&format!(
            "of the machine's service tells: keepwatch --state-dir {other} status"
        ));
    }
    for (index, backup) in backups.iter().enumerate() {
        print_line(&text::status(backup, now));
        for file in report["backups"][index]["paths"].as_array().into_iter().flatten() {
            let uploaded = if file["uploaded"] == true { "uploaded" } else { "waiting " };
            let md5 = file["md5"].as_str().unwrap_or("-");
            print_line(&format!("  {uploaded}  {md5}  {}", file["path"].as_str().unwrap_or("")));
        }
    }
}

async fn all_files(global: &Global, backup: &BackupStatus) -> Result<Vec<Value>, CliError> {
    let BackupStatus { source, destination, .. } = backup;
    let mut all = vec![];
    let mut after: Option<String> = None;
    loop {
        let (source, destination) = (source.clone(), destination.clone());
        let request = Request::Files { source, destination, after: after.clone() };
        let recorded = recorded_files(global, backup, after.as_deref());
        let page = ask_or(global, &request, recorded).await?;
        let page: FilePage = serde_json::from_value(page).unwrap_or_default();
        all.extend(page.files.iter().map(|file| json!(file)));
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

async fn recorded_files(
    global: &Global,
    backup: &BackupStatus,
    after: Option<&str>,
) -> Result<Value, CliError> {
    let Some(state) = open_state_to_read(global.state_dir.as_deref())? else {
        return Ok(Value::Null);
    };
    let after = after.map(Key::literal);
    let page = files(&state.state, &backup.source, &backup.destination, after).await?;
    state.state.close();
    Ok(page)
}

/// The state, where there is one: a question makes none.
pub fn open_known_state(global: &Global) -> Result<Option<OpenState>, CliError> {
    let is_there =
        state_folder(global.state_dir.as_deref())?.join(crate::state::FILE_NAME).exists();
    Ok(is_there.then(|| open_state(global.state_dir.as_deref())).transpose()?)
}

/// The configuration of the machine says nothing of what this user keeps.
fn refuse_the_machines(global: &Global) -> Result<(), CliError> {
    let found = paths::config_files().into_iter().find(|path| path.exists());
    let machines = found.filter(|path| path.starts_with("/etc") && !machine::is_root());
    let Some(path) = machines.filter(|_| global.config.is_none() && global.state_dir.is_none())
    else {
        return Ok(());
    };
    let message = format!("{} is for the machine's service", path.display());
    Err(CliError::new(Code::NeedsPerson, message).hint("ask that: sudo keepwatch status"))
}

/// Status from the state alone.
async fn recorded_status(global: &Global) -> Result<Value, CliError> {
    let mut backups = vec![];
    match open_state_to_read(global.state_dir.as_deref())? {
        Some(state) => {
            backups = recorded(&state.state).await?;
            state.state.close();
        }
        None => refuse_the_machines(global)?,
    }
    let (configs, error) = match configured(global) {
        Ok(configs) => (configs, None),
        Err(error) => (vec![], Some(error.told())),
    };
    let mirrors = super::mirror::configured(global);
    let mirrors = mirrors.iter().map(|mirror| never_started(super::mirror::called(mirror), true));
    let mut never: Vec<BackupStatus> =
        configs.iter().map(|config| never_started(Called::of(config), false)).collect();
    never.extend(mirrors);
    never.retain(|new| {
        !backups.iter().any(|known| Called::told_by(new).has_record(&Called::told_by(known)))
    });
    backups.extend(never);
    Ok(json!({
        "version": 1, "daemon": false, "sync": false, "config_error": error,
        "listen_error": null, "backups": backups,
    }))
}

/// The status of what is configured, and of which nothing is on record.
fn never_started(called: Called, is_mirror: bool) -> BackupStatus {
    let Called { name, source, destination } = called;
    BackupStatus {
        name,
        kind: if is_mirror { "mirror" } else { "backup" }.to_owned(),
        source,
        destination,
        condition: "never-started".to_owned(),
        watcher: "off".to_owned(),
        ..BackupStatus::default()
    }
}

pub async fn flush(global: &Global, options: &Flush) -> Result<Code, CliError> {
    log::init(global.log(false), &MultiProgress::new());
    let Some(answer) = ask_to_flush(global, options.timeout.0).await? else {
        return Err(CliError::new(Code::NeedsPerson, "no daemon is running")
            .hint("bring the destination up to date once with: keepwatch sync"));
    };
    let failed = answer["failed"].as_u64().unwrap_or(0);
    if global.json {
        print_line(&answer.to_string());
    }
    if let (Some(why), false) = (answer["config_error"].as_str(), global.quiet) {
        let mut stderr = std::io::stderr();
        let what = "flushed as the configuration was before; the file as it is now is refused:";
        writeln!(stderr, "{what}").ok();
        why.lines().for_each(|line| drop(writeln!(stderr, "  {line}")));
    }
    if failed > 0 {
        return Err(CliError::new(Code::Failed, format!("{} failed", text::count(failed, "path")))
            .hint("see them with: keepwatch status"));
    }
    match answer["skipped"].as_u64().unwrap_or(0) {
        0 => Ok(Code::Done),
        skipped => {
            if !global.quiet {
                let what = text::count(skipped, "path");
                writeln!(std::io::stderr(), "{what} skipped; see: keepwatch status").ok();
            }
            Ok(Code::Skipped)
        }
    }
}

pub async fn deletions(global: &Global, options: Deletions) -> Result<Code, CliError> {
    log::init(global.log(false), &MultiProgress::new());
    let verb: DeletionVerb = options.verb.into();
    if verb != DeletionVerb::List && options.names.is_empty() && !options.all {
        return Err(CliError::new(Code::Usage, "name the backups, or say --all")
            .hint("`keepwatch deletions list` shows them"));
    }
    let Deletions { names, all, new_root, .. } = options;
    let names: Vec<String> = names.iter().map(|name| as_called(name)).collect();
    let request = Request::Deletions { verb, names, all, new_root };
    let answer = ask_or(global, &request, recorded_deletions(global, &request)).await?;
    if global.json {
        print_line(&answer.to_string());
        return Ok(Code::Done);
    }
    let backups = answer["backups"].as_array().map(Vec::as_slice).unwrap_or_default();
    if backups.is_empty() {
        print_line(NO_BACKUP);
    }
    for backup in backups {
        if let Some(said) = starting(backup) {
            print_line(&said);
            continue;
        }
        print_line(&match verb {
            DeletionVerb::List => {
                let list: DeletionList = serde_json::from_value(backup.clone()).unwrap_or_default();
                list_lines(&list)
            }
            DeletionVerb::Approve => verdict_line(backup, "approved"),
            DeletionVerb::Discard => verdict_line(backup, "discarded: the objects stay"),
        });
    }
    Ok(Code::Done)
}

fn verdict_line(backup: &Value, what: &str) -> String {
    let files = text::count(backup["files"].as_u64().unwrap_or(0), "deletion");
    let root = if backup["new_root"] == true { "; the new source is accepted" } else { "" };
    format!("{}: {files} {what}{root}", backup["name"].as_str().unwrap_or(""))
}

fn list_lines(list: &DeletionList) -> String {
    let mut lines = vec![format!(
        "{}: {} waiting, {} approved, {} unclaimed",
        list.name,
        text::count(list.waiting, "deletion"),
        text::grouped(list.approved),
        text::count(list.unclaimed, "object")
    )];
    lines.extend(list.held_reasons.iter().map(|reason| format!("  held: {reason}")));
    lines.extend(list.paths.iter().map(|path| format!("  missing    {path}")));
    lines.extend(list.unclaimed_keys.iter().map(|key| format!("  unclaimed  {key}")));
    lines.join("\n")
}

/// The same for a mirror: what the next run is to do.
async fn orders_of_mirror(
    global: &Global,
    name: &str,
    records: &BackupState,
    verb: DeletionVerb,
) -> Result<Value, CliError> {
    Ok(match verb {
        DeletionVerb::List => {
            let configured = super::mirror::configured(global);
            let configured = configured.into_iter().find(|mirror| mirror.name == name);
            let max_delete = configured.map_or_else(MaxDelete::default, |c| c.max_delete);
            json!(orders::list(records, SystemClock.now(), name, max_delete, 100).await?)
        }
        DeletionVerb::Approve => {
            let verdict = orders::approve(records, &SystemClock).await?;
            json!({ "name": name, "files": verdict.files, "new_root": false })
        }
        DeletionVerb::Discard => {
            json!({ "name": name, "files": orders::discard(records, &SystemClock).await?.files })
        }
    })
}

/// Without a daemon the state itself is worked on, under the lock.
async fn recorded_deletions(global: &Global, request: &Request) -> Result<Value, CliError> {
    let Request::Deletions { verb, names, all, new_root } = request else {
        return Ok(Value::Null);
    };
    let configured = configured(global).unwrap_or_default();
    let state = open_known_state(global)?;
    let known = match &state {
        Some(state) => state.state.backups().await?,
        None => vec![],
    };
    let all_called: Vec<Called> =
        known.iter().map(|(name, id)| Called::on_record(name, id)).collect();
    let places = match *all || (*verb == DeletionVerb::List && names.is_empty()) {
        true => (0..known.len()).collect(),
        false => chosen(&all_called, names)?,
    };
    let Some(state) = state else { return Ok(json!({ "backups": [] })) };
    let mut done = vec![];
    for (name, id) in places.into_iter().map(|at| known[at].clone()) {
        let (is_mirror, source) = (id.is_mirror(), source_of(&id));
        let records = state.state.backup(&name, id).await?;
        if is_mirror {
            done.push(orders_of_mirror(global, &name, &records, *verb).await?);
            continue;
        }
        let rules = Rules::new(RuleOptions::default())
            .map_err(|e| CliError::new(Code::Failed, e.to_string()))?;
        let tree = Tree::new(&source, rules, KEY_MAX_BYTES);
        let facts = Facts { state: &records, tree: &tree, clock: &SystemClock };
        let max_delete = configured.iter().find(|c| c.name == name).map(|c| c.max_delete);
        done.push(match verb {
            DeletionVerb::List => {
                let max_delete = max_delete.unwrap_or(MaxDelete::default());
                json!(control::list(&facts, &name, max_delete, 100).await?)
            }
            DeletionVerb::Approve => {
                let verdict = control::approve(&facts, *new_root).await?;
                json!({ "name": name, "files": verdict.files, "new_root": verdict.new_root })
            }
            DeletionVerb::Discard => {
                json!({ "name": name, "files": control::discard(&facts).await?.files })
            }
        });
    }
    state.state.close();
    Ok(json!({ "backups": done }))
}

fn source_of(id: &BackupId) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&id.source))
}

/// The configured backups; none where there is no file.
fn configured(global: &Global) -> Result<Vec<BackupConfig>, CliError> {
    let Some(file) = config_file(global)? else { return Ok(vec![]) };
    let flags = global.clone().into_options(crate::config::BackupOptions::default());
    resolve(&file, &flags, Defaults::DAEMON, paths::home().as_deref())
        .map_err(|faults| faulty(&faults, global))
}

pub fn config(global: &Global, options: &Config) -> Result<Code, CliError> {
    match options.what {
        ConfigVerb::Example => print_line(EXAMPLE.trim_end()),
        ConfigVerb::Schema => {
            print_line(&serde_json::to_string_pretty(&schema()).unwrap_or_default());
        }
        ConfigVerb::Check | ConfigVerb::Show => {
            let Some(file) = config_file(global)? else {
                let places: Vec<String> =
                    paths::config_files().iter().map(|p| p.display().to_string()).collect();
                return Err(CliError::new(Code::NeedsPerson, "there is no configuration file")
                    .hint(format!("keepwatch looks for {}", places.join(" and "))));
            };
            let flags = global.clone().into_options(options.options.clone());
            let folder = state_folder(global.state_dir.as_deref())?;
            let home = paths::home();
            let configs = resolve_whole(&file, &flags, home.as_deref(), &folder, global)?;
            let mirrors = super::mirror::configured_for(global, &super::args::Run::default())?;
            if options.what == ConfigVerb::Show {
                show(&file, &configs, &mirrors, global);
            } else {
                let mut count = text::count(configs.len() as u64, "backup");
                if !mirrors.is_empty() {
                    count += &format!(", {}", text::count(mirrors.len() as u64, "mirror"));
                }
                print_line(&format!("{}: {count}, no faults", file.path));
            }
        }
    }
    Ok(Code::Done)
}

fn show(file: &ConfigFile, configs: &[BackupConfig], mirrors: &[MirrorConfig], global: &Global) {
    let named = |name: &str, source: String, destination: String| {
        let text = |value: String| toml::Value::from(value).to_string();
        vec![
            ("name", text(name.to_owned())),
            ("source", text(source)),
            ("destination", text(destination)),
        ]
    };
    let backups = configs.iter().map(|config| {
        let source = config.source.display().to_string();
        let mut pairs = named(&config.name, source, config.destination.url());
        pairs.extend(config.effective().shown());
        pairs
    });
    let mirrors = mirrors.iter().map(|config| {
        let (source, destination) = (config.source.place.url(), config.destination.place.url());
        let mut pairs = named(&config.name, source, destination);
        pairs.extend(config.effective().shown());
        pairs
    });
    let (backups, mirrors): (Vec<_>, Vec<_>) = (backups.collect(), mirrors.collect());
    let mut tables = vec![("status", file.status.shown())];
    if file.cloudwatch.namespace.is_some() {
        tables.push(("cloudwatch", file.cloudwatch.clone().or(&session(global)).shown()));
    }
    tables.retain(|(_, pairs)| !pairs.is_empty());
    if global.json {
        let mut shown = json!({ "backup": as_json(backups) });
        if !mirrors.is_empty() {
            shown["mirror"] = as_json(mirrors).into();
        }
        for (name, pairs) in tables {
            shown[name] = object(pairs);
        }
        return print_line(&shown.to_string());
    }
    let one = |kind: &str, pairs: Vec<(&str, String)>| {
        print_line(kind);
        for (name, value) in pairs {
            print_line(&format!("{name} = {value}"));
        }
        print_line("");
    };
    backups.into_iter().for_each(|pairs| one("[[backup]]", pairs));
    mirrors.into_iter().for_each(|pairs| one("[[mirror]]", pairs));
    tables.into_iter().for_each(|(name, pairs)| one(&format!("[{name}]"), pairs));
}

fn as_json(shown: Vec<Vec<(&'static str, String)>>) -> Vec<Value> {
    shown.into_iter().map(object).collect()
}

fn object(pairs: Vec<(&'static str, String)>) -> Value {
    let value = |value: String| {
        let parsed = value.parse::<toml::Value>().ok();
        parsed.and_then(|value| serde_json::to_value(value).ok()).unwrap_or(json!(value))
    };
    Value::Object(pairs.into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect())
}
