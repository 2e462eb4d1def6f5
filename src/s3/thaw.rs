//! Archived objects, asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata as _};
use aws_sdk_s3::types::{GlacierJobParameters, RestoreRequest, Tier as S3Tier};

use crate::plan::ErrorClass;
use crate::ports::{ObjectId, StoreError, ThawReply, Tier};

use super::S3Store;
use super::read::is_gone;

impl S3Store {
    pub(super) async fn ask_to_thaw(
        &self,
        id: &ObjectId,
        tier: Tier,
        days: u32,
    ) -> Result<ThawReply, StoreError> {
        let what = self.about("thaw", id);
        let refused = |cause: String| StoreError::Failed(what.failed(ErrorClass::Path, cause));
        let key = self.absolute(&id.key)?;
        let job = GlacierJobParameters::builder().tier(name(tier)).build();
        let request = RestoreRequest::builder()
            .days(i32::try_from(days).unwrap_or(i32::MAX))
            .glacier_job_parameters(job.map_err(|e| refused(e.to_string()))?)
            .build();
        let status = Status::default();
        let sent = self
            .ask(|client| {
                client
                    .restore_object()
                    .bucket(&self.options.bucket)
                    .key(&key)
                    .set_version_id(id.version.clone())
                    .restore_request(request.clone())
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .customize()
                    .interceptor(status.clone())
                    .send()
            })
            .await;
        let error = match sent {
            Ok(_) if status.is_accepted() => return Ok(ThawReply::Requested),
            Ok(_) => return Ok(ThawReply::Thawed),
            Err(error) => error,
        };
        if is_gone(&error) {
            return Ok(ThawReply::Gone);
        }
        let code = error.code().unwrap_or_default();
        match code {
            "RestoreAlreadyInProgress" => return Ok(ThawReply::Ongoing),
            "InvalidObjectState" => return Ok(ThawReply::NotArchived),
            _ => {}
        }
        let not_as_fast = code == "GlacierExpeditedRetrievalNotAvailable"
            || (code == "InvalidArgument" && tier == Tier::Expedited);
        match self.explained(&what, &error) {
            StoreError::Failed(failure) if not_as_fast => {
                Err(StoreError::Failed(failure.with_hint("use --tier standard")))
            }
            StoreError::Failed(failure) if failure.class == ErrorClass::Denied => {
                Err(StoreError::Failed(failure.with_hint("allow s3:RestoreObject")))
            }
            error => Err(error),
        }
    }
}

fn name(tier: Tier) -> S3Tier {
    match tier {
        Tier::Bulk => S3Tier::Bulk,
        Tier::Standard => S3Tier::Standard,
        Tier::Expedited => S3Tier::Expedited,
    }
}

/// The status of the last reply, which tells an accepted request from a copy that is there. The SDK
/// keeps it to itself.
#[derive(Clone, Debug, Default)]
struct Status(Arc<AtomicU16>);

impl Status {
    fn is_accepted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 202
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Status {
    fn name(&self) -> &'static str {
        "KeepStatus"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.store(context.response().status().as_u16(), Ordering::Relaxed);
        Ok(())
    }
}
