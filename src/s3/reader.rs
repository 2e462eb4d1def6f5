//! The same bucket and prefix behind [`ObjectReader`].

use std::ops::Range;

use crate::model::{Key, Millis};
use crate::ports::{
    Fetched, Fut, ObjectId, ObjectPage, ObjectReader, ReadHead, Reading, ReplyCounts,
    RequestCounts, StoreError, ThawReply, Tier, VersionMark, VersionPage,
};

use super::S3Store;

impl ObjectReader for S3Store {
    fn list(&self, after: Option<&Key>) -> Fut<'_, Result<ObjectPage, StoreError>> {
        let after = after.cloned();
        Box::pin(async move { self.list_thaws(after.as_ref()).await })
    }

    fn list_versions(
        &self,
        after: Option<&VersionMark>,
    ) -> Fut<'_, Result<VersionPage, StoreError>> {
        let after = after.cloned();
        Box::pin(async move { self.versions_page(after.as_ref()).await })
    }

    fn keeps_versions(&self) -> Fut<'_, Result<bool, StoreError>> {
        Box::pin(self.versions_are_kept())
    }

    fn head(&self, id: &ObjectId) -> Fut<'_, Result<Fetched<ReadHead>, StoreError>> {
        let id = id.clone();
        Box::pin(async move { self.look_at(&id).await })
    }

    fn read(
        &self,
        id: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Fut<'_, Result<Fetched<Reading>, StoreError>> {
        let id = id.clone();
        Box::pin(async move { self.open(&id, range).await })
    }

    fn part_size(&self, id: &ObjectId, number: u32) -> Fut<'_, Result<Option<u64>, StoreError>> {
        let id = id.clone();
        Box::pin(async move { self.size_of_part(&id, number).await })
    }

    fn deleted_at(&self, id: &ObjectId) -> Fut<'_, Result<Option<Millis>, StoreError>> {
        let id = id.clone();
        Box::pin(async move { self.tagged_deleted_at(&id).await })
    }

    fn thaw(&self, id: &ObjectId, tier: Tier, days: u32) -> Fut<'_, Result<ThawReply, StoreError>> {
        let id = id.clone();
        Box::pin(async move { self.ask_to_thaw(&id, tier, days).await })
    }

    fn place(&self) -> String {
        Self::place(self)
    }

    fn requests(&self) -> RequestCounts {
        self.counter.counts()
    }

    fn replies(&self) -> ReplyCounts {
        self.counter.replies()
    }
}
