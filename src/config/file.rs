//! Reading the file: every key is asked for by name, what is left over is unknown.

use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::cloudwatch::CloudWatchOptions;
use super::fault::{Fault, Faults};
use super::mirror::MirrorOptions;
use super::options::BackupOptions;
use super::resolve::find;
use super::status::StatusOptions;

/// A `[[backup]]` entry as written.
#[derive(Clone, Debug, Default, PartialEq, schemars::JsonSchema)]
pub struct NamedBackup {
    /// Name in status, logs and commands.
    pub name: String,
    /// Folder to keep; `~/` is the home folder.
    pub source: String,
    /// `s3://bucket/prefix`, `bucket::prefix`, or `file:///folder`.
    pub destination: String,
    #[schemars(flatten)]
    pub options: BackupOptions,
    #[schemars(skip)]
    pub(super) span: Range<usize>,
    #[schemars(skip)]
    pub(super) spans: Spans,
}

/// A `[[mirror]]` entry as written.
#[derive(Clone, Debug, Default, PartialEq, schemars::JsonSchema)]
pub struct NamedMirror {
    /// Name in status, logs and commands.
    pub name: String,
    /// Bucket to copy from: `s3://bucket/prefix`, `bucket::prefix`, or `file:///folder`.
    pub source: String,
    /// Bucket to copy to.
    pub destination: String,
    #[schemars(flatten)]
    pub options: MirrorOptions,
    #[schemars(skip)]
    pub(super) span: Range<usize>,
    #[schemars(skip)]
    pub(super) spans: Spans,
}

/// Where the values stand that are checked later.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spans {
    pub name: Range<usize>,
    pub source: Range<usize>,
    pub destination: Range<usize>,
    pub options: Vec<(String, Range<usize>)>,
}

/// The whole file as written.
#[derive(Clone, Debug, Default, PartialEq, schemars::JsonSchema)]
pub struct ConfigFile {
    #[schemars(skip)]
    pub path: String,
    #[schemars(skip)]
    pub text: String,
    /// Defaults of the backups.
    #[schemars(flatten)]
    pub defaults: BackupOptions,
    #[schemars(skip)]
    pub(super) spans: Spans,
    /// The backups.
    #[schemars(default, rename = "backup")]
    pub backups: Vec<NamedBackup>,
    /// The mirrors. They take no defaults from the top level.
    #[schemars(default, rename = "mirror")]
    pub mirrors: Vec<NamedMirror>,
    /// Where other programs can read how the backups are.
    #[schemars(default)]
    pub status: StatusOptions,
    /// Where it is published how much is still to do.
    #[schemars(default)]
    pub cloudwatch: CloudWatchOptions,
    #[schemars(skip)]
    pub(super) cloudwatch_spans: Vec<(String, Range<usize>)>,
    /// What cannot be read: told together with what makes no sense, by `resolve`.
    #[schemars(skip)]
    pub(super) faults: Vec<Fault>,
}

/// What was found wrong with an entry by looking beyond the file.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The entry.
    pub name: String,
    /// What of it is wrong.
    pub option: &'static str,
    pub title: String,
    pub help: Option<String>,
}

impl ConfigFile {
    /// Each finding at its place in the file.
    pub fn place(&self, findings: Vec<Finding>) -> Vec<Fault> {
        let faults = findings.into_iter().map(|finding| {
            let span = self.span_of(&finding.name, finding.option).unwrap_or(0..0);
            Fault { span, title: finding.title, help: finding.help }
        });
        faults.collect()
    }

    /// These faults, to be shown with the text.
    pub fn faulty(&self, faults: Vec<Fault>) -> Faults {
        Faults::new(&self.path, &self.text, faults)
    }

    /// Where an option of an entry is written; the entry, where it is not.
    fn span_of(&self, name: &str, option: &str) -> Option<Range<usize>> {
        let NamedBackup { span, spans, .. } = self.backups.iter().find(|one| one.name == name)?;
        Some(match option {
            "source" => spans.source.clone(),
            "destination" => spans.destination.clone(),
            option => {
                let own = find(&spans.options, option);
                own.or_else(|| find(&self.spans.options, option)).unwrap_or(span.clone())
            }
        })
    }

    /// Whether something in it cannot be read.
    pub fn is_faulty(&self) -> bool {
        !self.faults.is_empty()
    }
}

/// JSON Schema of the file, for editors.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(ConfigFile);
    schema.insert("title".to_owned(), "keepwatch.toml".into());
    schema.insert("unevaluatedProperties".to_owned(), false.into());
    let either = ["backup", "mirror"].map(|name| serde_json::json!({ "required": [name] }));
    schema.insert("anyOf".to_owned(), serde_json::Value::from(either.to_vec()));
    schema.to_value()
}

/// Reads a file's text. Where its syntax is wrong nothing else can be said.
pub fn read(path: &str, text: &str) -> Result<ConfigFile, Faults> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let syntax = errors.into_iter().map(|error| Fault {
        span: error.span().unwrap_or(0..0),
        title: error.message().to_owned(),
        help: None,
    });
    let syntax: Vec<Fault> = syntax.collect();
    if !syntax.is_empty() {
        return Err(Faults::new(path, text, syntax));
    }
    let mut faults = vec![];
    let span = document.span();
    let mut table = Table::new(document.into_inner(), span, &mut faults);
    let defaults = BackupOptions::read(&mut table);
    let entries = table.tables("backup");
    let mirrors = table.tables("mirror");
    let status = table.table("status");
    let cloudwatch = table.table("cloudwatch");
    let spans = table.finish(BackupOptions::NAMES, &["backup", "mirror", "status", "cloudwatch"]);
    let backups: Vec<NamedBackup> =
        entries.into_iter().map(|(entry, span)| backup(entry, span, &mut faults)).collect();
    let mirrors: Vec<NamedMirror> =
        mirrors.into_iter().map(|(entry, span)| mirror(entry, span, &mut faults)).collect();
    let mut options = |entry: Option<(DeTable<'_>, Range<usize>)>, read: ReadOptions<'_>| {
        let Some((entry, span)) = entry else { return vec![] };
        let mut table = Table::new(entry, span, &mut faults);
        let names = read(&mut table);
        table.finish(names, &[]).options
    };
    let mut file = ConfigFile::default();
    options(status, &mut |table| {
        file.status = StatusOptions::read(table);
        StatusOptions::NAMES
    });
    file.cloudwatch_spans = options(cloudwatch, &mut |table| {
        file.cloudwatch = CloudWatchOptions::read(table);
        CloudWatchOptions::NAMES
    });
    let (path, text) = (path.to_owned(), text.to_owned());
    Ok(ConfigFile { path, text, defaults, spans, backups, mirrors, faults, ..file })
}

/// Reads the options of a table of its own; answers with their names.
type ReadOptions<'r> = &'r mut dyn FnMut(&mut Table<'_, '_>) -> &'static [&'static str];

fn backup(entry: DeTable<'_>, span: Range<usize>, faults: &mut Vec<Fault>) -> NamedBackup {
    let mut table = Table::new(entry, span.clone(), faults);
    let name = table.required("name");
    let source = table.required("source");
    let destination = table.required("destination");
    let options = BackupOptions::read(&mut table);
    let spans = table.finish(BackupOptions::NAMES, &ENTRY);
    NamedBackup { name, source, destination, options, span, spans }
}

fn mirror(entry: DeTable<'_>, span: Range<usize>, faults: &mut Vec<Fault>) -> NamedMirror {
    let mut table = Table::new(entry, span.clone(), faults);
    let name = table.required("name");
    let source = table.required("source");
    let destination = table.required("destination");
    let options = MirrorOptions::read(&mut table);
    let spans = table.finish(MirrorOptions::NAMES, &ENTRY);
    NamedMirror { name, source, destination, options, span, spans }
}

/// What every entry has.
const ENTRY: [&str; 3] = ["name", "source", "destination"];

/// A table being read.
pub struct Table<'i, 'f> {
    entries: DeTable<'i>,
    span: Range<usize>,
    faults: &'f mut Vec<Fault>,
    spans: Spans,
}

impl<'i, 'f> Table<'i, 'f> {
    fn new(entries: DeTable<'i>, span: Range<usize>, faults: &'f mut Vec<Fault>) -> Self {
        Self { entries, span, faults, spans: Spans::default() }
    }

    fn take(&mut self, name: &str) -> Option<Spanned<DeValue<'i>>> {
        let key = self.entries.keys().find(|key| key.get_ref() == name)?.clone();
        let value = self.entries.remove(&key)?;
        let span = value.span();
        match name {
            "name" => self.spans.name = span,
            "source" => self.spans.source = span,
            "destination" => self.spans.destination = span,
            _ => self.spans.options.push((name.to_owned(), span)),
        }
        Some(value)
    }

    fn fault(&mut self, span: Range<usize>, title: String, help: Option<String>) {
        self.faults.push(Fault { span, title, help });
    }

    fn wrong(&mut self, name: &str, span: Range<usize>, wanted: &str) {
        self.fault(span, format!("{name} must be {wanted}"), None);
    }

    /// Text, or a bare number, read as the option's type reads it.
    pub fn parsed<T: FromStr>(&mut self, name: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let value = self.take(name)?;
        self.read_as(name, &value, "text")
    }

    fn read_as<T: FromStr>(
        &mut self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
    ) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            _ => {
                self.wrong(name, value.span(), wanted);
                return None;
            }
        };
        match text.parse() {
            Ok(read) => Some(read),
            Err(error) => {
                let title = format!("{name} cannot be {text:?}");
                self.fault(value.span(), title, Some(error.to_string()));
                None
            }
        }
    }

    pub fn switch(&mut self, name: &str) -> Option<bool> {
        let value = self.take(name)?;
        match value.get_ref() {
            DeValue::Boolean(on) => Some(*on),
            _ => {
                self.wrong(name, value.span(), "true or false");
                None
            }
        }
    }

    pub fn list<T: FromStr>(&mut self, name: &str) -> Option<Vec<T>>
    where
        T::Err: std::fmt::Display,
    {
        const WANTED: &str = "a list of texts, in brackets";
        let value = self.take(name)?;
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            self.wrong(name, span, WANTED);
            return None;
        };
        Some(items.iter().filter_map(|item| self.read_as(name, item, WANTED)).collect())
    }

    fn required(&mut self, name: &str) -> String {
        let Some(value) = self.take(name) else {
            let span = self.span.clone();
            self.fault(span, format!("this entry has no {name}"), None);
            return String::new();
        };
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => text.to_string(),
            _ => {
                self.wrong(name, value.span(), "text");
                String::new()
            }
        }
    }

    /// An array of tables.
    fn tables(&mut self, name: &str) -> Vec<(DeTable<'i>, Range<usize>)> {
        let Some(value) = self.take(name) else { return vec![] };
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            self.wrong(name, span, &format!("written as [[{name}]]"));
            return vec![];
        };
        let mut tables = vec![];
        for item in items {
            let span = item.span();
            match item.into_inner() {
                DeValue::Table(table) => tables.push((table, span)),
                _ => self.wrong(name, span, &format!("written as [[{name}]]")),
            }
        }
        tables
    }

    /// A table of its own: `[name]`.
    fn table(&mut self, name: &str) -> Option<(DeTable<'i>, Range<usize>)> {
        let value = self.take(name)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some((table, span)),
            _ => {
                self.wrong(name, span, &format!("written as [{name}]"));
                None
            }
        }
    }

    /// What nobody asked for is unknown.
    fn finish(self, options: &[&str], others: &[&str]) -> Spans {
        for key in self.entries.keys() {
            let name = key.get_ref();
            let known = options.iter().chain(others);
            let near = known.min_by_key(|known| distance(known, name));
            let help = near
                .filter(|near| distance(near, name) <= 3)
                .map(|near| format!("there is an option {near}"));
            let title = format!("unknown key {name}");
            self.faults.push(Fault { span: key.span(), title, help });
        }
        self.spans
    }
}

/// Number of letters to change, add or remove to make one word the other (Levenshtein 1965).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
