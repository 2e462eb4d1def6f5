//! The store as an HTTP service: one request in, one response out.
//!
//! Around s3s, which verifies signatures, parses and writes: refuses what the store does not carry
//! wherever it comes up, gives answers the status and form that S3 gives them, and keeps the access
//! log. Called by [`super::in_process`] and [`super::serve()`].

use std::collections::HashMap;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, HttpRequest, HttpResponse, S3ErrorCode, S3Result};

use super::access::{Note, Pending};
use super::api::{ACCOUNT, ResultStatus};
use super::fault::{not_carried, refuse};
use super::{Store, clock};

/// The store as an HTTP service. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint {
    service: S3Service,
    store: Store,
}

impl Endpoint {
    pub(super) fn new(store: Store, credentials: &[(String, String)]) -> Self {
        let mut builder = S3ServiceBuilder::new(store.clone());
        builder.set_auth(KeyPairs(credentials.iter().cloned().collect()));
        builder.set_access(Admission);
        Self { service: builder.build(), store }
    }

    /// Answers one request. An error means that the answer cannot be sent at all.
    pub async fn call(&self, mut req: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_head = req.method() == Method::HEAD;
        let pending =
            self.store.options().on_access.clone().map(|on_access| {
                Pending::begin(&mut req, on_access, clock::millis(self.store.now()))
            });
        let mut response = self.service.call(req).await?;
        if let Some(ResultStatus(status)) = response.extensions().get() {
            *response.status_mut() = *status;
        }
        let id = HeaderValue::from_str(&format!("{:016X}", fastrand::u64(..)));
        if let Ok(id) = id {
            response.headers_mut().insert(HeaderName::from_static("x-amz-request-id"), id);
        }
        let without_body = is_head || response.status() == StatusCode::NOT_MODIFIED;
        let mut response = match pending {
            Some(pending) => pending.end(response, without_body),
            None => response,
        };
        if without_body {
            strip_body(&mut response);
        }
        Ok(response)
    }
}

/// s3s gives errors a body even where HTTP has none.
fn strip_body(response: &mut HttpResponse) {
    *response.body_mut() = Body::empty();
    if !response.status().is_success() {
        response.headers_mut().remove(CONTENT_TYPE);
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

/// The access keys that are known, with their secrets.
struct KeyPairs(HashMap<String, String>);

#[async_trait::async_trait]
impl S3Auth for KeyPairs {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.get(access_key) {
            Some(secret) => Ok(SecretKey::from(secret.as_str())),
            None => Err(refuse(
                S3ErrorCode::InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records.",
            )),
        }
    }
}

/// Sees every request whose signature was right, before its operation does.
struct Admission;

#[async_trait::async_trait]
impl S3Access for Admission {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name().to_owned();
        if let Some(note) = cx.extensions_mut().get::<Note>().cloned() {
            note.operation(&operation, cx.s3_path());
        }
        if cx.credentials().is_none() {
            return Err(refuse(S3ErrorCode::AccessDenied, "Anonymous access is not allowed."));
        }
        admit(cx.headers())
    }
}

/// Headers that ask for what no operation here does.
const NOT_CARRIED: [(&str, &str); 9] = [
    ("x-amz-object-lock-", "object lock"),
    ("x-amz-server-side-encryption-customer-", "encryption with customer keys"),
    ("x-amz-copy-source-server-side-encryption-customer-", "encryption with customer keys"),
    ("x-amz-website-redirect-location", "websites"),
    ("x-amz-write-offset-bytes", "appending"),
    ("x-amz-mfa", "MFA"),
    ("x-amz-bypass-governance-retention", "object lock"),
    ("x-amz-bucket-object-lock-enabled", "object lock"),
    ("x-amz-rename-source", "renaming"),
];

fn admit(headers: &HeaderMap) -> S3Result<()> {
    for (name, value) in headers {
        let (name, value) = (name.as_str(), value.to_str().unwrap_or_default());
        let refused = NOT_CARRIED.iter().find(|(prefix, _)| name.starts_with(prefix));
        if let Some((_, what)) = refused.filter(|_| !value.eq_ignore_ascii_case("false")) {
            return Err(not_carried(what));
        }
        match name {
            "x-amz-expected-bucket-owner" | "x-amz-source-expected-bucket-owner"
                if value != ACCOUNT =>
            {
                return Err(refuse(S3ErrorCode::AccessDenied, "Access Denied"));
            }
            "x-amz-acl" if !matches!(value, "private" | "bucket-owner-full-control") => {
                return Err(no_acls());
            }
            _ if name.starts_with("x-amz-grant-") => return Err(no_acls()),
            _ => {}
        }
    }
    Ok(())
}

fn no_acls() -> s3s::S3Error {
    refuse(S3ErrorCode::AccessControlListNotSupported, "The bucket does not allow ACLs")
}
