//! How objects that were sent in parts are cut. The size of the first part tells, where all are of
//! one size; where a digest does not fit, it is asked whether they are.

use futures_util::stream::{self, StreamExt as _};

use crate::plan::parts::{part_count, part_range};
use crate::ports::{ObjectId, ObjectReader};

use super::patience::{Patience, Stop};

/// Parts that are asked for at once.
const AT_ONCE: usize = 16;

/// Whether an object of so many parts has all of the size of the first, but for the last, as far as
/// its server tells. A request for each part, until one has another size.
pub(crate) async fn is_even(
    reader: &dyn ObjectReader,
    patience: &Patience,
    id: &ObjectId,
    size_bytes: u64,
    first: u64,
    parts: u32,
) -> Result<bool, Stop> {
    if part_count(size_bytes, first) != u64::from(parts) {
        return Ok(false);
    }
    let asked = (2..=parts).map(|number| async move {
        let told = patience.insist(|| reader.part_size(id, number)).await?;
        let expected = part_range(number, size_bytes, first).1;
        Ok::<_, Stop>(told.is_none_or(|told| told == expected))
    });
    let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
    while let Some(as_expected) = asked.next().await {
        if !as_expected? {
            return Ok(false);
        }
    }
    Ok(true)
}
