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
use super::doors::Desk;
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
}

impl Exposed {
    pub fn new(desk: Desk) -> Self {
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
        Self { pages, serving: None }
    }

    /// Serves there from now on, or nowhere.
    pub async fn serve_on(&mut self, wanted: Option<SocketAddr>) -> Result<(), CliError> {
        let current = self.serving.as_ref().map(|(address, _)| *address);
        if current == wanted {
            return Ok(());
        }
        let serving = match wanted {
            None => None,
            Some(address) => {
                let listener = bind(address).await?;
                Some((address, tokio::spawn(http::serve(listener, self.pages.clone()))))
            }
        };
        self.end();
        self.serving = serving;
        Ok(())
    }

    /// The same for a start, which no taken port holds up: it is said, and tried again.
    pub async fn serve_in_time(&mut self, wanted: Option<SocketAddr>) {
        let (Err(error), Some(address)) = (self.serve_on(wanted).await, wanted) else { return };
        tracing::error!(target: CONDITION, "no metrics for now: {}", error.with_hints());
        let pages = self.pages.clone();
        let serving = async move {
            let mut pause = AGAIN_FIRST;
            let listener = loop {
                sleep(pause).await;
                pause = (pause * 2).min(AGAIN_MAX);
                if let Ok(listener) = bind(address).await {
                    break listener;
                }
            };
            http::serve(listener, pages).await;
        };
        self.serving = Some((address, tokio::spawn(serving)));
    }

    fn end(&mut self) {
        if let Some((_, serving)) = self.serving.take() {
            serving.abort();
        }
    }
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
        self.end();
    }
}
