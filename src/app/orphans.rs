//! Multipart uploads that a lost state has left open: no journal knows them, and their parts would
//! be paid for until somebody finds them.
//!
//! [`sweep`] looks for them where the bucket is listed anyway, once the owner record has been found
//! to be ours.
//! [`unheard_of`] tells the one that a journal knows of without its id.

use crate::model::{Key, Millis};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{BackupRow, ObjectStore, OpenUpload, StoreError};

use super::failure_of;
use super::owner::Tenant;
use super::progress::{Progress, raise};

/// Those of the uploads `open` under a key that may be the one whose opening nobody heard of: not
/// among the `others` that were open before, and without parts. One that has parts is another's,
/// begun since.
pub(super) async fn unheard_of(
    store: &dyn ObjectStore,
    key: &Key,
    mut open: Vec<String>,
    others: &[String],
) -> Vec<String> {
    open.retain(|id| !others.contains(id));
    let mut empty = vec![];
    for id in open {
        let parts = store.list_parts(key, &id).await;
        if parts.map_or(true, |parts| parts.is_empty()) {
            empty.push(id);
        }
    }
    empty
}

/// Aborts the open uploads below the prefix that were begun before this state was: what it began
/// itself is in its journal. RACE: an upload of another program into this prefix that was begun
/// before is aborted too; the prefix has one writer.
pub(super) async fn sweep(
    tenant: &dyn Tenant,
    row: &BackupRow,
    progress: &Progress,
    now: Millis,
) -> Result<(), Failure> {
    let made_at = Millis::credible(row.made_at, now);
    let Some(made_at) = made_at.filter(|_| !tenant.is_dry_run()) else { return Ok(()) };
    let mut after = None;
    loop {
        let page = match tenant.store().list_open_uploads(after.as_ref()).await {
            Ok(page) => page,
            Err(error) => return put_off(tenant, error, "look for uploads that were left open"),
        };
        for upload in page.uploads {
            let is_old = upload.begun < made_at && !upload.key.is_reserved();
            if is_old && tenant.state().upload(&upload.key).await?.is_none() {
                abort(tenant, progress, &upload).await?;
            }
        }
        after = page.more_after;
        if after.is_none() {
            return Ok(());
        }
    }
}

async fn abort(
    tenant: &dyn Tenant,
    progress: &Progress,
    upload: &OpenUpload,
) -> Result<(), Failure> {
    let OpenUpload { key, upload_id, .. } = upload;
    match tenant.store().abort_upload(key, upload_id).await {
        Ok(()) => {
            raise(&progress.aborted, 1);
            let name = tenant.name();
            tracing::info!(backup = name, "aborted an upload of {key} that was left open");
            Ok(())
        }
        Err(error) => put_off(tenant, error, &format!("abort the upload of {key}")),
    }
}

/// What would stop everything else as well stops this; the rest waits for the next listing.
fn put_off(tenant: &dyn Tenant, error: StoreError, what: &str) -> Result<(), Failure> {
    if matches!(error, StoreError::Unsupported(_) | StoreError::NoSuchUpload) {
        return Ok(());
    }
    let failure = failure_of(error, what);
    match failure.class {
        ErrorClass::Server | ErrorClass::Throttled | ErrorClass::Credentials => Err(failure),
        // The listing has just worked: a reply that is not S3's is about this one operation.
        ErrorClass::Unreachable
        | ErrorClass::Path
        | ErrorClass::Denied
        | ErrorClass::Configuration
        | ErrorClass::Full
        | ErrorClass::State => {
            let name = tenant.name();
            tracing::warn!(backup = name, "{failure}; the next listing tries again");
            Ok(())
        }
    }
}
