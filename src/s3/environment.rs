//! The environment as the AWS tools have it: a variable that is empty is not set. The SDK takes an
//! empty one for a value, an endpoint without a name for example.

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_config::profile;
use aws_runtime::env_config::EnvConfigValue;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_runtime::env_config::section::EnvConfigSections;
use aws_types::os_shim_internal::{Env, Fs};
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

/// All variables that are set to something.
pub fn variables() -> Env {
    let all = std::env::vars_os();
    let all = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let all = all.filter_map(|(name, value)| Some((name, value.into_string().ok()?)));
    Env::from(all.filter(|(_, value)| !value.is_empty()).collect::<HashMap<_, _>>())
}

/// The profile that is used where none was asked for, if the SDK would take an empty name for it.
pub fn profile_instead() -> Option<&'static str> {
    is_emptied("AWS_PROFILE").then_some("default")
}

fn is_emptied(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

/// The files of the shared configuration, with the values of this profile.
pub async fn sections(profile: Option<&str>) -> Option<EnvConfigSections> {
    // Files that cannot be read are told of where keys are looked for in them.
    let profile = profile.map(|name| name.to_owned().into());
    let files = EnvConfigFiles::default();
    profile::load(&Fs::real(), &variables(), &files, profile).await.ok()
}

/// The configuration of the SDK, in which no empty variable hides what is set elsewhere.
pub async fn without_empty(sdk: SdkConfig, profile: Option<&str>) -> SdkConfig {
    let is_emptied = std::env::vars_os().any(|(name, value)| {
        value.is_empty() && name.to_string_lossy().starts_with("AWS_ENDPOINT_URL")
    });
    if !is_emptied {
        return sdk;
    }
    let sections = sections(profile).await.unwrap_or_default();
    let mended = Mended { as_read: sdk.clone(), variables: variables(), sections };
    sdk.to_builder().service_config(mended).build()
}

/// Looks once more for what was found to be empty.
#[derive(Debug)]
struct Mended {
    as_read: SdkConfig,
    variables: Env,
    sections: EnvConfigSections,
}

impl LoadServiceConfig for Mended {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let value = EnvConfigValue::new()
            .env(key.env())
            .profile(key.profile())
            .service_id(key.service_id())
            .load(&self.variables, Some(&self.sections))
            .map(|(value, _)| value.into_owned());
        let as_read = self.as_read.service_config()?.load_config(key)?;
        if as_read.is_empty() { value } else { Some(as_read) }
    }
}
