//! The end of a mirror, of a comparison, or of a restore into a bucket: for a person, and as the
//! last line of `--json`.

use serde::Serialize;

use crate::app::copy::Copier;
use crate::app::status::{Requests, Summary};
use crate::cli::error::Code;
use crate::cli::run::{Sum, code_of, list_failed, list_more};
use crate::report::text;

/// Keys that are listed by name.
const LISTED_MAX: usize = 1_000;

/// The numbers of all that was done. What `sync` has too has the same names.
#[derive(Debug, Default, Serialize)]
pub struct MirrorSummary {
    #[serde(flatten)]
    pub common: Summary,
    copied_bytes: u64,
    /// Copies that lost the marks of their deletion, for their source is back.
    untagged: u64,
    /// Of a restore: objects that are tagged as deleted, are newer in the target, or thaw still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<u64>,
    /// Of a restore: objects whose tags may not be read, copied like others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untold: Option<u64>,
    #[serde(skip)]
    failed_keys: Vec<(String, String)>,
}

impl MirrorSummary {
    /// Adds what one run did; answers with the code that it asks for.
    pub fn add(&mut self, copier: &Copier, held: u64, unclaimed: u64) -> Code {
        let counts = copier.progress.counts();
        let mut requests = Requests::from(copier.source.requests());
        requests.add(&copier.target.requests().into());
        let one = Summary { held, unclaimed, ..Summary::new(counts, requests) };
        self.common.add(&one);
        self.copied_bytes += counts.copied_bytes;
        self.untagged += counts.untagged;
        self.failed_keys.extend(copier.failed());
        code_of(&one)
    }
}

impl Sum for MirrorSummary {
    fn common(&mut self) -> &mut Summary {
        &mut self.common
    }

    fn text(&self, dry_run: bool) -> String {
        let s = &self.common;
        let (copied, tagged, deleted) = match dry_run {
            true => ("would copy", "to be tagged as deleted", "to delete"),
            false => ("copied", "tagged as deleted", "deleted"),
        };
        let mut parts = vec![format!(
            "{copied} {} ({})",
            text::count(s.copied, "object"),
            text::bytes(self.copied_bytes)
        )];
        for (number, words) in [
            (s.unchanged, "unchanged"),
            (s.adopted, "right already"),
            (s.tagged, tagged),
            (self.untagged, "back, and freed of their tags"),
            (s.deleted, deleted),
            (self.left_out.unwrap_or(0), "left out, tagged as deleted"),
            (self.kept.unwrap_or(0), "kept as they are there"),
        ] {
            if number > 0 {
                parts.push(format!("{} {words}", text::grouped(number)));
            }
        }
        let mut lines = vec![format!("{} in {}", parts.join(", "), text::duration(s.elapsed_ms))];
        let untold = "whose tags may not be read: what was deleted is copied, too";
        for (number, one, words) in [
            (self.untold.unwrap_or(0), "object", untold),
            (self.frozen.unwrap_or(0), "archived object", "being thawed: run this again later"),
            (s.skipped, "object", "skipped"),
            (s.failed, "object", "failed"),
            (s.held, "deletion", "held; see `keepwatch deletions list`"),
            (s.unclaimed, "object", "of the destination never came from here, and left alone"),
        ] {
            if number > 0 {
                lines.push(format!("{} {words}", text::count(number, one)));
            }
        }
        lines.join("\n")
    }

    fn list_failed(&self) {
        list_failed(&self.failed_keys, LISTED_MAX);
        list_more(self.common.failed, LISTED_MAX);
    }
}
