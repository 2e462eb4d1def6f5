//! `pause` and `resume`: through the daemon, or on the state where none runs.

use indicatif::MultiProgress;
use serde_json::{Value, json};

use crate::app::control;
use crate::model::Escaped;
use crate::report::log;
use crate::service::socket::Request;
use crate::wire::{SystemClock, destination_of};

use super::args::{Global, Named};
use super::ask::{ANSWER, Called, as_called, ask_daemon, chosen};
use super::commands::{NO_BACKUP, open_known_state, or_ask_again};
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
    let answer = match ask_daemon(global, &request, ANSWER).await? {
        Some(answer) => answer,
        None => {
            let recorded = recorded(global, &names, all, paused).await;
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
        let name = backup["name"].as_str().unwrap_or("");
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
    let called: Vec<Called> = known
        .iter()
        .map(|(name, id)| Called {
            name: name.clone(),
            source: Escaped(&id.source).to_string(),
            destination: destination_of(id),
        })
        .collect();
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
