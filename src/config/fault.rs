//! Faults of a configuration: all of them, each with its line and a caret.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub span: Range<usize>,
    /// What is wrong.
    pub title: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// All faults of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    pub path: String,
    text: String,
    pub faults: Vec<Fault>,
}

impl Faults {
    pub fn new(path: &str, text: &str, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.span.start);
        Self { path: path.to_owned(), text: text.to_owned(), faults }
    }

    /// For a terminal, in colour if it has any.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let secrets = secrets(&self.text);
        let text = without_the_unknown(&self.text);
        let text = secrets
            .iter()
            .fold(text, |text, secret| text.replace(secret, &"*".repeat(secret.len())));
        let masked = |words: &str| {
            secrets.iter().fold(words.to_owned(), |words, secret| words.replace(secret, "***"))
        };
        let told: Vec<(String, Option<String>)> = self
            .faults
            .iter()
            .map(|fault| (masked(&fault.title), fault.help.as_deref().map(masked)))
            .collect();
        let each = self.faults.iter().zip(&told).map(|(fault, (title, help))| {
            let snippet = Snippet::source(text.as_str())
                .path(self.path.as_str())
                .annotation(AnnotationKind::Primary.span(self.clip(&fault.span)));
            let mut group: Group<'_> = Level::ERROR.primary_title(title.as_str()).element(snippet);
            if let Some(help) = help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            renderer.render(&[group])
        });
        each.collect::<Vec<_>>().join("\n")
    }

    /// Spans come from the parser; one that does not fit the text must not break the report.
    fn clip(&self, span: &Range<usize>) -> Range<usize> {
        let floor = |at: usize| self.text.floor_char_boundary(at.min(self.text.len()));
        floor(span.start)..floor(span.end.max(span.start))
    }
}

/// Words about something that may be a secret, without it.
pub fn without_secrets(words: &str) -> String {
    secrets(words).iter().fold(words.to_owned(), |words, secret| words.replace(secret, "***"))
}

/// What looks like a secret that somebody wrote here by mistake: users in URLs, and the values of
/// keys that are called so.
fn secrets(text: &str) -> Vec<String> {
    const NAMES: [&str; 4] = ["secret", "token", "password", "access_key"];
    let mut found = vec![];
    for line in text.lines() {
        for rest in line.split("://").skip(1) {
            // A secret can hold anything, and be no right URL for it: all before the @ is the user.
            found.extend(rest.rsplit_once('@').map(|(user, _)| user.to_owned()));
        }
        let Some((name, value)) = line.split_once('=') else { continue };
        let name = name.trim_start_matches(['#', ' ']).to_lowercase();
        if NAMES.iter().any(|secret| name.contains(secret)) {
            let value = value.trim().trim_matches(['"', '\'']);
            found.push(value.to_owned());
        }
    }
    found.retain(|secret| secret.len() > 2);
    // A longer one is masked before one that is a part of it.
    found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    found
}

/// The text of a configuration with stars for all that no key of ours is for: it may be a secret
/// that somebody put where nobody looks for it. Every byte stays in its place.
fn without_the_unknown(text: &str) -> String {
    let is_of_header = |c: char| is_word(c) || c.is_whitespace() || matches!(c, '[' | ']' | '.');
    let mut masked = String::with_capacity(text.len());
    // What follows an unknown key belongs to it, until the next one.
    let mut hides = false;
    for line in text.split_inclusive('\n') {
        let begins = line.trim_start();
        let is_header = begins.starts_with('[') && begins.chars().all(is_of_header);
        if is_header || begins.starts_with('#') {
            hides &= !is_header;
            masked.push_str(line);
            continue;
        }
        let behind_word = begins.trim_start_matches(is_word);
        let is_key = behind_word.len() < begins.len() && behind_word.trim_start().starts_with('=');
        hides = !is_key && (hides || (!line.contains('=') && begins.starts_with(is_word)));
        mask_line(line, &mut hides, &mut masked);
    }
    masked
}

/// What a key without quotes is made of.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

/// Masks what stands behind unknown keys in one line.
fn mask_line(line: &str, hides: &mut bool, masked: &mut String) {
    let (mut quote, mut word) = (None, String::new());
    for (at, c) in line.char_indices() {
        let is_quoted = quote.is_some();
        match c {
            _ if quote == Some(c) => quote = None,
            '"' | '\'' if !is_quoted => quote = Some(c),
            '=' if !is_quoted => *hides = !super::is_key(&std::mem::take(&mut word)),
            '#' if !is_quoted && !*hides => return masked.push_str(&line[at..]),
            ' ' => {}
            _ if is_word(c) => word.push(c),
            _ => word.clear(),
        }
        let is_frame = c.is_whitespace() || matches!(c, '=' | '{' | '}' | '[' | ']');
        match *hides && (is_quoted || !is_frame) {
            true => masked.extend(std::iter::repeat_n('*', c.len_utf8())),
            false => masked.push(c),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_key_is_for_is_not_shown() {
        for (text, shown) in [
            ("settle = \"2s\"\n", "settle = \"2s\"\n"),
            ("credentials = \"ab c\"\nsettle = 2\n", "credentials = ******\nsettle = 2\n"),
            ("exclude = [\n  \"*.tmp\",\n]\n", "exclude = [\n  \"*.tmp\",\n]\n"),
            ("keys = [\n  \"ab\",\n]\nregion = 1\n", "keys = [\n  *****\n]\nregion = 1\n"),
            (
                "status = { listen = \"a=b\", pwd = \"ab\" }\n",
                "status = { listen = \"a=b\", pwd = **** }\n",
            ),
            ("wJalrXUtnFEMI/K7\n[[backup]]\n", "****************\n[[backup]]\n"),
            ("[[backup]]\nü = 'ß'\nname = 1", "[[backup]]\nü = ****\nname = 1"),
        ] {
            assert_eq!(without_the_unknown(text), shown);
            assert_eq!(without_the_unknown(text).len(), text.len());
        }
    }
}
