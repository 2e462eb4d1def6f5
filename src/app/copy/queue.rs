//! Keys on their way through a run: written down as lines, taken up again several at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::model::{ETag, Key, Millis, Object};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{Fut, LineQueue, Thaw};

use super::super::patience::Stop;
use super::Copier;

/// One key, with what the listings said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub key: Key,
    /// What is to be done, in one letter of whoever wrote it down.
    pub what: char,
    /// A person approved it.
    pub approved: bool,
    /// Of the source; `None` for the current one.
    pub version: Option<String>,
    pub source: Option<Object>,
    pub copy: Option<Object>,
    pub thaw: Option<Thaw>,
}

/// An object in a line: size, ETag, time, archived.
type Line = (u64, String, i64, bool);

#[derive(Serialize, Deserialize)]
struct Written(String, char, bool, Option<String>, Option<Line>, Option<Line>, Option<u8>);

impl Item {
    pub fn new(key: Key, what: char) -> Self {
        Self { key, what, approved: false, version: None, source: None, copy: None, thaw: None }
    }

    pub fn to_line(&self) -> Result<String, Failure> {
        let line = |object: &Object| {
            (object.size_bytes, object.etag.as_str().to_owned(), object.modified.0, object.archived)
        };
        let written = Written(
            self.key.as_str().to_owned(),
            self.what,
            self.approved,
            self.version.clone(),
            self.source.as_ref().map(line),
            self.copy.as_ref().map(line),
            self.thaw.map(|thaw| match thaw {
                Thaw::Frozen => 0,
                Thaw::Ongoing => 1,
                Thaw::Thawed => 2,
            }),
        );
        serde_json::to_string(&written).map_err(|e| unreadable(&e))
    }

    pub fn of_line(line: &str) -> Result<Self, Failure> {
        let Written(key, what, approved, version, source, copy, thaw) =
            serde_json::from_str(line).map_err(|e| unreadable(&e))?;
        let object = |(size_bytes, etag, modified, archived): Line| Object {
            size_bytes,
            etag: ETag::new(&etag),
            modified: Millis(modified),
            archived,
        };
        Ok(Self {
            key: Key::literal(&key),
            what,
            approved,
            version,
            source: source.map(object),
            copy: copy.map(object),
            thaw: thaw.map(|thaw| match thaw {
                2 => Thaw::Thawed,
                1 => Thaw::Ongoing,
                _ => Thaw::Frozen,
            }),
        })
    }
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(ErrorClass::State, "the list of what is to be done cannot be read")
        .because(error.to_string())
}

/// Several queues, one after the other.
pub(crate) struct Chain(VecDeque<Box<dyn LineQueue>>);

impl Chain {
    pub fn of(queues: Vec<Box<dyn LineQueue>>) -> Box<dyn LineQueue> {
        Box::new(Self(queues.into()))
    }
}

impl LineQueue for Chain {
    fn push(&mut self, line: String) -> Fut<'_, Result<(), Failure>> {
        match self.0.back_mut() {
            Some(last) => last.push(line),
            None => Box::pin(std::future::ready(Err(Failure::new(
                ErrorClass::State,
                "a chain of no queues takes no line: this is a bug",
            )))),
        }
    }

    fn next(&mut self) -> Fut<'_, Result<Option<String>, Failure>> {
        Box::pin(async move {
            while let Some(first) = self.0.front_mut() {
                if let Some(line) = first.next().await? {
                    return Ok(Some(line));
                }
                self.0.pop_front();
            }
            Ok(None)
        })
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|queue| queue.count()).sum()
    }
}

/// Writes an item down.
pub(crate) async fn push(queue: &mut Box<dyn LineQueue>, item: &Item) -> Result<(), Stop> {
    let line = item.to_line().map_err(Stop::All)?;
    queue.push(line).await.map_err(Stop::All)
}

/// The next item.
pub(crate) async fn take(queue: &mut Box<dyn LineQueue>) -> Result<Option<Item>, Stop> {
    match queue.next().await.map_err(Stop::All)? {
        Some(line) => Item::of_line(&line).map(Some).map_err(Stop::All),
        None => Ok(None),
    }
}

/// Works on every item of a queue, as many at once as there are transfers. Whatever is everybody's
/// ends it.
pub(crate) async fn each(
    copier: &Copier,
    mut queue: Box<dyn LineQueue>,
    work: Arc<dyn Fn(Item) -> Fut<'static, Result<(), Stop>> + Send + Sync>,
) -> Result<(), Stop> {
    let mut running = JoinSet::new();
    let result = each_of(copier, &mut queue, &work, &mut running).await;
    running.shutdown().await;
    result
}

async fn each_of(
    copier: &Copier,
    queue: &mut Box<dyn LineQueue>,
    work: &Arc<dyn Fn(Item) -> Fut<'static, Result<(), Stop>> + Send + Sync>,
    running: &mut JoinSet<Result<(), Stop>>,
) -> Result<(), Stop> {
    let at_once = copier.settings.transfers.max(1);
    while let Some(item) = take(queue).await? {
        while running.len() >= at_once {
            came(running.join_next().await)?;
        }
        if copier.cancel.is_cancelled() {
            return Err(Stop::Interrupted);
        }
        let (key, cancel) = (item.key.clone(), copier.cancel.clone());
        let doing = work(item);
        let progress = copier.progress.clone();
        running.spawn(async move {
            let result = tokio::select! {
                result = doing => result,
                () = cancel.cancelled() => Err(Stop::Interrupted),
            };
            progress.end(&key);
            result
        });
    }
    while let Some(joined) = running.join_next().await {
        came(Some(joined))?;
    }
    Ok(())
}

/// What a finished task says. A bug in it is not passed over.
fn came(joined: Option<Result<Result<(), Stop>, tokio::task::JoinError>>) -> Result<(), Stop> {
    match joined {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(error)) if error.is_cancelled() => Err(Stop::Interrupted),
        Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_survive_as_lines() {
        let object = |etag: &str| Object {
            size_bytes: u64::MAX,
            etag: ETag::new(etag),
            modified: Millis(-5),
            archived: true,
        };
        let mut item = Item::new(Key::literal("a\n\"b\u{1}/ü"), 'x');
        assert_eq!(Item::of_line(&item.to_line().unwrap()), Ok(item.clone()));
        item = Item {
            approved: true,
            version: Some("v\n1".to_owned()),
            source: Some(object("e-2")),
            copy: Some(object("\\")),
            thaw: Some(Thaw::Ongoing),
            ..item
        };
        let line = item.to_line().unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(Item::of_line(&line), Ok(item));
        assert!(Item::of_line("[]").is_err());
    }
}
