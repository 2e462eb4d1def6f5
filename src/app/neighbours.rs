//! Other backups whose prefix lies around ours or inside it: neither could tell the objects of the
//! other from its own.
//!
//! Looked for with each claim, once its record is written. Whoever claims later looks, too, and
//! finds our record; so what was clear once stays clear.

use crate::model::Key;
use crate::plan::{ErrorClass, Failure};
use crate::ports::{BackupRow, SmallObject};

use super::failure_of;
use super::owner::{OWNER_KEY, OwnerRecord, Tenant};

/// Why this destination overlaps another's, if another backup's record is found: one GET for each
/// prefix above, and a listing. Of that the first page, which often is all, is what the first pass
/// would ask for next. Fails where that cannot be asked, as where a listing is denied: then nobody
/// knows.
pub(super) async fn overlap(
    tenant: &dyn Tenant,
    row: &BackupRow,
) -> Result<Option<Failure>, Failure> {
    let above = tenant.store().get_above(&Key::literal(OWNER_KEY)).await;
    for (key, body) in above.map_err(|e| failure_of(e, "look for other owner records"))? {
        if let Some(record) = OwnerRecord::read(&body) {
            return Ok(Some(overlaps(&record, &format!("{key}, around this destination"))));
        }
    }
    let mut after = None;
    loop {
        let page = tenant.store().list(after.as_ref()).await;
        let page = page.map_err(|e| failure_of(e, "list the bucket"))?;
        for (key, _) in page.objects.iter().filter(|(key, _)| is_record(key)) {
            if let Some(record) = read_inside(tenant, key).await?
                && !tenant.brings(key).await?
            {
                return Ok(Some(overlaps(&record, &format!("{key}, inside this destination"))));
            }
        }
        let (first, next) = (after.is_none(), page.more_after.clone());
        if first && row.listed_at.is_none() {
            tenant.owner().keep_first_page(page);
        }
        after = next;
        if after.is_none() {
            return Ok(None);
        }
    }
}

fn is_record(key: &Key) -> bool {
    key.as_str().strip_suffix(OWNER_KEY).is_some_and(|folder| folder.ends_with('/'))
}

/// The record under this key. A file that was backed up carries its time, and is none: sources may
/// hold copies of records.
async fn read_inside(tenant: &dyn Tenant, key: &Key) -> Result<Option<OwnerRecord>, Failure> {
    let what = "look at another owner record";
    let head = tenant.store().head(key).await.map_err(|e| failure_of(e, what))?;
    if head.is_none_or(|head| head.meta.mtime.is_some()) {
        return Ok(None);
    }
    match tenant.store().get_small(key, None).await.map_err(|e| failure_of(e, what))? {
        SmallObject::Found { body, .. } => Ok(OwnerRecord::read(&body)),
        SmallObject::Absent | SmallObject::Unchanged => Ok(None),
    }
}

fn overlaps(other: &OwnerRecord, place: &str) -> Failure {
    let OwnerRecord { host, machine, user, source, .. } = other;
    let message = format!(
        "this destination overlaps that of another backup: {user} on {host} (machine {machine}) \
         backs up {source}"
    );
    Failure::new(ErrorClass::Configuration, message)
        .because(format!("its owner record is {place}"))
        .with_hint(
            "use a prefix beside that one; or, if that backup is gone for good, remove its record",
        )
}
