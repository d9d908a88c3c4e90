//! `explain`: why a ticket gets its tag, with the evidence marked in the ticket's own text.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use anyhow::Context as _;
use clap::Args;

use super::{Ended, Format, Settings};
use crate::classify::explain::{FieldExplanation, MatchExplanation, MatchFate, ServiceExplanation};
use crate::classify::{Classifier, Explanation};
use crate::config::Config;
use crate::profile::{Decoded, Decoder, Profile};
use crate::source::dump::Dump;
use crate::ticket::{Affects, Ticket};

/// `explain …`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Events or rows as JSON, NDJSON or CSV; `-` for standard input
    #[arg(required_unless_present = "text", value_name = "FILE|-")]
    file: Option<PathBuf>,
    /// Explains this text as the summary of a ticket
    #[arg(long, conflicts_with = "file")]
    text: Option<String>,
    /// Only the ticket with this id
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The profile that maps the events; found out from the first without it
    #[arg(long)]
    profile: Option<String>,
    /// For people or for machines
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the command.
///
/// # Errors
/// When the file cannot be read, an event cannot be taken, or the configuration is wrong.
pub fn run(args: &ExplainArgs) -> anyhow::Result<Ended> {
    let config = args.settings.load()?;
    let classifier = Classifier::load(&config.classifier_options())?;
    let mut tickets = match (&args.text, &args.file) {
        (Some(text), _) => vec![Ticket { key: "text".into(), summary: Some(text.clone()), ..Ticket::default() }],
        (None, Some(file)) => read(file, args.profile.as_deref(), &config)?,
        (None, None) => Vec::new(),
    };
    if let Some(id) = &args.id {
        tickets.retain(|ticket| ticket.id.as_ref().unwrap_or(&ticket.key) == id);
    }
    anyhow::ensure!(!tickets.is_empty(), "there is no such ticket in the input");
    let out = std::io::stdout().lock();
    let colour = out.is_terminal();
    print(&tickets, &classifier, args.format, colour, &mut std::io::BufWriter::new(out))?;
    Ok(Ended::Fine)
}

/// All tickets of a file, event by event.
fn read(file: &Path, profile: Option<&str>, config: &Config) -> anyhow::Result<Vec<Ticket>> {
    let rows = Dump::open(file, None).with_context(|| file.display().to_string())?;
    let name = profile.unwrap_or(rows.suggested_profile());
    eprintln!("{}: {}, profile {name}", file.display(), rows.described());
    let decoder = Decoder::new(Profile::load(name, &config.patterns.profiles, config.profile.get(name), None)?);
    let mut tickets = Vec::new();
    for row in rows {
        let record = row?;
        let decoded = decoder.decode(&record).with_context(|| format!("{}: row {}", file.display(), record.offset))?;
        match decoded {
            Decoded::Tickets(found) => tickets.extend(found),
            Decoded::Ignored(why) => eprintln!("{}: row {} carries no ticket: {why}", file.display(), record.offset),
        }
    }
    Ok(tickets)
}

/// Prints why each ticket gets its tag; in colour where `colour` says so.
///
/// # Errors
/// When results cannot be written.
fn print(
    tickets: &[Ticket],
    classifier: &Classifier,
    format: Format,
    colour: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    for ticket in tickets {
        let explanation = classifier.explain(ticket);
        match format {
            Format::Json => writeln!(out, "{}", serde_json::to_string(&explanation)?)?,
            Format::Text => writeln!(out, "{}", drawn(&explanation, colour))?,
        }
    }
    Ok(out.flush()?)
}

/// The explanation for people.
fn drawn(explanation: &Explanation, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = headline(explanation);
    for field in explanation.fields.iter().filter(|field| !field.text.trim().is_empty()) {
        text += &renderer.render(&[field_group(field)]);
        text.push('\n');
    }
    for service in &explanation.services {
        text += &service_line(service);
    }
    text
}

/// `INC0012345: customer, clear, by pattern, score +7.00`.
fn headline(explanation: &Explanation) -> String {
    let Explanation { id, affects, basis, certainty, score, margin, declared, requester_external, .. } = explanation;
    let certainty = match certainty.as_str() {
        "none" => "unsure".to_owned(),
        certainty => certainty.to_owned(),
    };
    let mut line = format!("{id}: {affects}, {certainty}, by {basis}, score {score:+.2}");
    line += &match margin {
        Some(margin) => format!(", {margin:.2} from {}\n", other_tag(affects)),
        None => "\n".to_owned(),
    };
    if let Some(declared) = declared {
        line += &format!("declared: {declared}\n");
    }
    match requester_external {
        Some(true) => line += "requester: from outside the company\n",
        Some(false) => line += "requester: from inside the company\n",
        None => {}
    }
    line
}

fn other_tag(affects: &str) -> &'static str {
    let customer = Affects::Customer.as_str();
    if affects == customer { Affects::Internal.as_str() } else { customer }
}

fn field_group(field: &FieldExplanation) -> Group<'_> {
    let bytes: Vec<usize> = field.text.char_indices().map(|(at, _)| at).chain([field.text.len()]).collect();
    let annotations = field.matches.iter().map(|found| annotation(found, &bytes));
    let snippet = Snippet::source(field.text.as_str()).path(field.field.as_str()).annotations(annotations);
    Group::with_level(Level::INFO).element(snippet)
}

/// The mark under one match; `bytes` is where each character starts.
fn annotation<'a>(found: &MatchExplanation, bytes: &[usize]) -> Annotation<'a> {
    let byte = |character: u32| bytes.get(character as usize).or(bytes.last()).copied().unwrap_or_default();
    let kind = if found.fate == MatchFate::Counts { AnnotationKind::Primary } else { AnnotationKind::Context };
    kind.span(byte(found.start)..byte(found.end)).label(label(found))
}

/// What stands beside a mark: `en/checkout-failure +5.00 (patterns/packs/en/shop.toml:12)`.
fn label(found: &MatchExplanation) -> String {
    let MatchExplanation { rule, file, weight, .. } = found;
    let zone = found.zone.as_deref().unwrap_or_default();
    match found.fate {
        MatchFate::Counts if !zone.is_empty() => format!("{rule} {weight:+.2}, less in {zone} ({file})"),
        MatchFate::Counts => format!("{rule} {weight:+.2} ({file})"),
        MatchFate::CountedBefore => format!("{rule}, counted before"),
        MatchFate::WeighsNothing => format!("{rule}, weighs nothing ({file})"),
        MatchFate::Swallowed => format!("{rule} {weight:+.2}, inside {}", found.swallowed_by.join(", ")),
        MatchFate::Cancelled => format!("{rule} {weight:+.2}, cancelled by its `unless` ({file})"),
        MatchFate::ConditionUnmet => format!("{rule} {weight:+.2}, its `when` is not met ({file})"),
        MatchFate::Alone => format!("{rule} {weight:+.2}, needs {}", found.lacks.join(" or ")),
        MatchFate::Replaced => format!("{rule} {weight:+.2}, replaced by {}", found.replaced_by.join(", ")),
        MatchFate::OutOfScope => format!("{rule} {weight:+.2}, weighs nothing in {zone}"),
    }
}

fn service_line(service: &ServiceExplanation) -> String {
    let ServiceExplanation { field, name, path, file, weight } = service;
    format!("{field} {name:?}: {weight:+.2} by {} ({file})\n", path.join(" -> "))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::classify::{ClassifierOptions, PackSource};

    const PACK: &str = r#"
[[rule]]
id = "checkout"
affects = "customer"
weight = 5
phrases = ["cannot check out"]
[[rule]]
id = "test"
affects = "internal"
weight = 1.5
phrases = ["check out"]
unless = ["since"]
[[rule]]
id = "customers"
affects = "customer"
weight = 1
phrases = ["customer[s]"]
"#;

    #[test]
    fn evidence_is_marked_in_the_text() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("own")).unwrap();
        fs::write(folder.path().join("own/a.toml"), PACK).unwrap();
        let map = folder.path().join("services.toml");
        fs::write(&map, "service = [{ name = 'Shop', customer_facing = true, depends_on = ['db'] }, { name = 'db' }]")
            .unwrap();
        let packs = vec![PackSource::Folder(folder.path().join("own"))];
        let options = ClassifierOptions { packs, services: vec![map], ..ClassifierOptions::default() };
        let classifier = Classifier::load(&options).unwrap();
        let ticket = Ticket {
            key: "INC1".into(),
            summary: Some("Ärger: Customers cannot check-out since 9".to_owned()),
            ci: Some("DB".into()),
            ..Ticket::default()
        };
        let mut out = Vec::new();
        print(&[ticket], &classifier, Format::Text, false, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap().replace(&*folder.path().to_string_lossy(), "");
        assert_eq!(out, EXPECTED.trim_start(), "{out}");
    }

    const EXPECTED: &str = r#"
INC1: customer, clear, by pattern, score +9.00, 9.00 from internal
 --> summary:1:8
  |
1 | Ärger: Customers cannot check-out since 9
  |        ^^^^^^^^^ ^^^^^^^---------
  |        |         |      |
  |        |         |      own/test -1.50, cancelled by its `unless` (/own/a.toml:8)
  |        |         own/checkout +5.00 (/own/a.toml:3)
  |        own/customers +1.00 (/own/a.toml:14)
ci "DB": +3.00 by db -> Shop (/services.toml:1)

"#;
}
