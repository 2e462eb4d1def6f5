//! What an error of the SDK means: its class, its cause in plain words, and the next step.

use std::borrow::Cow;
use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::http::StatusCode;

use crate::model::Escaped;
use crate::plan::{ErrorClass, Failure};
use crate::ports::StoreError;

pub type SdkFailure<E> = SdkError<E, HttpResponse>;
pub type SdkResult<T, E> = Result<T, SdkFailure<E>>;

/// What a request is about.
#[derive(Clone, Debug, Default)]
pub struct What {
    /// `read s3://bucket/key`.
    pub request: String,
    /// Where it is sent, unless that is AWS.
    pub endpoint: Option<String>,
    /// Where credentials are looked for, when only in one place.
    pub credentials: Option<String>,
    /// The bucket is made where that is asked for.
    pub may_be_made: bool,
}

impl What {
    pub fn failed(&self, class: ErrorClass, cause: impl Into<String>) -> Failure {
        Failure::new(class, format!("cannot {}", self.request)).because(cause)
    }

    /// No answer of S3 came: then it matters who was asked.
    fn unanswered(&self, class: ErrorClass, cause: &str) -> Failure {
        let at = self.endpoint.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
        Failure::new(class, format!("cannot {}{at}", self.request)).because(cause)
    }
}

/// Explains an error of a request.
pub fn explain<E>(what: &What, error: &SdkFailure<E>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let away = service.raw().headers().get(STORE_AWAY_HEADER);
            let reply = Reply {
                status: service.raw().status(),
                code: service.err().code().or(away.map(|_| STORE_AWAY)),
                message: service.err().message().or(away),
                request_id: service.raw().headers().get("x-amz-request-id"),
                region: named_region(service.raw()),
            };
            reply.explain(what)
        }
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            match is_of_s3(response.raw()) {
                // A slip of the server in this one reply: others may be read.
                true => {
                    let cause = format!("its reply (status {status}) cannot be read");
                    StoreError::Failed(what.failed(ErrorClass::Server, cause))
                }
                false => not_s3(what, &format!("its reply (status {status}) is not one of S3")),
            }
        }
        SdkError::TimeoutError(_) => unreachable(what, "no reply in time"),
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => dispatch(what, error),
        _ => unreachable(what, &DisplayErrorContext(error).to_string()),
    }
}

/// Explains an error of a request that only tells what is there. A server whose answer cannot be
/// read does not know the request.
pub fn explain_question<E>(what: &What, error: &SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error {
        SdkError::ResponseError(response) if is_of_s3(response.raw()) => {
            StoreError::Unsupported("its reply cannot be read".to_owned())
        }
        _ => explain(what, error),
    }
}

/// Whether the server refuses this one request as it is: not every server has every checksum.
pub fn is_of_request(error: &StoreError) -> bool {
    match error {
        StoreError::Unsupported(_) => true,
        StoreError::Failed(failure) => failure.class == ErrorClass::Path,
        _ => false,
    }
}

/// Whether S3 refused a HEAD, whose replies have no body to say why.
pub fn is_wordless<E: ProvideErrorMetadata>(error: &SdkFailure<E>) -> bool {
    let refused = |reply: &HttpResponse| matches!(reply.status().as_u16(), 400 | 403);
    error.code().is_none() && error.raw_response().is_some_and(|r| refused(r) && is_of_s3(r))
}

/// Whether a reply shows that S3 gave it, and no proxy or portal.
fn is_of_s3(reply: &HttpResponse) -> bool {
    ["x-amz-request-id", "x-amz-id-2", "x-amzn-requestid"]
        .iter()
        .any(|name| reply.headers().contains_key(*name))
}

/// The region a reply names, when it says that the bucket is elsewhere.
pub fn other_region<E>(error: &SdkFailure<E>) -> Option<String>
where
    E: ProvideErrorMetadata,
{
    let SdkError::ServiceError(service) = error else { return None };
    let code = service.err().code().unwrap_or_default();
    let status = service.raw().status().as_u16();
    let moved = matches!(code, "PermanentRedirect" | "AuthorizationHeaderMalformed")
        || code == "TemporaryRedirect"
        || status == 301
        // HEAD has no body for the code.
        || (status == 400 && code.is_empty());
    if moved { named_region(service.raw()) } else { None }
}

/// The region that a reply says the bucket is in: in a header, or in the body of the error.
fn named_region(reply: &HttpResponse) -> Option<String> {
    if let Some(region) = reply.headers().get("x-amz-bucket-region") {
        return Some(region.to_owned());
    }
    let body = std::str::from_utf8(reply.body().bytes()?).ok()?;
    let (_, rest) = body.split_once("<Region>")?;
    rest.split_once("</Region>").map(|(region, _)| region.to_owned())
}

/// The next step where a request is denied.
const DENIED: &str = "check the credentials, and that their user or role may do this";

/// The next step where the keys are not known.
const KEYS: &str = "check the access key and the secret key, and that they belong to this endpoint";

/// Says why the embedded store is away, also where a reply has no body.
const STORE_AWAY_HEADER: &str = "x-keepwatch-store-away";
const STORE_AWAY: &str = "StoreAway";
const PUT_BACK: &str = "put the disk back, or restart keepwatch to use the store that is there now";

/// What a failing reply says.
struct Reply<'a> {
    status: StatusCode,
    code: Option<&'a str>,
    message: Option<&'a str>,
    request_id: Option<&'a str>,
    region: Option<String>,
}

impl Reply<'_> {
    fn explain(&self, what: &What) -> StoreError {
        let Some(code) = self.code else { return self.without_code(what) };
        match code {
            // Who reads handles NoSuchKey; to who writes it says that the known object is gone.
            "PreconditionFailed" | "ConditionalRequestConflict" | "NoSuchKey" => {
                StoreError::Precondition
            }
            "NoSuchUpload" => StoreError::NoSuchUpload,
            "NoSuchBucket" => StoreError::NoSuchBucket(self.no_such_bucket(what)),
            "NotImplemented" | "MethodNotAllowed" => StoreError::Unsupported(self.words()),
            _ => {
                let (class, hint) = self.meaning(code);
                let failure = what.failed(class, self.words());
                StoreError::Failed(if hint.is_empty() { failure } else { failure.with_hint(hint) })
            }
        }
    }

    /// The class of a code, and the next step where one is known.
    fn meaning(&self, code: &str) -> (ErrorClass, Cow<'static, str>) {
        let status = self.status.as_u16();
        let told = |class, hint: &'static str| (class, Cow::Borrowed(hint));
        let elsewhere = || (ErrorClass::Configuration, Cow::Owned(self.region_hint()));
        match code {
            "ExpiredToken"
            | "ExpiredTokenException"
            | "TokenRefreshRequired"
            | "InvalidToken"
            | "RequestExpired" => {
                told(ErrorClass::Credentials, "renew the session, for example with: aws sso login")
            }
            "AccessDenied" if self.blames_keys() => told(ErrorClass::Credentials, KEYS),
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidClientTokenId"
            | "AuthFailure"
            | "NotSignedUp"
            | "MissingSecurityHeader"
            | "InvalidSecurity" => told(ErrorClass::Credentials, KEYS),
            "RequestTimeTooSkewed" => told(
                ErrorClass::Credentials,
                "set this machine's clock: S3 refuses requests more than 15 minutes off",
            ),
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "Forbidden" => {
                told(ErrorClass::Denied, DENIED)
            }
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException"
            | "InvalidRegionName" => elsewhere(),
            "SlowDown"
            | "SlowDownRead"
            | "SlowDownWrite"
            | "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded"
            | "TooManyRequests"
            | "RequestThrottled" => told(ErrorClass::Throttled, ""),
            "RequestTimeout"
            | "InternalError"
            | "ServiceUnavailable"
            | "BadDigest"
            | "InvalidDigest"
            | "IncompleteBody"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch"
            | "OperationAborted" => told(ErrorClass::Server, ""),
            "InvalidObjectState" => told(ErrorClass::Path, "the object must be thawed first"),
            "InvalidStorageClass" => {
                told(ErrorClass::Configuration, "check storage_class: this server does not have it")
            }
            // The embedded store's: another disk is at its path; its files may not be written.
            STORE_AWAY => told(ErrorClass::Unreachable, PUT_BACK),
            "StoreReadOnly" => told(
                ErrorClass::Configuration,
                "mount its disk writable, or run keepwatch as a user that may write there",
            ),
            _ if status == 507 => told(
                ErrorClass::Full,
                "the destination is full: free some space there, or raise its quota",
            ),
            _ if status == 429 => told(ErrorClass::Throttled, ""),
            _ if status >= 500 => told(ErrorClass::Server, ""),
            _ if status < 400 => elsewhere(),
            _ => told(ErrorClass::Path, ""),
        }
    }

    /// Garage has one code for what may not be done and for keys that are wrong.
    fn blames_keys(&self) -> bool {
        let message = self.message.unwrap_or_default();
        ["No such key", "Invalid signature"].iter().any(|words| message.contains(words))
    }

    /// HEAD has no body to say more; and what is not S3 does not know its codes.
    fn without_code(&self, what: &What) -> StoreError {
        let failed = |class, hint: &str| {
            StoreError::Failed(what.failed(class, self.words()).with_hint(hint))
        };
        match self.status.as_u16() {
            412 | 409 => StoreError::Precondition,
            301 | 307 | 308 if self.region.is_some() || self.request_id.is_some() => {
                failed(ErrorClass::Configuration, &self.region_hint())
            }
            301 | 308 => failed(
                ErrorClass::Configuration,
                "the endpoint redirects: check --endpoint-url and --region",
            ),
            403 if self.request_id.is_some() => failed(ErrorClass::Denied, DENIED),
            429 => failed(ErrorClass::Throttled, "the server asks for fewer requests"),
            501 => StoreError::Unsupported(self.words()),
            500..=599 => failed(ErrorClass::Server, "the server fails; keepwatch tries again"),
            status => not_s3(what, &format!("its reply (status {status}) is not one of S3")),
        }
    }

    fn no_such_bucket(&self, what: &What) -> Failure {
        what.failed(ErrorClass::Configuration, self.words()).with_hint(match what.may_be_made {
            true => "check the bucket's name, or have it made with --create-bucket",
            false => "check the bucket's name: a source is never made",
        })
    }

    fn region_hint(&self) -> String {
        match &self.region {
            Some(region) => format!("the bucket is in {region}: set --region {region}"),
            None => "the bucket is in another region: check --region and --endpoint-url".to_owned(),
        }
    }

    fn words(&self) -> String {
        let status = self.status.as_u16();
        // The server's words are bytes from outside.
        let message = self.message.map(|message| Escaped(message.as_bytes()));
        let mut words = match (self.code, message) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            (None, _) => format!("status {status}"),
        };
        if self.code.is_some() {
            words += &format!(" (status {status}");
            if let Some(id) = self.request_id {
                words += &format!(", request {id}");
            }
            words += ")";
        }
        words
    }
}

/// The connection broke, or nothing comes.
pub fn unreachable(what: &What, cause: &str) -> StoreError {
    let failure = what
        .unanswered(ErrorClass::Unreachable, cause)
        .with_hint("check the network and the endpoint");
    StoreError::Failed(failure)
}

/// Something answers, but it is not S3: a captive portal, a proxy, another service.
pub fn not_s3(what: &What, cause: &str) -> StoreError {
    let failure = what
        .unanswered(ErrorClass::Unreachable, cause)
        .with_hint("check --endpoint-url, and whether a proxy or captive portal answers instead");
    StoreError::Failed(failure)
}

/// What lies under an error, from the top.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// An error and all that lies under it.
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> =
        std::iter::once(error.to_string()).chain(causes(error).map(ToString::to_string)).collect();
    words.dedup();
    words.join(": ")
}

/// Nothing was sent, or no reply came: credentials, name resolution, connection, TLS.
fn dispatch<E>(what: &What, error: &SdkFailure<E>) -> StoreError
where
    E: Error + Send + Sync + 'static,
{
    if let Some(refused) = causes(error).find_map(|cause| cause.downcast_ref()) {
        let failure = what.failed(ErrorClass::Credentials, no_credentials(what, refused));
        return StoreError::Failed(failure.with_hint(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or credentials_file",
        ));
    }
    let mut words: Vec<String> = causes(error).map(ToString::to_string).collect();
    words.dedup();
    let joined = words.join(": ");
    if joined.contains("identity resolver timed out") {
        let cause = "whoever is to give the credentials does not come to an end";
        return StoreError::Failed(what.failed(ErrorClass::Credentials, cause).with_hint(
            "see what a credential_process waits for, or the service that gives the keys",
        ));
    }
    // Such a name can be sent, but not asked for: the SDK takes it for none. One path's trouble.
    if matches!(error, SdkError::ConstructionFailure(_)) && joined.contains("key was missing") {
        let cause = "the SDK of AWS refuses a key of white space only";
        return StoreError::Failed(what.failed(ErrorClass::Path, cause).with_hint(
            "give it another name, or use a prefix: behind one such a name is as good as any",
        ));
    }
    if matches!(error, SdkError::ConstructionFailure(_)) {
        return StoreError::Failed(
            what.unanswered(ErrorClass::Configuration, &joined)
                .with_hint("check the bucket's name and --endpoint-url"),
        );
    }
    // As rustls says it, below errors of other crates that hide its type.
    if joined.contains("invalid peer certificate") {
        return StoreError::Failed(what.unanswered(ErrorClass::Unreachable, &joined).with_hint(
            "the server's certificate is of no authority that is trusted here, not for this name, \
             or not valid now; AWS_CA_BUNDLE names a file of authorities of your own",
        ));
    }
    unreachable(what, &joined)
}

fn no_credentials(what: &What, error: &CredentialsError) -> String {
    match (error, &what.credentials) {
        (CredentialsError::CredentialsNotLoaded(_), Some(place)) => {
            format!("there are no credentials in {place}")
        }
        (CredentialsError::CredentialsNotLoaded(_), None) => {
            "there are no credentials: not in the environment, not in the shared AWS \
             configuration, and none that this machine is given"
                .to_owned()
        }
        _ => {
            let words: Vec<String> = causes(error).map(ToString::to_string).collect();
            let words = words.join(": ");
            // What a credential_process says when it fails may have anything in it.
            let words = words.split_once(" Stderr: ").map_or(words.as_str(), |(ours, _)| ours);
            format!("no usable credentials: {words}")
        }
    }
}
