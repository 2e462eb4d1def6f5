//! Asking the keepwatch that runs, and which backups a person means.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::app::status::BackupStatus;
use crate::config::{BackupConfig, Destination};
use crate::model::Escaped;
use crate::service::paths;
use crate::service::socket::{Answer, AskError, Request, ask};
use crate::state::BackupId;
use crate::wire::{destination_of, state_folder};

use super::args::Global;
use super::error::{CliError, Code};

/// How long an answer may take to find: a database of millions of rows on a slow disk.
pub const ANSWER: Duration = Duration::from_secs(60);

/// Asks the daemon, or the `sync` that runs; `None` when there is neither.
pub async fn ask_daemon(
    global: &Global,
    request: &Request,
    within: Duration,
) -> Result<Option<Value>, CliError> {
    let folder = state_folder(global.state_dir.as_deref())?;
    understood(ask(&folder, request, within).await.map_err(|error| explain(error, &folder))?)
}

/// The same; where neither is, what the records say, which are looked into then. Where these could
/// not be used, a daemon that did not listen yet may have them, and listen now.
pub async fn ask_or(
    global: &Global,
    request: &Request,
    recorded: impl Future<Output = Result<Value, CliError>>,
) -> Result<Value, CliError> {
    if let Some(answer) = ask_daemon(global, request, ANSWER).await? {
        return Ok(answer);
    }
    match recorded.await {
        Err(error) => ask_daemon(global, request, ANSWER).await?.ok_or(error),
        recorded => recorded,
    }
}

fn understood(answer: Option<Answer>) -> Result<Option<Value>, CliError> {
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

/// Asks the daemon to flush; `None` when there is none. Says at the end of the time what is being
/// waited for.
pub async fn ask_to_flush(global: &Global, within: Duration) -> Result<Option<Value>, CliError> {
    // Long enough for whoever is alive, and short after a wait.
    const WHY: Duration = Duration::from_secs(1);
    let folder = state_folder(global.state_dir.as_deref())?;
    let asked = ask(&folder, &Request::Flush, within).await;
    if !matches!(asked, Err(AskError::Silent { .. } | AskError::Late { .. })) {
        return understood(asked.map_err(|error| explain(error, &folder))?);
    }
    let report = ask_daemon(global, &Request::Status, WHY).await.map_err(|error| {
        let message = format!("not done in time: {}", error.message);
        CliError { message, ..error }
    })?;
    let backups = report.unwrap_or_default()["backups"].take();
    let backups = backups.as_array().map(Vec::as_slice).unwrap_or_default();
    let first = |name: &str| backups.iter().find_map(|backup| backup[name].as_str());
    Err(match (first("error"), first("waiting_for")) {
        (Some(what), _) => CliError::new(Code::NeedsPerson, format!("not done in time: {what}")),
        (None, Some(what)) => CliError::new(Code::Unreachable, format!("not done in time: {what}")),
        (None, None) => CliError::new(Code::Stale, "not done in time")
            .hint("uploads go on; wait longer with --timeout"),
    })
}

fn explain(error: AskError, state_folder: &Path) -> CliError {
    let path = paths::control_socket(state_folder);
    let named = |pid: Option<i32>| match pid {
        Some(pid) => format!("the keepwatch that runs (process {pid})"),
        None => format!("the keepwatch that listens on {}", path.display()),
    };
    match error {
        // It has the state, and only a person can end it: as with a state that is locked.
        AskError::Silent { pid } => {
            let message = format!("{} does not answer", named(pid));
            let error = CliError::new(Code::NeedsPerson, message);
            match pid {
                Some(pid) => error.hint(format!(
                    "if it was stopped, let it go on with: kill -CONT {pid}; else end it with: \
                     kill -KILL {pid}, and start it again: nothing is lost"
                )),
                None => error.hint("ask again; or end it and start it again: nothing is lost"),
            }
        }
        AskError::Late { pid } => {
            let message = format!("{} has no answer in time", named(pid));
            CliError::new(Code::Stale, message).hint("it is busy: ask again")
        }
        AskError::Stranger { uid } => {
            let message = format!("another user ({uid}) listens on {}", path.display());
            CliError::new(Code::NeedsPerson, message)
                .hint("nothing was asked of it; a shorter --state-dir has its socket inside")
        }
        AskError::Io(error) => {
            let message = format!("cannot ask the daemon on {}", path.display());
            CliError::new(Code::NeedsPerson, message).caused_by(&error)
        }
    }
}

/// What a person may call a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    pub name: String,
    pub source: String,
    pub destination: String,
}

impl Called {
    pub fn of(config: &BackupConfig) -> Self {
        Self {
            name: config.name.clone(),
            source: Escaped(config.source.as_os_str().as_encoded_bytes()).to_string(),
            destination: config.destination.to_string(),
        }
    }

    pub fn told_by(status: &BackupStatus) -> Self {
        let BackupStatus { name, source, destination, .. } = status;
        let [name, source, destination] = [name, source, destination].map(String::clone);
        Self { name, source, destination }
    }

    /// As it is on record.
    pub fn on_record(name: &str, id: &BackupId) -> Self {
        Self {
            name: name.to_owned(),
            source: Escaped(&id.source).to_string(),
            destination: destination_of(id),
        }
    }

    /// Whether the record of that name is of this, as it is configured or kept now. Where `default`
    /// leads to, its record tells.
    pub fn has_record(&self, record: &Self) -> bool {
        let is_default = self.destination == Destination::Default.to_string();
        bucket_of(&self.source) == bucket_of(&record.source)
            && (self.destination == record.destination || (is_default && self.name == record.name))
    }
}

/// The source of a mirror without the server that it is on, which the configuration may leave to
/// others to name. Other sources are what they are.
fn bucket_of(source: &str) -> &str {
    match source.starts_with('/') {
        true => source,
        false => source.split(" at ").next().unwrap_or(source),
    }
}

/// What is said of one that could not be asked, for it is being started.
pub fn starting(backup: &Value) -> Option<String> {
    let name = backup["name"].as_str().unwrap_or("");
    (backup["starting"] == true).then(|| format!("{name}: is being started, ask again"))
}

/// A word as it was typed, made ready to be compared: the path of a source is made absolute.
pub fn as_called(word: &str) -> String {
    // No name has a slash, and no path lacks one: `.` and `..` are neither.
    let is_path = matches!(word, "." | "..") || (word.contains('/') && !word.contains(':'));
    if !is_path {
        return word.to_owned();
    }
    let path = Path::new(word);
    match path.canonicalize().or_else(|_| std::path::absolute(path)) {
        Ok(path) => Escaped(path.as_os_str().as_encoded_bytes()).to_string(),
        Err(_) => word.to_owned(),
    }
}

/// The places in `all` of the backups that these words name: by name, source, or destination.
pub fn chosen(all: &[Called], words: &[String]) -> Result<Vec<usize>, CliError> {
    let mut places = vec![];
    for word in words {
        // A prefix is the same with and without its last slash.
        let place = word.trim_end_matches('/');
        let is_place = |of: &str| word.contains(':') && of.trim_end_matches('/') == place;
        let is_meant = |c: &Called| {
            c.name == *word
                || c.source == *word
                || is_place(bucket_of(&c.source))
                || is_place(&c.destination)
        };
        let meant: Vec<usize> = (0..all.len()).filter(|at| is_meant(&all[*at])).collect();
        match meant[..] {
            [] => return Err(no_such_backup(word, all.iter().map(|c| c.name.as_str()))),
            [one] if places.contains(&one) => {}
            [one] => places.push(one),
            _ => return Err(ambiguous(word, meant.iter().map(|at| &all[*at]))),
        }
    }
    Ok(places)
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

fn ambiguous<'a>(word: &str, meant: impl Iterator<Item = &'a Called>) -> CliError {
    let all: Vec<String> =
        meant.map(|called| format!("{} -> {}", called.source, called.destination)).collect();
    let message = format!("{word:?} may be any of {} backups: {}", all.len(), all.join(", "));
    CliError::new(Code::Usage, message).hint("name the one you mean by its source or destination")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(name: &str, source: &str, destination: &str) -> Called {
        let [name, source, destination] = [name, source, destination].map(str::to_owned);
        Called { name, source, destination }
    }

    #[test]
    fn backups_go_by_name_source_and_destination() {
        let all = [
            called("docs", "/a/docs", "s3://b/a/"),
            called("docs", "/b/docs", "s3://b/b/"),
            called("docs", "/b/docs", "s3://b/c/"),
            called("music", "/music", "s3://b/m/"),
        ];
        let places = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            chosen(&all, &words).map_err(|error| error.message)
        };
        assert_eq!(places(&["music", "/a/docs", "s3://b/c/", "/music"]), Ok(vec![3, 0, 2]));
        assert_eq!(places(&["s3://b/c", "s3://b/a/"]), Ok(vec![2, 0]));
        assert!(places(&["s3://b"]).is_err());
        let message = places(&["docs"]).unwrap_err();
        for word in ["3 backups", "/a/docs -> s3://b/a/", "/b/docs -> s3://b/c/"] {
            assert!(message.contains(word), "{message}");
        }
        assert!(places(&["/b/docs"]).unwrap_err().contains("2 backups"));
        assert!(places(&["none"]).unwrap_err().contains("no backup \"none\""));
    }
}
