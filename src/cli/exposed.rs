//! The pages of `[status] listen`: what a daemon tells programs of this machine.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::app::CONDITION;
use crate::report::metrics;
use crate::service::http::{self, Page, Pages};

use super::args::{Global, Run};
use super::doors::{Desk, Doors};
use super::error::{CliError, Code};
use super::running::{AGAIN_FIRST, AGAIN_MAX};
use super::sync::config_file;

/// Where the file wants pages served. What is typed in full needs no file.
pub fn wanted(global: &Global, run: &Run) -> Result<Option<SocketAddr>, CliError> {
    if run.source.is_some() && run.destination.is_some() {
        return Ok(None);
    }
    let file = config_file(global)?;
    Ok(file.and_then(|file| file.status.listen).map(|listen| listen.0))
}

/// The pages, served where they are wanted.
pub struct Exposed {
    pages: Pages,
    serving: Option<(SocketAddr, JoinHandle<()>)>,
    doors: Doors,
}

impl Exposed {
    pub fn new(desk: Desk) -> Self {
        let doors = desk.doors.clone();
        let pages: Pages = Arc::new(move |path| {
            let desk = desk.clone();
            Box::pin(async move {
                if path != "/metrics" {
                    return Ok(None);
                }
                let body = desk.metrics().await.map_err(|error| error.line())?;
                Ok(Some(Page { content_type: metrics::CONTENT_TYPE, body }))
            })
        });
        Self { pages, serving: None, doors }
    }

    /// Serves there from now on, or nowhere. A taken port holds nothing up: it is said, and tried
    /// again, at once where this is asked for again.
    pub async fn serve_on(&mut self, wanted: Option<SocketAddr>) {
        let current = self.serving.as_ref().map(|(address, _)| *address);
        let former = self.doors.unserved();
        if current == wanted && former.is_none() {
            return;
        }
        // What is wanted now may be the same port by another address.
        self.end().await;
        self.doors.serve(None);
        let Some(address) = wanted else { return };
        let pages = self.pages.clone();
        let serving = match bind(address).await {
            Ok(listener) => tokio::spawn(http::serve(listener, pages)),
            Err(error) => {
                if former.as_ref() != Some(&error.line()) {
                    let why = error.with_hints();
                    tracing::error!(target: CONDITION, "no metrics for now: {why}");
                }
                self.doors.serve(Some(error.line()));
                tokio::spawn(serve_in_time(address, pages, self.doors.clone()))
            }
        };
        self.serving = Some((address, serving));
    }

    async fn end(&mut self) {
        if let Some((_, serving)) = self.serving.take() {
            serving.abort();
            serving.await.ok();
        }
    }
}

/// Tries it until the port is free.
async fn serve_in_time(address: SocketAddr, pages: Pages, doors: Doors) {
    let mut pause = AGAIN_FIRST;
    let listener = loop {
        sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
        match bind(address).await {
            Ok(listener) => break listener,
            Err(error) => doors.serve(Some(error.line())),
        }
    };
    doors.serve(None);
    http::serve(listener, pages).await;
}

async fn bind(address: SocketAddr) -> Result<TcpListener, CliError> {
    let listener = TcpListener::bind(address).await.map_err(|e| {
        CliError::new(Code::NeedsPerson, format!("cannot listen on {address}"))
            .caused_by(&e)
            .hint("choose another port for `listen` in [status], or leave it out")
    })?;
    tracing::info!("metrics are at http://{address}/metrics");
    Ok(listener)
}

impl Drop for Exposed {
    fn drop(&mut self) {
        if let Some((_, serving)) = self.serving.take() {
            serving.abort();
        }
    }
}
