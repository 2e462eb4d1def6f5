//! From the configuration of a mirror to its ports: two buckets, perhaps of one server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app::backup::PlanSink;
use crate::app::copy::{Copier, CopySettings, OnEvent, Places};
use crate::app::mirror::{KeyFilter, Mirror, MirrorSettings};
use crate::app::owner::OwnerIdentity;
use crate::config::{Bucket, Destination, MirrorConfig};
use crate::fs::Spools;
use crate::model::{Escaped, Key, Md5};
use crate::plan::ErrorClass;
use crate::plan::mirror::{overlap, path_of};
use crate::ports::{CopySource, CopyTarget, StateStore};
use crate::s3::{Endpoint, S3Options, S3Store};
use crate::state::BackupId;

use super::stores::refuse_lost;
use super::{
    Error, OpenState, Reach, SystemClock, as_typed, endpoint_name, identity_of, open_state,
    patterns, place, reach, records_of, state_folder, store_reach,
};

/// The two places of a mirror.
pub struct Sides {
    pub source: Arc<S3Store>,
    pub target: Arc<S3Store>,
    pub server_side: bool,
    /// What the records know the two endpoints by.
    endpoints: [String; 2],
}

impl Sides {
    fn places(&self) -> Places {
        Places {
            source: self.source.clone() as Arc<dyn CopySource>,
            target: self.target.clone() as Arc<dyn CopyTarget>,
            copies: self.target.clone() as Arc<dyn CopySource>,
        }
    }
}

/// Connects to both sides. One store in a folder is opened once.
pub async fn connect(config: &MirrorConfig, dry_run: bool) -> Result<Sides, Error> {
    let of_source = way_to(&config.source, config, false, dry_run).await?;
    connect_from(config, of_source, dry_run).await
}

async fn connect_from(
    config: &MirrorConfig,
    of_source: Reach,
    dry_run: bool,
) -> Result<Sides, Error> {
    let (source, destination) = (&config.source, &config.destination);
    let same_store = match (&source.place, &destination.place) {
        (Destination::Store { folder, .. }, Destination::Store { folder: other, .. }) => {
            folder == other
        }
        _ => false,
    };
    let of_target = match same_store {
        true => of_source.clone(),
        false => way_to(destination, config, config.create_bucket, dry_run).await?,
    };
    let ends = [(source, &of_source), (destination, &of_target)];
    let endpoints = ends.map(|(bucket, way)| endpoint_name(&bucket.place, way));
    let is_one = is_one_server(&of_source, &of_target);
    if is_one {
        refuse_overlap(source, destination)?;
    }
    let kept = S3Options {
        storage_class: config.storage_class.clone(),
        sse: config.sse.clone(),
        sse_kms_key_id: config.sse_kms_key_id.clone(),
        may_be_made: true,
        ..options(destination, config)
    };
    let store = |reach: Reach, options| S3Store::new(reach.connection, options);
    Ok(Sides {
        source: Arc::new(store(of_source, options(source, config))),
        target: Arc::new(store(of_target, kept)),
        server_side: same_store || (is_one && is_one_account(source, destination)),
        endpoints,
    })
}

async fn way_to(
    bucket: &Bucket,
    config: &MirrorConfig,
    create: bool,
    dry_run: bool,
) -> Result<Reach, Error> {
    if let Destination::Store { folder, .. } = &bucket.place {
        return store_reach(folder, create, dry_run).await;
    }
    reach(Endpoint {
        url: bucket.endpoint_url.clone(),
        region: bucket.region.clone(),
        profile: bucket.profile.clone(),
        path_style: bucket.path_style,
        credentials_file: bucket.credentials_file.clone(),
        // Beside the transfers: listings, the owner record, a batch of deletions.
        connections_max: config.transfers + 4,
        ..Endpoint::default()
    })
    .await
}

fn options(bucket: &Bucket, config: &MirrorConfig) -> S3Options {
    let (name, prefix) = place(&bucket.place);
    let typed = match &bucket.place {
        Destination::Store { .. } => Some(as_typed(&bucket.place)),
        _ => None,
    };
    S3Options {
        bucket: name,
        prefix,
        place: typed,
        bucket_owner: bucket.bucket_owner.clone(),
        bandwidth: config.bandwidth,
        ..S3Options::default()
    }
}

/// Whether one account reaches both: then their server copies by itself.
fn is_one_account(a: &Bucket, b: &Bucket) -> bool {
    a.profile == b.profile && a.credentials_file == b.credentials_file
}

/// Whether both ways lead to one server on the network, whoever named it and however.
fn is_one_server(a: &Reach, b: &Reach) -> bool {
    let in_process = a.connection.is_in_process() || b.connection.is_in_process();
    !in_process && a.server() == b.server()
}

/// As the configuration does it, which knows no more than the words that were written.
fn refuse_overlap(source: &Bucket, destination: &Bucket) -> Result<(), Error> {
    let ((bucket, prefix), (other, other_prefix)) =
        (place(&source.place), place(&destination.place));
    if bucket != other || overlap(prefix.as_str(), other_prefix.as_str()).is_none() {
        return Ok(());
    }
    let (source, destination) = (source.place.url(), destination.place.url());
    let message = format!("{source} and {destination} contain each other, on one server");
    Err(Error::new(ErrorClass::Configuration, message)
        .hint("copies would be copied again: use another bucket, or a prefix beside it"))
}

/// What the records know the two places by: their servers included, wherever these were named.
fn id_of(config: &MirrorConfig, source: &str, endpoint: String) -> BackupId {
    let (bucket, prefix) = place(&config.destination.place);
    let source = source_name(config, source, &endpoint).into_bytes();
    BackupId { source, endpoint, bucket, prefix: prefix.as_str().to_owned() }
}

/// The source as a person writes it; on another server with where that is.
fn source_name(config: &MirrorConfig, source: &str, endpoint: &str) -> String {
    let url = config.source.place.url();
    let is_elsewhere = matches!(config.source.place, Destination::S3 { .. }) && source != endpoint;
    match is_elsewhere {
        true if source.is_empty() => format!("{url} at AWS"),
        true => format!("{url} at {source}"),
        false => url,
    }
}

/// Which keys take part.
pub fn filter(include: &[String], exclude: &[String]) -> Result<KeyFilter, Error> {
    let rules = patterns(include.to_vec(), exclude.to_vec())?;
    let all = include.is_empty() && exclude.is_empty();
    let only_some = !include.is_empty();
    Ok(Arc::new(move |key: &Key| match path_of(key) {
        _ if all => true,
        Some((path, is_folder)) => rules.lets_in(&path, is_folder),
        None => !only_some,
    }))
}

/// The copier of two places.
pub fn copier(
    config: &MirrorConfig,
    sides: &Sides,
    journal: Option<Arc<dyn StateStore>>,
    retry_for_ms: u64,
    on_event: Option<OnEvent>,
) -> Arc<Copier> {
    let settings = CopySettings {
        name: config.name.clone(),
        server_side: sides.server_side,
        transfers: config.transfers,
        multipart_threshold: config.multipart_threshold,
        part_size: config.part_size,
        retry_for_ms,
    };
    Arc::new(Copier::new(settings, sides.places(), journal, on_event))
}

/// Notes of a restore into a bucket about its large copies, so that one that was cut short goes on
/// with them.
pub struct RestoreNotes {
    state: OpenState,
    records: Arc<dyn StateStore>,
    /// There are some of an earlier restore of the same.
    pub goes_on: bool,
}

impl RestoreNotes {
    /// Opens those of this source and target. They have a folder of their own below that of the
    /// state, which a daemon may be using.
    pub async fn open(
        config: &MirrorConfig,
        sides: &Sides,
        state_dir: Option<&Path>,
    ) -> Result<Self, Error> {
        let [source, target] = &sides.endpoints;
        let id = id_of(config, source, target.clone());
        let names = [&id.source[..], id.endpoint.as_bytes(), id.bucket.as_bytes()];
        let name = [&names.join(&0)[..], &[0], id.prefix.as_bytes()].concat();
        let folder = state_folder(state_dir)?.join(NOTES).join(Md5::of(&name).to_string());
        let goes_on = folder.join(crate::state::FILE_NAME).exists();
        let state = open_state(Some(&folder))?;
        let records = Arc::new(records_of(&config.name, id, &state, false).await?);
        Ok(Self { state, records, goes_on })
    }

    pub fn journal(&self) -> Arc<dyn StateStore> {
        self.records.clone()
    }

    /// Removes them: the restore came to its end, and left nothing open.
    pub fn remove(self) {
        let folder: PathBuf = self.state.folder.clone();
        self.state.state.close();
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::debug!("{} is left: {error}", folder.display());
        }
    }
}

/// Folder of the notes of restores, in that of the state.
const NOTES: &str = "restores";

/// Where lists of keys are kept aside.
pub fn scratch(folder: &Path) -> Arc<Spools> {
    Arc::new(Spools::new(folder))
}

/// How a command runs its mirrors.
#[derive(Clone)]
pub struct MirrorRun {
    pub take_over: bool,
    pub retry_for_ms: u64,
    pub plan: Option<PlanSink>,
    /// Hears of what is done.
    pub on_event: Option<OnEvent>,
}

/// Makes the ports of a mirror and puts them together.
pub async fn wire(
    config: &MirrorConfig,
    state: &OpenState,
    run: &MirrorRun,
) -> Result<Arc<Mirror>, Error> {
    let dry_run = run.plan.is_some();
    let of_source = way_to(&config.source, config, false, dry_run).await?;
    let source = endpoint_name(&config.source.place, &of_source);
    let id_at = |endpoint| id_of(config, &source, endpoint);
    refuse_lost(&config.name, &config.destination.place, id_at, state).await?;
    let sides = connect_from(config, of_source, dry_run).await?;
    let id = id_at(sides.endpoints[1].clone());
    let owner: OwnerIdentity = identity_of(Escaped(&id.source).to_string())?;
    let records = records_of(&config.name, id, state, dry_run).await?;
    let records: Arc<dyn StateStore> = Arc::new(records);
    let settings = MirrorSettings {
        name: config.name.clone(),
        compare: config.compare,
        modified_within_ms: config.modified_within.map(|span| span.millis()),
        deletions: config.deletions,
        max_delete: config.max_delete,
        create_bucket: config.create_bucket,
        take_over: run.take_over,
        owner,
    };
    let copier =
        copier(config, &sides, Some(records.clone()), run.retry_for_ms, run.on_event.clone());
    let wanted = filter(&config.include, &config.exclude)?;
    let (clock, scratch) = (Arc::new(SystemClock), scratch(&state.folder));
    let plan = run.plan.clone();
    Ok(Arc::new(Mirror::new(settings, copier, records, clock, scratch, wanted, plan)))
}
