//! Listings read ahead: a page or two of each side wait to be compared, never more.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::model::Key;
use crate::plan::{ErrorClass, Failure, OutOfOrder};

use super::super::failure_of;
use super::super::patience::{Attempts, Stop};
use super::super::restore::{Kept, Objects};
use super::Copier;

/// Keys of one page.
const PAGE: usize = 1_000;
/// Pages of one side that wait to be compared.
pub(crate) const PAGES_AHEAD: usize = 2;

/// A page in key order; an empty one is the last.
pub(crate) type Batch<T> = Result<Vec<(Key, T)>, Stop>;
pub(crate) type Stream<T> = mpsc::Receiver<Batch<T>>;

/// Reads objects to their end, in a task of its own.
pub(crate) fn read(
    readers: &mut JoinSet<()>,
    copier: &Arc<Copier>,
    mut objects: Objects,
    what: &'static str,
) -> Stream<Kept> {
    let (sender, receiver) = mpsc::channel(PAGES_AHEAD);
    let copier = copier.clone();
    readers.spawn(async move {
        loop {
            let page = page_of(&copier, &mut objects, what).await;
            let ended = !matches!(&page, Ok(page) if !page.is_empty());
            if sender.send(page).await.is_err() || ended {
                return;
            }
        }
    });
    receiver
}

async fn page_of(copier: &Copier, objects: &mut Objects, what: &str) -> Batch<Kept> {
    let mut page = Vec::with_capacity(PAGE);
    let mut attempts = Attempts::new();
    while page.len() < PAGE {
        match objects.next().await {
            Ok(Some(kept)) => page.push((kept.id.key.clone(), kept)),
            Ok(None) => break,
            Err(error) => {
                copier.patience.pause(&mut attempts, failure_of(error, what)).await?;
            }
        }
    }
    copier.patience.good();
    Ok(page)
}

/// The next batch; `None` once all came. A reader that ends without saying so has failed.
pub(crate) async fn next<T>(
    stream: &mut Stream<T>,
    copier: &Copier,
) -> Result<Option<Vec<(Key, T)>>, Stop> {
    tokio::select! {
        batch = stream.recv() => match batch {
            Some(Ok(batch)) if batch.is_empty() => Ok(None),
            Some(batch) => batch.map(Some),
            None => Err(Stop::All(Failure::new(
                ErrorClass::Server,
                "a listing ended before its end: this is a bug",
            ))),
        },
        () = copier.cancel.cancelled() => Err(Stop::Interrupted),
    }
}

pub(crate) fn out_of_order(error: &OutOfOrder) -> Stop {
    Stop::All(
        Failure::new(ErrorClass::Configuration, "the buckets cannot be compared")
            .because(error.to_string())
            .with_hint("this server does not list keys in order, as directory buckets do not"),
    )
}
