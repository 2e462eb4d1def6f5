//! Logs on stderr: lines for people, for the journal, or JSON. `docs/logs.md` tells all of it.
//!
//! Levels say what an operator must do: ERROR a person must act; WARN something is not as it
//! should be, and keepwatch goes on; INFO what happened; DEBUG why. What happens to single files is
//! INFO under the target `keepwatch::file`; a change of condition, told each time that it happens,
//! has the target `keepwatch::condition`. Other trouble that is said again within the hour is
//! counted.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::app::{CONDITION, FILE, is_unsafe_to_show};

use super::journal::{self, Journal};
use super::repeats::Repeats;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// How much is said, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    pub format: Format,
    pub color: bool,
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// Whether single files are worth a line at the usual level.
    pub files: bool,
    /// A part of a library that says in its details what some keep to themselves.
    pub hushed: &'static str,
}

/// The log of this process, once there is one.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Installs the log for the process. `bars` are kept out of its way.
pub fn init(options: LogOptions, bars: &indicatif::MultiProgress) {
    let own = match (options.quiet, options.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let files = match (options.quiet, options.files || options.verbose > 0) {
        (true, _) => LevelFilter::ERROR,
        (false, true) => LevelFilter::INFO,
        (false, false) => LevelFilter::WARN,
    };
    // What libraries call an error is handled here, and told in our own words.
    let others = match options.verbose {
        0 => LevelFilter::OFF,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let targets = Targets::new().with_default(others).with_target("keepwatch", own);
    let targets = targets.with_target(FILE, files);
    let targets = targets.with_target(options.hushed, others.min(LevelFilter::WARN));
    let variable = std::env::var_os("JOURNAL_STREAM");
    let lines = Lines {
        format: options.format,
        color: options.color,
        terminal: io::stderr().is_terminal(),
        journal: Journal::behind_stderr(variable.as_deref()),
        repeats: Mutex::default(),
    };
    LINES.get_or_init(|| lines);
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Form)
        .with_ansi(options.color)
        .with_writer(BesideBars(bars.clone()));
    tracing_subscriber::registry().with(targets).with(layer).init();
}

/// Tells what was counted and not told. For the end of the process.
pub fn finish() {
    let Some(lines) = LINES.get() else { return };
    let mut text = String::new();
    for (line, again) in lines.repeats().rest() {
        lines.write(&mut text, &line, Some(again)).ok();
    }
    io::Write::write_all(&mut io::stderr(), text.as_bytes()).ok();
}

/// Writes whole lines to stderr, above the progress bars.
#[derive(Clone)]
struct BesideBars(indicatif::MultiProgress);

impl<'a> MakeWriter<'a> for BesideBars {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for BesideBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            // A log that cannot be written must not stop a backup.
            self.0.suspend(|| io::Write::write_all(&mut io::stderr(), bytes).ok());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What [`LINES`] makes of an event.
struct Form;

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match LINES.get() {
            Some(lines) => lines.take(&mut writer, Line::of(event)),
            None => Ok(()),
        }
    }
}

struct Lines {
    format: Format,
    color: bool,
    terminal: bool,
    journal: Option<Journal>,
    repeats: Mutex<Repeats<Line>>,
}

impl Lines {
    fn repeats(&self) -> std::sync::MutexGuard<'_, Repeats<Line>> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line, unless it was said within the hour, and the counts that are due.
    fn take(&self, out: &mut dyn fmt::Write, line: Line) -> fmt::Result {
        let now = Instant::now();
        let mut due = self.repeats().due(now);
        let mut admitted = true;
        if line.level <= Level::WARN && line.target != CONDITION {
            let said = format!("{} {} {}", line.level, line.target, line.text());
            let (written, gone) = self.repeats().admit(said, line.clone(), now);
            admitted = written;
            due.extend(gone);
        }
        for (line, again) in due {
            self.write(out, &line, Some(again))?;
        }
        if admitted { self.write(out, &line, None) } else { Ok(()) }
    }

    /// Writes one line. `again`: how often more it was said since it was written.
    fn write(&self, out: &mut dyn fmt::Write, line: &Line, again: Option<u64>) -> fmt::Result {
        if self.format == Format::Json {
            return writeln!(out, "{}", line.json(again));
        }
        let mut text = line.text();
        if let Some(again) = again {
            write!(text, " (said {again} times more)")?;
        }
        match &self.journal {
            Some(journal) if journal.send(&line.fields(&text, again)) => Ok(()),
            Some(_) => writeln!(out, "<{}>{text}", priority(line.level)),
            None => {
                let form = if self.terminal { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
                let time = jiff::Zoned::now().strftime(form);
                writeln!(out, "{time} {} {text}", self.level_name(line.level))
            }
        }
    }

    fn level_name(&self, level: Level) -> &'static str {
        match (level, self.color) {
            (Level::ERROR, true) => "\x1b[31mERROR\x1b[0m",
            (Level::WARN, true) => "\x1b[33mWARN \x1b[0m",
            (Level::ERROR, false) => "ERROR",
            (Level::WARN, false) => "WARN ",
            (Level::INFO, _) => "INFO ",
            (Level::DEBUG, _) => "DEBUG",
            (Level::TRACE, _) => "TRACE",
        }
    }
}

/// Priorities of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// An event: its message and fields.
#[derive(Clone)]
struct Line {
    level: Level,
    target: String,
    message: String,
    others: Map<String, Value>,
}

impl Line {
    fn of(event: &Event<'_>) -> Self {
        let (level, target) = (*event.metadata().level(), event.metadata().target().to_owned());
        let mut line = Self { level, target, message: String::new(), others: Map::new() };
        event.record(&mut line);
        if !line.target.starts_with("keepwatch") {
            line.mask_users();
        }
        line
    }

    /// Libraries quote URLs as they were given, and somebody may have put a password into one.
    fn mask_users(&mut self) {
        self.message = without_users(&self.message);
        for value in self.others.values_mut() {
            if let Value::String(text) = value {
                *text = without_users(text);
            }
        }
    }

    /// The message, with the fields behind it, in one line.
    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(Value::String(backup)) = self.others.get("backup") {
            write!(text, "{}: ", single_line(backup)).ok();
        }
        text.push_str(&single_line(&self.message));
        for (name, value) in self.others.iter().filter(|(name, _)| *name != "backup") {
            match value {
                Value::String(value) => write!(text, " {name}={}", single_line(value)).ok(),
                value => write!(text, " {name}={value}").ok(),
            };
        }
        text
    }

    fn json(&self, again: Option<u64>) -> Value {
        let mut line = Map::new();
        line.insert("time".to_owned(), jiff::Timestamp::now().to_string().into());
        line.insert("level".to_owned(), self.level.to_string().to_lowercase().into());
        line.insert("target".to_owned(), self.target.clone().into());
        line.insert("message".to_owned(), single_line(&self.message).into());
        line.extend(again.map(|again| ("repeated".to_owned(), again.into())));
        line.extend(self.others.clone());
        line.into()
    }

    /// The fields of an entry in the journal.
    fn fields(&self, text: &str, again: Option<u64>) -> Vec<(String, String)> {
        let own = |name: &str, value: &str| (journal::field_name(name), single_line(value));
        let mut fields = vec![
            ("MESSAGE".to_owned(), text.to_owned()),
            ("PRIORITY".to_owned(), priority(self.level).to_string()),
            ("SYSLOG_IDENTIFIER".to_owned(), "keepwatch".to_owned()),
            own("target", &self.target),
        ];
        fields.extend(again.map(|again| own("repeated", &again.to_string())));
        fields.extend(self.others.iter().map(|(name, value)| match value {
            Value::String(value) => own(name, value),
            value => own(name, &value.to_string()),
        }));
        fields
    }

    fn add(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

/// What comes from outside cannot forge a line: what a terminal or viewer acts on is shown, not
/// sent.
fn single_line(text: &str) -> String {
    if !text.chars().any(is_unsafe_to_show) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_unsafe_to_show(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// Words with `***` for the users of URLs. A password may have a slash in it.
fn without_users(text: &str) -> String {
    let mut parts = text.split("://");
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "\"'`".contains(c));
        let user = part[..end.unwrap_or(part.len())].rfind('@').unwrap_or(0);
        masked.push_str("://");
        masked.push_str(if user > 0 { "***" } else { "" });
        masked.push_str(&part[user..]);
    }
    masked
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.add(field, value.into()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.add(field, text.into()),
        }
    }
}
