//! Adapter to CloudWatch: two numbers behind [`MetricSink`].
//!
//! One operation of its query protocol, written out here: the SDK's crate for all of CloudWatch is
//! ninety thousand lines and eighteen crates more. Credentials, region, endpoint, connections,
//! signing and clock skew are the SDK's, as they are for S3; it is handed the session that was
//! opened there. Nothing is retried: the next number says more than the last.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::auth::{SigV4OperationSigningConfig, SigningOptions};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::auth::AuthSchemeOptionResolverParams;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::region::{Region, SigningRegion};
use aws_types::service_config::ServiceConfigKey;
use aws_types::{SdkConfig, SigningName};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

use crate::plan::{ErrorClass, Failure};
use crate::ports::{Backlog, Fut, MetricSink};

/// What is still to be copied.
pub const OBJECTS_TO_BACKUP: &str = "ObjectsToBackup";
/// What has failed, and is not right since.
pub const FAILURES: &str = "Failures";

/// How long one request takes at most, connection and credentials included.
const LIMIT: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// Finer numbers than one a minute are kept only when that is asked for.
const COARSE: Duration = Duration::from_secs(60);

/// A namespace in CloudWatch.
pub struct CloudWatch {
    operation: Operation<String, (), Refused>,
    endpoint: String,
    namespace: String,
    is_fine: bool,
}

const CREDENTIALS: &str =
    "check the credentials, the clock, and `region` and `profile` in [cloudwatch]";

/// A reply that is no success.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{words} (status {status})")]
struct Refused {
    status: u16,
    code: String,
    /// Without what is another each time.
    words: String,
}

impl CloudWatch {
    /// Sends nothing yet. `every`: how far numbers are apart. The session's own endpoint counts
    /// when it was given; then `AWS_ENDPOINT_URL_CLOUDWATCH`, `AWS_ENDPOINT_URL` and the shared
    /// configuration; then that of the session's region.
    pub fn new(session: &SdkConfig, namespace: &str, every: Duration) -> Self {
        let region = session.region().cloned().unwrap_or(Region::from_static("us-east-1"));
        let endpoint = endpoint(session, &region);
        let namespace = namespace.to_owned();
        let operation = operation(session, region, &endpoint);
        Self { operation, endpoint, namespace, is_fine: every < COARSE }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    async fn put_metric_data(&self, body: String) -> Result<(), Failure> {
        let sent = tokio::time::timeout(LIMIT, self.operation.invoke(body)).await;
        let failed = |class, cause: String| {
            let message = format!("cannot publish metrics at {}", self.endpoint);
            Failure::new(class, message).because(cause)
        };
        let unreachable = |cause| {
            failed(ErrorClass::Unreachable, cause)
                .with_hint("check the network, and `region` and `endpoint_url` in [cloudwatch]")
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Err(_) => Err(unreachable(format!("no answer within {} s", LIMIT.as_secs()))),
            Ok(Err(SdkError::ServiceError(reply))) => {
                let refused = reply.err();
                let (class, hint) = meaning(refused);
                Err(failed(class, refused.to_string()).with_hint(hint))
            }
            Ok(Err(error)) => {
                let words: Vec<String> = causes(&error).map(ToString::to_string).collect();
                let words = words.join(": ");
                Err(match causes(&error).any(|cause| cause.is::<CredentialsError>()) {
                    true => failed(ErrorClass::Credentials, words).with_hint(CREDENTIALS),
                    false => unreachable(words),
                })
            }
        }
    }
}

impl MetricSink for CloudWatch {
    fn publish(&self, backlog: Backlog) -> Fut<'_, Result<(), Failure>> {
        Box::pin(self.put_metric_data(form(&self.namespace, backlog, self.is_fine)))
    }
}

/// What was given, what the user's environment says, or that of the region.
fn endpoint(session: &SdkConfig, region: &Region) -> String {
    let given = session.endpoint_url().map(str::to_owned);
    if session.get_origin("endpoint_url").is_client_config()
        && let Some(given) = given
    {
        return given;
    }
    let key = ServiceConfigKey::builder()
        .service_id("CloudWatch")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build();
    let own = session.service_config().zip(key.ok()).and_then(|(all, key)| all.load_config(key));
    own.or(given).unwrap_or_else(|| of_region(region.as_ref(), session.use_fips() == Some(true)))
}

/// Regions of China and of the European cloud have domains of their own.
fn of_region(region: &str, is_fips: bool) -> String {
    let domain = match region.split('-').next() {
        Some("cn") => "amazonaws.com.cn",
        Some("eusc") => "amazonaws.eu",
        _ => "amazonaws.com",
    };
    let service = if is_fips { "monitoring-fips" } else { "monitoring" };
    format!("https://{service}.{region}.{domain}")
}

/// `PutMetricData` with this session's means.
fn operation(
    session: &SdkConfig,
    region: Region,
    endpoint: &str,
) -> Operation<String, (), Refused> {
    let mut config = Layer::new("metrics");
    config.store_put(AuthSchemeOptionResolverParams::new(()));
    config.store_put(SigV4OperationSigningConfig {
        region: Some(SigningRegion::from(region)),
        region_set: None,
        name: Some(SigningName::from_static("monitoring")),
        signing_options: SigningOptions::default(),
    });
    let mut components = RuntimeComponentsBuilder::new("metrics")
        .with_auth_scheme(SigV4AuthScheme::new())
        .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![
            SCHEME_ID,
        ])));
    if let Some(provider) = session.credentials_provider() {
        components.set_identity_resolver(SCHEME_ID, provider);
    }
    let limits = TimeoutConfig::builder().connect_timeout(CONNECT).operation_timeout(LIMIT).build();
    let mut builder = Operation::builder()
        .service_name("CloudWatch")
        .operation_name("PutMetricData")
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .no_retry()
        .timeout_config(limits)
        .runtime_plugin(
            StaticRuntimePlugin::new()
                .with_config(config.freeze())
                .with_runtime_components(components),
        );
    if let Some(http) = session.http_client() {
        builder = builder.http_client(http);
    }
    if let Some(sleep) = session.sleep_impl() {
        builder = builder.sleep_impl(sleep);
    }
    builder.serializer(request).deserializer(understood).build()
}

fn request(body: String) -> Result<HttpRequest, Box<dyn Error + Send + Sync>> {
    let request = http::Request::builder()
        .method("POST")
        .uri("/")
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .header("content-length", body.len())
        .header("user-agent", concat!("keepwatch/", env!("CARGO_PKG_VERSION")))
        .body(SdkBody::from(body))?;
    Ok(request.try_into()?)
}

fn understood(reply: &HttpResponse) -> Result<(), OrchestratorError<Refused>> {
    let status = reply.status();
    if status.is_success() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(reply.body().bytes().unwrap_or_default());
    Err(OrchestratorError::operation(refusal(status.as_u16(), &body)))
}

fn refusal(status: u16, body: &str) -> Refused {
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim().to_owned())
    };
    let (code, message) = (element("Code").unwrap_or_default(), element("Message"));
    let words = match (code.as_str(), message) {
        ("", _) => "its reply is not one of CloudWatch".to_owned(),
        (code, None) => code.to_owned(),
        (code, Some(message)) => format!("{code}: {message}"),
    };
    // What comes from outside is told in one line.
    let words = words.chars().filter(|c| !c.is_control()).take(300).collect();
    Refused { status, code, words }
}

/// The class of a refusal, and the next step.
fn meaning(refused: &Refused) -> (ErrorClass, &'static str) {
    match refused.code.as_str() {
        "" => (
            ErrorClass::Configuration,
            "is that CloudWatch? AWS_ENDPOINT_URL is for every service; `endpoint_url` in \
             [cloudwatch] or AWS_ENDPOINT_URL_CLOUDWATCH is for this one",
        ),
        "AccessDenied" | "AccessDeniedException" => {
            (ErrorClass::Denied, "allow cloudwatch:PutMetricData to these credentials")
        }
        "Throttling" | "ThrottlingException" => {
            (ErrorClass::Throttled, "a longer `every` in [cloudwatch] needs fewer requests")
        }
        _ if refused.status >= 500 => (ErrorClass::Server, "it is tried again"),
        _ => (ErrorClass::Credentials, CREDENTIALS),
    }
}

/// What lies under an error, from the top.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// The body of the request.
fn form(namespace: &str, backlog: Backlog, is_fine: bool) -> String {
    let at = Timestamp::from_millisecond(backlog.at.0).unwrap_or(Timestamp::UNIX_EPOCH);
    let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut pairs: BTreeMap<String, String> = BTreeMap::new();
    let mut pair = |name: String, value: &str| drop(pairs.insert(name, value.to_owned()));
    pair("Action".to_owned(), "PutMetricData");
    pair("Version".to_owned(), "2010-08-01");
    pair("Namespace".to_owned(), namespace);
    for (number, (name, value)) in
        (1..).zip([(OBJECTS_TO_BACKUP, backlog.objects), (FAILURES, backlog.failures)])
    {
        let mut member = |what: &str, value: &str| {
            pair(format!("MetricData.member.{number}.{what}"), value);
        };
        member("MetricName", name);
        member("Timestamp", &at);
        member("Unit", "Count");
        member("Value", &value.to_string());
        if is_fine {
            member("StorageResolution", "1");
        }
    }
    let mut body = String::new();
    for (name, value) in pairs {
        let and = if body.is_empty() { "" } else { "&" };
        let value = utf8_percent_encode(&value, NON_ALPHANUMERIC);
        write!(body, "{and}{name}={value}").ok();
    }
    body
}

#[cfg(test)]
mod tests {
    use crate::model::Millis;

    use super::*;

    #[test]
    fn numbers_become_a_form() {
        let backlog = Backlog { at: Millis(1_794_700_800_999), objects: 12, failures: 3 };
        assert_eq!(
            form("Back ups/é&x", backlog, true),
            "Action=PutMetricData\
             &MetricData.member.1.MetricName=ObjectsToBackup\
             &MetricData.member.1.StorageResolution=1\
             &MetricData.member.1.Timestamp=2026%2D11%2D15T00%3A00%3A00Z\
             &MetricData.member.1.Unit=Count\
             &MetricData.member.1.Value=12\
             &MetricData.member.2.MetricName=Failures\
             &MetricData.member.2.StorageResolution=1\
             &MetricData.member.2.Timestamp=2026%2D11%2D15T00%3A00%3A00Z\
             &MetricData.member.2.Unit=Count\
             &MetricData.member.2.Value=3\
             &Namespace=Back%20ups%2F%C3%A9%26x\
             &Version=2010%2D08%2D01"
        );
        assert!(!form("x", backlog, false).contains("StorageResolution"));
    }

    #[test]
    fn each_region_has_its_endpoint() {
        for (region, is_fips, expected) in [
            ("eu-west-1", false, "https://monitoring.eu-west-1.amazonaws.com"),
            ("us-gov-west-1", true, "https://monitoring-fips.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", false, "https://monitoring.cn-north-1.amazonaws.com.cn"),
            ("eusc-de-east-1", false, "https://monitoring.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(of_region(region, is_fips), expected);
        }
    }

    #[test]
    fn refusals_are_understood() {
        let body = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\n\
                    <Message>User: x is not\nauthorized</Message></Error>\
                    <RequestId>1234</RequestId></ErrorResponse>";
        let refused = refusal(403, body);
        assert_eq!(refused.to_string(), "AccessDenied: User: x is notauthorized (status 403)");
        assert_eq!(meaning(&refused).0, ErrorClass::Denied);
        let portal = refusal(200, "<html>");
        assert_eq!(portal.words, "its reply is not one of CloudWatch");
        assert!(meaning(&portal).1.contains("AWS_ENDPOINT_URL_CLOUDWATCH"));
        assert_eq!(meaning(&refusal(503, "<Code>ServiceUnavailable</Code>")).0, ErrorClass::Server);
    }
}
