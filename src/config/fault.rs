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
        let each = self.faults.iter().map(|fault| {
            let snippet = Snippet::source(self.text.as_str())
                .path(self.path.as_str())
                .annotation(AnnotationKind::Primary.span(self.clip(&fault.span)));
            let mut group: Group<'_> =
                Level::ERROR.primary_title(fault.title.as_str()).element(snippet);
            if let Some(help) = &fault.help {
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

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Faults {}
