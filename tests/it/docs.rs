//! What the documents say, held against the program: options and commands exist, examples are
//! accepted, and tests that are named are there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use keepwatch::config::BackupOptions;

use crate::support::program::User;

/// Rows of the earlier systems.
const ROWS: usize = 76;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document for users: its path and text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("README.md")];
    let docs = std::fs::read_dir(root().join("docs")).unwrap();
    paths.extend(docs.map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Fenced blocks in this language.
fn fenced<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("```{language}\n");
    let blocks = text.split(&open).skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}

fn cells(line: &str) -> Vec<&str> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|');
    line.split(" | ").map(str::trim).collect()
}

/// Commands that a help lists.
fn listed(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    // A longer text goes on below, further in.
    let lines = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned));
    names.filter(|name| name != "help").collect()
}

/// Options of each command, as its help tells them.
fn options() -> BTreeMap<String, BTreeSet<String>> {
    let user = User::new();
    let help = |command: &str| user.run(&["help", command]).stdout;
    let whole = user.run(&["--help"]).stdout;
    let mut options: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in listed(&whole) {
        let own = help(&name);
        // `service install` has options that `service` does not tell.
        let below = listed(&own).into_iter().map(|sub| user.run(&["help", &name, &sub]).stdout);
        let all: Vec<String> = below.chain([own.clone()]).collect();
        options.insert(name, all.iter().flat_map(|text| flags(text)).collect());
    }
    // Without a command: the daemon, and `--restore` with the options of `restore`.
    let bare = flags(&whole).chain(options["restore"].clone());
    options.insert(String::new(), bare.collect());
    options.insert("help".to_owned(), BTreeSet::new());
    assert!(options.len() > 5 && options["sync"].contains("--dry-run"), "{options:?}");
    options
}

/// Long options in a text.
fn flags(text: &str) -> impl Iterator<Item = String> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.split(move |c| !is_word(c)).filter_map(|word| {
        let name = word.strip_prefix("--")?;
        name.starts_with(|c: char| c.is_ascii_lowercase()).then(|| word.to_owned())
    })
}

/// Commands that begin with `keepwatch`, each with its words; comments are left out.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let lines = fenced(text, "sh").into_iter().flat_map(str::lines);
    let all = lines.chain(spans(text).filter(|span| !span.contains('\n')));
    let mut commands: Vec<Vec<&str>> = vec![];
    let mut goes_on = false;
    for line in all.filter_map(|line| line.split(" #").next()) {
        let mut words = line.split_whitespace().skip_while(|word| word.contains('=')).peekable();
        if goes_on {
            commands.last_mut().unwrap().extend(words);
        } else if words.next_if_eq(&"keepwatch").is_some() {
            commands.push(words.collect());
        } else {
            continue;
        }
        goes_on = line.ends_with('\\');
    }
    commands
}

#[test]
fn commands_that_are_shown_can_be_typed() {
    let options = options();
    let mut seen = 0;
    for (path, text) in documents() {
        for words in commands(&text) {
            let name = words.first().copied().unwrap_or_default();
            let name = if name.starts_with('-') { "" } else { name };
            let known = options.get(name);
            let known = known.unwrap_or_else(|| panic!("{}: {words:?}", path.display()));
            let typed = words.iter().filter(|word| word.starts_with("--"));
            for flag in typed.flat_map(|word| flags(word)) {
                assert!(known.contains(&flag), "{}: {flag} in {words:?}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 12, "only {seen} options were found: the documents are read wrongly");
}

/// In a table with a column `keepwatch`, that column holds nothing that is not there.
#[test]
fn options_side_by_side_with_other_tools_exist() {
    let all: BTreeSet<String> = options().into_values().flatten().collect();
    let mut seen = 0;
    for (path, text) in documents() {
        let mut column = None;
        for line in text.lines() {
            let cells = cells(line);
            if !line.starts_with('|') {
                column = None;
            } else if let Some(at) = cells.iter().position(|cell| *cell == "keepwatch") {
                column = Some(at);
            } else if let Some(cell) = column.and_then(|at| cells.get(at)) {
                for flag in spans(cell).flat_map(flags) {
                    assert!(all.contains(&flag), "{}: {flag} in {line}", path.display());
                    seen += 1;
                }
                for key in spans(cell).filter_map(|span| span.split_once(" = ")) {
                    let known = BackupOptions::NAMES.contains(&key.0);
                    assert!(known, "{}: {} in {line}", path.display(), key.0);
                }
            }
        }
    }
    assert!(seen > 60, "only {seen} options were found: the tables are read wrongly");
}

#[test]
fn configurations_that_are_shown_are_accepted() {
    let mut seen = 0;
    for (path, text) in documents() {
        for block in fenced(&text, "toml") {
            let user = User::new();
            let file = user.home.path().join("shown.toml");
            std::fs::write(&file, block).unwrap();
            let said = user.run(&["-c", file.to_str().unwrap(), "config", "check"]);
            assert_eq!(said.code, 0, "{}: {block}\n{said:?}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 1, "only {seen} examples were found");
}

/// Whether this file below `tests/it` has this test.
fn is_test(file: &str, function: &str) -> bool {
    let text = std::fs::read_to_string(root().join("tests/it").join(file)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let head = format!("fn {function}() {{");
    lines.windows(2).any(|pair| pair[0] == "#[test]" && pair[1] == head)
}

#[test]
fn every_row_of_the_earlier_systems_has_a_test_or_something_better() {
    let text = std::fs::read_to_string(root().join("docs/earlier-systems.md")).unwrap();
    let mut rows = vec![];
    for line in text.lines().filter(|line| line.starts_with("| S0.")) {
        let cells = cells(line);
        assert_eq!(cells.len(), 3, "{line}");
        rows.push(cells[0].to_owned());
        let tests: Vec<_> = spans(cells[2]).filter_map(|span| span.split_once("::")).collect();
        let tests = tests.into_iter().filter(|(file, _)| file.ends_with(".rs"));
        let mut told = ["Better: ", "Not promised: "].iter().any(|word| cells[2].contains(word));
        for (file, function) in tests {
            assert!(is_test(file, function), "there is no test {file}::{function}: {line}");
            told = true;
        }
        assert!(told, "neither a test nor something better: {line}");
    }
    let expected: Vec<String> = (1..=ROWS).map(|row| format!("S0.{row}")).collect();
    assert_eq!(rows, expected);
}
