//! Mirrors: what may be set for them, and what holds.

use std::path::{Path, PathBuf};

use crate::plan::mirror::{Overlap, overlap};
use crate::plan::parts::{MIB, PART_MAX_BYTES, PART_MIN_BYTES};
use crate::plan::{Deletions, MaxDelete, MirrorCompare};

use super::destination::Destination;
use super::fault::{Fault, Faults};
use super::file::{ConfigFile, Table};
use super::options::{ToToml as _, options};
use super::resolve::{BackupConfig, Complaint, credentials, find, text, texts};
use super::units::{Rate, Size, Span, Sse, Transfers};
use super::words::{EndpointUrl, Line, Pattern, StorageClass};

options! {
    /// What may be set for a mirror, as far as it was set in one place.
    #[command(next_help_heading = "Mirror options")]
    MirrorOptions;
    /// Copy only keys that match, or lie below a folder that does (gitignore rules)
    #[arg(long, env = "KEEPWATCH_MIRROR_INCLUDE", hide_env = true, value_name = "PATTERN",
        allow_hyphen_values = true)]
    include: [Vec<Pattern>] list;
    /// Leave out what matches (gitignore rules)
    #[arg(long, env = "KEEPWATCH_MIRROR_EXCLUDE", hide_env = true, value_name = "PATTERN",
        allow_hyphen_values = true)]
    exclude: [Vec<Pattern>] list;
    /// Copy only what was modified so lately: 24h
    #[arg(long, env = "KEEPWATCH_MIRROR_MODIFIED_WITHIN", hide_env = true,
        value_name = "DURATION", allow_hyphen_values = true)]
    modified_within: [Span] parsed;
    /// What makes a copy count as out of date: modified (size, and a newer source), checksum, size
    #[arg(long, env = "KEEPWATCH_MIRROR_COMPARE", hide_env = true, value_name = "WHAT")]
    compare: [MirrorCompare] parsed;
    /// What happens to copies whose source is gone (tag): tag, delete, keep
    #[arg(long, env = "KEEPWATCH_MIRROR_DELETIONS", hide_env = true, value_name = "WHAT")]
    deletions: [Deletions] parsed;
    /// How many copies may be tagged or deleted within 24 hours without asking (25%)
    #[arg(long, env = "KEEPWATCH_MIRROR_MAX_DELETE", hide_env = true, value_name = "SHARE",
        allow_hyphen_values = true)]
    max_delete: [MaxDelete] parsed;
    /// How often the daemon compares the buckets (6h)
    #[arg(skip)]
    every: [Span] parsed;
    /// Storage class of copies (that of their source)
    #[arg(long, env = "KEEPWATCH_MIRROR_STORAGE_CLASS", hide_env = true, value_name = "CLASS")]
    storage_class: [StorageClass] parsed;
    /// Server-side encryption of copies: AES256, aws:kms, aws:kms:dsse
    #[arg(long, env = "KEEPWATCH_MIRROR_SSE", hide_env = true, value_name = "WHAT")]
    sse: [Sse] parsed;
    /// Key for aws:kms
    #[arg(long, env = "KEEPWATCH_MIRROR_SSE_KMS_KEY_ID", hide_env = true, value_name = "KEY")]
    sse_kms_key_id: [Line] parsed;
    /// Larger objects are copied in parts (128MiB)
    #[arg(long, env = "KEEPWATCH_MIRROR_MULTIPART_THRESHOLD", hide_env = true,
        value_name = "SIZE", allow_hyphen_values = true)]
    multipart_threshold: [Size] parsed;
    /// Size of a part, where the source was not sent in parts itself (64MiB; 8MiB between servers)
    #[arg(long, env = "KEEPWATCH_MIRROR_PART_SIZE", hide_env = true, value_name = "SIZE",
        allow_hyphen_values = true)]
    part_size: [Size] parsed;
    /// Requests at the same time (16)
    #[arg(long, env = "KEEPWATCH_MIRROR_TRANSFERS", hide_env = true, value_name = "N",
        allow_hyphen_values = true)]
    transfers: [Transfers] parsed;
    /// With --threads: N x M requests at the same time
    #[arg(long, env = "KEEPWATCH_MIRROR_PROCESSES", hide_env = true, value_name = "N",
        conflicts_with = "transfers", allow_hyphen_values = true)]
    processes: [Transfers] parsed;
    /// With --processes: N x M requests at the same time
    #[arg(long, env = "KEEPWATCH_MIRROR_THREADS", hide_env = true, value_name = "M",
        conflicts_with = "transfers", allow_hyphen_values = true)]
    threads: [Transfers] parsed;
    /// Bytes a second at most, each way, where content comes through here (off)
    #[arg(long, env = "KEEPWATCH_MIRROR_BANDWIDTH", hide_env = true, value_name = "RATE",
        allow_hyphen_values = true)]
    bandwidth: [Rate] parsed;
    /// The account that must own the destination's bucket
    #[arg(long, env = "KEEPWATCH_MIRROR_BUCKET_OWNER", hide_env = true, value_name = "ACCOUNT")]
    bucket_owner: [Line] parsed;
    /// Make the destination's bucket if it is not there
    #[arg(long, env = "KEEPWATCH_MIRROR_CREATE_BUCKET", hide_env = true, value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    create_bucket: [bool] switch;
    /// URL of the S3 endpoint of both sides
    #[arg(skip)]
    endpoint_url: [EndpointUrl] parsed;
    /// Region of the destination's bucket
    #[arg(skip)]
    region: [Line] parsed;
    /// Profile in the shared AWS configuration
    #[arg(skip)]
    profile: [Line] parsed;
    /// Put the bucket's name in the path, not in the host name
    #[arg(skip)]
    path_style: [bool] switch;
    /// File with credentials, in the format of ~/.aws/credentials
    #[arg(skip)]
    credentials_file: [Line] parsed;
    /// URL of the source's S3 endpoint, where it is another
    #[arg(long, env = "KEEPWATCH_SOURCE_ENDPOINT_URL", hide_env = true, value_name = "URL")]
    source_endpoint_url: [EndpointUrl] parsed;
    /// Region of the source's bucket
    #[arg(long, env = "KEEPWATCH_SOURCE_REGION", hide_env = true, value_name = "REGION")]
    source_region: [Line] parsed;
    /// Profile for the source, where it is another
    #[arg(long, env = "KEEPWATCH_SOURCE_PROFILE", hide_env = true, value_name = "PROFILE")]
    source_profile: [Line] parsed;
    /// Put the name of the source's bucket in the path
    #[arg(long, env = "KEEPWATCH_SOURCE_PATH_STYLE", hide_env = true, value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    source_path_style: [bool] switch;
    /// File with credentials for the source, where they are others
    #[arg(long, env = "KEEPWATCH_SOURCE_CREDENTIALS_FILE", hide_env = true, value_name = "FILE")]
    source_credentials_file: [Line] parsed;
    /// The account that must own the source's bucket
    #[arg(long, env = "KEEPWATCH_SOURCE_BUCKET_OWNER", hide_env = true, value_name = "ACCOUNT")]
    source_bucket_owner: [Line] parsed;
}

/// A bucket and how it is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    pub place: Destination,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    pub profile: Option<String>,
    pub path_style: bool,
    pub credentials_file: Option<PathBuf>,
    pub bucket_owner: Option<String>,
}

/// A mirror with every value settled.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorConfig {
    pub name: String,
    pub source: Bucket,
    pub destination: Bucket,
    pub every: Span,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub modified_within: Option<Span>,
    pub compare: MirrorCompare,
    pub deletions: Deletions,
    pub max_delete: MaxDelete,
    pub storage_class: Option<String>,
    pub sse: Option<String>,
    pub sse_kms_key_id: Option<String>,
    pub multipart_threshold: u64,
    pub part_size: Option<u64>,
    pub transfers: usize,
    pub bandwidth: Option<u64>,
    pub create_bucket: bool,
    /// What was set, for `config show`.
    pub set: MirrorOptions,
}

impl MirrorConfig {
    /// The options with the values that hold.
    pub fn effective(&self) -> MirrorOptions {
        MirrorOptions {
            compare: Some(self.compare),
            deletions: Some(self.deletions),
            max_delete: Some(self.max_delete),
            every: Some(self.every),
            multipart_threshold: Some(Size(self.multipart_threshold)),
            transfers: Some(Transfers(self.transfers)),
            processes: None,
            threads: None,
            bandwidth: Some(Rate(self.bandwidth)),
            create_bucket: Some(self.create_bucket),
            path_style: Some(self.destination.path_style),
            ..self.set.clone()
        }
    }
}

/// Settles every mirror of a file, under the command line's options; or tells every fault of them.
pub fn resolve_mirrors(
    file: &ConfigFile,
    flags: &MirrorOptions,
    home: Option<&Path>,
) -> Result<Vec<MirrorConfig>, Faults> {
    let (mirrors, mut faults) = settle_all(file, flags, &[], home);
    faults.extend(file.faults.clone());
    match faults.is_empty() {
        true => Ok(mirrors),
        false => Err(Faults::new(&file.path, &file.text, faults)),
    }
}

/// Faults of the mirrors of a file that has these backups too.
pub(super) fn faults(
    file: &ConfigFile,
    backups: &[BackupConfig],
    home: Option<&Path>,
) -> Vec<Fault> {
    settle_all(file, &MirrorOptions::default(), backups, home).1
}

fn settle_all(
    file: &ConfigFile,
    flags: &MirrorOptions,
    backups: &[BackupConfig],
    home: Option<&Path>,
) -> (Vec<MirrorConfig>, Vec<Fault>) {
    let mut faults = vec![];
    let mut mirrors: Vec<MirrorConfig> = vec![];
    for entry in &file.mirrors {
        // What is missing or no text has been told of already.
        let unread = |option: &str| match option {
            "name" => entry.name.is_empty(),
            "source" => entry.source.is_empty(),
            "destination" => entry.destination.is_empty(),
            _ => false,
        };
        let span = |option: &str| match option {
            "name" => entry.spans.name.clone(),
            "source" => entry.spans.source.clone(),
            "destination" => entry.spans.destination.clone(),
            option => find(&entry.spans.options, option).unwrap_or(entry.span.clone()),
        };
        let mut options = flags.clone().or(&entry.options);
        // One number that is typed beats two that are written.
        if flags.transfers.is_some() {
            (options.processes, options.threads) = (flags.processes, flags.threads);
        }
        let (mirror, mut complaints) =
            settle(&entry.name, &entry.source, &entry.destination, options, home);
        complaints.extend(against_others(&mirror, &mirrors, backups));
        mirrors.push(mirror);
        for (option, title, help) in complaints.into_iter().filter(|(o, ..)| !unread(o)) {
            faults.push(Fault { span: span(option), title, help });
        }
    }
    (mirrors, faults)
}

/// Settles one mirror from the command line. The error lists what is wrong, a line each.
pub fn resolve_mirror(
    source: &str,
    destination: &str,
    options: MirrorOptions,
    home: Option<&Path>,
) -> Result<MirrorConfig, String> {
    let (mut config, complaints) = settle("mirror", source, destination, options, home);
    config.name = name_of(&config.destination.place);
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

/// What a mirror without a name is called: after the last part of its destination.
fn name_of(destination: &Destination) -> String {
    let (Destination::S3 { bucket, prefix } | Destination::Store { bucket, prefix, .. }) =
        destination
    else {
        return "mirror".to_owned();
    };
    let last = prefix.as_str().split('/').rfind(|part| !part.is_empty());
    last.unwrap_or(bucket).to_owned()
}

/// Both buckets, and what is wrong with how they are written.
fn sides(
    source: &str,
    destination: &str,
    set: &MirrorOptions,
    home: Option<&Path>,
) -> (Bucket, Bucket, Vec<Complaint>) {
    let mut complaints: Vec<Complaint> = vec![];
    let mut place = |option: &'static str, text: &str| match text.parse::<Destination>() {
        Ok(Destination::Default) => {
            let help = "write s3://bucket/prefix, bucket::prefix or file:///folder".to_owned();
            complaints.push((
                option,
                "a mirror needs buckets by their names".to_owned(),
                Some(help),
            ));
            Destination::Default
        }
        Ok(place) => place.in_real_folder(),
        Err(error) => {
            complaints.push((option, error.to_string(), None));
            Destination::Default
        }
    };
    let (source, destination) = (place("source", source), place("destination", destination));
    let mut file = |option: &'static str, file: Option<&Line>| {
        file.map(|file| {
            credentials(&file.to_string(), home).unwrap_or_else(|title| {
                complaints.push((option, title, None));
                PathBuf::new()
            })
        })
    };
    let credentials_file = file("credentials_file", set.credentials_file.as_ref());
    let of_source = file("source_credentials_file", set.source_credentials_file.as_ref());
    let options = set.clone();
    let destination = Bucket {
        place: destination,
        endpoint_url: text(options.endpoint_url),
        region: text(options.region),
        profile: text(options.profile),
        path_style: options.path_style.unwrap_or(false),
        credentials_file,
        bucket_owner: text(options.bucket_owner),
    };
    // Without words of its own the source is reached as the destination is.
    let source = Bucket {
        place: source,
        endpoint_url: text(options.source_endpoint_url).or(destination.endpoint_url.clone()),
        region: text(options.source_region).or(destination.region.clone()),
        profile: text(options.source_profile).or(destination.profile.clone()),
        path_style: options.source_path_style.unwrap_or(destination.path_style),
        credentials_file: of_source.or(destination.credentials_file.clone()),
        bucket_owner: text(options.source_bucket_owner),
    };
    (source, destination, complaints)
}

fn settle(
    name: &str,
    source: &str,
    destination: &str,
    set: MirrorOptions,
    home: Option<&Path>,
) -> (MirrorConfig, Vec<Complaint>) {
    let (source, destination, mut complaints) = sides(source, destination, &set, home);
    let options = set.clone();
    let number = |of: Option<Transfers>| of.map(|Transfers(number)| number);
    let transfers = match (options.processes, options.threads) {
        (None, None) => number(options.transfers).unwrap_or(16),
        (n, m) => number(n).unwrap_or(1) * number(m).unwrap_or(1),
    };
    let config = MirrorConfig {
        name: name.to_owned(),
        source,
        destination,
        every: options.every.unwrap_or(Span::secs(6 * 3_600)),
        include: texts(options.include),
        exclude: texts(options.exclude),
        modified_within: options.modified_within,
        compare: options.compare.unwrap_or_default(),
        deletions: options.deletions.unwrap_or(Deletions::Tag),
        max_delete: options.max_delete.unwrap_or_default(),
        storage_class: text(options.storage_class),
        sse: text(options.sse),
        sse_kms_key_id: text(options.sse_kms_key_id),
        multipart_threshold: options.multipart_threshold.map_or(128 * MIB, |Size(bytes)| bytes),
        part_size: options.part_size.map(|Size(bytes)| bytes),
        transfers,
        bandwidth: options.bandwidth.and_then(|Rate(rate)| rate),
        create_bucket: options.create_bucket.unwrap_or(false),
        set,
    };
    complaints.extend(check(&config));
    (config, complaints)
}

/// Values that make no sense alone or together.
fn check(config: &MirrorConfig) -> Vec<Complaint> {
    let mut complaints: Vec<Complaint> = vec![];
    let mut complain = |option, title: String, help: &str| {
        complaints.push((option, title, (!help.is_empty()).then(|| help.to_owned())));
    };
    let is_odd = matches!(config.name.as_str(), "" | "." | "..");
    if is_odd || config.name.chars().any(|c| crate::model::is_unsafe_to_show(c) || c == '/') {
        complain("name", "a name is one line of text without '/'".to_owned(), "");
    }
    if config.every < Span::secs(1) {
        complain("every", "every must be at least 1s".to_owned(), "");
    }
    if config.transfers > 1_000 {
        let title = format!("{} requests at the same time are too many", config.transfers);
        complain("processes", title, "S3 takes a few thousand a second: write up to 1000");
    }
    let possible = PART_MIN_BYTES..=PART_MAX_BYTES;
    if let Some(bytes) = config.part_size.filter(|bytes| !possible.contains(bytes)) {
        let title = format!("a part of {} is not possible", Size(bytes));
        complain("part_size", title, "S3 takes parts of 5MiB to 5GiB");
    }
    if !possible.contains(&config.multipart_threshold) {
        let title = format!("{} cannot be a threshold", Size(config.multipart_threshold));
        complain("multipart_threshold", title, "write 5MiB to 5GiB");
    }
    let uses_kms = config.sse.as_deref().is_some_and(|sse| sse.starts_with("aws:kms"));
    if config.sse_kms_key_id.is_some() && !uses_kms {
        let help = "set sse = \"aws:kms\" too";
        complain("sse_kms_key_id", "a KMS key needs KMS encryption".to_owned(), help);
    }
    match nested(&config.source, &config.destination) {
        None => {}
        Some(Overlap::Same) => {
            complain("destination", "it is the source itself".to_owned(), "name another bucket");
        }
        Some(Overlap::DestinationInside) => complain(
            "destination",
            "the destination lies inside the source".to_owned(),
            "every copy would be copied again: use another bucket, or a prefix beside the source's",
        ),
        Some(Overlap::SourceInside) => complain(
            "destination",
            "the source lies inside the destination".to_owned(),
            "the source itself would count as copies: use another bucket, or a prefix beside it",
        ),
    }
    complaints
}

/// Whether both are of one server, as far as the words tell: profiles may name servers, too. Who
/// connects looks again.
fn nested(source: &Bucket, destination: &Bucket) -> Option<Overlap> {
    let prefixes = match (&source.place, &destination.place) {
        (
            Destination::S3 { bucket, prefix },
            Destination::S3 { bucket: other, prefix: other_prefix },
        ) if bucket == other
            && source.endpoint_url == destination.endpoint_url
            && source.profile == destination.profile =>
        {
            (prefix, other_prefix)
        }
        (
            Destination::Store { folder, bucket, prefix },
            Destination::Store { folder: f, bucket: b, prefix: p },
        ) if folder == f && bucket == b => (prefix, p),
        _ => return None,
    };
    overlap(prefixes.0.as_str(), prefixes.1.as_str())
}

/// Two entries must not share a name or write to the same place.
fn against_others(
    mirror: &MirrorConfig,
    mirrors: &[MirrorConfig],
    backups: &[BackupConfig],
) -> Vec<Complaint> {
    let names = mirrors.iter().map(|other| &other.name);
    let mut complaints: Vec<Complaint> = vec![];
    if names.chain(backups.iter().map(|other| &other.name)).any(|name| *name == mirror.name) {
        let help = "each backup and each mirror needs a name of its own".to_owned();
        complaints.push(("name", format!("the name {} is taken", mirror.name), Some(help)));
    }
    let help = || Some("give each its own prefix, none inside the other".to_owned());
    for other in mirrors {
        if nested(&mirror.destination, &other.destination).is_some() {
            let title = format!("the mirror {} writes to the same place", other.name);
            complaints.push(("destination", title, help()));
        }
    }
    if let Some(last) = closes_circle(mirror, mirrors) {
        let title = format!("with the mirror {last} the copies come back to the source");
        let help = "a mirror copies one way: each side would undo the other's deletions".to_owned();
        complaints.push(("destination", title, Some(help)));
    }
    for backup in backups {
        let written = Bucket {
            place: backup.destination.clone(),
            endpoint_url: backup.endpoint_url.clone(),
            ..mirror.destination.clone()
        };
        if nested(&mirror.destination, &written).is_some() {
            let title = format!("the backup {} writes to the same place", backup.name);
            complaints.push(("destination", title, help()));
        }
    }
    complaints
}

/// The mirror that writes to where this one reads from, what this one writes.
fn closes_circle<'a>(mirror: &MirrorConfig, mirrors: &'a [MirrorConfig]) -> Option<&'a str> {
    let mut reached = vec![&mirror.destination];
    let mut left: Vec<&MirrorConfig> = mirrors.iter().collect();
    while let Some(at) = left
        .iter()
        .position(|other| reached.iter().any(|place| nested(place, &other.source).is_some()))
    {
        let next = left.swap_remove(at);
        if nested(&mirror.source, &next.destination).is_some() {
            return Some(&next.name);
        }
        reached.push(&next.destination);
    }
    None
}
