//! The owner record, `.keepwatch/owner.json` under the prefix: one prefix, one writer.
//!
//! Where the server honours conditional writes the record is a guarantee: two claims cannot both
//! succeed. Elsewhere it is advisory: written, and read back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::model::{Crc64, ETag, Key, Md5, Meta, Millis};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{
    BackupRow, Change, Condition, Fut, ListPage, ObjectStore, Put, SmallObject, StateStore,
    StoreError,
};

use super::{failure_of, neighbours};

/// Key of the record, below the prefix.
pub const OWNER_KEY: &str = ".keepwatch/owner.json";
/// May do on its machine as everybody does.
const ROOT: &str = "root";
/// A record read so recently need not be read again.
const FRESH: Duration = Duration::from_secs(5);

/// Who we are, to other writers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerIdentity {
    pub machine: String,
    pub host: String,
    pub user: String,
    pub source: String,
}

/// Who claims a place, and through what: a tenant, or a mirror.
pub(super) trait Tenant: Sync {
    fn name(&self) -> &str;
    fn identity(&self) -> &OwnerIdentity;
    fn owner(&self) -> &Owner;
    fn store(&self) -> &dyn ObjectStore;
    fn state(&self) -> &dyn StateStore;
    fn creates_bucket(&self) -> bool;
    fn takes_over(&self) -> bool;
    fn is_dry_run(&self) -> bool;
    fn record(&self, changes: Vec<Change>) -> Fut<'_, Result<(), Failure>>;
    /// Whether this record lies in the destination because it is an object of the source.
    fn brings(&self, record: &Key) -> Fut<'_, Result<bool, Failure>>;
}

/// What is in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnerRecord {
    version: u32,
    pub machine: String,
    #[serde(default)]
    pub host: String,
    pub user: String,
    pub source: String,
    generation: u64,
    /// Of the state database that owns the prefix.
    state: String,
}

impl OwnerRecord {
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

/// Whose destination this is, in words, where it is somebody's.
pub async fn whose(store: &dyn ObjectStore) -> Option<String> {
    let found = store.get_small(&Key::literal(OWNER_KEY), None).await.ok()?;
    let SmallObject::Found { body, .. } = found else { return None };
    let OwnerRecord { user, host, source, .. } = OwnerRecord::read(&body)?;
    Some(format!("{user} on {host}, who keeps {source} there"))
}

/// What was last seen of the record.
#[derive(Debug, Default)]
pub struct Owner {
    seen: Mutex<Option<(ETag, Instant)>>,
    refused: AtomicBool,
    conditional: AtomicBool,
    /// The first page of a listing that was made before the claim, when nothing here was ours.
    first_page: Mutex<Option<(ListPage, Instant)>>,
}

impl Owner {
    /// Whether a record, as last read, names another owner of this place.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether the server honours conditions.
    pub fn is_conditional(&self) -> bool {
        self.conditional.load(Ordering::Relaxed)
    }

    fn set_conditional(&self, conditional: bool) {
        self.conditional.store(conditional, Ordering::Relaxed);
    }

    pub(super) fn keep_first_page(&self, page: ListPage) {
        let mut first = self.first_page.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *first = Some((page, Instant::now()));
    }

    /// The page that was kept, once, and only while it is fresh.
    pub(super) fn take_first_page(&self) -> Option<ListPage> {
        let mut first = self.first_page.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first.take().filter(|(_, at)| at.elapsed() < FRESH).map(|(page, _)| page)
    }

    fn seen(&self) -> Option<(ETag, Instant)> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn see(&self, etag: ETag) {
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *seen = Some((etag, Instant::now()));
        self.refused.store(false, Ordering::Relaxed);
    }
}

/// Makes sure that the prefix is ours: one conditional GET. Claims it when nobody has.
pub(super) async fn check(tenant: &dyn Tenant) -> Result<(), Failure> {
    let seen = tenant.owner().seen();
    if seen.as_ref().is_some_and(|(_, at)| at.elapsed() < FRESH) {
        return Ok(());
    }
    read_and_judge(tenant, seen.map(|(etag, _)| etag)).await
}

/// As [`check`], but always asks: for use right before a deletion.
pub(super) async fn check_now(tenant: &dyn Tenant) -> Result<(), Failure> {
    let seen = tenant.owner().seen().map(|(etag, _)| etag);
    read_and_judge(tenant, seen).await
}

async fn read_and_judge(tenant: &dyn Tenant, seen: Option<ETag>) -> Result<(), Failure> {
    let key = Key::literal(OWNER_KEY);
    let row = tenant.state().backup().await?;
    tenant.owner().set_conditional(row.conditional == Some(true));
    let unless = seen.or_else(|| row.owner_etag.clone());
    let read = match tenant.store().get_small(&key, unless.as_ref()).await {
        Err(StoreError::NoSuchBucket(failure)) => match tenant.creates_bucket() {
            true if tenant.is_dry_run() => return Ok(()),
            true => {
                let made = tenant.store().create_bucket().await;
                made.map_err(|e| failure_of(e, "make the bucket"))?;
                SmallObject::Absent
            }
            false => return Err(failure),
        },
        Err(error) => return Err(everybodys(failure_of(error, "read the owner record"))),
        Ok(read) => read,
    };
    match read {
        SmallObject::Unchanged => {
            if let Some(etag) = unless {
                tenant.owner().see(etag);
            }
            Ok(())
        }
        SmallObject::Absent => {
            // A dry run claims nothing; and no claim is made and withdrawn again and again beside
            // one that was seen.
            if tenant.is_dry_run() || tenant.owner().is_refused() {
                let looked = neighbours::overlap(tenant, &row).await.map_err(everybodys)?;
                looked.map_or(Ok(()), |overlap| Err(refuse(tenant, overlap)))?;
            }
            if row.owner_etag.is_some() && !tenant.is_dry_run() {
                doubt(tenant, "gone from the destination").await?;
            }
            claim(tenant, &row, None).await
        }
        SmallObject::Found { body, etag } => judge(tenant, &row, body, etag).await,
    }
}

/// Our record is not the one that was here, and nobody knows what else is not: the bucket was
/// emptied or rolled back, or it is another one, as with disks that take turns. What is recorded is
/// not believed until the bucket has been listed, also when a crash comes between the new claim and
/// the listing.
async fn doubt(tenant: &dyn Tenant, how: &str) -> Result<(), Failure> {
    tracing::warn!(
        backup = tenant.name(),
        "the owner record is {how}: everything is compared with the bucket anew"
    );
    tenant.record(vec![Change::Listed { at: Millis(0) }]).await
}

async fn judge(
    tenant: &dyn Tenant,
    row: &BackupRow,
    body: Bytes,
    mut etag: ETag,
) -> Result<(), Failure> {
    let Some(record) = OwnerRecord::read(&body) else { return Err(unreadable(&body)) };
    let me = tenant.identity();
    if record.state == row.owner_id {
        if row.owner_etag.as_ref() == Some(&etag) || tenant.is_dry_run() {
            tenant.owner().see(etag);
            return Ok(());
        }
        if record.generation <= row.owner_generation {
            doubt(tenant, "an earlier one of ours").await?;
            return claim(tenant, row, Some((etag, record.generation))).await;
        }
        // Our own claim, cut off before it was recorded.
        let conditional = honours_conditions(tenant, row.conditional, &body, &mut etag).await?;
        stay_alone(tenant, row, &etag).await?;
        return remember(tenant, etag, record.generation, conditional).await;
    }
    // Who tries it as root, and then installs a service, means one and the same backup.
    let same_user = record.user == me.user || record.user == ROOT || me.user == ROOT;
    let same = record.machine == me.machine && same_user && record.source == me.source;
    let fresh = row.owner_etag.is_none();
    if (same && fresh) || tenant.takes_over() {
        return claim(tenant, row, Some((etag, record.generation))).await;
    }
    Err(refuse(tenant, refused(&record, same)))
}

/// Another is there, and stays until a person acts.
fn refuse(tenant: &dyn Tenant, failure: Failure) -> Failure {
    tenant.owner().refused.store(true, Ordering::Relaxed);
    failure
}

fn unreadable(body: &[u8]) -> Failure {
    let html = body.trim_ascii_start().first() == Some(&b'<');
    if html {
        return Failure::new(ErrorClass::Unreachable, "cannot read the owner record")
            .because("the reply is a web page, not an object")
            .with_hint("check the endpoint, and whether a captive portal answers instead");
    }
    let message = format!("the object {OWNER_KEY} is not an owner record of keepwatch");
    Failure::new(ErrorClass::Configuration, message)
        .with_hint("look at it, and remove it if nothing else needs it")
}

fn refused(record: &OwnerRecord, same: bool) -> Failure {
    let OwnerRecord { host, machine, user, source, generation, .. } = record;
    let message = match same {
        true => format!(
            "another state database of this machine has taken over this destination \
             (generation {generation})"
        ),
        false => format!(
            "this destination belongs to {user} on {host} (machine {machine}), which backs up \
             {source}"
        ),
    };
    Failure::new(ErrorClass::Configuration, message)
        .with_hint("use another prefix; or, if that one is gone for good, start with --take-over")
}

/// Writes the record, over `known` or where there is none.
async fn claim(
    tenant: &dyn Tenant,
    row: &BackupRow,
    known: Option<(ETag, u64)>,
) -> Result<(), Failure> {
    if tenant.is_dry_run() {
        return Ok(());
    }
    let me = tenant.identity().clone();
    // Above all that this state has seen: what was claimed before, at a place that was exchanged
    // since, is told apart from what is claimed now.
    let found = known.as_ref().map_or(0, |(_, generation)| *generation);
    let generation = found.max(row.owner_generation).saturating_add(1);
    let record = OwnerRecord {
        version: 1,
        machine: me.machine,
        host: me.host,
        user: me.user,
        source: me.source,
        generation,
        state: row.owner_id.clone(),
    };
    let body = serde_json::to_vec(&record).map_err(|e| {
        Failure::new(ErrorClass::Path, "cannot write the owner record").because(e.to_string())
    })?;
    let body = Bytes::from(body);
    let first = match &known {
        Some((etag, _)) => Condition::Match(etag.clone()),
        None => Condition::Absent,
    };
    let (mut etag, conditional) = match put(tenant, &body, first).await {
        Ok(etag) => (etag, row.conditional),
        Err(StoreError::Unsupported(_)) => {
            let put = put(tenant, &body, Condition::None).await;
            (put.map_err(|e| everybodys(failure_of(e, "write the owner record")))?, Some(false))
        }
        // Somebody was faster; or it was us, and the reply was lost.
        Err(StoreError::Precondition) => (read_back(tenant, &record).await?, row.conditional),
        Err(error) => return Err(everybodys(failure_of(error, "write the owner record"))),
    };
    let conditional = honours_conditions(tenant, conditional, &body, &mut etag).await?;
    if !conditional {
        read_back(tenant, &record).await?;
    }
    if known.is_none() {
        stay_alone(tenant, row, &etag).await?;
    }
    remember(tenant, etag, generation, conditional).await
}

/// Withdraws a claim that overlaps another's. Looked for after the claim: of two at the same moment
/// at least one then sees the other. Until this was seen the claim is not recorded, so that one
/// which was cut off here is looked at again.
async fn stay_alone(tenant: &dyn Tenant, row: &BackupRow, etag: &ETag) -> Result<(), Failure> {
    // Where nobody may look, nobody is seen: that is waited for, as all that is denied.
    let looked = neighbours::overlap(tenant, row).await.map_err(everybodys)?;
    let Some(overlap) = looked else { return Ok(()) };
    let ours = [(Key::literal(OWNER_KEY), Some(etag.clone()))];
    match tenant.store().delete(&ours).await {
        Ok(results) if results.iter().all(Result::is_ok) => {}
        _ => tracing::warn!(backup = tenant.name(), "the claim could not be withdrawn"),
    }
    Err(refuse(tenant, overlap))
}

/// Asked once, unless it is `known`: the record is there now, and a server that honours conditions
/// refuses to make it again.
async fn honours_conditions(
    tenant: &dyn Tenant,
    known: Option<bool>,
    body: &Bytes,
    etag: &mut ETag,
) -> Result<bool, Failure> {
    if let Some(known) = known {
        return Ok(known);
    }
    match put(tenant, body, Condition::Absent).await {
        Err(StoreError::Precondition) => Ok(true),
        Ok(again) => {
            *etag = again;
            Ok(false)
        }
        Err(StoreError::Unsupported(_)) => Ok(false),
        Err(error) => Err(everybodys(failure_of(error, "write the owner record"))),
    }
}

async fn remember(
    tenant: &dyn Tenant,
    etag: ETag,
    generation: u64,
    conditional: bool,
) -> Result<(), Failure> {
    tenant.owner().set_conditional(conditional);
    tenant.record(vec![Change::Owner { etag: etag.clone(), generation, conditional }]).await?;
    tenant.owner().see(etag);
    Ok(())
}

async fn put(tenant: &dyn Tenant, body: &Bytes, condition: Condition) -> Result<ETag, StoreError> {
    let put = Put {
        key: Key::literal(OWNER_KEY),
        md5: Md5::of(body),
        crc64: Crc64::of(body),
        body: body.clone(),
        meta: Meta::default(),
        condition,
    };
    tenant.store().put(put).await.map(|stored| stored.etag)
}

/// Without conditions two writers may both believe to have written; the last one has.
async fn read_back(tenant: &dyn Tenant, record: &OwnerRecord) -> Result<ETag, Failure> {
    let key = Key::literal(OWNER_KEY);
    match tenant.store().get_small(&key, None).await {
        Ok(SmallObject::Found { body, etag })
            if OwnerRecord::read(&body).as_ref() == Some(record) =>
        {
            Ok(etag)
        }
        Ok(_) => Err(overtaken()),
        Err(error) => Err(everybodys(failure_of(error, "read the owner record back"))),
    }
}

fn overtaken() -> Failure {
    let message = "another keepwatch claimed this destination at the same moment";
    Failure::new(ErrorClass::Configuration, message).with_hint("start again to see which one")
}

/// What is denied here is denied everywhere.
fn everybodys(failure: Failure) -> Failure {
    match failure.class {
        ErrorClass::Denied | ErrorClass::Path => {
            Failure { class: ErrorClass::Configuration, ..failure }
        }
        _ => failure,
    }
}
