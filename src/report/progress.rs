//! Progress of long work: bars for a person at a terminal, plain lines for a log.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::app::progress::Progress;

use super::text;

/// When progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// At a terminal only.
    #[default]
    Auto,
    Always,
    Never,
}

/// What is being done, for the words that tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Keep,
    Restore,
    /// Objects from bucket to bucket.
    Copy,
}

const FRAME: Duration = Duration::from_millis(100);
/// Between plain lines.
const LINE: Duration = Duration::from_secs(10);

/// Shows one backup's progress until it is told to stop.
pub struct Show {
    task: tokio::task::JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Show {
    pub fn start(
        name: &str,
        progress: Arc<Progress>,
        work: Work,
        when: When,
        bars: &MultiProgress,
    ) -> Self {
        let terminal = std::io::stderr().is_terminal();
        match (when, terminal) {
            (When::Never, _) => Self { task: tokio::spawn(async {}), bar: None },
            (_, true) => {
                let bar = bars.add(ProgressBar::new_spinner());
                let task = tokio::spawn(draw(bar.clone(), name.to_owned(), progress, work));
                Self { task, bar: Some(bar) }
            }
            (_, false) => {
                let task = tokio::spawn(print(name.to_owned(), progress, work));
                Self { task, bar: None }
            }
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.task.abort();
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How far a run is, measured between looks.
struct Pace {
    started: Instant,
    bytes: u64,
    files: u64,
    at: Instant,
    bytes_per_s: f64,
    files_per_s: f64,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self { started: now, bytes: 0, files: 0, at: now, bytes_per_s: 0.0, files_per_s: 0.0 }
    }

    /// A moving average over some five seconds.
    fn update(&mut self, files: u64, bytes: u64) {
        let now = Instant::now();
        let passed = now.duration_since(self.at).as_secs_f64();
        if passed <= 0.0 {
            return;
        }
        let weight = (passed / 5.0).min(1.0);
        let mix = |old: f64, new: u64, last: u64| {
            old + weight * ((new.saturating_sub(last)) as f64 / passed - old)
        };
        self.bytes_per_s = mix(self.bytes_per_s, bytes, self.bytes);
        self.files_per_s = mix(self.files_per_s, files, self.files);
        (self.files, self.bytes, self.at) = (files, bytes, now);
    }

    /// Milliseconds left: by bytes or by files, whichever takes longer.
    fn left_ms(&self, files: u64, bytes: u64) -> Option<u64> {
        if self.started.elapsed() < Duration::from_secs(2) {
            return None;
        }
        let by = |left: u64, rate: f64| match (left, rate > 0.0) {
            (0, _) => Some(0.0),
            (left, true) => Some(left as f64 / rate),
            (_, false) => None,
        };
        let secs = by(bytes, self.bytes_per_s)?.max(by(files, self.files_per_s)?);
        Some((secs * 1000.0) as u64)
    }
}

struct Numbers {
    scanning: bool,
    scanned: u64,
    files: (u64, u64),
    bytes: (u64, u64),
    frozen: u64,
}

impl Numbers {
    /// Something is looked at or transferred: not merely waited for.
    fn is_busy(&self) -> bool {
        self.scanning || self.files.0 + self.frozen < self.files.1
    }
}

fn numbers(progress: &Progress) -> Numbers {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Numbers {
        scanning: progress.scanning.load(Ordering::Relaxed),
        scanned: get(&progress.scanned),
        files: progress.files(),
        bytes: progress.bytes(),
        frozen: get(&progress.frozen),
    }
}

fn one(work: Work) -> &'static str {
    if work == Work::Copy { "object" } else { "file" }
}

fn line(numbers: &Numbers, pace: &Pace, work: Work) -> String {
    let (files, bytes) = (numbers.files, numbers.bytes);
    let mut parts = vec![];
    if !numbers.is_busy() {
        let what = match (work, numbers.frozen) {
            (Work::Keep, _) => "waiting for changes".to_owned(),
            (Work::Restore | Work::Copy, 0) => "finishing".to_owned(),
            (Work::Restore | Work::Copy, frozen) => {
                format!("waiting for {}", text::count(frozen, "archived object"))
            }
        };
        let (files, bytes) = (text::count(files.0, one(work)), text::bytes(bytes.0));
        return format!("{what} · {files} done, {bytes}");
    }
    if numbers.scanning {
        let one = if work == Work::Keep { "file" } else { "object" };
        parts.push(format!("looking, {} so far", text::count(numbers.scanned, one)));
    } else if work != Work::Keep {
        parts.push(if work == Work::Copy { "copying" } else { "restoring" }.to_owned());
    }
    if files.1 > 0 {
        parts.push(format!(
            "{} of {} {}s, {} of {}",
            text::grouped(files.0),
            text::grouped(files.1),
            one(work),
            text::bytes(bytes.0),
            text::bytes(bytes.1)
        ));
        parts.push(format!("{}/s", text::bytes(pace.bytes_per_s as u64)));
        if let Some(left) = pace.left_ms(files.1 - files.0, bytes.1 - bytes.0) {
            let at_least = if numbers.scanning { "at least " } else { "" };
            parts.push(format!("{at_least}{} left", text::duration(left)));
        }
    }
    if numbers.frozen > 0 {
        parts.push(format!("{} to wait for", text::count(numbers.frozen, "archived object")));
    }
    parts.join(" · ")
}

async fn draw(bar: ProgressBar, name: String, progress: Arc<Progress>, work: Work) {
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(name);
    let mut pace = Pace::new();
    let mut frames = tokio::time::interval(FRAME);
    loop {
        frames.tick().await;
        let numbers = numbers(&progress);
        pace.update(numbers.files.0, numbers.bytes.0);
        let mut message = line(&numbers, &pace, work);
        if let Some(current) = progress.current(1).pop() {
            message = format!("{message} · {current}");
        }
        bar.set_message(message);
        bar.tick();
    }
}

async fn print(name: String, progress: Arc<Progress>, work: Work) {
    let (mut pace, mut told) = (Pace::new(), String::new());
    loop {
        tokio::time::sleep(LINE).await;
        let numbers = numbers(&progress);
        pace.update(numbers.files.0, numbers.bytes.0);
        let line = line(&numbers, &pace, work);
        // Nothing moves while a server is away, which is told of elsewhere.
        if numbers.is_busy() && line != told {
            tracing::info!(backup = name, "{line}");
            told = line;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_fit_the_work() {
        let numbers = |scanning, handled, frozen| Numbers {
            scanning,
            scanned: 1_500,
            files: (handled, 20),
            bytes: (handled * 1024, 20 * 1024),
            frozen,
        };
        let pace = Pace::new();
        for (scanning, handled, frozen, keep, restore) in [
            (true, 0, 0, "looking, 1,500 files so far", "looking, 1,500 objects so far"),
            (false, 5, 0, "5 of 20 files", "restoring · 5 of 20 files, 5.00 KiB of 20.0 KiB"),
            (false, 20, 0, "waiting for changes · 20 files done", "finishing · 20 files done"),
            (false, 5, 10, "5 of 20 files", "10 archived objects to wait for"),
            (false, 10, 10, "", "waiting for 10 archived objects · 10 files done, 10.0 KiB"),
        ] {
            let numbers = numbers(scanning, handled, frozen);
            let (kept, restored) =
                (line(&numbers, &pace, Work::Keep), line(&numbers, &pace, Work::Restore));
            assert!(kept.contains(keep), "{kept:?}");
            assert!(restored.contains(restore), "{restored:?}");
        }
    }
}
