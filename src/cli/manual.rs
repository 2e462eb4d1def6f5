//! `completions` and `man`: what a package gives to shells and to man(1), from the same definitions
//! as `--help`.

use std::io::{self, Write as _};
use std::path::Path;

use clap::Command;

use super::args::{Completions, Man};
use super::error::{CliError, Code};
use super::out::note;

const PROGRAM: &str = "keepwatch";

pub fn completions(options: &Completions) -> Result<Code, CliError> {
    let mut script = vec![];
    clap_complete::generate(options.shell, &mut super::command(), PROGRAM, &mut script);
    note(io::stdout().write_all(&script));
    Ok(Code::Done)
}

pub fn man(options: &Man) -> Result<Code, CliError> {
    let mut program = super::command().disable_help_subcommand(true);
    program.build();
    if let Some(folder) = &options.to {
        std::fs::create_dir_all(folder).map_err(|e| unwritten(folder, &e))?;
        return write_all(&program, folder).map(|()| Code::Done);
    }
    let page = match &options.command {
        None => page(&program),
        Some(name) => {
            let command = program.find_subcommand(name).ok_or_else(|| {
                CliError::new(Code::Usage, format!("there is no command {name}"))
                    .hint("keepwatch help lists them")
            })?;
            page(command)
        }
    };
    note(io::stdout().write_all(&page));
    Ok(Code::Done)
}

/// The page of a command, under its whole name: `keepwatch-service-install`.
fn page(command: &Command) -> Vec<u8> {
    let mut page = vec![];
    // Nothing is written but into memory.
    clap_mangen::Man::new(command.clone()).render(&mut page).ok();
    page
}

fn write_all(command: &Command, folder: &Path) -> Result<(), CliError> {
    let name = command.get_display_name().unwrap_or(PROGRAM);
    let path = folder.join(format!("{name}.1"));
    std::fs::write(&path, page(command)).map_err(|e| unwritten(&path, &e))?;
    let is_shown = |command: &&Command| !command.is_hide_set();
    command.get_subcommands().filter(is_shown).try_for_each(|command| write_all(command, folder))
}

fn unwritten(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Code::NeedsPerson, format!("cannot write {}", path.display())).caused_by(error)
}
