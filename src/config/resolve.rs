//! From what was written to what holds: layers joined, values checked against each other.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::plan::{Compare, Deletions, MaxDelete, Symlinks, parts};

use super::destination::Destination;
use super::fault::{Fault, Faults};
use super::file::ConfigFile;
use super::options::BackupOptions;
use super::place::{look_ahead, real_path};
use super::units::{Rate, Size, Span, Transfers};

/// A backup with every value settled.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupConfig {
    pub name: String,
    pub source: PathBuf,
    pub destination: Destination,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub exclude_if_present: Vec<String>,
    pub max_file_size: Option<u64>,
    pub one_file_system: bool,
    pub symlinks: Symlinks,
    pub deletions: Deletions,
    pub delete_delay: Span,
    pub max_delete: MaxDelete,
    pub settle: Span,
    pub max_wait: Span,
    pub rescan: Span,
    pub verify_every: Span,
    pub compare: Compare,
    pub storage_class: Option<String>,
    pub sse: Option<String>,
    pub sse_kms_key_id: Option<String>,
    pub multipart_threshold: u64,
    pub part_size: Option<u64>,
    pub transfers: usize,
    pub bandwidth: Option<u64>,
    pub bucket_owner: Option<String>,
    pub create_bucket: bool,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    pub profile: Option<String>,
    pub path_style: bool,
    pub credentials_file: Option<PathBuf>,
    /// What was set, for `config show`.
    pub set: BackupOptions,
}

impl BackupConfig {
    /// Every option with the value that holds.
    pub fn effective(&self) -> BackupOptions {
        BackupOptions {
            one_file_system: Some(self.one_file_system),
            symlinks: Some(self.symlinks),
            deletions: Some(self.deletions),
            delete_delay: Some(self.delete_delay),
            max_delete: Some(self.max_delete),
            settle: Some(self.settle),
            max_wait: Some(self.max_wait),
            rescan: Some(self.rescan),
            verify_every: Some(self.verify_every),
            compare: Some(self.compare),
            multipart_threshold: Some(Size(self.multipart_threshold)),
            transfers: Some(Transfers(self.transfers)),
            bandwidth: Some(Rate(self.bandwidth)),
            create_bucket: Some(self.create_bucket),
            path_style: Some(self.path_style),
            ..self.set.clone()
        }
    }
}

/// Defaults that depend on the command.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    pub delete_delay: Span,
}

impl Defaults {
    pub const DAEMON: Self = Self { delete_delay: Span::secs(60) };
    pub const ONE_SHOT: Self = Self { delete_delay: Span::secs(0) };
}

/// A fault of a value, and the option it is about; empty for the entry as a whole.
pub(super) type Complaint = (&'static str, String, Option<String>);

/// Settles every backup of a file, under the command line's options; or tells every fault at once.
pub fn resolve(
    file: &ConfigFile,
    flags: &BackupOptions,
    defaults: Defaults,
    home: Option<&Path>,
) -> Result<Vec<BackupConfig>, Faults> {
    let (configs, faults) = settle(file, flags, defaults, home);
    if faults.is_empty() { Ok(configs) } else { Err(file.faulty(faults)) }
}

/// The same, as far as it goes, and all faults of the file. What cannot be read is empty.
pub fn settle(
    file: &ConfigFile,
    flags: &BackupOptions,
    defaults: Defaults,
    home: Option<&Path>,
) -> (Vec<BackupConfig>, Vec<Fault>) {
    let mut faults = file.faults.clone();
    let mut configs: Vec<BackupConfig> = vec![];
    let sources = file.backups.iter().filter_map(|entry| expand(&entry.source, home).ok());
    sources.for_each(|source| look_ahead(&source));
    for entry in &file.backups {
        // What is missing or no text has been told of already.
        let unread = |option: &str| match option {
            "name" => entry.name.is_empty(),
            "source" => entry.source.is_empty(),
            "destination" => entry.destination.is_empty(),
            _ => false,
        };
        let options = flags.clone().or(&entry.options).or(&file.defaults);
        let span = |option: &str| match option {
            "name" => entry.spans.name.clone(),
            "source" => entry.spans.source.clone(),
            "destination" => entry.spans.destination.clone(),
            option => {
                let own = find(&entry.spans.options, option);
                own.or_else(|| find(&file.spans.options, option)).unwrap_or(entry.span.clone())
            }
        };
        let source = expand(&entry.source, home);
        let (config, mut complaints) =
            settle_one(&entry.name, source, &entry.destination, options, defaults, home);
        complaints.extend(against_others(&config, &configs));
        configs.push(config);
        for (option, title, help) in complaints.into_iter().filter(|(o, ..)| !unread(o)) {
            faults.push(Fault { span: span(option), title, help });
        }
    }
    faults.extend(super::mirror::faults(file, &configs, home));
    faults.extend(super::cloudwatch::faults(file, home));
    if file.backups.is_empty() && file.mirrors.is_empty() {
        let help = Some("add a [[backup]] entry; `keepwatch config example` shows one".to_owned());
        faults.push(Fault {
            span: 0..0,
            title: "there is no backup in this file".to_owned(),
            help,
        });
    }
    (configs, faults)
}

pub(super) fn find(spans: &[(String, Range<usize>)], option: &str) -> Option<Range<usize>> {
    spans.iter().find(|(name, _)| name == option).map(|(_, span)| span.clone())
}

/// Settles one backup, or a destination alone, from the command line. The error lists what is
/// wrong, a line each.
pub fn resolve_one(
    name: &str,
    source: Option<&Path>,
    destination: &str,
    options: BackupOptions,
    defaults: Defaults,
    home: Option<&Path>,
) -> Result<BackupConfig, String> {
    let source = Ok(source.map(Path::to_owned).unwrap_or_default());
    let (config, complaints) = settle_one(name, source, destination, options, defaults, home);
    if complaints.is_empty() {
        return Ok(config);
    }
    let lines = complaints.into_iter().map(|(option, title, help)| {
        let title = match option {
            "" | "source" | "destination" => title,
            option => format!("--{}: {title}", option.replace('_', "-")),
        };
        match help {
            Some(help) => format!("{title} ({help})"),
            None => title,
        }
    });
    Err(lines.collect::<Vec<_>>().join("\n"))
}

/// The backup with every value settled, and what is wrong with it. A source or destination that
/// cannot be read is empty.
fn settle_one(
    name: &str,
    source: Result<PathBuf, String>,
    destination: &str,
    set: BackupOptions,
    defaults: Defaults,
    home: Option<&Path>,
) -> (BackupConfig, Vec<Complaint>) {
    let mut complaints: Vec<Complaint> = vec![];
    let destination = destination.parse::<Destination>().unwrap_or_else(|error| {
        complaints.push(("destination", error.to_string(), None));
        Destination::Default
    });
    let source = source.unwrap_or_else(|title| {
        complaints.push(("source", title, None));
        PathBuf::new()
    });
    let credentials_file = set.credentials_file.as_ref().map(|file| {
        credentials(&file.to_string(), home).unwrap_or_else(|title| {
            complaints.push(("credentials_file", title, None));
            PathBuf::new()
        })
    });
    let options = set.clone();
    let span = |value: Option<Span>, secs| value.unwrap_or(Span::secs(secs));
    let size = |value: Option<Size>| value.map(|Size(bytes)| bytes);
    let config = BackupConfig {
        name: name.to_owned(),
        source: real_path(&source),
        destination: destination.in_real_folder(),
        include: texts(options.include),
        exclude: texts(options.exclude),
        exclude_if_present: texts(options.exclude_if_present),
        max_file_size: size(options.max_file_size),
        one_file_system: options.one_file_system.unwrap_or(false),
        symlinks: options.symlinks.unwrap_or_default(),
        deletions: options.deletions.unwrap_or_default(),
        delete_delay: options.delete_delay.unwrap_or(defaults.delete_delay),
        max_delete: options.max_delete.unwrap_or_default(),
        settle: span(options.settle, 2),
        max_wait: span(options.max_wait, 60),
        rescan: span(options.rescan, 3_600),
        verify_every: span(options.verify_every, 7 * 86_400),
        compare: options.compare.unwrap_or_default(),
        storage_class: text(options.storage_class),
        sse: text(options.sse),
        sse_kms_key_id: text(options.sse_kms_key_id),
        multipart_threshold: size(options.multipart_threshold).unwrap_or(16 * parts::MIB),
        part_size: size(options.part_size),
        transfers: options.transfers.map_or(16, |Transfers(number)| number),
        bandwidth: options.bandwidth.and_then(|Rate(rate)| rate),
        bucket_owner: text(options.bucket_owner),
        create_bucket: options.create_bucket.unwrap_or(false),
        endpoint_url: text(options.endpoint_url),
        region: text(options.region),
        profile: text(options.profile),
        path_style: options.path_style.unwrap_or(false),
        credentials_file,
        set,
    };
    complaints.extend(check(&config));
    (config, complaints)
}

pub(super) fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

pub(super) fn texts<T: ToString>(values: Option<Vec<T>>) -> Vec<String> {
    values.into_iter().flatten().map(|value| value.to_string()).collect()
}

/// Values that make no sense alone or together.
fn check(config: &BackupConfig) -> Vec<Complaint> {
    let mut complaints: Vec<Complaint> = vec![];
    let mut complain = |option, title: String, help: &str| {
        complaints.push((option, title, (!help.is_empty()).then(|| help.to_owned())));
    };
    let is_odd = matches!(config.name.as_str(), "" | "." | "..");
    if is_odd || config.name.chars().any(|c| crate::model::is_unsafe_to_show(c) || c == '/') {
        complain("name", "a name is one line of text without '/'".to_owned(), "");
    }
    if config.max_wait < config.settle {
        complain("max_wait", "max_wait is shorter than settle".to_owned(), "");
    }
    if let Some(bytes) = config.part_size
        && !(parts::PART_MIN_BYTES..=parts::PART_MAX_BYTES).contains(&bytes)
    {
        let title = format!("a part of {} is not possible", Size(bytes));
        complain("part_size", title, "S3 takes parts of 5MiB to 5GiB");
    }
    if !(1..=512 * parts::MIB).contains(&config.multipart_threshold) {
        let title = format!("{} cannot be a threshold", Size(config.multipart_threshold));
        let help = "files up to it are held in memory: write 1B to 512MiB";
        complain("multipart_threshold", title, help);
    }
    if config.rescan < Span::secs(1) {
        complain("rescan", "rescan must be at least 1s".to_owned(), "");
    }
    let uses_kms = config.sse.as_deref().is_some_and(|sse| sse.starts_with("aws:kms"));
    if config.sse_kms_key_id.is_some() && !uses_kms {
        let help = "set sse = \"aws:kms\" too";
        complain("sse_kms_key_id", "a KMS key needs KMS encryption".to_owned(), help);
    }
    if let Destination::Store { folder, .. } = &config.destination
        && !config.source.as_os_str().is_empty()
        && (folder.starts_with(&config.source) || config.source.starts_with(folder))
    {
        let title = "the store and the source contain each other".to_owned();
        complain("destination", title, "the backup would back up itself");
    }
    complaints
}

/// Two backups must not share a name or write to the same place.
fn against_others(config: &BackupConfig, others: &[BackupConfig]) -> Vec<Complaint> {
    let mut complaints = vec![];
    for other in others {
        if other.name == config.name {
            let title = format!("the name {} is taken", config.name);
            complaints.push((
                "name",
                title,
                Some("each backup needs a name of its own".to_owned()),
            ));
        }
        if overlap(config, other) {
            let title = format!("the backup {} writes to the same place", other.name);
            let help = "give each its own prefix, none inside the other".to_owned();
            complaints.push(("destination", title, Some(help)));
        }
    }
    complaints
}

fn overlap(a: &BackupConfig, b: &BackupConfig) -> bool {
    let nested = |x: &str, y: &str| x.starts_with(y) || y.starts_with(x);
    match (&a.destination, &b.destination) {
        (
            Destination::S3 { bucket, prefix },
            Destination::S3 { bucket: other, prefix: other_prefix },
        ) => {
            a.endpoint_url == b.endpoint_url
                && a.profile == b.profile
                && bucket == other
                && nested(prefix.as_str(), other_prefix.as_str())
        }
        (
            Destination::Store { folder, bucket, prefix },
            Destination::Store { folder: f, bucket: b, prefix: p },
        ) => folder == f && bucket == b && nested(prefix.as_str(), p.as_str()),
        _ => false,
    }
}

/// Where systemd places what the service of the machine is given.
const OF_THE_SERVICE: &str = "/run/credentials/keepwatch.service";

/// A file of credentials. One without a folder, or below `%d`, is among those that systemd gives
/// the service (`LoadCredential`); outside of it, where that is.
pub(super) fn credentials(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let Some(name) = given_by_systemd(text) else { return expand(text, home) };
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
    Ok(Path::new(folder.as_deref().unwrap_or(OF_THE_SERVICE.as_ref())).join(name))
}

/// The name of what systemd gives, if this is one.
pub fn given_by_systemd(text: &str) -> Option<&str> {
    let name = text.strip_prefix("%d/").unwrap_or(text);
    let is_odd = name.contains('/') || name.starts_with('~') || matches!(name, "" | "." | "..");
    (!is_odd).then_some(name)
}

/// Paths may begin with `~/`. They must be absolute then: a daemon has no folder to be relative to.
pub(super) fn expand(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let path = match (text.strip_prefix("~"), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        (Some(rest), None) if rest.is_empty() || rest.starts_with('/') => {
            return Err(format!("{text:?}: there is no home folder here"));
        }
        _ => PathBuf::from(text),
    };
    if path.is_absolute() { Ok(path) } else { Err(format!("{text:?} is not an absolute path")) }
}
