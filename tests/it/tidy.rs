//! The house's rules that a compiler does not keep: where arrows point, which module sees which
//! outside crate, what the pure core must not touch, and how long things may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The map: every module of the crate, and which others it may name. Arrows point up the page only.
const ARROWS: &str = "
    model
    plan     -> model
    engine   -> model plan
    ports    -> model plan engine

    fs       -> model plan engine ports
    watch    -> model plan engine ports
    s3       -> model plan engine ports
    state    -> model plan engine ports
    cloudwatch -> model plan engine ports
    store    ->

    app      -> model plan engine ports
    sim      -> model plan engine ports app

    config   -> model plan
    service  -> model
    report   -> app
    wire     -> model plan engine ports fs watch s3 state cloudwatch store app config service
    api      -> model plan engine ports app config service wire
    cli      -> model plan engine ports fs state store app config service report wire
    main     -> cli
";

/// Each outside crate that hides something worth hiding, and the only modules that may name it.
const OUTSIDE: &str = "
    notify                 watch
    ignore                 fs
    rustix                 fs watch store service
    rusqlite               state store
    aws_config             s3
    aws_credential_types   s3 cloudwatch
    aws_runtime            s3 cloudwatch
    aws_sdk_s3             s3 store wire
    aws_sigv4              s3
    aws_smithy_http_client s3
    aws_smithy_runtime     cloudwatch
    aws_smithy_runtime_api s3 store cloudwatch
    aws_smithy_types       s3 store cloudwatch
    aws_types              s3 cloudwatch
    s3s                    store
    hyper                  store service
    hyper_util             store service
    signal_hook            service
    clap                   cli config report
    clap_complete          cli
    clap_mangen            cli
    toml                   cli config
    annotate_snippets      config
    indicatif              cli report
    tracing_subscriber     report
    tokio                  fs watch s3 state cloudwatch store app sim service report api cli
    tracing                fs watch s3 state store app sim service report wire cli
";

/// Modules without IO, clocks, chance, threads, or anything whose order is not the same each time.
const CORE: [&str; 3] = ["model", "plan", "engine"];
const IMPURE: [&str; 12] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::time",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "async ",
    "rand::",
];

const PANICS: [&str; 6] =
    [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "dbg!("];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// A file of Rust.
struct Source {
    /// Relative to the package: `src/model/key.rs`.
    path: String,
    /// The path of its module: `["model", "key"]`; `["main"]` for the program.
    module: Vec<String>,
    lines: Vec<String>,
    /// The first line that only tests see.
    test_from: usize,
}

impl Source {
    fn read(root: &Path, file: &Path) -> Self {
        let relative = file.strip_prefix(root).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let mut module: Vec<String> = relative
            .with_extension("")
            .iter()
            .skip(1)
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        module.pop_if(|last| last == "mod");
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let inline = |pair: &[String]| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{');
        let test_from = lines.windows(2).position(inline).unwrap_or(lines.len());
        Self { path: relative.to_string_lossy().into_owned(), module, lines, test_from }
    }

    fn house(&self) -> &str {
        &self.module[0]
    }

    /// Numbered lines without their comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = |line: &'_ str| line.find("//").unwrap_or(line.len());
        self.lines.iter().enumerate().map(move |(at, line)| (at + 1, &line[..code(line)]))
    }

    /// The same without what only tests see.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().take(self.test_from)
    }

    /// Files that only tests see: `#[cfg(test)] mod name;`.
    fn test_modules(&self) -> impl Iterator<Item = Vec<String>> {
        self.lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").filter_map(|pair| {
            let name = pair[1].strip_prefix("mod ")?.strip_suffix(';')?;
            Some([&self.module[..], &[name.to_owned()]].concat())
        })
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with(".cache") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// All files of these folders.
fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    folders.iter().for_each(|folder| collect(&root.join(folder), &mut files));
    files.sort();
    assert!(!files.is_empty(), "no sources below {}", root.display());
    files.iter().map(|file| Source::read(root, file)).collect()
}

/// All files of the crate that are not there for tests alone.
fn shipped_sources() -> Vec<Source> {
    let mut sources = sources(&["src"]);
    let tests: Vec<Vec<String>> = sources.iter().flat_map(Source::test_modules).collect();
    assert!(!tests.is_empty());
    sources.retain(|source| !tests.iter().any(|test| source.module.starts_with(test)));
    sources.retain(|source| source.house() != "sim");
    sources
}

fn table(text: &str) -> impl Iterator<Item = (&str, BTreeSet<&str>)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace().filter(|word| *word != "->");
        Some((words.next()?, words.collect()))
    })
}

/// The names that follow `prefix` in a line: `model` of `crate::model::Key`.
fn names_after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    line.match_indices(prefix).filter_map(move |(at, _)| {
        let rest = &line[at + prefix.len()..];
        let end = rest.find(|c: char| !is_word(c) || c == ':').unwrap_or(rest.len());
        (!line[..at].ends_with(is_word)).then_some(&rest[..end])
    })
}

fn nothing_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn arrows_point_one_way() {
    let mut known = BTreeSet::new();
    for (module, uses) in table(ARROWS) {
        assert!(uses.is_subset(&known), "the map has an arrow down the page from {module}");
        known.insert(module);
    }
    let map: BTreeMap<&str, BTreeSet<&str>> = table(ARROWS).collect();
    let mut wrong = vec![];
    let all = sources(&["src"]);
    for source in all.iter().filter(|source| source.house() != "lib") {
        let Some(uses) = map.get(source.house()) else {
            wrong.push(source.at(1, "this module is not on the map"));
            continue;
        };
        let from = if source.house() == "main" { "keepwatch::" } else { "crate::" };
        for (line, code) in source.code() {
            for name in names_after(code, from) {
                if name != source.house() && !uses.contains(name) {
                    let what = format!("{} must not see {name:?}", source.house());
                    wrong.push(source.at(line, &what));
                }
            }
            // Inside an inline module there is one step more to go up.
            let depth = source.module.len() + usize::from(line > source.test_from);
            if code.contains(&"super::".repeat(depth)) {
                wrong.push(source.at(line, "leaves its module: write `crate::`"));
            }
        }
    }
    nothing_wrong(&wrong);
}

#[test]
fn outside_crates_are_hidden() {
    let mut wrong = vec![];
    for source in shipped_sources() {
        for (name, seen_by) in table(OUTSIDE).filter(|(_, by)| !by.contains(source.house())) {
            let path = format!("{name}::");
            for (line, code) in source.shipped() {
                if names_after(code, &path).next().is_some() {
                    wrong.push(source.at(line, &format!("{name} is for {seen_by:?} only")));
                }
            }
        }
    }
    nothing_wrong(&wrong);
}

#[test]
fn the_core_is_pure() {
    let mut wrong = vec![];
    for source in shipped_sources().iter().filter(|source| CORE.contains(&source.house())) {
        for (line, code) in source.shipped() {
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                wrong.push(source.at(line, &format!("{word} in the pure core")));
            }
        }
    }
    nothing_wrong(&wrong);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = vec![];
    for source in sources(&["src", "tests", "benches", "examples"]) {
        if !source.lines.first().is_some_and(|line| line.starts_with("//! ")) {
            wrong.push(source.at(1, "does not begin with `//!`"));
        }
        if source.lines.len() > FILE_LINES_MAX {
            wrong.push(source.at(source.lines.len(), "too long a file"));
        }
        for (at, line) in source.lines.iter().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                wrong.push(source.at(at + 1, "too long a line"));
            }
        }
    }
    nothing_wrong(&wrong);
}

#[test]
fn functions_are_short() {
    let mut wrong = vec![];
    for source in sources(&["src", "tests", "benches", "examples"]) {
        for (line, code) in source.code().filter(|(_, code)| names_after(code, "fn ").count() > 0) {
            // rustfmt ends a function with a brace below its first letter, or on its line.
            let indent = &code[..code.len() - code.trim_start().len()];
            let rest = source.lines[line - 1..].iter().map(|line| line.strip_prefix(indent));
            let end = rest.map(Option::unwrap_or_default).position(|line| {
                line.starts_with('}') || (!line.starts_with(' ') && line.ends_with([';', '}']))
            });
            if end.is_none_or(|end| end + 1 > FUNCTION_LINES_MAX) {
                wrong.push(source.at(line, "too long a function"));
            }
        }
    }
    nothing_wrong(&wrong);
}

#[test]
fn nothing_panics_by_accident() {
    let mut wrong = vec![];
    for source in shipped_sources() {
        let mut excused = false;
        for (line, code) in source.shipped() {
            if let Some(panic) = PANICS.iter().find(|panic| code.contains(**panic))
                && !excused
            {
                wrong.push(source.at(line, &format!("{panic} without an #[expect]")));
            }
            excused = code.trim_start().starts_with("#[expect(clippy::");
        }
    }
    nothing_wrong(&wrong);
}

#[test]
fn allowances_have_reasons() {
    let mut wrong = vec![];
    for source in sources(&["src", "tests", "benches", "examples"]) {
        for (line, code) in source.code() {
            let attribute = code.trim_start().replace("#!", "#");
            if attribute.starts_with("#[allow(") || attribute.starts_with("#[expect(") {
                let rest = &source.lines[line - 1..];
                let end = rest.iter().position(|line| line.ends_with(")]")).unwrap_or(0);
                if !rest[..=end].iter().any(|line| line.contains("reason = ")) {
                    wrong.push(source.at(line, "an allowance without a reason"));
                }
            }
        }
    }
    nothing_wrong(&wrong);
}
