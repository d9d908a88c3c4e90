//! Problems of files that people write: where, what, and the way out.
//!
//! Whoever reads a file collects every [`Problem`] it finds into one [`Problems`], so that one run shows them all.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::json;

/// A file's name and text, shared by all places in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as the user would type it, or `built in: …`.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// A place that a problem can point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A half-open byte range of a file.
    File(Arc<Source>, Range<usize>),
    /// Something that is no file: an environment variable, a command line option.
    Named(String),
}

impl Place {
    /// `file:line`, or the name of what is no file.
    pub fn file_and_line(&self) -> String {
        match self.position() {
            (file, Some((line, _))) => format!("{file}:{line}"),
            (name, None) => name.to_owned(),
        }
    }

    /// The file (or name) and, for files, the line and column, both from 1; columns count characters.
    pub fn position(&self) -> (&str, Option<(usize, usize)>) {
        match self {
            Self::Named(name) => (name, None),
            Self::File(source, span) => {
                let before = source.text.get(..span.start).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
                (&source.path, Some((line, column)))
            }
        }
    }

    /// The line, from 1, if the place is in a file.
    pub fn line(&self) -> Option<usize> {
        self.position().1.map(|(line, _)| line)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position() {
            (name, None) => f.write_str(name),
            (path, Some((line, column))) => write!(f, "{path}:{line}:{column}"),
        }
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works, but hardly as meant.
    Warning,
    /// Does not work.
    Error,
}

/// One problem: what, where, where else, and the way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name for the kind of problem, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong, with the value and the limit.
    pub title: String,
    /// Where.
    pub place: Place,
    /// What to say beside the place; may be empty.
    pub label: String,
    /// Other places that belong to it, such as the first of two definitions.
    pub others: Vec<(Place, String)>,
    /// The way out.
    pub help: Option<String>,
}

impl Problem {
    /// An error at a place.
    pub fn error(code: &'static str, place: &Place, title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            title: title.into(),
            place: place.clone(),
            label: String::new(),
            others: Vec::new(),
            help: None,
        }
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, place: &Place, title: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, title) }
    }

    /// With words beside the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With another place that belongs to it.
    #[must_use]
    pub fn other(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.others.push((place.clone(), label.into()));
        self
    }

    /// With the way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn level(&self) -> Level<'static> {
        match self.severity {
            Severity::Warning => Level::WARNING,
            Severity::Error => Level::ERROR,
        }
    }

    fn snippet<'a>(
        place: &'a Place,
        kind: AnnotationKind,
        label: &'a str,
    ) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let Place::File(source, span) = place else { return None };
        let annotation = kind.span(span.clone()).label((!label.is_empty()).then_some(label));
        Some(Snippet::source(source.text.as_str()).path(source.path.as_str()).annotation(annotation))
    }

    fn report(&self) -> Vec<Group<'_>> {
        let title = match &self.place {
            Place::Named(name) => format!("{name}: {}", self.title),
            Place::File(..) => self.title.clone(),
        };
        let mut group = self
            .level()
            .primary_title(title)
            .id(self.code)
            .elements(Vec::<Snippet<'_, annotate_snippets::Annotation<'_>>>::new());
        group = group.elements(Self::snippet(&self.place, AnnotationKind::Primary, &self.label));
        for (place, label) in &self.others {
            group = group.elements(Self::snippet(place, AnnotationKind::Context, label));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        vec![group]
    }

    fn to_json(&self) -> serde_json::Value {
        let place = |place: &Place| {
            let (file, at) = place.position();
            json!({"file": file, "line": at.map(|a| a.0), "column": at.map(|a| a.1)})
        };
        json!({
            "severity": match self.severity { Severity::Warning => "warning", Severity::Error => "error" },
            "code": self.code,
            "message": self.title,
            "at": place(&self.place),
            "label": self.label,
            "others": self.others.iter().map(|(p, l)| json!({"at": place(p), "label": l})).collect::<Vec<_>>(),
            "help": self.help,
        })
    }
}

/// Everything found wrong in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// No problems yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Takes over those found elsewhere.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// All of them, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// Whether nothing was found, not even a warning.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many errors and how many warnings.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.0.iter().filter(|p| p.severity == Severity::Error).count();
        (errors, self.0.len() - errors)
    }

    /// `2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let (errors, warnings) = self.counts();
        let many = |count: usize, name: &str| format!("{count} {name}{}", if count == 1 { "" } else { "s" });
        format!("{}, {}", many(errors, "error"), many(warnings, "warning"))
    }

    /// `value` where there is no error, else all problems.
    ///
    /// # Errors
    /// When at least one problem is an error; warnings alone pass.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.counts().0 == 0 { Ok(value) } else { Err(self) }
    }

    /// The problems as text, with the lines they point at; in colour where `colour` says so.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let drawn: Vec<_> = self.0.iter().map(|p| renderer.render(&p.report())).collect();
        drawn.join("\n\n")
    }

    /// The problems as JSON values for machines.
    pub fn to_json(&self) -> serde_json::Value {
        self.0.iter().map(Problem::to_json).collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// The candidate most like `word`, if any is close enough to be what was meant.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(word, c), c))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}
