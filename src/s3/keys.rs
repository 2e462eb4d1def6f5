//! Where keys come from: the AWS CLI's chain, gone through anew whenever somebody asks. Keeps
//! nothing: what was found is kept by the SDK, until it expires or is refused.

use std::path::PathBuf;
use std::sync::Arc;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Region, SharedHttpClient};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::environment;

/// Answers with why a file of keys may not be used, if it may not.
pub type Veto = fn(&std::path::Path) -> Option<String>;

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
    /// Looked at each time: a file may be another by now.
    pub veto: Option<Veto>,
}

/// The chain, gone through once at a time: a `credential_process` that hangs is not started again
/// and again by those who have lost their patience with it.
#[derive(Debug)]
pub struct Keys {
    chain: Arc<Chain>,
    loading: Mutex<Option<JoinHandle<provider::Result>>>,
}

impl Keys {
    pub fn new(chain: Chain) -> Self {
        Self { chain: Arc::new(chain), loading: Mutex::default() }
    }

    async fn load(&self) -> provider::Result {
        let mut loading = self.loading.lock().await;
        let task = loading.get_or_insert_with(|| {
            let chain = self.chain.clone();
            tokio::spawn(async move { chain.load().await })
        });
        // Whoever gives up here leaves it running for the next one.
        let loaded = task.await;
        *loading = None;
        loaded.unwrap_or_else(|error| Err(CredentialsError::unhandled(error)))
    }
}

impl Chain {
    // Providers remember what they have read, and their first failure for ever: new ones each time.
    async fn load(&self) -> provider::Result {
        if let (Some(file), Some(veto)) = (&self.file, self.veto)
            && let Some(why) = veto(file)
        {
            return Err(CredentialsError::invalid_configuration(why));
        }
        let config = ProviderConfig::without_region()
            .with_region(Some(self.region.clone()))
            .with_http_client(self.http.clone())
            .with_timeout_config(self.timeouts.clone());
        if self.profile.is_none() && self.file.is_none() {
            let mut chain = DefaultCredentialsChain::builder().configure(config);
            if let Some(profile) = environment::profile_instead() {
                chain = chain.profile_name(profile);
            }
            return chain.region(self.region.clone()).build().await.provide_credentials().await;
        }
        // A profile that was asked for beats keys in the environment, as in the AWS CLI.
        let mut provider = ProfileFileCredentialsProvider::builder().configure(&config);
        if let Some(profile) = self.profile.as_deref().or(environment::profile_instead()) {
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

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_smithy_http_client::Builder;

    use super::*;

    #[tokio::test]
    async fn a_program_that_hangs_is_started_once() {
        let folder = tempfile::tempdir().unwrap();
        let (file, noted) = (folder.path().join("keys"), folder.path().join("noted"));
        let program = folder.path().join("program");
        std::fs::write(&program, format!("echo x >> {}; exec sleep 5", noted.display())).unwrap();
        let text = format!("[default]\ncredential_process = sh {}\n", program.display());
        std::fs::write(&file, text).unwrap();
        let keys = Keys::new(Chain {
            profile: None,
            file: Some(file),
            region: Region::from_static("us-east-1"),
            http: Builder::new().build_http(),
            timeouts: TimeoutConfig::disabled(),
            veto: None,
        });
        for _ in 0..3 {
            let asked = tokio::time::timeout(Duration::from_millis(300), keys.load()).await;
            assert!(asked.is_err(), "nobody waits that long");
        }
        while !noted.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(std::fs::read_to_string(&noted).unwrap(), "x\n");
    }
}
