//! `forget`: what is on record of a backup that nobody wants any more, as after a destination that
//! was mistyped. Nothing in the destination is touched.

use indicatif::MultiProgress;
use serde_json::{Value, json};

use crate::report::log;
use crate::service::socket::Request;
use crate::state::State;

use super::args::{Forget, Global};
use super::ask::{Called, as_called, ask_or, chosen};
use super::commands::open_known_state;
use super::error::{CliError, Code};
use super::out::print_line;

pub async fn run(global: &Global, options: Forget) -> Result<Code, CliError> {
    log::init(global.log(false), &MultiProgress::new());
    let names: Vec<String> = options.names.iter().map(|name| as_called(name)).collect();
    let request = Request::Forget { names: names.clone() };
    let answer = ask_or(global, &request, on_record(global, &names)).await?;
    if global.json {
        print_line(&answer.to_string());
        return Ok(Code::Done);
    }
    for backup in answer["backups"].as_array().into_iter().flatten() {
        let word = |name: &str| backup[name].as_str().unwrap_or("").to_owned();
        print_line(&format!(
            "{}: forgotten; what is in {} stays",
            word("name"),
            word("destination")
        ));
    }
    Ok(Code::Done)
}

async fn on_record(global: &Global, names: &[String]) -> Result<Value, CliError> {
    let Some(state) = open_known_state(global)? else {
        chosen(&[], names)?;
        return Ok(json!({ "backups": [] }));
    };
    let done = forget(&state.state, &[], names).await;
    state.state.close();
    done
}

/// Forgets those that are named, if none of them is `kept` now.
pub async fn forget(state: &State, kept: &[Called], names: &[String]) -> Result<Value, CliError> {
    let known = state.backups().await?;
    let called: Vec<Called> = known.iter().map(|(name, id)| Called::on_record(name, id)).collect();
    let places = chosen(&called, names)?;
    let is_kept = |one: &Called| kept.iter().any(|kept| kept.has_record(one));
    if let Some(one) = places.iter().map(|at| &called[*at]).find(|one| is_kept(one)) {
        let message = format!("{} is being kept, so its records are needed", one.name);
        return Err(CliError::new(Code::NeedsPerson, message)
            .hint("take it out of the configuration and send the daemon a HUP, or stop it first"));
    }
    let mut done = vec![];
    for at in places {
        state.forget(known[at].1.clone()).await?;
        let Called { name, source, destination } = &called[at];
        done.push(json!({ "name": name, "source": source, "destination": destination }));
    }
    Ok(json!({ "backups": done }))
}
