//! A small HTTP server on loopback: a few pages, read by programs of this machine.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at the same time; more wait.
const CONNECTIONS_MAX: usize = 8;
/// How long a client may take to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to leave a listener alone that cannot accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is found at a path.
pub struct Page {
    pub content_type: &'static str,
    pub body: String,
}

/// Makes the page of a path; `None` where there is none, or why it cannot be made.
pub type Pages =
    Arc<dyn Fn(String) -> BoxFuture<'static, Result<Option<Page>, String>> + Send + Sync>;

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, pages: Pages) {
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(turn) = turns.clone().acquire_owned().await else { return };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(_) = connections.join_next() => {}
            }
        };
        match accepted {
            Ok((socket, _)) => {
                let pages = pages.clone();
                connections.spawn(async move {
                    converse(socket, pages).await;
                    drop(turn);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(socket: TcpStream, pages: Pages) {
    let service = service_fn(move |request: Request<Incoming>| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(answer(&request, &pages).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = server.serve_connection(TokioIo::new(socket), service).await {
        tracing::debug!(%error, "a connection broke");
    }
}

async fn answer<B>(request: &Request<B>, pages: &Pages) -> Response<Full<Bytes>> {
    if !is_meant(request) {
        return plain(StatusCode::FORBIDDEN, "ask for 127.0.0.1, [::1] or localhost\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "pages can only be read\n");
    }
    let page = match pages(request.uri().path().to_owned()).await {
        Ok(Some(page)) => page,
        Ok(None) => {
            return plain(StatusCode::NOT_FOUND, "there is no such page; there is: /metrics\n");
        }
        Err(why) => return plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
    };
    let mut response = Response::new(Full::from(page.body));
    let content_type = http::HeaderValue::from_static(page.content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Whether the host that is asked for is this one: a web page elsewhere can make a browser come
/// here by a name of its own.
fn is_meant<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_meant() {
        let asks = |host: &str| {
            let request = Request::builder().header(HOST, host).body(()).unwrap();
            is_meant(&request)
        };
        for own in
            ["localhost", "localhost:8385", "127.0.0.1:8385", "127.0.0.1", "[::1]:8385", "[::1]"]
        {
            assert!(asks(own), "{own}");
        }
        for other in
            ["example.com", "example.com:8385", "10.0.0.1:8385", "", "127.0.0.1.example.com"]
        {
            assert!(!asks(other), "{other}");
        }
        assert!(!is_meant(&Request::new(())));
    }
}
