//! One page of a listing: rows in key order, with prefix, delimiter and a place to go on from.
//!
//! A common prefix costs one row: the walk seeks behind it and never steps through it. The page
//! ends where the next one begins, so a whole listing costs O(rows) and one seek per page. The same
//! walk serves objects, versions and uploads; they differ in the statement and in what a row is.
//! Called by `api::list` and `api::multipart`.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params};

use super::fault::{Fault, Outcome};

/// A place in a listing: everything at and behind it is still to come.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seek {
    pub(super) key: Vec<u8>,
    /// Orders the rows of one key.
    pub(super) inner: Value,
}

impl Seek {
    /// At the first row of `key`; `lowest` is the lowest inner value there is.
    pub(super) fn at(key: &[u8], lowest: &Value) -> Self {
        Self { key: key.to_vec(), inner: lowest.clone() }
    }

    /// Behind all rows of `key`.
    pub(super) fn behind_key(key: &[u8], lowest: &Value) -> Self {
        Self { key: [key, b"\0"].concat(), inner: lowest.clone() }
    }

    /// Behind all keys that start with `prefix`, which is not empty.
    fn behind_prefix(prefix: &[u8], lowest: &Value) -> Self {
        let mut key = prefix.to_vec();
        // Keys are UTF-8, which has no byte 0xFF: the last byte can be raised.
        if let Some(last) = key.last_mut() {
            *last = last.saturating_add(1);
        }
        Self { key, inner: lowest.clone() }
    }
}

/// What is listed, and how.
pub(super) struct Source<'a, E> {
    /// Selects the key as first column; takes bucket, key and inner of the [`Seek`].
    pub(super) sql: &'a str,
    pub(super) bucket: i64,
    /// The lowest inner value there is.
    pub(super) lowest: Value,
    pub(super) read: fn(&Row<'_>) -> Outcome<E>,
    /// Where the rows behind this entry begin.
    pub(super) behind: fn(&E) -> Seek,
}

/// What a request asks of a listing.
pub(super) struct Query {
    pub(super) prefix: String,
    pub(super) delimiter: Option<String>,
    pub(super) from: Seek,
    /// A common prefix that this starts with was listed on an earlier page.
    pub(super) passed: String,
    pub(super) limit: usize,
}

impl Query {
    /// The common prefix a key is rolled up in.
    fn group<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let delimiter = self.delimiter.as_deref().filter(|d| !d.is_empty())?.as_bytes();
        let rest = key.get(self.prefix.len()..)?;
        let at = rest.windows(delimiter.len()).position(|window| window == delimiter)?;
        key.get(..self.prefix.len() + at + delimiter.len())
    }
}

#[derive(Debug)]
pub(super) enum Item<E> {
    Entry(E),
    CommonPrefix(String),
}

#[derive(Debug)]
pub(super) struct Page<E> {
    pub(super) items: Vec<Item<E>>,
    /// `None` when nothing is left.
    pub(super) next: Option<Seek>,
    /// How many rows were looked at.
    pub(super) visited: usize,
}

pub(super) fn walk<E>(
    conn: &Connection,
    source: &Source<'_, E>,
    query: &Query,
) -> Outcome<Page<E>> {
    let mut statement = conn.prepare_cached(source.sql)?;
    let prefix = query.prefix.as_bytes();
    let mut page = Page { items: Vec::new(), next: None, visited: 0 };
    let mut from = query.from.clone();
    if from.key.as_slice() < prefix {
        from = Seek::at(prefix, &source.lowest);
    }
    'seek: loop {
        let mut rows = statement.query(params![source.bucket, from.key, from.inner])?;
        while let Some(row) = rows.next()? {
            page.visited += 1;
            let key = row.get_ref(0)?.as_blob().unwrap_or_default();
            if !key.starts_with(prefix) {
                return Ok(page);
            }
            let group = query.group(key);
            if let Some(group) = group.filter(|g| query.passed.as_bytes().starts_with(g)) {
                from = Seek::behind_prefix(group, &source.lowest);
                continue 'seek;
            }
            if page.items.len() == query.limit {
                page.next = Some(from);
                return Ok(page);
            }
            let Some(group) = group else {
                let entry = (source.read)(row)?;
                from = (source.behind)(&entry);
                page.items.push(Item::Entry(entry));
                continue;
            };
            page.items.push(Item::CommonPrefix(utf8(group)?));
            from = Seek::behind_prefix(group, &source.lowest);
            continue 'seek;
        }
        return Ok(page);
    }
}

fn utf8(bytes: &[u8]) -> Outcome<String> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| Fault::Trouble("a delimiter cuts a character of a key".to_owned()))
}
