//! RestoreObject: asks for a readable copy of an archived object.
//!
//! Nothing moves. The copy is "ready" when the store's clock has gone on by the thaw delay, and
//! "expires" at the midnight UTC after the days asked for.

use http::StatusCode;
use s3s::dto::*;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use super::ResultStatus;
use crate::store::clock::{expiry_ms, millis};
use crate::store::fault::{invalid_argument, not_carried, refuse};
use crate::store::fetch::{ThawState, find, thaw_state};
use crate::store::head::{DEEP_ARCHIVE, is_archive};
use crate::store::rows::Thaw;
use crate::store::{Store, rows};

pub(super) async fn restore_object(
    store: &Store,
    req: S3Request<RestoreObjectInput>,
) -> S3Result<S3Response<RestoreObjectOutput>> {
    let input = req.input;
    let request = input.restore_request.unwrap_or_default();
    if request.select_parameters.is_some() || request.output_location.is_some() {
        return Err(not_carried("restoring by a query"));
    }
    let days = i64::from(request.days.unwrap_or(0));
    if days < 1 {
        return Err(invalid_argument("restoration days should be at least 1"));
    }
    let tier = request.glacier_job_parameters.map(|parameters| parameters.tier).or(request.tier);
    let tier = tier.map_or_else(|| Tier::STANDARD.to_owned(), |tier| tier.as_str().to_owned());
    let (now_ms, delay_ms) = (millis(store.now()), store.thaw_delay_ms());
    let first = store
        .index()
        .write(move |tx| {
            let found = find(tx.conn, &input.bucket, &input.key, input.version_id.as_deref())?;
            let version = &found.version;
            if !is_archive(&version.class) {
                return Err(refuse(
                    S3ErrorCode::InvalidObjectState,
                    "Restore is not allowed for the object's current storage class",
                )
                .into());
            }
            check_tier(&tier, &version.class)?;
            let (thaw, first) = match (thaw_state(version.thaw, now_ms), version.thaw) {
                (ThawState::Ongoing, _) => {
                    return Err(refuse(
                        S3ErrorCode::RestoreAlreadyInProgress,
                        "Object restore is already in progress",
                    )
                    .into());
                }
                (ThawState::Thawed { .. }, Some(thaw)) => {
                    (Thaw { until_ms: expiry_ms(now_ms, days), ..thaw }, false)
                }
                _ => {
                    let from_ms = now_ms.saturating_add(delay_ms);
                    (Thaw { from_ms, until_ms: expiry_ms(from_ms, days) }, true)
                }
            };
            rows::set_thaw(tx.conn, found.bucket.id, &input.key, version.rank, thaw)?;
            Ok(first)
        })
        .await?;
    let mut response = S3Response::new(RestoreObjectOutput::default());
    if first {
        response.extensions.insert(ResultStatus(StatusCode::ACCEPTED));
    }
    Ok(response)
}

fn check_tier(tier: &str, class: &str) -> S3Result<()> {
    match tier {
        Tier::STANDARD | Tier::BULK => Ok(()),
        Tier::EXPEDITED if class != DEEP_ARCHIVE => Ok(()),
        Tier::EXPEDITED => {
            Err(invalid_argument("Retrieval option is not supported by this storage class"))
        }
        _ => Err(refuse(S3ErrorCode::MalformedXML, "The tier you specified is not valid")),
    }
}
