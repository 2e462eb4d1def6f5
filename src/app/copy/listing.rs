//! Listings read ahead: a page or two of each side wait to be compared, never more.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::model::Key;
use crate::plan::{ErrorClass, Failure, Merge, OutOfOrder, Side, merge};

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

/// A share of all keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Where it begins: behind this key.
    pub after: Option<Key>,
    /// The last key that belongs to it, be it there or not.
    pub until: Option<Key>,
}

impl Share {
    /// Shares that end with each of these keys, and one for the rest.
    pub fn cut_at(ends: Vec<Key>) -> Vec<Self> {
        let mut shares = vec![];
        let mut after = None;
        for end in ends {
            shares.push(Self { after: after.replace(end.clone()), until: Some(end) });
        }
        shares.push(Self { after, until: None });
        shares
    }

    /// Cuts a page off where the share ends; answers whether it ends there.
    pub fn clip<T>(&self, page: &mut Vec<(Key, T)>) -> bool {
        let Some(until) = &self.until else { return false };
        let ended = page.last().is_some_and(|(last, _)| last >= until);
        page.truncate(page.partition_point(|(key, _)| key <= until));
        ended
    }
}

/// Reads objects to the end of a share, in a task of its own.
pub(crate) fn read(
    readers: &mut JoinSet<()>,
    copier: &Arc<Copier>,
    mut objects: Objects,
    share: Share,
    what: &'static str,
) -> Stream<Kept> {
    let (sender, receiver) = mpsc::channel(PAGES_AHEAD);
    let copier = copier.clone();
    readers.spawn(async move {
        loop {
            let mut page = page_of(&copier, &mut objects, what).await;
            let last = page.as_mut().is_ok_and(|page| share.clip(page));
            let ended = !matches!(&page, Ok(page) if !page.is_empty());
            if sender.send(page).await.is_err() || ended {
                return;
            }
            if last {
                // An empty page says that all came.
                sender.send(Ok(vec![])).await.ok();
                return;
            }
        }
    });
    receiver
}

async fn page_of(copier: &Copier, objects: &mut Objects, what: &str) -> Batch<Kept> {
    let mut page = Vec::with_capacity(PAGE);
    let mut attempts = Attempts::of_all();
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
    if let Some(place) = objects.nameless() {
        let why = "an object has the very name of the prefix, and so none below it";
        copier.skip(&place, why.to_owned());
    }
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

/// One key as two listings have it.
pub(crate) type Both = merge::Triple<Kept, (), Kept>;

/// Two listings read in lock step.
pub(crate) struct Joined {
    merge: Merge<Kept, (), Kept>,
    source: Stream<Kept>,
    there: Option<Stream<Kept>>,
}

impl Joined {
    /// `there` is `None` where nothing is there to be listed.
    pub fn new(source: Stream<Kept>, there: Option<Stream<Kept>>) -> Self {
        let mut merge = Merge::default();
        merge.end(Side::Base);
        if there.is_none() {
            merge.end(Side::Target);
        }
        Self { merge, source, there }
    }

    /// The next key that one of them has, in order; `None` once both came to their end.
    pub async fn next(&mut self, copier: &Copier) -> Result<Option<Both>, Stop> {
        loop {
            let side = match self.merge.next() {
                merge::Step::Done => return Ok(None),
                merge::Step::Triple(triple) => return Ok(Some(triple)),
                merge::Step::Need(side) => side,
            };
            let stream = match (side, &mut self.there) {
                (Side::Target, Some(there)) => there,
                _ => &mut self.source,
            };
            let pushed = match next(stream, copier).await? {
                None => {
                    self.merge.end(side);
                    Ok(())
                }
                Some(batch) if side == Side::Target => self.merge.push_target(batch),
                Some(batch) => self.merge.push_source(batch),
            };
            pushed.map_err(|e| out_of_order(&e))?;
        }
    }
}

pub(crate) fn out_of_order(error: &OutOfOrder) -> Stop {
    Stop::All(
        Failure::new(ErrorClass::Configuration, "the buckets cannot be compared")
            .because(error.to_string())
            .with_hint("this server does not list keys in order, as directory buckets do not"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_join_without_a_gap() {
        let key = Key::literal;
        let shares = Share::cut_at(vec![key("b"), key("d")]);
        let bounds: Vec<_> = shares.iter().map(|s| (s.after.clone(), s.until.clone())).collect();
        let (b, d) = (Some(key("b")), Some(key("d")));
        assert_eq!(bounds, [(None, b.clone()), (b, d.clone()), (d, None)]);
        assert_eq!(Share::cut_at(vec![]), [Share::default()]);
        for (keys, left, ended) in
            [("a b", 2, true), ("a", 1, false), ("a c", 1, true), ("c d", 0, true), ("", 0, false)]
        {
            let mut page: Vec<(Key, ())> = keys.split_whitespace().map(|k| (key(k), ())).collect();
            assert_eq!(shares[0].clip(&mut page), ended, "{keys}");
            assert_eq!(page.len(), left, "{keys}");
        }
    }
}
