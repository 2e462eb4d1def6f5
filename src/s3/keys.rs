//! Where keys come from: the AWS CLI's chain, gone through anew whenever somebody asks. Keeps
//! nothing: what was found is kept by the SDK, until it expires or is refused.

use std::path::PathBuf;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Region, SharedHttpClient};

/// The chain: environment, profile, web identity, container, instance; or, where a profile or a
/// file is named, this alone.
#[derive(Debug)]
pub struct Chain {
    pub profile: Option<String>,
    /// A file in the format of the shared credentials file, read instead of that.
    pub file: Option<PathBuf>,
    /// Where temporary keys are asked for.
    pub region: Region,
    pub http: SharedHttpClient,
    pub timeouts: TimeoutConfig,
}

impl Chain {
    // Providers remember what they have read, and their first failure for ever: new ones each time.
    async fn load(&self) -> provider::Result {
        let config = ProviderConfig::without_region()
            .with_region(Some(self.region.clone()))
            .with_http_client(self.http.clone())
            .with_timeout_config(self.timeouts.clone());
        if self.profile.is_none() && self.file.is_none() {
            let chain = DefaultCredentialsChain::builder().configure(config);
            return chain.region(self.region.clone()).build().await.provide_credentials().await;
        }
        // A profile that was asked for beats keys in the environment, as in the AWS CLI.
        let mut provider = ProfileFileCredentialsProvider::builder().configure(&config);
        if let Some(profile) = &self.profile {
            provider = provider.profile_name(profile);
        }
        if let Some(file) = &self.file {
            let files = EnvConfigFiles::builder()
                .include_default_config_file(true)
                .with_file(EnvConfigFileKind::Credentials, file)
                .build();
            provider = provider.profile_files(files);
        }
        provider.build().provide_credentials().await
    }
}

impl ProvideCredentials for Chain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}
