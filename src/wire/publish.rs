//! From a table of the configuration to numbers that are published.

use std::sync::Arc;
use std::time::Duration;

use crate::app::publish::{Followed, Publisher};
use crate::cloudwatch::CloudWatch;
use crate::config::CloudWatchConfig;
use crate::s3::Endpoint;

use super::{Error, SystemClock, reach};

/// Begins to publish what is left to do of all that is followed. Nothing is sent before there is
/// something to tell.
pub async fn publisher(config: &CloudWatchConfig, followed: Followed) -> Result<Publisher, Error> {
    let endpoint = Endpoint {
        url: config.endpoint_url.clone(),
        region: config.region.clone(),
        profile: config.profile.clone(),
        credentials_file: config.credentials_file.clone(),
        // One that hangs must not keep the last number from being sent.
        connections_max: 2,
        ..Endpoint::default()
    };
    let connection = reach(endpoint).await?.connection;
    let every = Duration::from_millis(config.every.millis());
    let sink = CloudWatch::new(connection.session(), &config.namespace, every);
    tracing::debug!("publishing metrics in {} at {}", config.namespace, sink.endpoint());
    Ok(Publisher::start(Arc::new(sink), Arc::new(SystemClock), followed, every))
}
