//! ListObjects, ListObjectsV2 and ListObjectVersions.
//!
//! One walk each ([`crate::store::walk`]); here is only what the requests and answers look like.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TOKEN;
use rusqlite::Row;
use rusqlite::types::Value;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::checksums::parsed;
use super::names::Names;
use super::owner;
use crate::store::bodies::{Bodies, Home, Place};
use crate::store::damage::{self, Mark};
use crate::store::fault::{Outcome, invalid_argument};
use crate::store::fetch::{ThawState, thaw_state};
use crate::store::layout::BodyId;
use crate::store::rows::{self, Thaw, read_key};
use crate::store::versions::{check_version_id, rank_of};
use crate::store::walk::{Item, Page, Query, Seek, Source, walk};
use crate::store::{Store, clock};

const PAGE_MAX: i32 = 1000;

/// How many entries a page may have: what is asked for, and not more than S3 gives.
pub(super) fn limit(asked: Option<i32>, name: &str) -> S3Result<usize> {
    let asked = asked.unwrap_or(PAGE_MAX);
    usize::try_from(asked.min(PAGE_MAX)).map_err(|_| {
        invalid_argument(format!("Argument {name} must be an integer between 0 and 2147483647"))
    })
}

/// A row as listings show it.
pub(in crate::store) struct Listed {
    key: String,
    rank: i64,
    version: String,
    latest: bool,
    marker: bool,
    size_bytes: i64,
    modified_s: i64,
    etag: String,
    checksum: String,
    class: String,
    thaw: Option<Thaw>,
    body: Option<BodyId>,
    home: Home,
    stamped_s: Option<i64>,
}

const LISTED: &str = "SELECT key, rank, version, latest, marker, size, modified_s, etag, \
     checksum, class, thawed_ms, expiry_ms, body, home, stamped_s FROM versions \
     WHERE bucket = ?1 AND (key, rank) >= (?2, ?3)";

fn read_listed(row: &Row<'_>) -> Outcome<Listed> {
    let thaw = match (row.get(10)?, row.get(11)?) {
        (Some(from_ms), Some(until_ms)) => Some(Thaw { from_ms, until_ms }),
        _ => None,
    };
    Ok(Listed {
        key: read_key(row, 0)?,
        rank: row.get(1)?,
        version: row.get(2)?,
        latest: row.get(3)?,
        marker: row.get(4)?,
        size_bytes: row.get(5)?,
        modified_s: row.get(6)?,
        etag: row.get(7)?,
        checksum: row.get(8)?,
        class: row.get(9)?,
        thaw,
        body: row.get::<_, Option<i64>>(12)?.map(BodyId),
        home: if row.get(13)? { Home::Plain } else { Home::Blob },
        stamped_s: row.get(14)?,
    })
}

/// The statement behind ListObjects and ListObjectsV2.
fn objects_sql() -> String {
    format!("{LISTED} AND latest = 1 AND marker = 0 ORDER BY key, rank")
}

/// The statement behind ListObjectVersions.
fn versions_sql() -> String {
    format!("{LISTED} ORDER BY key, rank")
}

#[cfg(test)]
pub(in crate::store) fn statements() -> [String; 3] {
    [objects_sql(), versions_sql(), crate::store::uploads::walk_sql()]
}

const LOWEST_RANK: Value = Value::Integer(i64::MIN);

/// A page of the current objects of a bucket.
pub(in crate::store) fn objects(
    conn: &rusqlite::Connection,
    bucket: &str,
    query: &Query,
) -> Outcome<Page<Listed>> {
    let source = Source {
        sql: &objects_sql(),
        bucket: rows::bucket(conn, bucket)?.id,
        lowest: LOWEST_RANK,
        read: read_listed,
        behind: |listed: &Listed| Seek::behind_key(listed.key.as_bytes(), &LOWEST_RANK),
    };
    walk(conn, &source, query)
}

/// A page of all versions and delete markers of a bucket.
fn versions(conn: &rusqlite::Connection, bucket: &str, query: &Query) -> Outcome<Page<Listed>> {
    let source = Source {
        sql: &versions_sql(),
        bucket: rows::bucket(conn, bucket)?.id,
        lowest: LOWEST_RANK,
        read: read_listed,
        behind: |listed: &Listed| Seek {
            key: listed.key.as_bytes().to_vec(),
            inner: Value::Integer(listed.rank + 1),
        },
    };
    walk(conn, &source, query)
}

/// Looks at the body of each entry, and shows those that are damaged.
fn examined(
    conn: &rusqlite::Connection,
    bodies: &Bodies,
    bucket: &str,
    mut page: Page<Listed>,
) -> Outcome<Page<Listed>> {
    let mut any = false;
    for item in &mut page.items {
        let Item::Entry(listed) = item else { continue };
        let Some(body) = listed.body else { continue };
        let place = Place { body, home: listed.home, bucket, key: &listed.key };
        let size_bytes = listed.size_bytes.cast_unsigned();
        if damage::is_seen(conn, bodies, place, Mark { size_bytes, stamped_s: listed.stamped_s })? {
            listed.etag = damage::etag(body);
            listed.checksum.clear();
            any = true;
        }
    }
    // Their disk may just have gone.
    if any {
        bodies.check()?;
    }
    Ok(page)
}

/// A query that begins behind a key, or at the beginning.
pub(in crate::store) fn query(
    prefix: Option<&str>,
    delimiter: Option<&str>,
    behind: Option<&str>,
    limit: usize,
) -> Query {
    let from = match behind.filter(|key| !key.is_empty()) {
        Some(key) => Seek::behind_key(key.as_bytes(), &LOWEST_RANK),
        None => Seek::at(b"", &LOWEST_RANK),
    };
    Query {
        prefix: prefix.unwrap_or_default().to_owned(),
        delimiter: delimiter.map(str::to_owned),
        from,
        passed: String::new(),
        limit,
    }
}

/// How the entries of one answer are shown.
struct Show {
    names: Names,
    owner: bool,
    restore_status: bool,
    now_ms: i64,
}

impl Show {
    fn of_request(
        store: &Store,
        encoding_type: Option<&EncodingType>,
        attributes: Option<&[OptionalObjectAttributes]>,
        owner: bool,
    ) -> S3Result<Self> {
        let wants_restore = |header: &OptionalObjectAttributes| {
            header.as_str().split(',').any(|name| name.trim() == "RestoreStatus")
        };
        Ok(Self {
            names: Names::of_request(encoding_type)?,
            owner,
            restore_status: attributes.is_some_and(|a| a.iter().any(wants_restore)),
            now_ms: clock::millis(store.now()),
        })
    }

    fn restore_status(&self, thaw: Option<Thaw>) -> Option<RestoreStatus> {
        if !self.restore_status {
            return None;
        }
        match thaw_state(thaw, self.now_ms) {
            ThawState::Frozen => None,
            ThawState::Ongoing => Some(RestoreStatus {
                is_restore_in_progress: Some(true),
                restore_expiry_date: None,
            }),
            ThawState::Thawed { until_ms } => Some(RestoreStatus {
                is_restore_in_progress: Some(false),
                restore_expiry_date: Some(clock::timestamp_of_ms(until_ms)),
            }),
        }
    }

    fn object(&self, listed: Listed) -> Object {
        let checksum = parsed(&listed.checksum);
        Object {
            key: Some(self.names.write(&listed.key)),
            size: Some(listed.size_bytes),
            last_modified: Some(clock::timestamp_of_s(listed.modified_s)),
            e_tag: Some(ETag::Strong(listed.etag)),
            storage_class: Some(listed.class.into()),
            owner: self.owner.then(owner),
            restore_status: self.restore_status(listed.thaw),
            checksum_type: checksum.as_ref().map(|c| c.kind.name().to_owned().into()),
            checksum_algorithm: checksum.map(|c| vec![c.algorithm.name().to_owned().into()]),
        }
    }

    fn version(&self, listed: Listed) -> ObjectVersion {
        let (latest, version) = (listed.latest, listed.version.clone());
        let object = self.object(listed);
        ObjectVersion {
            is_latest: Some(latest),
            version_id: Some(version),
            key: object.key,
            size: object.size,
            last_modified: object.last_modified,
            e_tag: object.e_tag,
            storage_class: object.storage_class.map(|class| class.as_str().to_owned().into()),
            owner: object.owner,
            restore_status: object.restore_status,
            checksum_type: object.checksum_type,
            checksum_algorithm: object.checksum_algorithm,
        }
    }

    fn marker(&self, listed: Listed) -> DeleteMarkerEntry {
        DeleteMarkerEntry {
            key: Some(self.names.write(&listed.key)),
            version_id: Some(listed.version),
            is_latest: Some(listed.latest),
            last_modified: Some(clock::timestamp_of_s(listed.modified_s)),
            owner: Some(owner()),
        }
    }

    fn common_prefix(&self, prefix: &str) -> CommonPrefix {
        CommonPrefix { prefix: Some(self.names.write(prefix)) }
    }

    fn contents(&self, items: Vec<Item<Listed>>) -> (Vec<Object>, Vec<CommonPrefix>) {
        let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::Entry(listed) => objects.push(self.object(listed)),
                Item::CommonPrefix(prefix) => prefixes.push(self.common_prefix(&prefix)),
            }
        }
        (objects, prefixes)
    }
}

pub(super) async fn list_objects_v2(
    store: &Store,
    req: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = req.input;
    let show = Show::of_request(
        store,
        input.encoding_type.as_ref(),
        input.optional_object_attributes.as_deref(),
        input.fetch_owner == Some(true),
    )?;
    let limit = limit(input.max_keys, "max-keys")?;
    let (prefix, delimiter) = (input.prefix.as_deref(), input.delimiter.as_deref());
    let mut query = query(prefix, delimiter, input.start_after.as_deref(), limit);
    if let Some(token) = &input.continuation_token {
        let key = TOKEN
            .decode(token)
            .map_err(|_| invalid_argument("The continuation token provided is incorrect"))?;
        query.from = Seek::at(&key, &LOWEST_RANK);
    }
    let bucket = input.bucket.clone();
    let bodies = store.bodies().clone();
    let page = store
        .read(move |conn| examined(conn, &bodies, &bucket, objects(conn, &bucket, &query)?))
        .await?;
    let next = page.next.filter(|_| limit > 0).map(|seek| TOKEN.encode(seek.key));
    let key_count = i32::try_from(page.items.len()).ok();
    let (contents, prefixes) = show.contents(page.items);
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(show.names.write(&input.prefix.unwrap_or_default())),
        delimiter: input.delimiter.map(|delimiter| show.names.write(&delimiter)),
        start_after: input.start_after.map(|key| show.names.write(&key)),
        continuation_token: input.continuation_token,
        max_keys: i32::try_from(limit).ok(),
        key_count,
        is_truncated: Some(next.is_some()),
        next_continuation_token: next,
        encoding_type: show.names.encoding_type(),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        request_charged: None,
    }))
}

pub(super) async fn list_objects(
    store: &Store,
    req: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = req.input;
    let attributes = input.optional_object_attributes.as_deref();
    let show = Show::of_request(store, input.encoding_type.as_ref(), attributes, true)?;
    let limit = limit(input.max_keys, "max-keys")?;
    let marker = input.marker.clone().unwrap_or_default();
    let (prefix, delimiter) = (input.prefix.as_deref(), input.delimiter.as_deref());
    let mut query = query(prefix, delimiter, Some(&marker), limit);
    query.passed.clone_from(&marker);
    let bucket = input.bucket.clone();
    let bodies = store.bodies().clone();
    let page = store
        .read(move |conn| examined(conn, &bodies, &bucket, objects(conn, &bucket, &query)?))
        .await?;
    let truncated = page.next.is_some() && limit > 0;
    // Without a delimiter S3 leaves it to the client to take the last key.
    let next_marker = match page.items.last() {
        Some(Item::Entry(listed)) => Some(show.names.write(&listed.key)),
        Some(Item::CommonPrefix(prefix)) => Some(show.names.write(prefix)),
        None => None,
    };
    let has_delimiter = input.delimiter.as_deref().is_some_and(|delimiter| !delimiter.is_empty());
    let next_marker = next_marker.filter(|_| truncated && has_delimiter);
    let (contents, prefixes) = show.contents(page.items);
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(show.names.write(&input.prefix.unwrap_or_default())),
        delimiter: input.delimiter.map(|delimiter| show.names.write(&delimiter)),
        marker: Some(show.names.write(&marker)),
        next_marker,
        max_keys: i32::try_from(limit).ok(),
        is_truncated: Some(truncated),
        encoding_type: show.names.encoding_type(),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        request_charged: None,
    }))
}

pub(super) async fn list_object_versions(
    store: &Store,
    req: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let input = req.input;
    let attributes = input.optional_object_attributes.as_deref();
    let show = Show::of_request(store, input.encoding_type.as_ref(), attributes, true)?;
    let limit = limit(input.max_keys, "max-keys")?;
    let key_marker = input.key_marker.clone().unwrap_or_default();
    let version_marker = input.version_id_marker.clone().filter(|marker| !marker.is_empty());
    if let Some(marker) = &version_marker {
        if key_marker.is_empty() {
            return Err(invalid_argument(
                "A version-id marker cannot be specified without a key marker.",
            ));
        }
        check_version_id(marker)?;
    }
    let (prefix, delimiter) = (input.prefix.as_deref(), input.delimiter.as_deref());
    let mut query = query(prefix, delimiter, Some(&key_marker), limit);
    query.passed.clone_from(&key_marker);
    let (bucket, marker, version) =
        (input.bucket.clone(), key_marker.clone(), version_marker.clone());
    let bodies = store.bodies().clone();
    let page = store
        .read(move |conn| {
            if let Some(version) = version {
                query.from = behind_version(conn, &bucket, &marker, &version)?;
            }
            examined(conn, &bodies, &bucket, versions(conn, &bucket, &query)?)
        })
        .await?;
    let (next_key, next_version) =
        match page.items.last().filter(|_| page.next.is_some() && limit > 0) {
            Some(Item::Entry(listed)) => (Some(&listed.key), Some(listed.version.clone())),
            Some(Item::CommonPrefix(prefix)) => (Some(prefix), None),
            None => (None, None),
        };
    let next_key = next_key.map(|key| show.names.write(key));
    let (mut shown, mut markers, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
    for item in page.items {
        match item {
            Item::Entry(listed) if listed.marker => markers.push(show.marker(listed)),
            Item::Entry(listed) => shown.push(show.version(listed)),
            Item::CommonPrefix(prefix) => prefixes.push(show.common_prefix(&prefix)),
        }
    }
    Ok(S3Response::new(ListObjectVersionsOutput {
        name: Some(input.bucket),
        prefix: Some(show.names.write(&input.prefix.unwrap_or_default())),
        delimiter: input.delimiter.map(|delimiter| show.names.write(&delimiter)),
        key_marker: Some(show.names.write(&key_marker)),
        version_id_marker: Some(version_marker.unwrap_or_default()),
        max_keys: i32::try_from(limit).ok(),
        is_truncated: Some(next_key.is_some()),
        next_key_marker: next_key,
        next_version_id_marker: next_version,
        encoding_type: show.names.encoding_type(),
        versions: Some(shown),
        delete_markers: Some(markers),
        common_prefixes: Some(prefixes),
        request_charged: None,
    }))
}

/// Behind a version that may be gone by now: whoever empties a bucket deletes what a page listed
/// before asking for the next one.
fn behind_version(
    conn: &rusqlite::Connection,
    bucket: &str,
    key: &str,
    version: &str,
) -> Outcome<Seek> {
    let rank = match rank_of(version) {
        Some(rank) => Some(rank),
        None => {
            let bucket = rows::bucket(conn, bucket)?;
            rows::version(conn, bucket.id, key, version)?.map(|version| version.rank)
        }
    };
    // A null version that is gone: what is left of the key was not listed, or is listed again.
    let inner = rank.map_or(i64::MIN, |rank| rank + 1);
    Ok(Seek { key: key.as_bytes().to_vec(), inner: Value::Integer(inner) })
}
