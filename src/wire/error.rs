//! Why something cannot be run, or did not run to its end: the thing, its causes, the next step.

use std::fmt;

use crate::plan::{ErrorClass, Failure};
use crate::ports::StateError;

/// An error of a whole run. What single paths met is told in the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    class: ErrorClass,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    may_pass: bool,
}

impl Error {
    pub(crate) fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { class, message, causes: vec![], hints: vec![], may_pass: false }
    }

    pub(crate) fn caused_by(mut self, cause: &dyn std::error::Error) -> Self {
        let mut cause = Some(cause);
        while let Some(error) = cause {
            self.causes.push(error.to_string());
            cause = error.source();
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Marks what may be otherwise the next time, with the same configuration.
    pub(crate) fn passing(self) -> Self {
        Self { may_pass: true, ..self }
    }

    /// Whether it may pass without a change of the configuration, as where a disk is not mounted:
    /// it is worth to try again.
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// What kind of trouble it is, and so who can end it.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// What failed, in plain words, without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Why, from the nearest cause to the first.
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// What a person may do next, in the words of the program: its options have the same names
    /// here.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

/// The message and its causes, in one line. No secret is in it.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for Error {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self {
            may_pass: failure.class != ErrorClass::Configuration,
            class: failure.class,
            message: failure.message,
            causes: failure.cause.into_iter().collect(),
            hints: failure.hint.into_iter().collect(),
        }
    }
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Self {
        Failure::from(error).into()
    }
}
