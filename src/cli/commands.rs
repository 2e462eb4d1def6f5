//! The small commands: `status`, `flush`, `deletions`, `config`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use indicatif::MultiProgress;
use serde_json::{Value, json};

use crate::app::control::{self, DeletionList, Facts, FilePage};
use crate::app::status::{self, BackupStatus};
use crate::config::{BackupConfig, Defaults, Destination, EXAMPLE, resolve, schema};
use crate::fs::{RuleOptions, Rules, Tree};
use crate::model::Prefix;
use crate::model::key::KEY_MAX_BYTES;
use crate::plan::MaxDelete;
use crate::ports::Clock as _;
use crate::report::{log, text};
use crate::service::paths;
use crate::service::socket::{Answer, DeletionVerb, Request, ask};
use crate::state::{BackupId, BackupState};

use super::args::{Config, ConfigVerb, Deletions, Flush, Global, Status};
use super::error::{CliError, Code};
use super::sync::{config_file, faulty, print_line};
use super::wire::{OpenState, SystemClock, open_state, state_folder};

const NO_BACKUP: &str =
    "no backup is on record; start one with: keepwatch watch SOURCE DESTINATION";

/// Asks the daemon; `None` when there is none.
async fn ask_daemon(global: &Global, request: &Request) -> Result<Option<Value>, CliError> {
    let folder = state_folder(global)?;
    let path = paths::control_socket(&folder);
    let answer = ask(&path, request).await.map_err(|e| {
        CliError::new(Code::NeedsPerson, format!("cannot ask the daemon on {}", path.display()))
            .caused_by(&e)
    })?;
    match answer {
        None => Ok(None),
        Some(Answer::Ok(value)) => Ok(Some(value)),
        Some(Answer::Error { code, message, hint }) => {
            let error = CliError::new(Code::of_number(code), message);
            Err(match hint {
                Some(hint) => error.hint(hint),
                None => error,
            })
        }
    }
}

/// Where the state could not be used: a daemon that did not listen yet may have it, and listen now.
async fn or_ask_again(
    recorded: Result<Value, CliError>,
    global: &Global,
    request: &Request,
) -> Result<Value, CliError> {
    match recorded {
        Err(error) => ask_daemon(global, request).await?.ok_or(error),
        recorded => recorded,
    }
}

pub async fn status(global: &Global, options: &Status) -> Result<Code, CliError> {
    log::init(global.log(false), &MultiProgress::new());
    let mut report = match ask_daemon(global, &Request::Status).await? {
        Some(report) => report,
        None => or_ask_again(recorded_status(global).await, global, &Request::Status).await?,
    };
    let backups: Vec<BackupStatus> =
        serde_json::from_value(report["backups"].clone()).unwrap_or_default();
    if options.files {
        for (index, backup) in backups.iter().enumerate() {
            report["backups"][index]["paths"] = all_files(global, &backup.name).await?.into();
        }
    }
    let now = SystemClock.now().0;
    if global.json {
        print_line(&report.to_string());
    } else if !global.quiet {
        if backups.is_empty() {
            print_line(NO_BACKUP);
        } else if report["daemon"] != true {
            print_line("no daemon is running; this is what is recorded");
        }
        for (index, backup) in backups.iter().enumerate() {
            print_line(&text::status(backup, now));
            for file in report["backups"][index]["paths"].as_array().into_iter().flatten() {
                let uploaded = if file["uploaded"] == true { "uploaded" } else { "waiting " };
                let md5 = file["md5"].as_str().unwrap_or("-");
                print_line(&format!(
                    "  {uploaded}  {md5}  {}",
                    file["path"].as_str().unwrap_or("")
                ));
            }
        }
    }
    if !options.check {
        return Ok(Code::Done);
    }
    let oldest = i64::try_from(options.max_age.millis()).unwrap_or(i64::MAX);
    let fresh = |s: &BackupStatus| s.watermark_ms.is_some_and(|at| now - at <= oldest);
    let all = !backups.is_empty() && backups.iter().all(fresh);
    Ok(if all { Code::Done } else { Code::Stale })
}

async fn all_files(global: &Global, name: &str) -> Result<Vec<Value>, CliError> {
    let mut all = vec![];
    let mut after = None;
    loop {
        let request = Request::Files { name: name.to_owned(), after: after.clone() };
        let page: FilePage = match ask_daemon(global, &request).await? {
            Some(page) => serde_json::from_value(page).unwrap_or_default(),
            None => {
                let state = open_state(global)?;
                let records = find(&state, name).await?;
                let key = after.as_deref().map(crate::model::Key::literal);
                let page = control::files(&records, key).await?;
                state.state.close();
                page
            }
        };
        all.extend(page.files.iter().map(|file| json!(file)));
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

/// A name that no backup has.
pub fn no_such_backup<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> CliError {
    let known: Vec<&str> = known.into_iter().collect();
    let error = CliError::new(Code::Usage, format!("there is no backup {name:?}"));
    match known[..] {
        [] => error,
        _ => error.hint(format!("there are: {}", known.join(", "))),
    }
}

/// The records of the backup of this name.
async fn find(state: &OpenState, name: &str) -> Result<BackupState, CliError> {
    let all = state.state.backups().await?;
    let Some((name, id)) = all.into_iter().find(|(known, _)| known == name) else {
        return Err(no_such_backup(name, []));
    };
    Ok(state.state.backup(&name, id).await?)
}

/// The state, where there is one: a question makes none.
fn open_known_state(global: &Global) -> Result<Option<OpenState>, CliError> {
    let is_there = state_folder(global)?.join(crate::state::FILE_NAME).exists();
    is_there.then(|| open_state(global)).transpose()
}

/// Status from the state alone.
async fn recorded_status(global: &Global) -> Result<Value, CliError> {
    let Some(state) = open_known_state(global)? else {
        return Ok(json!({ "version": 1, "daemon": false, "backups": [] }));
    };
    let mut backups = vec![];
    for (name, id) in state.state.backups().await? {
        let records = state.state.backup(&name, id.clone()).await?;
        let mut status = status::recorded(&records, SystemClock.now()).await?;
        status.name = name;
        status.source = crate::model::Escaped(&id.source).to_string();
        status.destination = destination_of(&id);
        backups.push(status);
    }
    state.state.close();
    Ok(json!({ "version": 1, "daemon": false, "backups": backups }))
}

fn destination_of(id: &BackupId) -> String {
    let (bucket, prefix) = (id.bucket.clone(), Prefix::new(&id.prefix));
    let destination = match id.endpoint.strip_prefix("file://") {
        Some(folder) => Destination::Store { folder: PathBuf::from(folder), bucket, prefix },
        None => Destination::S3 { bucket, prefix },
    };
    destination.to_string()
}

pub async fn flush(global: &Global, options: &Flush) -> Result<Code, CliError> {
    log::init(global.log(false), &MultiProgress::new());
    let asked = ask_daemon(global, &Request::Flush);
    let Ok(answer) = tokio::time::timeout(options.timeout.0, asked).await else {
        return Err(not_flushed(global).await);
    };
    let Some(answer) = answer? else {
        return Err(CliError::new(Code::NeedsPerson, "no daemon is running")
            .hint("bring the destination up to date once with: keepwatch sync"));
    };
    let failed = answer["failed"].as_u64().unwrap_or(0);
    if global.json {
        print_line(&answer.to_string());
    }
    if failed > 0 {
        return Err(CliError::new(Code::Failed, format!("{} failed", text::count(failed, "path")))
            .hint("see them with: keepwatch status"));
    }
    Ok(Code::Done)
}

/// Time ran out: says what is being waited for.
async fn not_flushed(global: &Global) -> CliError {
    let report = ask_daemon(global, &Request::Status).await.ok().flatten().unwrap_or_default();
    let waiting = report["backups"].as_array().into_iter().flatten();
    let waiting = waiting.filter_map(|backup| backup["waiting_for"].as_str()).next();
    match waiting {
        Some(what) => CliError::new(Code::Unreachable, format!("not done in time: {what}")),
        None => CliError::new(Code::Stale, "not done in time")
            .hint("uploads go on; wait longer with --timeout"),
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
    let request = Request::Deletions { verb, names, all, new_root };
    let answer = match ask_daemon(global, &request).await? {
        Some(answer) => answer,
        None => {
            let recorded = recorded_deletions(global, &request).await;
            or_ask_again(recorded, global, &request).await?
        }
    };
    if global.json {
        print_line(&answer.to_string());
        return Ok(Code::Done);
    }
    let backups = answer["backups"].as_array().map(Vec::as_slice).unwrap_or_default();
    if backups.is_empty() {
        print_line(NO_BACKUP);
    }
    for backup in backups {
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

/// Without a daemon the state itself is worked on, under the lock.
async fn recorded_deletions(global: &Global, request: &Request) -> Result<Value, CliError> {
    let Request::Deletions { verb, names, all, new_root } = request else {
        return Ok(Value::Null);
    };
    let configured = configured(global);
    let state = open_known_state(global)?;
    let known = match &state {
        Some(state) => state.state.backups().await?,
        None => vec![],
    };
    if let Some(name) = names.iter().find(|name| !known.iter().any(|(known, _)| known == *name)) {
        return Err(no_such_backup(name, known.iter().map(|(name, _)| name.as_str())));
    }
    let Some(state) = state else { return Ok(json!({ "backups": [] })) };
    let everything = *all || (*verb == DeletionVerb::List && names.is_empty());
    let mut done = vec![];
    for (name, id) in known.into_iter().filter(|(name, _)| everything || names.contains(name)) {
        let source = PathBuf::from(OsStr::from_bytes(&id.source));
        let records = state.state.backup(&name, id).await?;
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

/// The configured backups, if there is a file that loads.
fn configured(global: &Global) -> Vec<BackupConfig> {
    let Ok(Some(file)) = config_file(global) else { return vec![] };
    let flags = global.clone().into_options(crate::config::BackupOptions::default());
    resolve(&file, &flags, Defaults::DAEMON, paths::home().as_deref()).unwrap_or_default()
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
            let configs = resolve(&file, &flags, Defaults::DAEMON, paths::home().as_deref())
                .map_err(|faults| faulty(&faults, global))?;
            if options.what == ConfigVerb::Show {
                show(&configs, global.json);
            } else {
                let count = text::count(configs.len() as u64, "backup");
                print_line(&format!("{}: {count}, no faults", file.path));
            }
        }
    }
    Ok(Code::Done)
}

fn show(configs: &[BackupConfig], json: bool) {
    let shown = configs.iter().map(|config| {
        let mut pairs = vec![
            ("name", toml::Value::from(config.name.clone()).to_string()),
            ("source", toml::Value::from(config.source.display().to_string()).to_string()),
            ("destination", toml::Value::from(config.destination.to_string()).to_string()),
        ];
        pairs.extend(config.effective().shown());
        pairs
    });
    if json {
        let all: Vec<Value> = shown
            .map(|pairs| {
                let pairs = pairs.into_iter().map(|(name, value)| {
                    let parsed = value.parse::<toml::Value>().ok();
                    (
                        name.to_owned(),
                        parsed.and_then(|v| serde_json::to_value(v).ok()).unwrap_or(json!(value)),
                    )
                });
                Value::Object(pairs.collect())
            })
            .collect();
        return print_line(&json!({ "backup": all }).to_string());
    }
    for pairs in shown {
        print_line("[[backup]]");
        for (name, value) in pairs {
            print_line(&format!("{name} = {value}"));
        }
        print_line("");
    }
}
