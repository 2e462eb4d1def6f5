//! The command line: what is typed becomes calls, what comes of them is said, and ends the program.

mod args;
mod ask;
mod commands;
mod configured;
mod daemon;
mod doors;
mod error;
mod exposed;
mod forget;
mod health;
mod manual;
mod mirror;
mod opening;
mod out;
mod pause;
mod published;
mod restore;
mod run;
mod running;
mod serve;
mod service;
mod sync;

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};

use args::{Cli, Command};
use error::{CliError, Code};
use restore::args::RESTORE_OPTIONS;

use crate::report::journal::at_error;

/// Runs the program; answers with its exit code.
pub fn run() -> ExitCode {
    crate::service::secrets::leave_no_core();
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            let error = without_secrets(error);
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
                out::note(error.print());
                return end(Ok(Code::Done), false);
            }
            match at_error(&error.to_string()) {
                Some(lines) => out::note(write!(std::io::stderr(), "{lines}")),
                None => out::note(error.print()),
            }
            return Code::Usage.into();
        }
    };
    let color = cli.global.color();
    let result = dispatch(cli);
    crate::report::log::finish();
    end(result, color)
}

/// A value that was refused is shown without the user and password of a URL.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let value = crate::config::without_secrets(value);
        error.insert(ContextKind::InvalidValue, ContextValue::String(value));
    }
    error
}

/// Tells the error, if there is one. A result that nobody could read is one too.
fn end(result: Result<Code, CliError>, color: bool) -> ExitCode {
    let lost = out::lost();
    let result = match (result, lost) {
        (Ok(code), Some(lost)) => Err(CliError { code: code.and(lost.code), ..lost }),
        (result, _) => result,
    };
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            let text = error.render(color);
            write!(std::io::stderr(), "{}", at_error(&text).unwrap_or(text)).ok();
            error.code.into()
        }
    }
}

/// What can be typed. The options of `--restore` are those of `restore`, and told of there.
fn command() -> clap::Command {
    Cli::command().mut_args(|arg| match arg.get_help_heading() {
        Some(RESTORE_OPTIONS) => arg.hide(true),
        _ => arg,
    })
}

/// A variable that is empty is one that is not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let all = command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(Resettable::Reset),
        false => arg,
    });
    all.mut_subcommands(without_empty_variables)
}

fn parse() -> Result<Cli, clap::Error> {
    let mut command = without_empty_variables(command());
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    let is_typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let alone = command.get_arguments().find(|arg| {
        arg.get_help_heading() == Some(RESTORE_OPTIONS) && is_typed(arg.get_id().as_str())
    });
    if let Some(option) = alone.and_then(clap::Arg::get_long)
        && !is_typed("restore")
    {
        let message = format!("--{option} belongs behind its command, or with --restore");
        return Err(command.error(ErrorKind::ArgumentConflict, message));
    }
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

const DAEMON: (&str, &str) = ("a daemon", "see what would be done with: keepwatch sync --dry-run");

/// Commands that do one thing, which is told of elsewhere: asked to do nothing, they refuse.
fn without_dry_run(command: Option<&Command>) -> Option<(&'static str, &'static str)> {
    let Some(command) = command else { return Some(DAEMON) };
    Some(match command {
        Command::Watch(_) => DAEMON,
        Command::Pause(_) => ("pause", "see what is paused with: keepwatch status"),
        Command::Resume(_) => ("resume", "see what is paused with: keepwatch status"),
        Command::Forget(_) => ("forget", "see what is on record with: keepwatch status"),
        Command::Flush(_) => ("flush", "see what waits with: keepwatch status"),
        Command::Serve(_) => ("serve", "it is a server: start it, or do not"),
        Command::Deletions(args::Deletions { verb: args::Verb::List, .. }) => return None,
        Command::Deletions(_) => {
            ("approving and discarding", "see what waits with: keepwatch deletions list")
        }
        _ => return None,
    })
}

fn dispatch(cli: Cli) -> Result<Code, CliError> {
    // One thread runs everything asynchronous; files are read on others. Each source, target and
    // store has a small share of these (`fs::threads`): the bound here is for all of them together,
    // and a thread is made only when one is needed.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1_024)
        .build()
        .map_err(|e| CliError::new(Code::NeedsPerson, "cannot start").caused_by(&e))?;
    let Cli { global, restore, command } = cli;
    if restore.is_asked() && command.is_some() {
        return Err(CliError::new(Code::Usage, "--restore is a command of its own")
            .hint("keepwatch --restore [NAME...] [--to DIR]"));
    }
    if global.dry_run
        && !restore.is_asked()
        && let Some((word, instead)) = without_dry_run(command.as_ref())
    {
        return Err(CliError::new(Code::Usage, format!("{word} has no dry run")).hint(instead));
    }
    let result = runtime.block_on(async {
        match command {
            None if restore.is_asked() => restore::run_configured(&global, &restore).await,
            None => daemon::run(&global, args::Run::default()).await,
            Some(Command::Watch(run)) => daemon::run(&global, run).await,
            Some(Command::Sync(sync)) => sync::run(&global, sync).await,
            Some(Command::Restore(restore)) => restore::run(&global, restore).await,
            Some(Command::Mirror(mirror)) => mirror::run(&global, *mirror).await,
            Some(Command::Verify(verify)) => mirror::verify(&global, verify).await,
            Some(Command::Ls(ls)) => restore::ls(&global, &ls).await,
            Some(Command::Status(status)) => commands::status(&global, &status).await,
            Some(Command::Flush(flush)) => commands::flush(&global, &flush).await,
            Some(Command::Pause(named)) => pause::run(&global, named, true).await,
            Some(Command::Resume(named)) => pause::run(&global, named, false).await,
            Some(Command::Forget(forget)) => forget::run(&global, forget).await,
            Some(Command::Deletions(deletions)) => commands::deletions(&global, deletions).await,
            Some(Command::Config(config)) => commands::config(&global, &config),
            Some(Command::Serve(serve)) => serve::run(&global, serve).await,
            Some(Command::Service(service)) => service::run(&global, &service),
            Some(Command::Completions(completions)) => manual::completions(&completions),
            Some(Command::Man(man)) => manual::man(&man),
        }
    });
    // A read that hangs must not keep the process: nothing waits for it any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}
