//! The SDK's HTTP client that is the store itself: no port, no socket, no copy of a body.
//!
//! Given to an SDK configuration as its `http_client`; the endpoint URL can then be any, such as
//! `http://store.invalid`, with path-style addressing. Signatures are made and verified as over a
//! socket.

use std::fmt;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http::header::{HOST, HeaderValue};

use super::endpoint::Endpoint;

/// Calls a store inside this process.
#[derive(Clone)]
pub struct InProcess(Option<Endpoint>);

impl InProcess {
    pub fn new(endpoint: Endpoint) -> Self {
        Self(Some(endpoint))
    }

    /// A store that is not made yet: no bucket is there. For a dry run, which makes none.
    pub fn unmade() -> Self {
        Self(None)
    }
}

fn no_bucket() -> http::Response<SdkBody> {
    let body = "<Error><Code>NoSuchBucket</Code><Message>no store is there yet</Message></Error>";
    let mut response = http::Response::new(SdkBody::from(body));
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    response
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

impl HttpClient for InProcess {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let endpoint = self.0.clone();
        HttpConnectorFuture::new(async move {
            let failed = |e: s3s::StdError| ConnectorError::other(e, None);
            let mut request = request.try_into_http1x().map_err(|e| failed(e.into()))?;
            // Signed, but added to requests by HTTP clients only.
            if !request.headers().contains_key(HOST)
                && let Some(authority) = request.uri().authority()
            {
                let host = HeaderValue::from_str(authority.as_str());
                let host = host.map_err(|e| failed(e.into()))?;
                request.headers_mut().insert(HOST, host);
            }
            let response = match endpoint {
                Some(endpoint) => {
                    let request = request.map(s3s::Body::http_body_unsync);
                    let response = endpoint.call(request).await.map_err(|e| failed(e.into()))?;
                    response.map(SdkBody::from_body_1_x)
                }
                None => no_bucket(),
            };
            response
                .try_into()
                .map_err(|e: aws_smithy_runtime_api::http::HttpError| failed(e.into()))
        })
    }
}
