//! Results on standard output.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use super::error::{CliError, Code};

/// The first result that could not be written. What prints need not care; the program's end does.
static LOST: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes a line to standard output.
pub fn print_line(line: &str) {
    still_read(line);
}

/// The same; tells whether there is still somebody who reads.
pub fn still_read(line: &str) -> bool {
    let written = writeln!(io::stdout(), "{line}");
    let is_read = written.is_ok();
    note(written);
    is_read
}

/// Remembers that a result was lost. A reader that has heard enough and went away is no error.
pub fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// What was lost, as an error of the program.
pub fn lost() -> Option<CliError> {
    note(io::stdout().flush());
    let error = LOST.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let error = CliError::new(Code::Failed, "cannot write to standard output").caused_by(&error);
    Some(error.hint("what was done is done; ask again for what it said"))
}
