//! Bodies that were changed behind the store's back, or removed: how they are recognised and shown.
//!
//! The file of a body is given a time of modification when it is complete, which the index knows
//! beside its size. Listings go by these alone: what does not show them is listed with an ETag that
//! no content has, so that whoever compares sees a difference and nobody takes it for deleted. Who
//! asks for one object gets the truth: the file is read, and when only its time is another, as
//! after a copy of the whole store, it is given the right one again.
//!
//! Called by `fetch` and `api::list`; the stamp is given by `bodies`.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use rustix::fs::{Stat, fstat};

use super::bodies::{Bodies, Place};
use super::digest::{Algorithm, Digests};
use super::fault::{Fault, Outcome};
use super::folder::is_file;
use super::layout::BodyId;
use super::rows::{self, Version};

/// A body can move while it is looked for, but not this often.
const LOOKS: usize = 3;
/// Every file system keeps even seconds.
const STAMP_STEP_S: i64 = 2;
const CHUNK_BYTES: usize = 1 << 20;

/// What the file of a body shows from outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) size_bytes: u64,
    /// Its time of modification, in seconds since the epoch. `None`: not known.
    pub(super) stamped_s: Option<i64>,
}

impl Mark {
    pub(super) fn is_shown_by(self, stat: &Stat) -> bool {
        let is_time = |stamped_s| modified(stat) == (stamped_s, 0);
        is_file(stat)
            && u64::try_from(stat.st_size) == Ok(self.size_bytes)
            && self.stamped_s.is_none_or(is_time)
    }
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between platforms")]
fn modified(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime as i64, stat.st_mtime_nsec as i64)
}

/// Gives a complete body its time of modification; `None` when the file system will not have it.
pub(super) fn stamp(file: &File) -> Option<i64> {
    let now_s = super::clock::seconds(SystemTime::now());
    let stamped_s = now_s - now_s.rem_euclid(STAMP_STEP_S);
    set_modified(file, stamped_s).ok().map(|()| stamped_s)
}

fn set_modified(file: &File, time_s: i64) -> io::Result<()> {
    let since = Duration::from_secs(u64::try_from(time_s).unwrap_or_default());
    file.set_modified(SystemTime::UNIX_EPOCH + since)
}

/// The ETag that a damaged body is shown with. It is that of no content.
pub(super) fn etag(body: BodyId) -> String {
    format!("damaged-{body}")
}

/// Whether a body is not there as it was stored, by what its file shows.
pub(super) fn is_seen(
    conn: &Connection,
    bodies: &Bodies,
    place: Place<'_>,
    mark: Mark,
) -> Outcome<bool> {
    let mut home = place.home;
    for _ in 0..LOOKS {
        if bodies.shows(Place { home, ..place }, mark) {
            return Ok(false);
        }
        match rows::place_of(conn, place.body)? {
            // Its object was replaced meanwhile.
            None => return Ok(false),
            Some((now, ..)) => home = now,
        }
    }
    Ok(true)
}

/// Whether an open body is what was stored: by what it shows, else by what is in it.
pub(super) fn is_whole(bodies: &Bodies, version: &Version, file: &mut File) -> Outcome<bool> {
    let unreadable = |e| Fault::Trouble(format!("cannot read a body: {e}"));
    let stat = fstat(&*file).map_err(|errno| unreadable(errno.into()))?;
    let (mark, seen) = (version.mark(), modified(&stat));
    if mark.is_shown_by(&stat) {
        return Ok(true);
    }
    if !(Mark { stamped_s: None, ..mark }).is_shown_by(&stat) {
        return Ok(false);
    }
    if version.body.is_some_and(|body| bodies.is_proven(body, seen)) {
        return Ok(true);
    }
    if crc64(file).map_err(unreadable)? != version.crc64 {
        return Ok(false);
    }
    file.rewind().map_err(unreadable)?;
    match (version.body, mark.stamped_s) {
        (_, Some(stamped_s)) if set_modified(file, stamped_s).is_ok() => {}
        // The next one must not read it all again: a large object is read in ranges.
        (Some(body), _) => bodies.prove(body, seen),
        (None, _) => {}
    }
    Ok(true)
}

fn crc64(file: &mut File) -> io::Result<u64> {
    let mut digests = Digests::new(Some(Algorithm::Crc64Nvme));
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(digests.finish().crc64),
            size_bytes => digests.update(&chunk[..size_bytes]),
        }
    }
}
