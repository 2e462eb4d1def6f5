//! Errors as people see them, and exit codes as scripts see them.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use crate::engine::Exit;
use crate::model::is_unsafe_to_show;
use crate::plan::Failure;
use crate::ports::StateError;
use crate::wire;

/// Exit codes. Part of the product's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Done,
    Failed,
    Usage,
    Skipped,
    NeedsPerson,
    Unreachable,
    Stale,
    Held,
    Interrupted,
}

impl Code {
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Skipped => 3,
            Self::NeedsPerson => 4,
            Self::Unreachable => 5,
            Self::Stale => 6,
            Self::Held => 7,
            Self::Interrupted => 130,
        }
    }

    /// What a daemon means by this number.
    pub fn of_number(number: u8) -> Self {
        let may_be = [Self::Failed, Self::Usage, Self::Unreachable];
        may_be.into_iter().find(|code| code.number() == number).unwrap_or(Self::NeedsPerson)
    }

    /// When several hold, the first of 130, 4, 5, 1, 7, 3, 0 counts.
    pub fn and(self, other: Self) -> Self {
        let rank = |code| match code {
            Self::Interrupted => 0,
            Self::NeedsPerson | Self::Usage => 1,
            Self::Unreachable => 2,
            Self::Failed => 3,
            Self::Stale | Self::Held => 4,
            Self::Skipped => 5,
            Self::Done => 6,
        };
        if rank(other) < rank(self) { other } else { self }
    }

    /// The word for `result` in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Skipped => "warnings",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Interrupted => "interrupted",
            Self::Usage | Self::NeedsPerson | Self::Unreachable | Self::Stale => "error",
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

/// An error that ends the program: the thing, its causes, and the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    pub code: Code,
    pub message: String,
    pub causes: Vec<String>,
    pub hints: Vec<String>,
    /// Already formatted, as faults of the configuration are.
    pub detail: Option<String>,
    /// It may pass without a change of the configuration: a daemon tries again.
    pub may_pass: bool,
}

impl CliError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, causes: vec![], hints: vec![], detail: None, may_pass: false }
    }

    pub fn caused_by(mut self, cause: &dyn Error) -> Self {
        let mut cause = Some(cause);
        while let Some(error) = cause {
            self.causes.push(error.to_string());
            cause = error.source();
        }
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub fn detail(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }

    /// The thing and its causes in one line.
    pub fn line(&self) -> String {
        let causes = self.causes.iter().map(String::as_str);
        std::iter::once(self.message.as_str()).chain(causes).collect::<Vec<_>>().join(": ")
    }

    /// The same with the next steps.
    pub fn with_hints(&self) -> String {
        match self.hints[..] {
            [] => self.line(),
            _ => format!("{} ({})", self.line(), self.hints.join("; ")),
        }
    }

    /// All of it as it is rendered, without its last line break.
    pub fn told(&self) -> String {
        self.render(false).trim_end().to_owned()
    }

    pub fn render(&self, color: bool) -> String {
        let (red, cyan, plain) =
            if color { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let mut text = String::new();
        if let Some(detail) = &self.detail {
            writeln!(text, "{detail}").ok();
        }
        writeln!(text, "{red}error:{plain} {}", shown(&self.message)).ok();
        for cause in &self.causes {
            // Words from outside: a line of theirs must not look like one of ours.
            writeln!(text, "  caused by: {}", shown(&cause.replace('\n', "; "))).ok();
        }
        for hint in &self.hints {
            writeln!(text, "{cyan}hint:{plain} {}", shown(hint)).ok();
        }
        text
    }
}

/// Text in which nothing acts on a terminal but the ends of its lines.
fn shown(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        match is_unsafe_to_show(c) && c != '\n' {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
        shown
    })
}

impl From<wire::Error> for CliError {
    fn from(error: wire::Error) -> Self {
        use crate::plan::ErrorClass;
        let code = match error.class() {
            ErrorClass::Unreachable | ErrorClass::Server | ErrorClass::Throttled => {
                Code::Unreachable
            }
            ErrorClass::Path => Code::Failed,
            ErrorClass::Denied
            | ErrorClass::Configuration
            | ErrorClass::Full
            | ErrorClass::Credentials
            | ErrorClass::State => Code::NeedsPerson,
        };
        Self {
            causes: error.causes().to_vec(),
            hints: error.hints().to_vec(),
            may_pass: error.may_pass(),
            ..Self::new(code, error.message())
        }
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        wire::Error::from(failure).into()
    }
}

impl From<StateError> for CliError {
    fn from(error: StateError) -> Self {
        Failure::from(error).into()
    }
}

/// What came of several backups, one after the other: the code that counts, and the first error.
/// Errors that follow it are told at once.
pub struct Ends {
    color: bool,
    pub code: Code,
    pub first: Option<CliError>,
}

impl Ends {
    pub fn new(color: bool) -> Self {
        Self { color, code: Code::Done, first: None }
    }

    /// Takes the end of one; answers whether to go on with the others.
    pub fn take(&mut self, one: Result<(Code, Option<CliError>), CliError>) -> bool {
        let (code, error) = one.unwrap_or_else(|error| (error.code, Some(error)));
        self.code = self.code.and(code);
        let Some(error) = error else { return true };
        let go_on = error.code != Code::Interrupted;
        match &self.first {
            None => self.first = Some(error),
            Some(_) => {
                write!(std::io::stderr(), "{}", error.render(self.color)).ok();
            }
        }
        go_on
    }
}

/// The code and the error of a run that did not end well by itself.
pub fn of_exit(exit: Exit) -> Option<CliError> {
    match exit {
        Exit::Done => None,
        Exit::Stopped => Some(CliError::new(Code::Interrupted, "interrupted")),
        Exit::NeedsPerson(failure) => {
            Some(CliError { code: Code::NeedsPerson, ..CliError::from(failure) })
        }
        Exit::GaveUp(failure) => {
            Some(CliError { code: Code::Unreachable, ..CliError::from(failure) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_outside_make_no_lines_and_move_no_terminal() {
        let error = CliError {
            causes: vec!["one\nerror: forged \x1b]0;x\x07".to_owned()],
            ..CliError::new(Code::Failed, "a\u{202e}b")
        };
        assert_eq!(
            error.render(false),
            "error: a\\u{202e}b\n  caused by: one; error: forged \\u{1b}]0;x\\u{7}\n"
        );
    }

    #[test]
    fn the_worst_code_counts() {
        let order = [
            Code::Interrupted,
            Code::NeedsPerson,
            Code::Unreachable,
            Code::Failed,
            Code::Held,
            Code::Skipped,
            Code::Done,
        ];
        for (i, worse) in order.iter().enumerate() {
            for better in &order[i..] {
                assert_eq!(worse.and(*better), *worse);
                assert_eq!(better.and(*worse), *worse);
            }
        }
        assert_eq!(order.map(Code::number), [130, 4, 5, 1, 7, 3, 0]);
    }
}
