//! `pause` and `resume`: through the daemon, or on the state where none runs.

use indicatif::MultiProgress;
use serde_json::{Value, json};

use crate::app::control;
use crate::report::log;
use crate::service::socket::Request;
use crate::wire::SystemClock;

use super::args::{Global, Named};
use super::ask::{Called, as_called, ask_or, chosen, starting};
use super::commands::{NO_BACKUP, open_known_state};
use super::error::{CliError, Code};
use super::out::print_line;

pub async fn run(global: &Global, named: Named, paused: bool) -> Result<Code, CliError> {
    log::init(global.log(false), &MultiProgress::new());
    let Named { names, all } = named;
    if names.is_empty() && !all {
        return Err(CliError::new(Code::Usage, "name the backups, or say --all")
            .hint("`keepwatch status` shows them"));
    }
    let names: Vec<String> = names.iter().map(|name| as_called(name)).collect();
    let request = Request::Pause { paused, names: names.clone(), all };
    let answer = ask_or(global, &request, recorded(global, &names, all, paused)).await?;
    if global.json {
        print_line(&answer.to_string());
        return Ok(Code::Done);
    }
    let backups = answer["backups"].as_array().map(Vec::as_slice).unwrap_or_default();
    if backups.is_empty() {
        print_line(NO_BACKUP);
    }
    for backup in backups {
        let name = backup["name"].as_str().unwrap_or("");
        if let Some(said) = starting(backup) {
            print_line(&said);
            continue;
        }
        print_line(&match (paused, backup["new"] == true) {
            (true, true) => format!("{name}: paused; what changes is remembered"),
            (true, false) => format!("{name}: was paused already"),
            (false, true) => format!("{name}: goes on"),
            (false, false) => format!("{name}: was not paused"),
        });
    }
    Ok(Code::Done)
}

/// Without a daemon: the next one begins as it is recorded.
async fn recorded(
    global: &Global,
    names: &[String],
    all: bool,
    paused: bool,
) -> Result<Value, CliError> {
    let Some(state) = open_known_state(global)? else {
        chosen(&[], names)?;
        return Ok(json!({ "backups": [] }));
    };
    let known = state.state.backups().await?;
    let called: Vec<Called> = known.iter().map(|(name, id)| Called::on_record(name, id)).collect();
    let places = if all { (0..known.len()).collect() } else { chosen(&called, names)? };
    let mut done = vec![];
    for (name, id) in places.into_iter().map(|at| known[at].clone()) {
        let records = state.state.backup(&name, id).await?;
        let new = control::pause(&records, &SystemClock, paused).await?;
        done.push(json!({ "name": name, "paused": paused, "new": new }));
    }
    state.state.close();
    Ok(json!({ "backups": done }))
}
