//! The store on a socket: HTTP/1.1, keep-alive, and an orderly end.
//!
//! Plain HTTP and full rights for every key pair: for loopback. Called by `keepwatch serve`, and by
//! tests that want a real socket.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Store;
use super::endpoint::Endpoint;

/// How long to leave a listener alone that cannot accept, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the store on `listener` until `shutdown` is ready, and then until the requests that are
/// under way are answered. `credentials` are the pairs of access key and secret key it accepts.
pub async fn serve(
    store: Store,
    listener: TcpListener,
    credentials: &[(String, String)],
    shutdown: impl Future<Output = ()>,
) {
    let endpoint = store.endpoint(credentials);
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                connections.spawn(converse(socket, endpoint.clone(), stop.clone()));
            }
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Whoever comes now must hear at once that nobody is there.
    drop(listener);
    stop.cancel();
    connections.close();
    connections.wait().await;
}

fn unsendable(e: s3s::HttpError) -> std::io::Error {
    std::io::Error::other(s3s::StdError::from(e))
}

/// Answers the requests of one connection.
async fn converse(socket: TcpStream, endpoint: Endpoint, stop: CancellationToken) {
    // Small answers must not wait for the client's acknowledgements. Without it they come late.
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |req: hyper::Request<hyper::body::Incoming>| {
        let endpoint = endpoint.clone();
        async move { endpoint.call(req.map(s3s::Body::from)).await.map_err(unsendable) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!("a connection broke: {e}");
    }
}
