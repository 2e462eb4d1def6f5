//! Credentials, region, endpoint and HTTP, as the AWS CLI has them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::{pool, proxy, tls};
use aws_smithy_runtime_api::client::http::HttpConnectorSettings;
use aws_types::service_config::ServiceConfigKey;
use thiserror::Error;

use super::count::Counter;
use super::direct::Direct;
use super::environment;
use super::keys::{Chain, Keys, Veto};
use super::trust;

/// How to reach S3.
#[derive(Clone, Default)]
pub struct Endpoint {
    /// Overrides every other way to name an endpoint.
    pub url: Option<String>,
    pub region: Option<String>,
    pub profile: Option<String>,
    pub path_style: bool,
    /// A file in the format of the shared credentials file, read instead of every other source.
    pub credentials_file: Option<PathBuf>,
    /// Whether that file may be used, asked each time that it is read.
    pub veto: Option<Veto>,
    /// An access key and its secret, for a store inside this process.
    pub keys: Option<(String, String)>,
    /// Requests in flight at most: one connection each.
    pub connections_max: usize,
}

#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("cannot set up HTTP and TLS: {0}")]
    Http(String),
    #[error("no secret belongs in a URL, and that of the endpoint has a user in it")]
    SecretInUrl,
    #[error(
        "the authorities in {} cannot be used: {cause} (the file is named by AWS_CA_BUNDLE, or by \
         ca_bundle of the profile)",
        file.display()
    )]
    Bundle { file: PathBuf, cause: String },
}

/// The resolved configuration; clients are made from it.
#[derive(Clone)]
pub struct Connection {
    sdk: SdkConfig,
    endpoint: Endpoint,
    /// The URL of the endpoint, unless it is AWS.
    custom: Option<String>,
}

/// S3 closes idle connections after some 20 s.
const IDLE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);
/// Until the reply begins; large bodies get more, see [`transfer_timeouts`].
const READ: Duration = Duration::from_secs(60);
/// The slowest line on which a transfer is not given up, in bytes a second.
const RATE_MIN: u64 = 16 * 1024;

impl Connection {
    /// Reads the environment and the shared AWS configuration. `http` replaces the network: the
    /// embedded store is reached that way.
    pub async fn open(
        endpoint: Endpoint,
        http: Option<SharedHttpClient>,
    ) -> Result<Self, ConnectError> {
        let http = match http {
            Some(http) => http,
            None => {
                let trusted = trust::trusted(endpoint.profile.as_deref()).await?;
                http_client(endpoint.connections_max, trusted)?
            }
        };
        // Without a configured region, asking the instance metadata would stall for seconds
        // everywhere but on EC2; a wrong guess is corrected by the bucket's own answer.
        let region = match &endpoint.region {
            Some(region) => Some(Region::new(region.clone())),
            None => configured_region(endpoint.profile.as_deref()).await,
        };
        let region = region.unwrap_or(Region::from_static("us-east-1"));
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(READ).build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http.clone())
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(3)
                    .with_initial_backoff(Duration::from_millis(200))
                    .with_max_backoff(Duration::from_secs(2)),
            )
            .timeout_config(timeouts.clone())
            // Our own deadlines grow with the body; the SDK's guess breaks slow lines.
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .upload_enabled(false)
                    .grace_period(Duration::from_secs(30))
                    .build(),
            )
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenSupported)
            .credentials_provider(credentials(&endpoint, &region, http, timeouts));
        if let Some(url) = &endpoint.url {
            loader = loader.endpoint_url(url);
        }
        let profile = endpoint.profile.as_deref().or(environment::profile_instead());
        if let Some(profile) = profile {
            loader = loader.profile_name(profile);
        }
        let sdk = loader.region(region).load().await;
        let sdk = environment::without_empty(sdk, profile).await;
        let custom = custom_endpoint(&sdk);
        // From the environment or the AWS configuration: ours refuse it where they are read.
        if custom.as_ref().is_some_and(|url| url.contains('@')) {
            return Err(ConnectError::SecretInUrl);
        }
        Ok(Self { sdk, endpoint, custom })
    }

    /// The same, which knows no keys yet: they are looked for at the next request.
    pub fn with_new_keys(&self) -> Self {
        let sdk = self.sdk.to_builder().identity_cache(IdentityCache::lazy().build()).build();
        Self { sdk, ..self.clone() }
    }

    /// Whether this is Amazon's own S3, as far as can be told without asking.
    pub fn is_aws(&self) -> bool {
        self.custom.is_none()
    }

    /// Whether this is the embedded store inside this process.
    pub fn is_in_process(&self) -> bool {
        self.endpoint.keys.is_some()
    }

    /// The endpoint, unless it is AWS.
    pub fn endpoint(&self) -> Option<String> {
        self.custom.clone()
    }

    /// The one place where credentials are looked for, if it was named.
    pub fn credentials_place(&self) -> Option<String> {
        let Endpoint { profile, credentials_file, .. } = &self.endpoint;
        match (profile, credentials_file) {
            (Some(profile), Some(file)) => {
                Some(format!("the profile {profile} of {}", file.display()))
            }
            (Some(profile), None) => Some(format!("the profile {profile}")),
            (None, Some(file)) => Some(file.display().to_string()),
            (None, None) => None,
        }
    }

    pub fn region(&self) -> Option<&str> {
        self.sdk.region().map(Region::as_ref)
    }

    pub fn in_region(&self, region: &str) -> Self {
        let sdk = self.sdk.to_builder().region(Region::new(region.to_owned())).build();
        let endpoint = Endpoint { region: Some(region.to_owned()), ..self.endpoint.clone() };
        Self { sdk, endpoint, ..self.clone() }
    }

    /// What was resolved, for clients of other services.
    pub fn session(&self) -> &SdkConfig {
        &self.sdk
    }

    pub(super) fn client(&self, counter: &Counter) -> Client {
        let mut config = aws_sdk_s3::config::Builder::from(&self.sdk).interceptor(counter.clone());
        // What is not AWS rarely has names for buckets in DNS.
        config.set_force_path_style(Some(self.endpoint.path_style || !self.is_aws()));
        Client::from_conf(config.build())
    }

    /// The way below the SDK, not yet known.
    pub(super) fn direct(&self) -> Arc<Direct> {
        let timeouts =
            HttpConnectorSettings::builder().connect_timeout(CONNECT).read_timeout(READ).build();
        Direct::new(self.sdk.credentials_provider(), timeouts)
    }
}

/// Timeouts for sending `bytes`: as long as the slowest tolerated line takes, and a minute.
pub fn transfer_timeouts(bytes: u64) -> aws_sdk_s3::config::Builder {
    let allowed = READ + Duration::from_secs(bytes / RATE_MIN);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .read_timeout(allowed)
        .operation_attempt_timeout(allowed)
        .build();
    aws_sdk_s3::Config::builder().timeout_config(timeouts)
}

/// Whether a body of this size fits the usual timeouts.
pub fn fits_usual_timeouts(bytes: u64) -> bool {
    bytes <= READ.as_secs() * RATE_MIN
}

fn credentials(
    endpoint: &Endpoint,
    region: &Region,
    http: SharedHttpClient,
    timeouts: TimeoutConfig,
) -> SharedCredentialsProvider {
    if let Some((key, secret)) = &endpoint.keys {
        let keys = Credentials::new(key, secret, None, None, "in process");
        return SharedCredentialsProvider::new(keys);
    }
    SharedCredentialsProvider::new(Keys::new(Chain {
        profile: endpoint.profile.clone(),
        file: endpoint.credentials_file.clone(),
        region: region.clone(),
        http,
        timeouts,
        veto: endpoint.veto,
    }))
}

/// The URL that the SDK's client goes by: one for S3 alone beats one for all services, unless it is
/// ours.
fn custom_endpoint(sdk: &SdkConfig) -> Option<String> {
    let for_all = sdk.endpoint_url().map(str::to_owned);
    if sdk.get_origin("endpoint_url").is_client_config() {
        return for_all;
    }
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL");
    let key = key.profile("endpoint_url").build().ok()?;
    sdk.service_config().and_then(|config| config.load_config(key)).or(for_all)
}

async fn configured_region(profile: Option<&str>) -> Option<Region> {
    use aws_config::meta::region::ProvideRegion as _;
    use aws_config::profile::ProfileFileRegionProvider;
    let variables = environment::variables();
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    if let Some(region) = named.into_iter().find_map(|name| variables.get(name).ok()) {
        return Some(Region::new(region));
    }
    let mut builder = ProfileFileRegionProvider::builder();
    if let Some(profile) = profile.or(environment::profile_instead()) {
        builder = builder.profile_name(profile);
    }
    builder.build().region().await
}

fn http_client(
    connections_max: usize,
    trusted: tls::TlsContext,
) -> Result<SharedHttpClient, ConnectError> {
    let failed = |error: &dyn std::fmt::Display| ConnectError::Http(error.to_string());
    let pool = pool::ConnectionPool::builder()
        .idle_timeout(IDLE)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(30))
        .max_connections_per_host(connections_max.max(1))
        .proxy_config(proxy::ProxyConfig::from_env())
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .tls_context(trusted)
        .build_https()
        .map_err(|e| failed(&e))?;
    Ok(SharedHttpClient::new(pool::Client::new(&pool).map_err(|e| failed(&e))?))
}
