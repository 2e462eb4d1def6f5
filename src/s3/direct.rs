//! PUTs of small objects below the SDK, at a third of its cost in CPU.
//!
//! Nothing is configured here. The SDK sends the first PUT; where it went, in which region, and
//! over which connections is remembered from that request, and later PUTs are signed and sent the
//! same way. Any answer but a plain success, and any doubt, gives the object back to the SDK, which
//! then keeps PUTs for a while: retries, redirects, clock skew and the meaning of errors are known
//! in one place only.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_s3::config::interceptors::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector as _, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::count::{Counter, Kind};

/// What S3 wants encoded in the path of a request: all but the unreserved characters and `/`.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// How long the SDK sends all PUTs after an answer that was not a plain success.
const MISTRUST: Duration = Duration::from_secs(30);
/// Credentials are fetched again so long before they expire.
const EXPIRY_MARGIN: Duration = Duration::from_secs(120);
/// Credentials without an expiry are believed so long: they may have been replaced.
const BELIEF: Duration = Duration::from_secs(300);

/// The status that says so; the only one beside success that means the same everywhere.
pub const PRECONDITION_FAILED: u16 = 412;

/// Where PUTs go, as seen in one that the SDK sent.
#[derive(Clone, Debug)]
struct Route {
    connector: SharedHttpConnector,
    /// The URI up to the key.
    base: String,
    region: String,
    user_agent: String,
}

#[derive(Debug)]
struct Held {
    identity: Identity,
    until: SystemTime,
}

#[derive(Debug, Default)]
struct Known {
    route: Option<Route>,
    credentials: Option<Held>,
    /// Until then the SDK sends all PUTs.
    mistrusted_until: Option<Instant>,
}

impl Known {
    fn wants_route(&self) -> bool {
        self.route.is_none() && self.mistrusted_until.is_none_or(|until| until <= Instant::now())
    }
}

/// The way below the SDK.
#[derive(Debug)]
pub struct Direct {
    provider: Option<SharedCredentialsProvider>,
    timeouts: HttpConnectorSettings,
    known: Mutex<Known>,
}

/// A request for one object, apart from its place.
pub struct DirectPut<'a> {
    /// The key in the bucket.
    pub key: &'a str,
    pub headers: Vec<(Cow<'static, str>, String)>,
    pub body: SdkBody,
}

impl Direct {
    pub fn new(
        provider: Option<SharedCredentialsProvider>,
        timeouts: HttpConnectorSettings,
    ) -> Arc<Self> {
        Arc::new(Self { provider, timeouts, known: Mutex::default() })
    }

    /// Whether PUTs can be sent this way now.
    pub fn is_open(&self) -> bool {
        self.lock().route.is_some()
    }

    /// Forgets the way: an answer was not a plain success.
    fn close(&self) {
        let known = &mut *self.lock();
        *known = Known { mistrusted_until: Some(Instant::now() + MISTRUST), ..Known::default() };
    }

    /// Something that learns the way from a PUT of the SDK for `key`.
    pub fn learner(self: &Arc<Self>, key: &str) -> Learner {
        Learner { direct: self.clone(), key: encoded(key), seen: Mutex::default() }
    }

    /// Sends one object; answers with a plain success, or that its condition does not hold. `None`:
    /// nothing can be said about it, the SDK is to send it.
    pub async fn put(&self, put: DirectPut<'_>, counter: &Counter) -> Option<HttpResponse> {
        let route = self.lock().route.clone()?;
        let identity = self.identity().await?;
        let reply = match signed(&route, &identity, put) {
            Some(request) => {
                counter.sent(Kind::Put);
                let reply = route.connector.call(request).await.ok();
                counter.answered(Kind::Put, reply.as_ref().map(|reply| reply.status().as_u16()));
                reply
            }
            None => None,
        };
        let plain = reply.filter(|reply| match reply.status().as_u16() {
            200 => reply.headers().contains_key("etag"),
            status => status == PRECONDITION_FAILED,
        });
        if plain.is_none() {
            self.close();
        }
        plain
    }

    async fn identity(&self) -> Option<Identity> {
        if let Some(held) = &self.lock().credentials
            && SystemTime::now() < held.until
        {
            return Some(held.identity.clone());
        }
        let credentials = self.provider.as_ref()?.provide_credentials().await.ok()?;
        let until = believed_until(&credentials, SystemTime::now());
        let identity = Identity::from(credentials);
        self.lock().credentials = Some(Held { identity: identity.clone(), until });
        Some(identity)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn believed_until(credentials: &Credentials, now: SystemTime) -> SystemTime {
    credentials.expiry().map_or(now + BELIEF, |at| at - EXPIRY_MARGIN)
}

fn encoded(key: &str) -> String {
    utf8_percent_encode(key, PATH).to_string()
}

fn signed(route: &Route, identity: &Identity, put: DirectPut<'_>) -> Option<HttpRequest> {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let params = v4::SigningParams::builder()
        .identity(identity)
        .region(&route.region)
        .name("s3")
        .time(SystemTime::now())
        .settings(settings)
        .build()
        .ok()?
        .into();
    let uri = format!("{}{}", route.base, encoded(put.key));
    let headers = put.headers.iter().map(|(name, value)| (name.as_ref(), value.as_str()));
    // The digests cover the body; signing it as well would hash it a third time.
    let signable =
        SignableRequest::new("PUT", &uri, headers, SignableBody::UnsignedPayload).ok()?;
    let (instructions, _) = sign(signable, &params).ok()?.into_parts();
    let mut request = http::Request::builder().method("PUT").uri(&uri);
    for (name, value) in put.headers {
        request = request.header(name.as_ref(), value);
    }
    let mut request = request.header("user-agent", &route.user_agent).body(put.body).ok()?;
    instructions.apply_to_request_http1x(&mut request);
    request.try_into().ok()
}

/// Reads the way off one successful PUT of the SDK.
#[derive(Debug)]
pub struct Learner {
    direct: Arc<Direct>,
    key: String,
    /// The way of the attempt under way.
    seen: Mutex<Option<Route>>,
}

impl Learner {
    fn read(&self, request: &HttpRequest, components: &RuntimeComponents) -> Option<Route> {
        let header = |name| request.headers().get(name).unwrap_or_default();
        let path = request.uri().split('?').next()?;
        Some(Route {
            base: path.strip_suffix(&self.key)?.to_owned(),
            region: signing_region(header("authorization"))?.to_owned(),
            user_agent: header("user-agent").to_owned(),
            connector: components.http_client()?.http_connector(&self.direct.timeouts, components),
        })
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<Route>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Learner {
    fn name(&self) -> &'static str {
        "LearnRoute"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.direct.lock().wants_route() {
            *self.seen() = self.read(context.request(), components);
        }
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let seen = self.seen().take();
        if context.response().is_some_and(|reply| reply.status().as_u16() == 200) {
            let known = &mut *self.direct.lock();
            if known.wants_route() {
                known.route = seen;
            }
        }
        Ok(())
    }
}

/// The region in `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/s3/aws4_request, …`; any other way
/// to sign is the SDK's own.
fn signing_region(authorization: &str) -> Option<&str> {
    let scope = authorization.strip_prefix("AWS4-HMAC-SHA256 Credential=")?.split(',').next()?;
    match scope.rsplit('/').collect::<Vec<_>>()[..] {
        ["aws4_request", "s3", region, _date, ..] => Some(region),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_signature_is_imitated() {
        let usual = "AWS4-HMAC-SHA256 Credential=A/B/20260101/eu-west-1/s3/aws4_request, Signed…";
        assert_eq!(signing_region(usual), Some("eu-west-1"));
        for other in [
            "",
            "AWS4-ECDSA-P256-SHA256 Credential=A/20260101/s3/aws4_request, SignedHeaders=host",
            "AWS4-HMAC-SHA256 Credential=A/20260101/eu-west-1/s3express/aws4_request, Signed",
        ] {
            assert_eq!(signing_region(other), None, "{other}");
        }
    }

    #[test]
    fn credentials_are_renewed_before_they_expire() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let keys = |expiry| Credentials::new("a", "b", None, expiry, "test");
        assert_eq!(believed_until(&keys(None), now), now + BELIEF);
        for lasts in [150, 43_200] {
            let expiry = now + Duration::from_secs(lasts);
            assert_eq!(believed_until(&keys(Some(expiry)), now), expiry - EXPIRY_MARGIN);
        }
    }
}
