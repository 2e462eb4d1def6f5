//! Tags of objects: those that mark a deletion, put beside the object's own and taken off again;
//! and whether an object has none where the server tells no number.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{Tag, Tagging};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::{Key, Millis};
use crate::plan::ErrorClass;
use crate::ports::{Fetched, ObjectId, StoreError, Tags};

use super::S3Store;
use super::delete::refused;
use super::error::What;
use super::read::is_gone;

/// S3's limit for one object.
const TAGS_MAX: usize = 10;
const DELETED: &str = "Deleted";
const DELETED_AT: &str = "DeletedAt";

const TRUE: &str = "True";
/// Refusals after which nobody who was never let in asks again.
const REFUSALS_MAX: u32 = 16;

/// Only this value is the mark: what else bears its name is the owner's.
fn is_marked(tags: &Tags) -> bool {
    tags.iter().any(|(name, value)| name == DELETED && value == TRUE)
}

fn without_marks(tags: Tags) -> Tags {
    match is_marked(&tags) {
        true => tags.into_iter().filter(|(name, _)| !has_name_of_mark(name)).collect(),
        false => tags,
    }
}

fn has_name_of_mark(name: &str) -> bool {
    matches!(name, DELETED | DELETED_AT)
}

/// What the replies so far have shown of tags. S3 tells their number with an object, but only whom
/// it lets read them, and only where there are any; other servers do as they like.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// A number came, of current objects and of named versions.
    told: [AtomicBool; 2],
    /// Tags were read.
    allowed: [AtomicBool; 2],
    /// The server has no tags.
    none: AtomicBool,
    refusals: AtomicU32,
}

impl S3Store {
    /// The number of tags, where the reply or all that came before it tells.
    pub(super) fn count_of_tags(&self, told: Option<u32>, version: bool) -> Option<u32> {
        let is = |seen: &[AtomicBool; 2]| seen[usize::from(version)].load(Ordering::Relaxed);
        let telling = &self.telling;
        if told.is_some() {
            telling.told[usize::from(version)].store(true, Ordering::Relaxed);
            return told;
        }
        let connection = &self.way().connection;
        let is_said = connection.is_in_process()
            || telling.none.load(Ordering::Relaxed)
            || is(&telling.told)
            || (connection.is_aws() && is(&telling.allowed));
        is_said.then_some(0)
    }

    /// Adds the tags to those that the object has. One that is gone needs none. An own tag that
    /// has the name of a mark is never replaced.
    pub(super) async fn tag_as_deleted(&self, key: &Key, at: Millis) -> Result<(), StoreError> {
        let what = self.describe("tag", key);
        let Some(known) = self.current_tags(key, &what).await? else { return Ok(()) };
        let mut tags = without_marks(known);
        if let Some((name, value)) = tags.iter().find(|(name, _)| has_name_of_mark(name)) {
            let value = crate::model::Escaped(value.as_bytes());
            let cause = format!(
                "it has a tag {name}={value} of its own, where the mark of a deletion would be"
            );
            let failure = what.failed(ErrorClass::Path, cause);
            return Err(StoreError::Failed(failure.with_hint("give that tag another name")));
        }
        if tags.len() + 2 > TAGS_MAX {
            let cause = format!(
                "it has {} tags of its own, and S3 takes {TAGS_MAX}: there is no room for \
                 {DELETED} and {DELETED_AT}",
                tags.len()
            );
            return Err(StoreError::Failed(what.failed(ErrorClass::Path, cause)));
        }
        tags.push((DELETED.to_owned(), TRUE.to_owned()));
        tags.push((DELETED_AT.to_owned(), minute(at)));
        self.put_tags(key, tags, &what).await
    }

    /// Takes the marks off. Whether they were there.
    //
    // RACE: S3 has no condition on tags: one that somebody else sets between the two requests is
    // lost. Nobody else should write here.
    pub(super) async fn take_marks_off(&self, key: &Key) -> Result<bool, StoreError> {
        let what = self.describe("take the marks off", key);
        let id = ObjectId { key: key.clone(), version: None, etag: None };
        // What tells no tags was never given the marks: they are read before they are put there.
        let Fetched::Found(known) = self.read_tags(&id, &what).await? else { return Ok(false) };
        let marked = is_marked(&known);
        if marked {
            self.put_tags(key, without_marks(known), &what).await?;
        }
        Ok(marked)
    }

    /// `None` for an object that is gone.
    async fn current_tags(&self, key: &Key, what: &What) -> Result<Option<Tags>, StoreError> {
        let id = ObjectId { key: key.clone(), version: None, etag: None };
        match self.read_tags(&id, what).await? {
            Fetched::Found(tags) => Ok(Some(tags)),
            Fetched::Gone | Fetched::Changed => Ok(None),
            Fetched::Archived => {
                let cause = "this server tells no tags of archived objects";
                Err(StoreError::Failed(what.failed(ErrorClass::Path, cause)))
            }
        }
    }

    /// All tags of one version.
    pub(super) async fn read_tags(
        &self,
        id: &ObjectId,
        what: &What,
    ) -> Result<Fetched<Tags>, StoreError> {
        let telling = &self.telling;
        let was_allowed = telling.allowed.iter().any(|seen| seen.load(Ordering::Relaxed));
        if !was_allowed && telling.refusals.load(Ordering::Relaxed) >= REFUSALS_MAX {
            return Err(may_not_read(what, "it was refused for all that were asked for"));
        }
        let read = self.ask_for_tags(id, what).await;
        match &read {
            Ok(Fetched::Found(_)) => {
                telling.allowed[usize::from(id.version.is_some())].store(true, Ordering::Relaxed);
            }
            Err(StoreError::Unsupported(_)) => telling.none.store(true, Ordering::Relaxed),
            Err(error) if error.is_denied() => {
                telling.refusals.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        read
    }

    async fn ask_for_tags(&self, id: &ObjectId, what: &What) -> Result<Fetched<Tags>, StoreError> {
        let key = self.absolute(&id.key)?;
        let sent = self
            .ask(|client| {
                client
                    .get_object_tagging()
                    .bucket(&self.options.bucket)
                    .key(&key)
                    .set_version_id(id.version.clone())
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .send()
            })
            .await;
        match sent {
            Ok(reply) => {
                let pair = |tag: &Tag| (tag.key().to_owned(), tag.value().to_owned());
                Ok(Fetched::Found(reply.tag_set().iter().map(pair).collect()))
            }
            Err(e) if is_gone(&e) => Ok(Fetched::Gone),
            // S3 tells them; some servers do not.
            Err(e) if e.code() == Some("InvalidObjectState") => Ok(Fetched::Archived),
            Err(e) => match self.explained(what, &e) {
                StoreError::Failed(failure) if failure.class == ErrorClass::Denied => {
                    Err(StoreError::Failed(failure.with_hint(ALLOW_READING)))
                }
                error => Err(error),
            },
        }
    }

    async fn put_tags(&self, key: &Key, tags: Tags, what: &What) -> Result<(), StoreError> {
        let absolute = self.absolute(key)?;
        let denied = |error| match error {
            StoreError::Failed(failure) if failure.class == ErrorClass::Denied => {
                let hint = "allow s3:PutObjectTagging and s3:DeleteObjectTagging";
                StoreError::Failed(failure.with_hint(hint))
            }
            error => error,
        };
        if tags.is_empty() {
            let sent = self
                .client()
                .delete_object_tagging()
                .bucket(&self.options.bucket)
                .key(&absolute)
                .set_expected_bucket_owner(self.options.bucket_owner.clone())
                .send()
                .await;
            return match sent {
                Ok(_) => Ok(()),
                Err(e) => Err(denied(self.explained(what, &e))),
            };
        }
        let mut set = Vec::with_capacity(tags.len());
        for (name, value) in tags {
            let tag = Tag::builder().key(name).value(value).build();
            set.push(tag.map_err(|e| refused(what, &e))?);
        }
        let tagging = Tagging::builder().set_tag_set(Some(set)).build();
        let sent = self
            .client()
            .put_object_tagging()
            .bucket(&self.options.bucket)
            .key(&absolute)
            .tagging(tagging.map_err(|e| refused(what, &e))?)
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(e) => Err(denied(self.explained(what, &e))),
        }
    }

    /// Reads what [`Self::tag_as_deleted`] wrote.
    pub(super) async fn tagged_deleted_at(
        &self,
        id: &ObjectId,
    ) -> Result<Option<Millis>, StoreError> {
        let tags = match self.read_tags(id, &self.about("read the tags of", id)).await {
            Ok(Fetched::Found(tags)) => tags,
            Ok(_) | Err(StoreError::Unsupported(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let at = tags.iter().find(|(name, _)| name == DELETED_AT).map(|(_, value)| value.as_str());
        Ok(is_marked(&tags).then(|| moment(at)))
    }

    /// Asks for the tags of the owner record, be it there or not: what may be done with that says
    /// nothing of other objects.
    pub(super) async fn has_tags(&self) -> Result<bool, StoreError> {
        let key = Key::literal(&format!("{}owner.json", crate::model::key::RESERVED_FOLDER));
        let id = ObjectId { key, version: None, etag: None };
        let what = self.what(format!("ask for tags in {}", self.place()));
        match self.ask_for_tags(&id, &what).await {
            Ok(_) => Ok(true),
            Err(StoreError::Unsupported(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

const ALLOW_READING: &str = "allow s3:GetObjectTagging and s3:GetObjectVersionTagging";

fn may_not_read(what: &What, cause: &str) -> StoreError {
    StoreError::Failed(what.failed(ErrorClass::Denied, cause).with_hint(ALLOW_READING))
}

/// As the header of a write wants them; `None` for none.
pub(super) fn header(tags: &Tags) -> Option<String> {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> =
        tags.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

/// Reads [`minute`]; the beginning of time where it is none.
fn moment(minute: Option<&str>) -> Millis {
    let time = minute.and_then(|text| text.parse::<jiff::civil::DateTime>().ok());
    let time = time.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok());
    time.map_or(Millis(0), |time| Millis(time.timestamp().as_millisecond()))
}

/// `YYYY-MM-DDTHH:MM` in UTC.
fn minute(at: Millis) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M").to_string(),
        Err(_) => "1970-01-01T00:00".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minute_of_a_deletion_is_read_back() {
        assert_eq!(minute(Millis(1_795_262_459_999)), "2026-11-21T12:00");
        assert_eq!(moment(Some("2026-11-21T12:00")), Millis(1_795_262_400_000));
        for text in [None, Some(""), Some("yesterday"), Some("2026-13-01T00:00")] {
            assert_eq!(moment(text), Millis(0), "{text:?}");
        }
    }

    #[test]
    fn own_tags_with_the_name_of_a_mark_stay() {
        let tags = |pairs: &[(&str, &str)]| -> Tags {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for own in [
            tags(&[("Deleted", "no"), ("own", "1")]),
            tags(&[("Deleted", "true")]),
            tags(&[("DeletedAt", "never"), ("own", "1")]),
            tags(&[("deleted", "True")]),
        ] {
            assert!(!is_marked(&own));
            assert_eq!(without_marks(own.clone()), own);
        }
        let marked = tags(&[("Deleted", "True"), ("own", "1"), ("DeletedAt", "2026-01-01T00:00")]);
        assert_eq!(without_marks(marked), tags(&[("own", "1")]));
    }

    #[test]
    fn tags_in_a_header() {
        assert_eq!(header(&vec![]), None);
        let tags = vec![("a b".to_owned(), "1+1=2&".to_owned()), ("ü".to_owned(), String::new())];
        assert_eq!(header(&tags).unwrap(), "a%20b=1%2B1%3D2%26&%C3%BC=");
    }
}
