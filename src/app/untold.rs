//! What nobody tells of tags: objects whose tags may not be read, so that nobody knows whether they
//! were deleted; and servers that do not say how many an object has.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::model::Millis;
use crate::plan::ErrorClass;
use crate::ports::{Fut, StoreError};

use super::progress::raise;

/// Objects without a mark that a silent server is asked about, before it is believed to tell of
/// tags where there are any.
const ASKED_MAX: u32 = 1_000;

/// Of one restore.
#[derive(Debug, Default)]
pub struct Untold {
    count: AtomicU64,
    warned: AtomicBool,
    borne: AtomicBool,
    asked_in_vain: AtomicU32,
    keeps_silent: AtomicBool,
}

impl Untold {
    /// Objects whose tags were asked for, and may not be read.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Copies whose tags may not be read are made without tags.
    pub(crate) fn bear(&self) {
        self.borne.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_borne(&self) -> bool {
        self.borne.load(Ordering::Relaxed)
    }

    /// What tags say of a deletion. Where they may not be read the object is taken for one that is
    /// there, which is said once, and counted where it `counts`.
    pub(crate) fn or_untold<'a>(
        &'a self,
        asked: Fut<'a, Result<Option<Millis>, StoreError>>,
        counts: bool,
    ) -> Fut<'a, Result<Option<Millis>, StoreError>> {
        Box::pin(async move {
            match asked.await {
                Err(StoreError::Failed(failure)) if failure.class == ErrorClass::Denied => {
                    if counts {
                        raise(&self.count, 1);
                    }
                    if !self.warned.swap(true, Ordering::Relaxed) {
                        let hint = failure.hint.clone().unwrap_or_default();
                        tracing::warn!(
                            "tags may not be read ({failure}), so nobody can tell what was tagged \
                             as deleted: such objects are restored like all others; {hint}"
                        );
                    }
                    Ok(None)
                }
                deleted => deleted,
            }
        })
    }

    /// Whether so many objects without a number of tags turned out to have no mark that the others
    /// are believed to have none.
    pub(crate) fn is_asked_enough(&self) -> bool {
        self.asked_in_vain.load(Ordering::Relaxed) >= ASKED_MAX
            && !self.keeps_silent.load(Ordering::Relaxed)
    }

    /// An object of which the server told no number was asked for its tags.
    pub(crate) fn was_asked(&self, is_marked: bool) {
        match is_marked {
            true => self.keeps_silent.store(true, Ordering::Relaxed),
            false => {
                self.asked_in_vain.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
