//! Servers: the embedded store over HTTP with a log and scripted faults, moto, and Garage. Each
//! listens on a free port of loopback, and ends with the test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use keepwatch::store::{Access, Store, StoreOptions};
use tempfile::TempDir;

use super::{tools, wait_for};

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
}

type Rule = Arc<dyn Fn(&Seen<'_>) -> Fault + Send + Sync>;

/// The embedded store behind HTTP, in a thread of the test.
pub struct Embedded {
    pub reach: Reach,
    pub folder: TempDir,
    log: Arc<Mutex<Vec<Access>>>,
    rule: Arc<Mutex<Option<Rule>>>,
    keys: Keys,
    running: Option<Running>,
}

/// Pairs of access key and secret key.
type Keys = Arc<Mutex<Vec<(String, String)>>>;

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
        let (folder, log, rule) = (tempfile::tempdir().unwrap(), Arc::default(), Arc::default());
        let keys = Arc::new(Mutex::new(vec![]));
        let mut server = Self { reach, folder, log, rule, keys, running: None };
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
        let (path, log) = (self.folder.path().to_owned(), self.log.clone());
        let (rule, at) = (self.rule.clone(), self.reach.endpoint.replace("http://", ""));
        let keys = self.keys.clone();
        let serving = move || serve(&path, &at, log, rule, &keys, &told, stopped);
        self.running = Some(Running { stop, thread: std::thread::spawn(serving) });
        let address: SocketAddr = address.recv().unwrap();
        self.reach.endpoint = format!("http://{address}");
    }

    /// From now on these keys are good, beside those of the test itself, and no others.
    pub fn knows(&self, keys: &[(&str, &str)]) {
        let own = (self.reach.access_key.as_str(), self.reach.secret_key.as_str());
        let all = keys.iter().chain([&own]);
        *self.keys.lock().unwrap() =
            all.map(|(key, secret)| (key.to_string(), secret.to_string())).collect();
    }

    /// What makes a further pair of keys good.
    pub fn introducer(&self) -> impl Fn(&str, &str) + Send + 'static {
        let keys = self.keys.clone();
        move |key, secret| keys.lock().unwrap().push((key.to_owned(), secret.to_owned()))
    }

    /// Every finished request so far.
    pub fn log(&self) -> Vec<Access> {
        self.log.lock().unwrap().clone()
    }

    /// Finished requests of this operation, `PutObject` for example.
    pub fn count(&self, operation: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|access| access.operation == operation).count()
    }

    pub fn clear_log(&self) {
        self.log.lock().unwrap().clear();
    }

    /// Requests meet this fate from now on.
    pub fn rule(&self, rule: impl Fn(&Seen<'_>) -> Fault + Send + Sync + 'static) {
        *self.rule.lock().unwrap() = Some(Arc::new(rule));
    }

    pub fn no_rule(&self) {
        *self.rule.lock().unwrap() = None;
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
    log: Arc<Mutex<Vec<Access>>>,
    rule: Arc<Mutex<Option<Rule>>>,
    keys: &Keys,
    told: &std::sync::mpsc::Sender<SocketAddr>,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let on_access: keepwatch::store::OnAccess =
            Arc::new(move |access: &Access| log.lock().unwrap().push(access.clone()));
        let options =
            StoreOptions { sync: false, on_access: Some(on_access), ..StoreOptions::default() };
        let store = Store::open(folder, options).unwrap();
        let listener = tokio::net::TcpListener::bind(at).await.unwrap();
        told.send(listener.local_addr().unwrap()).unwrap();
        loop {
            let socket = tokio::select! {
                _ = &mut stopped => return,
                accepted = listener.accept() => accepted.unwrap().0,
            };
            socket.set_nodelay(true).unwrap();
            let (store, keys, rule) = (store.clone(), keys.clone(), rule.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (endpoint, rule) = (store.endpoint(&keys.lock().unwrap()), rule.clone());
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
        | Fault::ETag(_) => {}
        Fault::Until(ref flag) => {
            while !flag.load(Ordering::SeqCst) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
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
        Fault::Late(ms) => tokio::time::sleep(std::time::Duration::from_millis(ms)).await,
    }
    let called = endpoint.call(request.map(s3s::Body::from)).await;
    let reply = called.map_err(|error| std::io::Error::other(s3s::StdError::from(error)))?;
    match fault {
        Fault::Cut(_) | Fault::Short(_) | Fault::WrongByte(_) | Fault::Whole(_) => {
            spoil(reply, &fault).await
        }
        Fault::ETag(etag) => {
            let mut reply = reply;
            reply.headers_mut().insert("etag", etag.parse().unwrap());
            Ok(reply)
        }
        _ => Ok(reply),
    }
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

/// A server in a process of its own.
pub struct External {
    pub reach: Reach,
    /// What it keeps, and its configuration.
    pub folder: TempDir,
    child: Child,
}

impl Drop for External {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `keepwatch serve`, with objects that thaw in no time.
pub fn served() -> External {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let reach = Reach {
        endpoint: format!("http://127.0.0.1:{port}"),
        access_key: "served".to_owned(),
        secret_key: "secret".to_owned(),
        region: "us-east-1".to_owned(),
    };
    let child = Command::new(env!("CARGO_BIN_EXE_keepwatch"))
        .args(["serve", "--no-sync", "--thaw-after", "100ms", "--listen"])
        .arg(format!("127.0.0.1:{port}"))
        .arg(format!("file://{}", folder.path().display()))
        .env("AWS_ACCESS_KEY_ID", &reach.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &reach.secret_key)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = External { reach, child, folder };
    wait_for("keepwatch to serve", || is_listening(port));
    server
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn is_listening(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// moto: versions, tags, Glacier, conditional writes; checks neither bodies nor signatures.
pub fn moto() -> External {
    moto_with("http", &[])
}

/// The authority of [`moto_with_tls`]: its own certificate, for localhost.
pub const AUTHORITY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/tls/certificate.pem");

/// moto over HTTPS, with a certificate that no system trusts.
pub fn moto_with_tls() -> External {
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/tls/key-of-tests.pem");
    moto_with("https", &["--ssl-cert", AUTHORITY, "--ssl-key", key])
}

fn moto_with(scheme: &str, options: &[&str]) -> External {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let child = Command::new(tools::python_tool("moto_server"))
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .args(options)
        .env("S3_IGNORE_SUBDOMAIN_BUCKETNAME", "true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let reach = Reach {
        endpoint: format!("{scheme}://127.0.0.1:{port}"),
        access_key: "moto".to_owned(),
        secret_key: "moto".to_owned(),
        region: "us-east-1".to_owned(),
    };
    let server = External { reach, child, folder };
    wait_for("moto to listen", || is_listening(port));
    server
}

/// Garage: real signatures, verified checksums; no versions, tags or conditions.
pub fn garage() -> External {
    let folder = tempfile::tempdir().unwrap();
    let (api, rpc) = (free_port(), free_port());
    let config = folder.path().join("garage.toml");
    let at = folder.path().display();
    let text = format!(
        "metadata_dir = \"{at}/meta\"\ndata_dir = \"{at}/data\"\ndb_engine = \"lmdb\"\n\
         replication_factor = 1\nmetadata_fsync = false\ndata_fsync = false\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
         rpc_secret = \"{}\"\n[s3_api]\ns3_region = \"garage\"\n\
         api_bind_addr = \"127.0.0.1:{api}\"\nroot_domain = \".s3.localhost\"\n",
        "1f".repeat(32)
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new(tools::garage())
        .arg("-c")
        .arg(&config)
        .arg("server")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let reach = Reach {
        endpoint: format!("http://127.0.0.1:{api}"),
        access_key: format!("GK{}", "ab".repeat(12)),
        secret_key: "cd".repeat(32),
        region: "garage".to_owned(),
    };
    let server = External { reach, child, folder };
    wait_for("Garage to listen", || is_listening(api) && is_listening(rpc));
    let garage = |args: &[&str]| {
        let output =
            Command::new(tools::garage()).arg("-c").arg(&config).args(args).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut node = String::new();
    wait_for("Garage to know itself", || {
        let (good, id) = garage(&["node", "id", "-q"]);
        node = id.split('@').next().unwrap_or("").trim().to_owned();
        good && !node.is_empty()
    });
    let must = |args: &[&str]| assert!(garage(args).0, "garage {args:?}");
    wait_for("Garage's layout", || {
        garage(&["layout", "assign", "-z", "dc1", "-c", "10G", &node]).0
    });
    must(&["layout", "apply", "--version", "1"]);
    let (key, secret) = (&server.reach.access_key, &server.reach.secret_key);
    must(&["key", "import", "--yes", key, secret, "-n", "test"]);
    must(&["key", "allow", "--create-bucket", key]);
    server
}
