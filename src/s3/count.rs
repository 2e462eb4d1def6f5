//! Counts requests as they are sent, retries included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;

use crate::ports::RequestCounts;

#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    put: AtomicU64,
    get: AtomicU64,
    head: AtomicU64,
    list: AtomicU64,
    copy: AtomicU64,
    delete: AtomicU64,
    multipart: AtomicU64,
    other: AtomicU64,
}

impl Counter {
    /// A PUT that went below the SDK.
    pub fn sent_put(&self) {
        self.0.put.fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self) -> RequestCounts {
        let counts = &self.0;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RequestCounts {
            put: get(&counts.put),
            get: get(&counts.get),
            head: get(&counts.head),
            list: get(&counts.list),
            copy: get(&counts.copy),
            delete: get(&counts.delete),
            multipart: get(&counts.multipart),
            other: get(&counts.other),
        }
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Counter {
    fn name(&self) -> &'static str {
        "CountRequests"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let counts = &self.0;
        let operation = config.load::<Metadata>().map_or("", |metadata| metadata.name());
        let count = match operation {
            "PutObject" => &counts.put,
            "GetObject" => &counts.get,
            "HeadObject" | "HeadBucket" => &counts.head,
            "ListObjectsV2" | "ListObjectVersions" => &counts.list,
            "CopyObject" => &counts.copy,
            "DeleteObject" | "DeleteObjects" => &counts.delete,
            "UploadPart"
            | "UploadPartCopy"
            | "CreateMultipartUpload"
            | "CompleteMultipartUpload"
            | "AbortMultipartUpload"
            | "ListParts"
            | "ListMultipartUploads" => &counts.multipart,
            _ => &counts.other,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
