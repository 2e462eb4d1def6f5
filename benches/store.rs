//! An S3 store in memory that keeps nothing but names and sizes, or with `--keep` all that it gets,
//! fast enough never to be what is measured.
//!
//! No signatures, no checks, bodies dropped unless asked. Prints its address, then serves until
//! killed; `GET /-/requests` answers with the number of requests since it was last asked.
//!
//! Started by `benches/run`.

#![expect(clippy::print_stdout, reason = "its address is its only word")]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use md5::{Digest as _, Md5};

type Reply = Response<Full<Bytes>>;

const THREADS: usize = 2;
/// Small bodies are kept: owner records.
const KEPT_BYTES: u64 = 1024;
/// Keys in one page of a listing.
const PAGE: usize = 1000;
/// What is encoded in a listing's keys.
const KEY: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-');

struct Object {
    size: u64,
    etag: String,
    modified: jiff::Timestamp,
    meta: Vec<(String, String)>,
    body: Option<Bytes>,
}

#[derive(Default)]
struct Store {
    objects: Mutex<BTreeMap<String, Object>>,
    /// By upload id: MD5s and sizes by part number.
    uploads: Mutex<HashMap<String, Upload>>,
    serial: AtomicU64,
    requests: AtomicU64,
    keeps_all: bool,
}

#[derive(Default)]
struct Upload {
    meta: Vec<(String, String)>,
    parts: BTreeMap<u32, Part>,
}

struct Part {
    etag: String,
    size: u64,
    body: Option<Bytes>,
}

fn main() -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let keeps_all = std::env::args().any(|word| word == "--keep");
    let store = Arc::new(Store { keeps_all, ..Store::default() });
    let serve = |listener: std::net::TcpListener| {
        let store = store.clone();
        std::thread::spawn(move || serve(listener, store))
    };
    let threads: Result<Vec<_>, _> =
        (0..THREADS).map(|_| listener.try_clone().map(serve)).collect();
    for thread in threads? {
        thread.join().map_err(|_| std::io::Error::other("a thread of the store failed"))??;
    }
    Ok(())
}

fn serve(listener: std::net::TcpListener, store: Arc<Store>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let store = store.clone();
            tokio::task::spawn_local(async move {
                let service = hyper::service::service_fn(|request| answer(&store, request));
                let mut http = hyper::server::conn::http1::Builder::new();
                // A client that goes away ends its connection with an error; that is all right.
                let _ = http
                    .max_buf_size(1 << 20)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn answer(store: &Store, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let (head, body) = request.into_parts();
    let path = percent_encoding::percent_decode_str(head.uri.path()).decode_utf8_lossy();
    let path = path.trim_start_matches('/').to_owned();
    let query = head.uri.query().map(query).unwrap_or_default();
    if path == "-/requests" {
        return Ok(text(store.requests.swap(0, Ordering::Relaxed).to_string()));
    }
    store.requests.fetch_add(1, Ordering::Relaxed);
    let Some((received, kept)) = receive(store, &head.headers, body).await else {
        return Ok(status(StatusCode::BAD_REQUEST));
    };
    let is_bucket = path.split_once('/').is_none_or(|(_, key)| key.is_empty());
    Ok(match (&head.method, is_bucket) {
        (&Method::GET, true) if query.contains_key("location") => {
            text("<LocationConstraint>us-east-1</LocationConstraint>".to_owned())
        }
        // Nothing is ever left open here.
        (&Method::GET, true) if query.contains_key("uploads") => {
            let none = "<IsTruncated>false</IsTruncated>";
            text(format!("<ListMultipartUploadsResult>{none}</ListMultipartUploadsResult>"))
        }
        (&Method::GET, true) => list(store, &path, &query),
        (_, true) => status(StatusCode::OK),
        (&Method::PUT, false) => match query.get("uploadId") {
            Some(id) => put_part(store, id, &query, &head.headers, received, kept),
            None => put(store, path, &head.headers, received, kept),
        },
        (&Method::POST, false) => match query.get("uploadId") {
            Some(id) => complete(store, path, id),
            None => create(store, &head.headers),
        },
        (&Method::DELETE, false) => {
            lock(&store.objects).remove(&path);
            status(StatusCode::NO_CONTENT)
        }
        (_, false) => get(store, &path, &head.headers),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn query(query: &str) -> HashMap<String, String> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

fn status(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

fn text(text: String) -> Reply {
    Response::new(Full::from(text))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Reads a body to its end; answers with its size, and with its bytes when they are few or wanted.
async fn receive(
    store: &Store,
    headers: &HeaderMap,
    mut body: Incoming,
) -> Option<(u64, Option<Bytes>)> {
    let kept_bytes = if store.keeps_all { u64::MAX } else { KEPT_BYTES };
    let mut received = 0;
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            received += data.len() as u64;
            if received <= kept_bytes {
                kept.extend_from_slice(&data);
            }
        }
    }
    let decoded = header(headers, "x-amz-decoded-content-length").and_then(|n| n.parse().ok());
    let kept = (received <= kept_bytes).then(|| Bytes::from(kept));
    Some((decoded.unwrap_or(received), kept))
}

fn meta(headers: &HeaderMap) -> Vec<(String, String)> {
    let all = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-amz-meta-"));
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    all.map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// The MD5 that the client says the body has; without one, something unique.
fn etag(store: &Store, headers: &HeaderMap) -> String {
    let base64 = base64::engine::general_purpose::STANDARD;
    match header(headers, "content-md5").and_then(|md5| base64.decode(md5).ok()) {
        Some(md5) => hex(&md5),
        None => format!("{:032x}", store.serial.fetch_add(1, Ordering::Relaxed)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tagged(etag: &str) -> Reply {
    let reply = Response::builder().header("etag", format!("\"{etag}\""));
    reply.body(Full::default()).unwrap_or_default()
}

fn put(store: &Store, path: String, headers: &HeaderMap, size: u64, body: Option<Bytes>) -> Reply {
    let mut objects = lock(&store.objects);
    if headers.contains_key("if-none-match") && objects.contains_key(&path) {
        return status(StatusCode::PRECONDITION_FAILED);
    }
    let etag = etag(store, headers);
    let reply = tagged(&etag);
    let modified = jiff::Timestamp::now();
    objects.insert(path, Object { size, etag, modified, meta: meta(headers), body });
    reply
}

fn create(store: &Store, headers: &HeaderMap) -> Reply {
    let id = format!("upload-{}", store.serial.fetch_add(1, Ordering::Relaxed));
    let upload = Upload { meta: meta(headers), ..Upload::default() };
    lock(&store.uploads).insert(id.clone(), upload);
    text(format!(
        "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
    ))
}

fn put_part(
    store: &Store,
    id: &str,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
    size: u64,
    body: Option<Bytes>,
) -> Reply {
    let number = query.get("partNumber").and_then(|number| number.parse().ok());
    let mut uploads = lock(&store.uploads);
    let (Some(upload), Some(number)) = (uploads.get_mut(id), number) else {
        return status(StatusCode::NOT_FOUND);
    };
    let etag = etag(store, headers);
    let reply = tagged(&etag);
    upload.parts.insert(number, Part { etag, size, body });
    reply
}

fn complete(store: &Store, path: String, id: &str) -> Reply {
    let Some(upload) = lock(&store.uploads).remove(id) else {
        return status(StatusCode::NOT_FOUND);
    };
    let mut digest = Md5::new();
    for Part { etag, .. } in upload.parts.values() {
        let bytes = (0..etag.len() / 2).map(|at| u8::from_str_radix(&etag[at * 2..at * 2 + 2], 16));
        digest.update(bytes.collect::<Result<Vec<u8>, _>>().unwrap_or_default());
    }
    let etag = format!("{}-{}", hex(&digest.finalize()), upload.parts.len());
    let size = upload.parts.values().map(|part| part.size).sum();
    let body = store.keeps_all.then(|| {
        let bodies = upload.parts.values().filter_map(|part| part.body.as_deref());
        Bytes::from(bodies.collect::<Vec<_>>().concat())
    });
    let reply = text(format!(
        "<CompleteMultipartUploadResult><ETag>\"{etag}\"</ETag></CompleteMultipartUploadResult>"
    ));
    let object = Object { size, etag, modified: jiff::Timestamp::now(), meta: upload.meta, body };
    lock(&store.objects).insert(path, object);
    reply
}

fn get(store: &Store, path: &str, headers: &HeaderMap) -> Reply {
    let objects = lock(&store.objects);
    let Some(object) = objects.get(path) else {
        let mut reply = text("<Error><Code>NoSuchKey</Code></Error>".to_owned());
        *reply.status_mut() = StatusCode::NOT_FOUND;
        return reply;
    };
    let etag = format!("\"{}\"", object.etag);
    if header(headers, "if-none-match") == Some(&etag) {
        return status(StatusCode::NOT_MODIFIED);
    }
    let modified = object.modified.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut reply = Response::builder().header("etag", etag).header("last-modified", modified);
    for (name, value) in &object.meta {
        reply = reply.header(name, value);
    }
    let Some(body) = &object.body else {
        let reply = reply.header("content-length", object.size);
        return reply.body(Full::default()).unwrap_or_default();
    };
    let (body, size) = match header(headers, "range").and_then(|range| part_of(body, range)) {
        None => (body.clone(), body.len()),
        Some(((first, end), part)) => {
            let range = format!("bytes {first}-{}/{}", end - 1, body.len());
            reply = reply.status(StatusCode::PARTIAL_CONTENT).header("content-range", range);
            (part, end - first)
        }
    };
    reply.header("content-length", size).body(Full::from(body)).unwrap_or_default()
}

/// What `bytes=first-last` means, and its bytes.
fn part_of(body: &Bytes, range: &str) -> Option<((usize, usize), Bytes)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let end = last.parse().map_or(body.len(), |last: usize| body.len().min(last + 1));
    (first < end).then(|| ((first, end), body.slice(first..end)))
}

/// Both versions of the listing, with pages, prefix and the delimiter `/`.
fn list(store: &Store, bucket: &str, query: &HashMap<String, String>) -> Reply {
    let value = |name: &str| query.get(name).map_or("", String::as_str);
    let bucket = bucket.trim_end_matches('/');
    let root = format!("{bucket}/");
    let prefix = format!("{root}{}", value("prefix"));
    let delimiter = !value("delimiter").is_empty();
    let after = ["continuation-token", "marker", "start-after"];
    let after = after.iter().map(|name| value(name)).find(|after| !after.is_empty());
    let start = after.map_or_else(|| prefix.clone(), |after| format!("{root}{after}\u{0}"));
    let start = start.max(prefix.clone());
    let encode = |text: &str| percent_encoding::utf8_percent_encode(text, KEY).to_string();
    let (mut found, mut folders, mut last, mut more) = (String::new(), String::new(), "", false);
    let (mut count, mut folder) = (0, String::new());
    let objects = lock(&store.objects);
    for (path, object) in objects.range(start..) {
        if !path.starts_with(&prefix) {
            break;
        }
        let key = &path[root.len()..];
        let below = path[prefix.len()..].find('/').filter(|_| delimiter);
        let in_folder = below.map(|at| &path[root.len()..=prefix.len() + at]);
        if in_folder.is_some_and(|f| f == folder || after.is_some_and(|after| after.starts_with(f)))
        {
            last = key;
            continue;
        }
        if count == PAGE {
            more = true;
            break;
        }
        (count, last) = (count + 1, key);
        if let Some(name) = in_folder {
            name.clone_into(&mut folder);
            let name = encode(name);
            folders += &format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>");
        } else {
            found += &format!(
                "<Contents><Key>{}</Key><LastModified>{:.3}</LastModified>\
                 <ETag>&quot;{}&quot;</ETag><Size>{}</Size></Contents>",
                encode(key),
                object.modified,
                object.etag,
                object.size
            );
        }
    }
    let next = if more {
        // A marker is encoded as keys are; a token comes back as it was sent.
        let marker = encode(last);
        format!(
            "<NextMarker>{marker}</NextMarker>\
             <NextContinuationToken>{last}</NextContinuationToken>"
        )
    } else {
        String::new()
    };
    text(format!(
        "<ListBucketResult><Name>{bucket}</Name><EncodingType>url</EncodingType>\
         <KeyCount>{count}</KeyCount><IsTruncated>{more}</IsTruncated>{found}{folders}{next}\
         </ListBucketResult>"
    ))
}
