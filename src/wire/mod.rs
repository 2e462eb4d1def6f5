//! From a configuration to something that can be run: adapters and use-cases are put together here.
//!
//! Needs no terminal and says nothing to a person: whoever runs it does, be it the command line or
//! a program that uses this crate.

mod error;
mod keys;
mod locked;
pub mod mirror;
mod places;
pub mod publish;
mod restore;
mod stores;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::app::backup::PlanSink;
use crate::app::driver::Watching;
use crate::app::owner::OwnerIdentity;
use crate::app::{Backup, BackupSettings};
use crate::config::{BackupConfig, Destination, real_path};
use crate::engine::Mode;
use crate::fs::{RuleOptions, Rules, Tree};
use crate::model::key::KEY_MAX_BYTES;
use crate::model::{Escaped, Millis, Prefix};
use crate::plan::ErrorClass;
use crate::ports::{Clock, LocalTree};
use crate::s3::{Connection, Endpoint, S3Options, S3Store};
use crate::service::{lock, machine, paths};
use crate::state::{BackupId, BackupState, State};

pub use error::Error;
use locked::{not_opened, patiently};

pub use crate::s3::TELLS_OF_ROLES;
pub use places::{Beyond, Found, check, faults, find, refuse_nested};
pub use restore::{RestorePlan, patterns, restore};
pub use stores::{as_typed, is_store, open_store, store_reach};

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Millis(since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// The state, for as long as it is ours.
pub struct OpenState {
    pub state: State,
    pub folder: PathBuf,
    _lock: lock::Lock,
}

/// The folder of the state: the one that was named, or the user's.
pub fn state_folder(named: Option<&Path>) -> Result<PathBuf, Error> {
    let folder = named.map(Path::to_owned).or_else(paths::state_folder);
    let folder = folder.ok_or_else(|| {
        Error::new(ErrorClass::Configuration, "there is no home folder to keep the state in")
            .hint("name a folder with --state-dir")
    })?;
    std::path::absolute(&folder).map(|folder| real_path(&folder)).map_err(|e| {
        Error::new(ErrorClass::Configuration, format!("cannot use {}", folder.display()))
            .caused_by(&e)
    })
}

/// As [`open_state`], unless these backups would back it up: then nothing is made.
pub fn open_state_of(named: Option<&Path>, configs: &[BackupConfig]) -> Result<OpenState, Error> {
    let folder = state_folder(named)?;
    let is_apart = |config: &BackupConfig| places::refuse_state_in_source(&config.source, &folder);
    configs.iter().try_for_each(is_apart)?;
    open_state(named)
}

/// Takes the lock: nobody else uses the state meanwhile, and no daemon runs on it.
pub fn lock_state(named: Option<&Path>) -> Result<(PathBuf, lock::Lock), Error> {
    let folder = state_folder(named)?;
    let lock = patiently(&folder, lock::take)?;
    Ok((folder, lock))
}

/// Takes the lock and opens the database.
pub fn open_state(named: Option<&Path>) -> Result<OpenState, Error> {
    let (folder, lock) = lock_state(named)?;
    let opened = State::open(&folder, SystemClock.now());
    let (state, opened) = opened.map_err(|error| not_opened(&error))?;
    if let Some(moved_to) = opened.moved_to {
        tracing::error!(
            "the state database was damaged and is rebuilt from the bucket; the old one is at {}. \
             Deletions are held until you approve them",
            moved_to.display()
        );
    }
    Ok(OpenState { state, folder, _lock: lock })
}

/// The state as it is recorded, for whoever only asks: nothing is made or changed. `None` where
/// there is none.
pub fn open_state_to_read(named: Option<&Path>) -> Result<Option<OpenState>, Error> {
    let folder = state_folder(named)?;
    if !folder.join(crate::state::FILE_NAME).exists() {
        return Ok(None);
    }
    let lock = patiently(&folder, lock::share)?;
    match State::open_to_read(&folder).map_err(|error| not_opened(&error))? {
        Some(state) => Ok(Some(OpenState { state, folder, _lock: lock })),
        // An earlier program made it: it is brought up to date first.
        None => {
            drop(lock);
            open_state(named).map(Some)
        }
    }
}

/// How a command runs its backups.
#[derive(Clone)]
pub struct RunOptions {
    pub mode: Mode,
    pub take_over: bool,
    pub failed_only: bool,
    pub new_bucket: bool,
    pub plan: Option<PlanSink>,
}

/// A backup ready to be driven.
pub struct Wired {
    pub backup: Arc<Backup>,
    pub watching: Option<Watching>,
    pub destination: String,
    /// Who answers there, in words.
    pub server: String,
}

/// Makes the ports of a backup, whose source was found, and puts them together.
pub async fn wire(
    config: &BackupConfig,
    found: Found,
    state: &OpenState,
    run: &RunOptions,
) -> Result<Wired, Error> {
    let Found { path: source, watching } = found;
    places::refuse_state_in_source(&source, &state.folder)?;
    refuse_nested(&config.destination, &source, "source").await?;
    let mut config = config.clone();
    let id_at =
        |endpoint: String, config: &BackupConfig| id_of(&source, endpoint, &config.destination);
    let id_of_store = |endpoint| id_at(endpoint, &config);
    stores::refuse_lost(&config.name, &config.destination, id_of_store, state).await?;
    let way = way_to(&config, run.plan.is_some()).await?;
    let endpoint_name = endpoint_name(&config.destination, &way);
    let server = match &config.destination {
        Destination::S3 { .. } | Destination::Default if !endpoint_name.is_empty() => {
            Escaped(endpoint_name.as_bytes()).to_string()
        }
        destination => destination.to_string(),
    };
    if config.destination == Destination::Default {
        config.destination = default_destination(&source, &endpoint_name, state, run).await?;
        config.create_bucket = true;
    }
    let (bucket, prefix) = place(&config.destination);
    let id = id_at(endpoint_name, &config);
    let options = S3Options { may_be_made: true, ..options(&config, bucket, &prefix) };
    let store = S3Store::new(way.connection, options);
    let rules = rules(&config)?;
    let records = records_of(&config.name, id, state, run.plan.is_some()).await?;
    let key_max_bytes = KEY_MAX_BYTES - prefix.as_str().len();
    // By the name that the person gave: where it leads now is found out at each look.
    let tree: Arc<dyn LocalTree> = Arc::new(Tree::new(&config.source, rules, key_max_bytes));
    let settings = settings(&config, run, &source)?;
    let clock = Arc::new(SystemClock);
    let backup =
        Backup::new(settings, tree, Arc::new(store), Arc::new(records), clock, run.plan.clone());
    let destination = config.destination.to_string();
    Ok(Wired { backup: Arc::new(backup), watching, destination, server })
}

/// The records of a backup or a mirror. A dry run leaves none behind.
pub async fn records_of(
    name: &str,
    id: BackupId,
    state: &OpenState,
    dry_run: bool,
) -> Result<BackupState, Error> {
    if !dry_run {
        return Ok(state.state.backup(name, id).await?);
    }
    if let Some(known) = state.state.known_backup(id.clone()).await? {
        return Ok(known);
    }
    let scratch = State::scratch()
        .map_err(|e| Error::new(ErrorClass::State, "cannot keep notes in memory").caused_by(&e))?;
    Ok(scratch.backup(name, id).await?)
}

/// What the records know the endpoint by: where the way leads, whoever named it; empty for AWS.
fn endpoint_name(destination: &Destination, way: &Reach) -> String {
    match destination {
        Destination::Store { folder, .. } => stores::store_name(folder),
        _ => way.server(),
    }
}

/// What the records know a backup by.
fn id_of(source: &Path, endpoint: String, destination: &Destination) -> BackupId {
    let (bucket, prefix) = place(destination);
    let source = source.as_os_str().as_bytes().to_owned();
    BackupId { source, endpoint, bucket, prefix: prefix.as_str().to_owned() }
}

/// The destination of records, as a person writes it.
pub fn destination_of(id: &BackupId) -> String {
    let (bucket, prefix) = (id.bucket.clone(), Prefix::new(&id.prefix));
    let destination = match id.endpoint.strip_prefix("file://") {
        Some(folder) => Destination::Store { folder: PathBuf::from(folder), bucket, prefix },
        None => Destination::S3 { bucket, prefix },
    };
    destination.to_string()
}

pub fn place(destination: &Destination) -> (String, Prefix) {
    match destination {
        Destination::S3 { bucket, prefix } | Destination::Store { bucket, prefix, .. } => {
            (bucket.clone(), prefix.clone())
        }
        Destination::Default => (String::new(), Prefix::default()),
    }
}

/// `default`: the bucket made for this source before, or a new one named after this moment.
async fn default_destination(
    source: &Path,
    endpoint: &str,
    state: &OpenState,
    run: &RunOptions,
) -> Result<Destination, Error> {
    let source = source.as_os_str().as_bytes().to_owned();
    let known = state.state.default_bucket(source.clone(), endpoint.to_owned()).await?;
    let bucket = match known {
        Some(bucket) if !run.new_bucket => bucket,
        _ => {
            let name = new_bucket_name(state).await?;
            tracing::info!("the new bucket {name} is the destination of {}", Escaped(&source));
            if run.plan.is_none() {
                let bucket = name.clone();
                state.state.set_default_bucket(source, endpoint.to_owned(), bucket).await?;
            }
            name
        }
    };
    Ok(Destination::S3 { bucket, prefix: Prefix::default() })
}

/// The name of this second, or of the first one after it that no backup here has used.
async fn new_bucket_name(state: &OpenState) -> Result<String, Error> {
    let mut moment = jiff::Zoned::now();
    loop {
        let name = moment.strftime("keepwatch-%m-%d-%y-%H%M%S").to_string();
        if !state.state.knows_bucket(name.clone()).await? {
            return Ok(name);
        }
        moment = moment.saturating_add(jiff::Span::new().seconds(1));
    }
}

/// Connects to what a backup has kept, to read it.
pub async fn connect(
    config: &BackupConfig,
    bucket: String,
    prefix: &Prefix,
    dry_run: bool,
) -> Result<S3Store, Error> {
    let way = way_to(config, dry_run).await?;
    Ok(S3Store::new(way.connection, options(config, bucket, prefix)))
}

fn options(config: &BackupConfig, bucket: String, prefix: &Prefix) -> S3Options {
    let place = match &config.destination {
        Destination::Store { .. } => Some(as_typed(&config.destination)),
        _ => None,
    };
    S3Options {
        bucket,
        prefix: prefix.clone(),
        place,
        storage_class: config.storage_class.clone(),
        sse: config.sse.clone(),
        sse_kms_key_id: config.sse_kms_key_id.clone(),
        bucket_owner: config.bucket_owner.clone(),
        bandwidth: config.bandwidth,
        may_be_made: false,
    }
}

/// The way to the destination of a backup.
async fn way_to(config: &BackupConfig, dry_run: bool) -> Result<Reach, Error> {
    match &config.destination {
        Destination::Store { folder, .. } => {
            store_reach(folder, config.create_bucket, dry_run).await
        }
        _ => {
            reach(Endpoint {
                url: config.endpoint_url.clone(),
                region: config.region.clone(),
                profile: config.profile.clone(),
                path_style: config.path_style,
                credentials_file: config.credentials_file.clone(),
                // Beside the transfers: the owner record, a listing, a batch of deletions.
                connections_max: config.transfers + 4,
                ..Endpoint::default()
            })
            .await
        }
    }
}

/// The way to a server.
#[derive(Clone)]
pub struct Reach {
    pub connection: Connection,
}

impl Reach {
    /// Where it leads, in one of the many ways to write it; empty for AWS.
    fn server(&self) -> String {
        one_spelling(&self.connection.endpoint().unwrap_or_default())
    }
}

/// A URL without what makes no difference: letters of either size in the host, names of this
/// machine for itself, the usual port, a slash at the end.
fn one_spelling(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    let usual = match scheme.as_str() {
        "http" => ":80",
        _ => ":443",
    };
    let host = host.strip_suffix(usual).unwrap_or(&host);
    let here = ["localhost", "[::1]"].into_iter().find_map(|name| {
        let port = host.strip_prefix(name)?;
        (port.is_empty() || port.starts_with(':')).then(|| format!("127.0.0.1{port}"))
    });
    let host = here.as_deref().unwrap_or(host);
    format!("{scheme}://{host}{}", path.trim_end_matches('/'))
}

/// The way to a server on the network.
pub async fn reach(endpoint: Endpoint) -> Result<Reach, Error> {
    open(endpoint, None).await
}

async fn open(
    endpoint: Endpoint,
    http: Option<aws_sdk_s3::config::SharedHttpClient>,
) -> Result<Reach, Error> {
    keys::keep_to_themselves(&endpoint)?;
    let endpoint = Endpoint { veto: Some(keys::veto), ..endpoint };
    let connection = Connection::open(endpoint, http).await.map_err(|e| {
        Error::new(ErrorClass::Configuration, "cannot set up the connection")
            .caused_by(&e)
            .passing()
    })?;
    Ok(Reach { connection })
}

pub fn rules(config: &BackupConfig) -> Result<Rules, Error> {
    Rules::new(RuleOptions {
        include: config.include.clone(),
        exclude: config.exclude.clone(),
        exclude_if_present: config.exclude_if_present.clone(),
        max_file_size: config.max_file_size,
        one_file_system: config.one_file_system,
        symlinks: config.symlinks,
    })
    .map_err(|error| {
        Error::new(ErrorClass::Configuration, error.to_string())
            .hint("patterns are gitignore rules")
    })
}

/// Who this machine and user are, to other writers.
pub fn identity_of(source: String) -> Result<OwnerIdentity, Error> {
    let fallback = paths::config_files().into_iter().next();
    let machine = machine::machine_id(fallback.as_deref().and_then(Path::parent)).map_err(|e| {
        Error::new(ErrorClass::Configuration, "this machine has no id").caused_by(&e)
    })?;
    let (host, user) = (machine::host_name(), machine::user_name());
    Ok(OwnerIdentity { machine, host, user, source })
}

fn settings(
    config: &BackupConfig,
    run: &RunOptions,
    source: &Path,
) -> Result<BackupSettings, Error> {
    let owner = identity_of(Escaped(source.as_os_str().as_bytes()).to_string())?;
    Ok(BackupSettings {
        name: config.name.clone(),
        mode: run.mode,
        deletions: config.deletions,
        delete_delay_ms: config.delete_delay.millis(),
        max_delete: config.max_delete,
        compare: config.compare,
        settle_ms: config.settle.millis(),
        max_wait_ms: config.max_wait.millis(),
        rescan_ms: config.rescan.millis(),
        verify_every_ms: config.verify_every.millis(),
        multipart_threshold: config.multipart_threshold,
        part_size: config.part_size,
        transfers: config.transfers,
        create_bucket: config.create_bucket,
        take_over: run.take_over,
        failed_only: run.failed_only,
        owner,
        seed: fastrand::u64(..),
    })
}

#[cfg(test)]
mod tests {
    use super::one_spelling;

    #[test]
    fn an_endpoint_has_one_spelling() {
        for (written, meant) in [
            ("", ""),
            ("http://localhost:9000/", "http://127.0.0.1:9000"),
            ("HTTP://[::1]:80", "http://127.0.0.1"),
            ("https://Minio.Example:443/S3/", "https://minio.example/S3"),
            ("http://localhost.example:443", "http://localhost.example:443"),
            ("https://127.0.0.1:9000", "https://127.0.0.1:9000"),
        ] {
            assert_eq!(one_spelling(written), meant);
        }
    }
}
