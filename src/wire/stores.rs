//! The embedded store as a destination: opened inside this process, made only when asked for.

use std::path::Path;

use aws_sdk_s3::config::SharedHttpClient;

use crate::config::Destination;
use crate::plan::ErrorClass;
use crate::ports::StateStore as _;
use crate::s3::Endpoint;
use crate::state::BackupId;
use crate::store::{InProcess, Store, StoreOptions};

use super::places::apart;
use super::{Error, OpenState, Reach, open};

/// What the records know a store by.
pub(super) fn store_name(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

/// No store is made where this backup or mirror had one: more likely its disk is not mounted, and
/// what would be kept below the mount point is on another disk than the person believes.
pub(super) async fn refuse_lost(
    name: &str,
    destination: &Destination,
    id: impl FnOnce(String) -> BackupId,
    state: &OpenState,
) -> Result<(), Error> {
    let Destination::Store { folder, .. } = destination else { return Ok(()) };
    let at = folder.clone();
    if apart(move || is_store(&at)).await? {
        return Ok(());
    }
    let Some(known) = state.state.known_backup(id(store_name(folder))).await? else {
        return Ok(());
    };
    if known.backup().await?.owner_etag.is_none() {
        return Ok(());
    }
    let message = format!("there is no store in {} any more", folder.display());
    Err(Error::new(ErrorClass::Configuration, message).passing().hint(format!(
        "check that its disk is mounted; if it is gone for good, `keepwatch forget {name}` lets \
         --create-bucket make another"
    )))
}

/// The way to the store in this folder, which is opened inside this process.
pub async fn store_reach(folder: &Path, create: bool, dry_run: bool) -> Result<Reach, Error> {
    let (key, secret) = (random_word(), random_word());
    let at = folder.to_owned();
    let opened = apart(move || match dry_run && create && !is_store(&at) {
        true => Ok(None),
        false => open_store(&at, create).map(Some),
    });
    let in_process = match opened.await?? {
        None => InProcess::unmade(),
        Some(store) => InProcess::new(store.endpoint(&[(key.clone(), secret.clone())])),
    };
    let endpoint = Endpoint {
        url: Some("http://store.invalid".to_owned()),
        region: Some("us-east-1".to_owned()),
        keys: Some((key, secret)),
        ..Endpoint::default()
    };
    open(endpoint, Some(SharedHttpClient::new(in_process))).await
}

/// The place of a store, such that a key can follow.
pub fn as_typed(destination: &Destination) -> String {
    let mut place = destination.to_string();
    if !place.ends_with('/') {
        place.push('/');
    }
    place
}

/// Whether there is a store in this folder.
pub fn is_store(folder: &Path) -> bool {
    folder.join(".keepwatch-store").is_dir()
}

/// Opens the embedded store. One is made only when asked for: its disk may not be mounted.
pub fn open_store(folder: &Path, create: bool) -> Result<Store, Error> {
    if !is_store(folder) && !create {
        let message = format!("there is no store in {}", folder.display());
        return Err(Error::new(ErrorClass::Configuration, message).passing().hint(
            "check that its disk is mounted; watch, sync and mirror make it with --create-bucket",
        ));
    }
    Store::open(folder, StoreOptions::default()).map_err(|error| {
        let message = format!("cannot open the store in {}", folder.display());
        Error::new(ErrorClass::Configuration, message).caused_by(&error).passing()
    })
}

fn random_word() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(20).collect()
}
