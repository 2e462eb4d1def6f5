//! `serve`: the embedded store as an S3 endpoint on loopback.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use indicatif::MultiProgress;
use tokio::net::TcpListener;

use crate::config::Destination;
use crate::report::log;
use crate::service::signals;
use crate::store::{Access, OnAccess, Store, StoreOptions, serve};
use crate::wire::is_store;

use super::args::{Global, Serve};
use super::error::{CliError, Code};
use super::out::print_line;

pub async fn run(global: &Global, options: Serve) -> Result<Code, CliError> {
    log::init(global.log(true), &MultiProgress::new());
    let destination: Destination =
        options.store.parse().map_err(|e| CliError::new(Code::Usage, format!("{e}")))?;
    let Destination::Store { folder, .. } = destination else {
        return Err(CliError::new(Code::Usage, "only the embedded store can be served")
            .hint("keepwatch serve file:///folder"));
    };
    let mut wishes = signals::listen(1)
        .map_err(|e| CliError::new(Code::NeedsPerson, "cannot listen for signals").caused_by(&e))?;
    let on_access = match &options.access_log {
        Some(path) => {
            let file = File::options().append(true).create(true).open(path).map_err(|e| {
                CliError::new(Code::NeedsPerson, format!("cannot write {}", path.display()))
                    .caused_by(&e)
            })?;
            Some(write_to(file))
        }
        None => None,
    };
    if !is_store(&folder) {
        tracing::warn!("there was no store in {}: a new, empty one is made", folder.display());
    }
    let store_options = StoreOptions {
        sync: !options.no_sync,
        thaw_delay: options.thaw_after.0,
        on_access,
        ..StoreOptions::default()
    };
    let store = Store::open(&folder, store_options).map_err(|e| {
        CliError::new(Code::NeedsPerson, format!("cannot open the store in {}", folder.display()))
            .caused_by(&e)
    })?;
    let listener = TcpListener::bind(&options.listen).await.map_err(|e| {
        CliError::new(Code::NeedsPerson, format!("cannot listen on {}", options.listen))
            .caused_by(&e)
            .hint("choose another address with --listen")
    })?;
    let address = listener.local_addr().map_err(|e| {
        CliError::new(Code::NeedsPerson, "the listening socket has no address").caused_by(&e)
    })?;
    let keys = keys();
    say(global, &folder.display().to_string(), address, &keys);
    let stop = async move {
        while let Some(wish) = wishes.recv().await {
            if wish == signals::Wish::Stop {
                return;
            }
        }
    };
    serve(store, listener, &[keys], stop).await;
    Ok(Code::Done)
}

/// The keys from the AWS environment, so that other tools need no second setting; else new ones.
fn keys() -> (String, String) {
    let from = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (from("AWS_ACCESS_KEY_ID"), from("AWS_SECRET_ACCESS_KEY")) {
        (Some(key), Some(secret)) => (key, secret),
        _ => {
            let word = |n| std::iter::repeat_with(fastrand::alphanumeric).take(n).collect();
            (word(20), word(40))
        }
    }
}

fn say(global: &Global, folder: &str, address: SocketAddr, (key, secret): &(String, String)) {
    if !address.ip().is_loopback() {
        tracing::warn!(
            "{address} is not loopback and there is no TLS: whoever is on the network can read \
             what is sent"
        );
    }
    let ours = std::env::var("AWS_SECRET_ACCESS_KEY").is_ok_and(|known| known == *secret);
    let secret = if ours { "from AWS_SECRET_ACCESS_KEY" } else { secret };
    if global.json {
        let line = serde_json::json!({
            "endpoint": format!("http://{address}"), "access_key": key, "secret_key": secret,
        });
        print_line(&line.to_string());
    } else {
        print_line(&format!("serving {folder} at http://{address}"));
        print_line(&format!("  access key  {key}"));
        print_line(&format!("  secret key  {secret}"));
    }
}

/// One line of JSON for every request.
fn write_to(file: File) -> OnAccess {
    let file = Mutex::new(file);
    Arc::new(move |access: &Access| {
        let Access { time_ms, operation, bucket, key, version_id, upload_id, part_number, .. } =
            access;
        let line = serde_json::json!({
            "time_ms": time_ms, "operation": operation, "bucket": bucket, "key": key,
            "version_id": version_id, "upload_id": upload_id, "part_number": part_number,
            "status": access.status, "error": access.error, "etag": access.etag,
            "received_bytes": access.received_bytes, "sent_bytes": access.sent_bytes,
        });
        let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writeln!(file, "{line}").ok();
    })
}
