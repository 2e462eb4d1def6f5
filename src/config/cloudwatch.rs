//! The `[cloudwatch]` table: where it is published how much is still to do.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::file::{ConfigFile, Table};
use super::options::{ToToml as _, options};
use super::resolve::{credentials, find, text};
use super::units::Span;
use super::words::{EndpointUrl, Line, Namespace};

options! {
    /// The table as written.
    #[schemars(deny_unknown_fields)]
    CloudWatchOptions;
    /// Where the metrics `ObjectsToBackup` and `Failures` are published; off unless set.
    #[arg(skip)]
    namespace: [Namespace] parsed;
    /// How often, while work goes on (60s).
    #[arg(skip)]
    every: [Span] parsed;
    /// Region of the metrics.
    #[arg(skip)]
    region: [Line] parsed;
    /// Profile in the shared AWS configuration.
    #[arg(skip)]
    profile: [Line] parsed;
    /// File with credentials, in the format of ~/.aws/credentials.
    #[arg(skip)]
    credentials_file: [Line] parsed;
    /// URL of the endpoint, where that is not CloudWatch's own.
    #[arg(skip)]
    endpoint_url: [EndpointUrl] parsed;
}

/// Where metrics go, with every value settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudWatchConfig {
    pub namespace: String,
    pub every: Span,
    pub region: Option<String>,
    pub profile: Option<String>,
    pub credentials_file: Option<PathBuf>,
    pub endpoint_url: Option<String>,
}

/// Where metrics go, if they go anywhere. `session` is what was asked for on the command line or by
/// variables: it fills what the table leaves open.
pub fn resolve_cloudwatch(
    file: &ConfigFile,
    session: &CloudWatchOptions,
    home: Option<&Path>,
) -> Result<Option<CloudWatchConfig>, String> {
    let own = &file.cloudwatch;
    let Some(namespace) = text(own.namespace.clone()) else { return Ok(None) };
    // A profile or a file of its own is instead of all that another place says of credentials.
    let is_own = own.profile.is_some() || own.credentials_file.is_some();
    let session = match is_own {
        true => CloudWatchOptions { region: session.region.clone(), ..Default::default() },
        false => session.clone(),
    };
    let all = own.clone().or(&session);
    let file = all.credentials_file.as_ref().map(|file| credentials(&file.to_string(), home));
    Ok(Some(CloudWatchConfig {
        namespace,
        every: all.every.unwrap_or(Span::secs(60)),
        region: text(all.region),
        profile: text(all.profile),
        credentials_file: file.transpose()?,
        endpoint_url: text(all.endpoint_url),
    }))
}

/// What makes no sense in the table.
pub(super) fn faults(file: &ConfigFile, home: Option<&Path>) -> Vec<Fault> {
    let at =
        |option: &str| -> Range<usize> { find(&file.cloudwatch_spans, option).unwrap_or_default() };
    let mut faults = vec![];
    if file.cloudwatch.every.is_some_and(|every| every < Span::secs(1)) {
        let title = "every must be at least 1s".to_owned();
        faults.push(Fault { span: at("every"), title, help: None });
    }
    if let Some(Err(title)) =
        file.cloudwatch.credentials_file.as_ref().map(|file| credentials(&file.to_string(), home))
    {
        faults.push(Fault { span: at("credentials_file"), title, help: None });
    }
    faults
}
