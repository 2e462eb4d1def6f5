//! The end of a restore: for a person, and as the last line of `--json`.

use serde::Serialize;

use crate::app::restore::Counts;
use crate::app::status::{Requests, Summary};
use crate::cli::error::Code;
use crate::cli::run::{Sum, code_of, list_failed};
use crate::ports::RequestCounts;
use crate::report::text;

/// Paths of each kind that are listed by name.
const LISTED_MAX: usize = 1_000;

/// The numbers of all backups that were restored. What `sync` has too has the same names.
#[derive(Debug, Default, Serialize)]
pub struct RestoreSummary {
    #[serde(flatten)]
    common: Summary,
    /// Files here that were left as they are, because of `--overwrite`.
    kept: u64,
    /// Objects that are tagged as deleted.
    left_out: u64,
    /// Objects that were asked to be thawed, and are not readable yet.
    frozen: u64,
    verified_by: VerifiedBy,
    /// Objects whose tags may not be read: they are here, and may have been deleted.
    untold: u64,
    /// Objects without any checksum to compare with.
    unverified: u64,
    #[serde(skip)]
    failed_paths: Vec<(String, String)>,
}

/// Objects by the checksum that their content was compared with.
#[derive(Debug, Default, Serialize)]
struct VerifiedBy {
    crc64nvme: u64,
    md5: u64,
    etag_of_parts: u64,
}

impl RestoreSummary {
    /// Adds one backup's numbers; answers with the code that they ask for.
    pub fn add(&mut self, counts: &Counts, requests: RequestCounts) -> Code {
        let one = Summary {
            scanned: counts.scanned,
            downloaded: counts.downloaded,
            downloaded_bytes: counts.downloaded_bytes,
            retouched: counts.retouched,
            folders: counts.folders,
            unchanged: counts.unchanged,
            deleted: counts.deleted,
            skipped: counts.skipped.count,
            failed: counts.failed.count,
            held: counts.held,
            verified: counts.verified_crc64 + counts.verified_md5 + counts.verified_parts,
            requests: Requests::from(requests),
            ..Summary::default()
        };
        self.common.add(&one);
        self.kept += counts.kept.count;
        self.left_out += counts.tagged;
        self.frozen += counts.frozen;
        self.untold += counts.untold;
        self.verified_by.crc64nvme += counts.verified_crc64;
        self.verified_by.md5 += counts.verified_md5;
        self.verified_by.etag_of_parts += counts.verified_parts;
        self.unverified += counts.unverified;
        self.failed_paths.extend(counts.failed.named.iter().cloned());
        match counts.frozen + counts.untold {
            0 => code_of(&one),
            _ => code_of(&one).and(Code::Skipped),
        }
    }
}

impl Sum for RestoreSummary {
    fn common(&mut self) -> &mut Summary {
        &mut self.common
    }

    fn text(&self, dry_run: bool) -> String {
        let s = &self.common;
        let count = text::count;
        let (restored, deleted, frozen) = match dry_run {
            true => ("would restore", "to delete", "to be thawed first"),
            false => ("restored", "deleted", "being thawed: run this again later"),
        };
        let mut parts = vec![format!(
            "{restored} {} ({})",
            count(s.downloaded, "file"),
            text::bytes(s.downloaded_bytes)
        )];
        for (number, words) in [
            (s.unchanged, "right already"),
            (s.retouched, "given other times or modes only"),
            (self.kept, "kept as they are here"),
            (self.left_out, "left out, tagged as deleted"),
            (s.deleted, deleted),
        ] {
            if number > 0 {
                parts.push(format!("{} {words}", text::grouped(number)));
            }
        }
        if s.folders > 0 {
            parts.push(count(s.folders, "folder"));
        }
        let mut lines = vec![format!("{} in {}", parts.join(", "), text::duration(s.elapsed_ms))];
        let mut proofs = vec![];
        for (number, by) in [
            (self.verified_by.crc64nvme, "CRC64NVME"),
            (self.verified_by.md5, "MD5"),
            (self.verified_by.etag_of_parts, "the ETag over parts"),
        ] {
            if number > 0 {
                proofs.push(format!("{} by {by}", text::grouped(number)));
            }
        }
        if !proofs.is_empty() {
            lines.push(format!("verified: {}", proofs.join(", ")));
        }
        for (number, one, words) in [
            (self.unverified, "object", "without a checksum to compare with"),
            (self.untold, "object", "whose tags may not be read: what was deleted is back, too"),
            (self.frozen, "archived object", frozen),
            (s.skipped, "path", "skipped"),
            (s.failed, "path", "failed"),
            (s.held, "deletion", "held for safety: see --max-delete"),
        ] {
            if number > 0 {
                lines.push(format!("{} {words}", count(number, one)));
            }
        }
        lines.join("\n")
    }

    fn list_failed(&self) {
        list_failed(&self.failed_paths, LISTED_MAX);
    }
}
