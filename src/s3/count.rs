//! Counts requests as they are sent, retries included, and what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::retries::RequestAttempts;

use crate::ports::{ReplyCounts, RequestCounts};

#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    sent: PerKind,
    ok: PerKind,
    refused: PerKind,
    failed: PerKind,
    lost: PerKind,
    retried: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Put,
    Get,
    Head,
    List,
    Copy,
    Delete,
    Multipart,
    Other,
}

impl Kind {
    fn of_operation(name: &str) -> Self {
        match name {
            "PutObject" => Self::Put,
            "GetObject" => Self::Get,
            "HeadObject" | "HeadBucket" => Self::Head,
            "ListObjectsV2" | "ListObjectVersions" => Self::List,
            "CopyObject" => Self::Copy,
            "DeleteObject" | "DeleteObjects" => Self::Delete,
            "UploadPart"
            | "UploadPartCopy"
            | "CreateMultipartUpload"
            | "CompleteMultipartUpload"
            | "AbortMultipartUpload"
            | "ListParts"
            | "ListMultipartUploads" => Self::Multipart,
            _ => Self::Other,
        }
    }
}

/// One number for each [`Kind`].
#[derive(Debug, Default)]
struct PerKind([AtomicU64; 8]);

impl PerKind {
    fn raise(&self, kind: Kind) {
        if let Some(count) = self.0.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> RequestCounts {
        let [put, get, head, list, copy, delete, multipart, other] =
            self.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        RequestCounts { put, get, head, list, copy, delete, multipart, other }
    }
}

impl Counter {
    pub fn sent(&self, kind: Kind) {
        self.0.sent.raise(kind);
    }

    /// `status` of the reply; `None` when there was none.
    pub fn answered(&self, kind: Kind, status: Option<u16>) {
        let counts = &self.0;
        let replies = match status {
            Some(..400) => &counts.ok,
            Some(400..500) => &counts.refused,
            Some(_) => &counts.failed,
            None => &counts.lost,
        };
        replies.raise(kind);
    }

    pub fn counts(&self) -> RequestCounts {
        self.0.sent.counts()
    }

    pub fn replies(&self) -> ReplyCounts {
        let counts = &self.0;
        ReplyCounts {
            ok: counts.ok.counts(),
            refused: counts.refused.counts(),
            failed: counts.failed.counts(),
            lost: counts.lost.counts(),
            retried: counts.retried.load(Ordering::Relaxed),
        }
    }
}

fn kind_of(config: &ConfigBag) -> Kind {
    Kind::of_operation(config.load::<Metadata>().map_or("", |metadata| metadata.name()))
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
        if config.load::<RequestAttempts>().is_some_and(|made| made.attempts() > 1) {
            self.0.retried.fetch_add(1, Ordering::Relaxed);
        }
        self.sent(kind_of(config));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let status = context.response().map(|reply| reply.status().as_u16());
        self.answered(kind_of(config), status);
        Ok(())
    }
}
