//! Logs on stderr: lines for people, for the journal, or JSON.
//!
//! Levels say what an operator must do: ERROR a person must act; WARN something is not as it
//! should be, and keepwatch goes on; INFO what happened; DEBUG why. What happens to single files is
//! INFO under the target `keepwatch::file`.
//!
//! With `--log-format json` each line is an object with `time` (RFC 3339, UTC), `level`, `target`,
//! `message`, and the event's own fields, among them `backup`.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};

use crate::app::FILE;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

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
}

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
    let lines = Lines {
        format: options.format,
        color: options.color,
        journal: std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal(),
    };
    let layer = tracing_subscriber::fmt::layer()
        .event_format(lines)
        .with_ansi(options.color)
        .with_writer(BesideBars(bars.clone()));
    tracing_subscriber::registry().with(targets).with(layer).init();
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
        // A log that cannot be written must not stop a backup.
        self.0.suspend(|| io::Write::write_all(&mut io::stderr(), bytes).ok());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Lines {
    format: Format,
    color: bool,
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
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
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        match self.format {
            Format::Json => {
                let line = fields.into_json(level, event.metadata().target());
                writeln!(writer, "{line}")
            }
            Format::Text if self.journal => {
                writeln!(writer, "<{}>{}", priority(level), fields.into_text())
            }
            Format::Text => {
                let time = jiff::Zoned::now().strftime("%H:%M:%S");
                let name = self.level_name(level);
                writeln!(writer, "{time} {name} {}", fields.into_text())
            }
        }
    }
}

impl Lines {
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

/// An event's message and fields.
#[derive(Default)]
struct Fields {
    message: String,
    others: serde_json::Map<String, serde_json::Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: serde_json::Value) {
        self.others.insert(field.name().to_owned(), value);
    }

    fn into_text(self) -> String {
        let mut text = String::new();
        if let Some(serde_json::Value::String(backup)) = self.others.get("backup") {
            write!(text, "{backup}: ").ok();
        }
        text.push_str(&single_line(&self.message));
        for (name, value) in self.others.iter().filter(|(name, _)| *name != "backup") {
            match value {
                serde_json::Value::String(value) => {
                    write!(text, " {name}={}", single_line(value)).ok()
                }
                value => write!(text, " {name}={value}").ok(),
            };
        }
        text
    }

    fn into_json(self, level: Level, target: &str) -> serde_json::Value {
        let mut line = serde_json::Map::new();
        let time = jiff::Timestamp::now().to_string();
        line.insert("time".to_owned(), time.into());
        line.insert("level".to_owned(), level.to_string().to_lowercase().into());
        line.insert("target".to_owned(), target.into());
        line.insert("message".to_owned(), self.message.into());
        line.extend(self.others);
        line.into()
    }
}

/// What comes from outside cannot forge a line: control characters are shown, not sent.
fn single_line(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars()
            .flat_map(|c| {
                let escaped: Vec<char> =
                    if c.is_control() { c.escape_default().collect() } else { vec![c] };
                escaped
            })
            .collect()
    } else {
        text.to_owned()
    }
}

impl Visit for Fields {
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
