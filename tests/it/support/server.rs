//! The embedded store over HTTP, in a thread of the test, with a log and scripted faults. It
//! listens on a free port of loopback, and ends with the test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use keepwatch::store::{Access, Store, StoreOptions};
use tempfile::TempDir;

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct Reach {
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
}

/// What happens to one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered as it should be.
    Pass,
    /// An error of S3 with this status and code; nothing is done.
    Error(u16, &'static str),
    /// A web page with this status.
    Html(u16),
    /// Status 301 without saying whereto.
    Moved,
    /// The bucket is in this region.
    InRegion(&'static str),
    /// It is done, and the connection is closed instead of an answer.
    DropReply,
    /// The connection is closed before anything is done.
    Close,
    /// No answer ever comes.
    Hang,
    /// It is answered as it should be, after so many milliseconds.
    Late(u64),
    /// The same, once this is so.
    Until(Arc<AtomicBool>),
    /// The connection breaks after so many bytes of the body.
    Cut(usize),
    /// The body has only so many bytes, and the head says that this is right.
    Short(usize),
    /// The byte of the body at this offset is another.
    WrongByte(usize),
    /// The range is ignored, and this whole object sent.
    Whole(Bytes),
    /// It is done, and answered with this ETag.
    ETag(&'static str),
    /// It is answered without the number of the object's tags.
    NoTagCount,
}

/// What a rule sees of a request.
pub struct Seen<'a> {
    pub method: &'a str,
    /// Percent-decoded path: `/bucket/key`.
    pub path: String,
    pub query: &'a str,
    /// Of the object: `bytes=0-9`; empty when all of it is asked for.
    pub range: &'a str,
    /// What the client calls itself.
    pub agent: &'a str,
    /// The region that the request was signed for.
    pub region: String,
    /// The access key that signed it.
    pub key: String,
    /// The session token that came with it.
    pub token: &'a str,
    /// It carries, or asks for, a checksum beside MD5.
    pub has_checksum: bool,
}

type Rule = Arc<dyn Fn(&Seen<'_>) -> Fault + Send + Sync>;

/// The embedded store behind HTTP, in a thread of the test.
pub struct Embedded {
    pub reach: Reach,
    pub folder: TempDir,
    inner: Inner,
    running: Option<Running>,
}

/// What the server's thread shares with the test.
#[derive(Clone, Default)]
struct Inner {
    log: Arc<Mutex<Vec<Access>>>,
    rule: Arc<Mutex<Option<Rule>>>,
    /// Pairs of access key and secret key.
    keys: Arc<Mutex<Vec<(String, String)>>>,
    /// By how much its clock is behind.
    behind: Arc<Mutex<Duration>>,
}

struct Running {
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Embedded {
    pub fn start() -> Self {
        let reach = Reach {
            endpoint: "http://127.0.0.1:0".to_owned(),
            access_key: "test-key".to_owned(),
            secret_key: "test-secret".to_owned(),
            region: "us-east-1".to_owned(),
        };
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self { reach, folder, inner: Inner::default(), running: None };
        server.knows(&[]);
        server.go_on();
        server
    }

    /// Closes its port and every connection.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            stop.send(()).ok();
            thread.join().unwrap();
        }
    }

    /// Listens again where it did before, with all that it held.
    pub fn go_on(&mut self) {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (told, address) = std::sync::mpsc::channel();
        let (path, inner) = (self.folder.path().to_owned(), self.inner.clone());
        let at = self.reach.endpoint.replace("http://", "");
        let serving = move || serve(&path, &at, &inner, &told, stopped);
        self.running = Some(Running { stop, thread: std::thread::spawn(serving) });
        let address: SocketAddr = address.recv().unwrap();
        self.reach.endpoint = format!("http://{address}");
    }

    /// From now on these keys are good, beside those of the test itself, and no others.
    pub fn knows(&self, keys: &[(&str, &str)]) {
        let own = (self.reach.access_key.as_str(), self.reach.secret_key.as_str());
        let all = keys.iter().chain([&own]);
        *self.inner.keys.lock().unwrap() =
            all.map(|(key, secret)| (key.to_string(), secret.to_string())).collect();
    }

    /// What makes a further pair of keys good.
    pub fn introducer(&self) -> impl Fn(&str, &str) + Send + 'static {
        let keys = self.inner.keys.clone();
        move |key, secret| keys.lock().unwrap().push((key.to_owned(), secret.to_owned()))
    }

    /// Every finished request so far.
    pub fn log(&self) -> Vec<Access> {
        self.inner.log.lock().unwrap().clone()
    }

    /// Finished requests of this operation, `PutObject` for example.
    pub fn count(&self, operation: &str) -> usize {
        let log = self.inner.log.lock().unwrap();
        log.iter().filter(|access| access.operation == operation).count()
    }

    pub fn clear_log(&self) {
        self.inner.log.lock().unwrap().clear();
    }

    /// Requests meet this fate from now on.
    pub fn rule(&self, rule: impl Fn(&Seen<'_>) -> Fault + Send + Sync + 'static) {
        *self.inner.rule.lock().unwrap() = Some(Arc::new(rule));
    }

    /// What is put from now on was put so long ago.
    pub fn put_ago(&self, behind: Duration) {
        *self.inner.behind.lock().unwrap() = behind;
    }

    pub fn no_rule(&self) {
        *self.inner.rule.lock().unwrap() = None;
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(
    folder: &Path,
    at: &str,
    inner: &Inner,
    told: &std::sync::mpsc::Sender<SocketAddr>,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Inner { log, behind, .. } = inner.clone();
        let on_access: keepwatch::store::OnAccess =
            Arc::new(move |access: &Access| log.lock().unwrap().push(access.clone()));
        let options = StoreOptions {
            sync: false,
            on_access: Some(on_access),
            clock: Arc::new(move || SystemTime::now() - *behind.lock().unwrap()),
            ..StoreOptions::default()
        };
        let store = Store::open(folder, options).unwrap();
        let listener = tokio::net::TcpListener::bind(at).await.unwrap();
        told.send(listener.local_addr().unwrap()).unwrap();
        loop {
            let socket = tokio::select! {
                _ = &mut stopped => return,
                accepted = listener.accept() => accepted.unwrap().0,
            };
            socket.set_nodelay(true).unwrap();
            let (store, inner) = (store.clone(), inner.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let endpoint = store.endpoint(&inner.keys.lock().unwrap());
                let rule = inner.rule.clone();
                async move {
                    let rule = rule.lock().unwrap().clone();
                    let fault = rule.map_or(Fault::Pass, |rule| rule(&seen(&request)));
                    answer(&endpoint, request, fault).await
                }
            });
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                // A connection that a fault has closed is no error.
                http.serve_connection(TokioIo::new(socket), service).await.ok();
            });
        }
    });
}

fn seen(request: &Request<Incoming>) -> Seen<'_> {
    let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    // AWS4-HMAC-SHA256 Credential=key/date/region/s3/aws4_request, …
    let signed = header("authorization").and_then(|value| value.split_once("Credential="));
    let scope: Vec<&str> = signed.map_or("", |(_, scope)| scope).split('/').collect();
    let part = |at: usize| scope.get(at).copied().unwrap_or("").to_owned();
    Seen {
        method: request.method().as_str(),
        path: path.into_owned(),
        query: request.uri().query().unwrap_or(""),
        range: header("range").unwrap_or(""),
        agent: header("user-agent").unwrap_or(""),
        region: part(2),
        key: part(0),
        token: header("x-amz-security-token").unwrap_or(""),
        has_checksum: request.headers().keys().any(|name| {
            let name = name.as_str();
            name.starts_with("x-amz-checksum-") && name != "x-amz-checksum-mode"
        }),
    }
}

async fn answer(
    endpoint: &keepwatch::store::Endpoint,
    request: Request<Incoming>,
    fault: Fault,
) -> Result<Response<s3s::Body>, std::io::Error> {
    let closed = || std::io::Error::other("closed by a fault");
    let reply = |status: u16, kind: &str, body: String| {
        Response::builder()
            .status(StatusCode::from_u16(status).unwrap())
            .header("content-type", kind)
            .body(s3s::Body::from(body))
            .unwrap()
    };
    match fault {
        Fault::Pass
        | Fault::Cut(_)
        | Fault::Short(_)
        | Fault::WrongByte(_)
        | Fault::Whole(_)
        | Fault::ETag(_)
        | Fault::NoTagCount => {}
        Fault::Until(ref flag) => {
            while !flag.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Fault::Error(status, code) => {
            // S3 sends a token back that it refuses.
            let token = seen(&request).token.to_owned();
            let body = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
                 <Message>made up by the test</Message><RequestId>1</RequestId>\
                 <Token-0>{token}</Token-0></Error>"
            );
            return Ok(reply(status, "application/xml", body));
        }
        Fault::Html(status) => {
            let body = "<html><body>Please log in to the hotel's network</body></html>";
            return Ok(reply(status, "text/html", body.to_owned()));
        }
        Fault::Moved => return Ok(reply(301, "text/plain", String::new())),
        Fault::InRegion(region) => {
            let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error>\
                <Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>";
            let mut reply = reply(301, "application/xml", body.to_owned());
            reply.headers_mut().insert("x-amz-bucket-region", region.parse().unwrap());
            return Ok(reply);
        }
        Fault::DropReply => {
            endpoint.call(request.map(s3s::Body::from)).await.ok();
            return Err(closed());
        }
        Fault::Close => return Err(closed()),
        Fault::Hang => std::future::pending().await,
        Fault::Late(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
    }
    let called = endpoint.call(request.map(s3s::Body::from)).await;
    let reply = called.map_err(|error| std::io::Error::other(s3s::StdError::from(error)))?;
    match fault {
        Fault::Cut(_) | Fault::Short(_) | Fault::WrongByte(_) | Fault::Whole(_) => {
            spoil(reply, &fault).await
        }
        _ => Ok(with_other_headers(reply, &fault)),
    }
}

fn with_other_headers(mut reply: Response<s3s::Body>, fault: &Fault) -> Response<s3s::Body> {
    let headers = reply.headers_mut();
    match fault {
        Fault::ETag(etag) => {
            headers.insert("etag", etag.parse().unwrap());
        }
        Fault::NoTagCount => {
            headers.remove("x-amz-tagging-count");
        }
        _ => {}
    }
    reply
}

/// Does to the body of a reply what the fault says.
async fn spoil(
    reply: Response<s3s::Body>,
    fault: &Fault,
) -> Result<Response<s3s::Body>, std::io::Error> {
    let (mut head, body) = reply.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let body = match fault {
        Fault::Whole(whole) => {
            head.status = StatusCode::OK;
            head.headers.remove("content-range");
            head.headers.insert("content-length", whole.len().into());
            s3s::Body::from(whole.clone())
        }
        Fault::Short(length) => {
            let body = body.slice(..body.len().min(*length));
            head.headers.insert("content-length", body.len().into());
            s3s::Body::from(body)
        }
        Fault::WrongByte(at) => {
            let mut body = body.to_vec();
            body[*at] ^= 1;
            s3s::Body::from(Bytes::from(body))
        }
        Fault::Cut(length) if *length < body.len() => {
            let closed = std::io::Error::other("closed by a fault");
            let frames = [Ok(Frame::data(body.slice(..length))), Err(closed)];
            s3s::Body::http_body(StreamBody::new(futures_util::stream::iter(frames)))
        }
        _ => s3s::Body::from(body),
    };
    Ok(Response::from_parts(head, body))
}
