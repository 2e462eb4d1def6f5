//! `ls`: what is in a backup, as of a moment, or in all its versions.

use std::sync::Arc;

use indicatif::MultiProgress;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::app::failure_of;
use crate::app::restore::{Objects, Where, is_kept, no_versions, nothing};
use crate::cli::args::Global;
use crate::cli::error::{CliError, Code};
use crate::cli::out::still_read;
use crate::config::{BackupOptions, Defaults, Destination, resolve_one};
use crate::model::{Key, KeyTarget, Millis};
use crate::ports::{ObjectReader, StoreError};
use crate::report::log;
use crate::service::paths;
use crate::wire::{connect, place};

use super::args::Ls;

pub async fn ls(global: &Global, ls: &Ls) -> Result<Code, CliError> {
    log::init(global.log(false), &MultiProgress::new());
    let flags = global.clone().into_options(BackupOptions::default());
    let home = paths::home();
    let defaults = Defaults::ONE_SHOT;
    let config = resolve_one("ls", None, &ls.destination, flags, defaults, home.as_deref())
        .map_err(|lines| CliError::new(Code::Usage, lines))?;
    if config.destination == Destination::Default {
        return Err(CliError::new(Code::Usage, "`default` does not say which bucket")
            .hint("name it: keepwatch ls s3://bucket"));
    }
    let (bucket, prefix) = place(&config.destination);
    let reader: Arc<dyn ObjectReader> = Arc::new(connect(&config, bucket, &prefix, true).await?);
    let within = super::within(ls.path.as_ref())?;
    let wanted = Where { at: ls.at.map(|at| at.0), within };
    match ls.versions {
        true => all_versions(global, &*reader, wanted).await?,
        false => as_of(global, reader, wanted).await?,
    }
    Ok(Code::Done)
}

fn failed(error: StoreError) -> CliError {
    failure_of(error, "list the backup").into()
}

/// Prints lines for as long as somebody reads them.
struct Lines {
    json: bool,
    printed: bool,
}

impl Lines {
    fn print(&mut self, line: &Line<'_>) -> bool {
        self.printed = true;
        still_read(&line.shown(self.json))
    }

    /// Nothing at all is an error, unless it is a backup of nothing.
    async fn end(self, reader: &dyn ObjectReader, wanted: &Where) -> Result<(), CliError> {
        if self.printed {
            return Ok(());
        }
        let failure = nothing(&reader.place(), wanted);
        if wanted.within.is_none() && is_kept(reader).await.map_err(failed)? {
            tracing::warn!("{}", failure.message);
            return Ok(());
        }
        Err(failure.into())
    }
}

async fn as_of(
    global: &Global,
    reader: Arc<dyn ObjectReader>,
    wanted: Where,
) -> Result<(), CliError> {
    if wanted.at.is_some() && !reader.keeps_versions().await.map_err(failed)? {
        return Err(no_versions(&reader.place()).into());
    }
    let mut lines = Lines { json: global.json, printed: false };
    let mut objects = Objects::new(reader.clone(), wanted.clone());
    while let Some(kept) = objects.next().await.map_err(failed)? {
        let (size, modified) = (Some(kept.object.size_bytes), kept.object.modified);
        let line = Line { key: &kept.id.key, size, modified, version: None, latest: true };
        if !lines.print(&line) {
            return Ok(());
        }
    }
    lines.end(&*reader, &wanted).await
}

async fn all_versions(
    global: &Global,
    reader: &dyn ObjectReader,
    wanted: Where,
) -> Result<(), CliError> {
    let mut lines = Lines { json: global.json, printed: false };
    let mut after = None;
    loop {
        let page = reader.list_versions(after.as_ref()).await.map_err(failed)?;
        for version in &page.versions {
            let is_within = wanted.within.as_ref().is_none_or(|path| match version.key.target() {
                Some(KeyTarget::File(found) | KeyTarget::Folder(found)) => found.is_within(path),
                None => false,
            });
            let line = Line {
                key: &version.key,
                size: version.object.as_ref().map(|object| object.size_bytes),
                modified: version.modified,
                version: Some(&version.version),
                latest: version.latest,
            };
            if is_within && !lines.print(&line) {
                return Ok(());
            }
        }
        match page.more_after {
            Some(mark) => after = Some(mark),
            None => return lines.end(reader, &wanted).await,
        }
    }
}

/// One object or version.
struct Line<'a> {
    key: &'a Key,
    /// `None` for the mark of a deletion.
    size: Option<u64>,
    modified: Millis,
    version: Option<&'a str>,
    latest: bool,
}

impl Line<'_> {
    fn path(&self) -> String {
        match self.key.target() {
            Some(KeyTarget::File(path)) => path.to_string(),
            Some(KeyTarget::Folder(path)) => format!("{path}/"),
            None => self.key.to_string(),
        }
    }

    fn shown(&self, json: bool) -> String {
        if json {
            let mut line = serde_json::json!({
                "path": self.path(),
                "key": self.key.as_str(),
                "size": self.size,
                "modified_ms": self.modified.0,
            });
            if let (Some(version), Some(fields)) = (self.version, line.as_object_mut()) {
                fields.insert("version".to_owned(), version.into());
                fields.insert("latest".to_owned(), self.latest.into());
                fields.insert("deleted".to_owned(), self.size.is_none().into());
            }
            return line.to_string();
        }
        let at = Timestamp::from_millisecond(self.modified.0).unwrap_or_default();
        let at = at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S");
        let size = self.size.map_or_else(|| "deleted".to_owned(), |size| size.to_string());
        match self.version {
            Some(version) => format!("{at} {size:>14}  {version}  {}", self.path()),
            None => format!("{at} {size:>14}  {}", self.path()),
        }
    }
}
