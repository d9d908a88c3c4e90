//! From one document to one ticket, as the profile says.

use std::borrow::Cow;

use compact_str::CompactString;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use smallvec::SmallVec;

use super::atlassian;
use super::rule::Rule;
use super::time::{self, Dates};
use super::{Action, Field, FieldName, Part, Profile, Row, Worklogs};
use crate::envelope::Facts;
use crate::envelope::cell::Cell;
use crate::envelope::path::fold;
use crate::envelope::trie::{Document, PathId, Trie};
use crate::outcome::{Reason, Refusal};
use crate::record::Record;
use crate::ticket::{Kind, State, Ticket, Version, Worklog};

/// Where tickets go. They are large, so that they are built where they stay.
pub type Tickets = SmallVec<[Ticket; 1]>;

/// Bytes of the longest short field. Tickets are held with them and written as one record, which has to stay small whatever
/// a vendor sends.
const LONGEST: usize = 1_000;

/// Why a document shows no ticket, by design; `None` where one was pushed.
pub type Ignored = Option<&'static str>;

/// A document, seen through a profile.
pub struct View<'v, 'd> {
    pub profile: &'v Profile,
    pub trie: &'v Trie,
    pub document: &'v Document<'d>,
    pub facts: &'v Facts,
    pub record: &'v Record,
}

impl View<'_, '_> {
    /// Adds the ticket that the document shows.
    pub fn ticket(&self, tickets: &mut Tickets) -> Result<Ignored, Refusal> {
        if let Some(row) = self.profile.rows.iter().find(|row| self.is_row(row)) {
            return self.row(row, tickets);
        }
        let action = self.first(&self.profile.events, None, None).unwrap_or(Action::Ticket);
        if action == Action::Ignore {
            return Ok(Some("an event that carries no ticket"));
        }
        let id = self.identity(FieldName::Id)?;
        let Some(key) = self.identity(FieldName::Key)?.or_else(|| id.clone()) else {
            return match action {
                Action::Touch => Ok(Some("an event that carries no ticket")),
                _ => Err(self.no_identity()),
            };
        };
        tickets.push(Ticket { key, id, by_person: !self.automated(), ..Ticket::default() });
        let ticket = tickets.last_mut().expect("one was pushed just now");
        match action {
            Action::Worklog | Action::WorklogDeleted => {}
            _ => self.fill(ticket),
        }
        ticket.deleted |= action == Action::Deleted;
        ticket.worklogs = self.worklogs(action == Action::WorklogDeleted);
        Ok(None)
    }

    fn no_identity(&self) -> Refusal {
        let fields = [FieldName::Key, FieldName::Id].map(|name| &self.profile.field(name).levels);
        let paths = fields.into_iter().flatten().flatten().map(|path| self.profile.paths[path.0].to_string());
        let mut names: Vec<String> = paths.map(|path| format!("`{path}`")).collect();
        names.dedup();
        Refusal::new(Reason::Unmappable, format!("no ticket: none of {} is there", names.join(", ")))
    }

    fn fill(&self, ticket: &mut Ticket) {
        let said = self.kind(ticket.id.as_deref());
        ticket.kind_assumed = said.is_none();
        let (kind, table) = said.map_or((self.profile.kind.default, None), |(kind, table)| (Some(kind), table));
        let table = table.as_deref();
        ticket.kind = kind;
        ticket.state = self.first(&self.profile.states, table, kind);
        ticket.summary = self.long_text(FieldName::Summary);
        ticket.description = self.long_text(FieldName::Description);
        ticket.requester = self.text(FieldName::Requester).map(String::from);
        ticket.requester_email = self.text(FieldName::RequesterEmail).map(String::from);
        ticket.organization = self.text(FieldName::Organization).map(String::from);
        ticket.service = self.text(FieldName::Service);
        ticket.ci = self.text(FieldName::Ci);
        ticket.category = self.text(FieldName::Category);
        ticket.group = self.text(FieldName::Group);
        ticket.priority = self.text(FieldName::Priority);
        ticket.opened_at = self.time(FieldName::OpenedAt);
        ticket.updated_at = self.time(FieldName::UpdatedAt);
        ticket.resolved_at = self.time(FieldName::ResolvedAt);
        ticket.reopened = self.text(FieldName::Reopened).and_then(|count| count.parse().ok());
        ticket.effort_seconds = self.effort();
        ticket.declared = self.first(&self.profile.declared, table, kind);
        ticket.requester_external = self.external(ticket, table, kind);
        ticket.deleted = self.facts.deleted || self.first(&self.profile.deleted, table, kind) == Some(true);
        ticket.follows = self.text(FieldName::Follows);
        ticket.merged_into = self.text(FieldName::MergedInto);
        if ticket.merged_into.is_some() {
            ticket.state = Some(State::Closed);
        }
        ticket.version = Some(self.version(ticket.updated_at));
    }

    fn get(&self, path: PathId) -> Option<&Cell<'_>> {
        self.trie.get(self.document, path)
    }

    fn cells<'s>(&'s self, paths: &'s [PathId]) -> impl Iterator<Item = &'s Cell<'s>> {
        paths.iter().filter_map(|path| self.get(*path))
    }

    fn applies(&self, field: &Field) -> bool {
        field.when.as_ref().is_none_or(|rule| self.answer(rule, None, None) == Some(true))
    }

    /// A short field; nothing where it is empty, and of one that is not short at all the beginning.
    fn text(&self, name: FieldName) -> Option<CompactString> {
        self.whole_text(name).map(cut)
    }

    /// A field that tells tickets apart, which nothing can be left out of.
    fn identity(&self, name: FieldName) -> Result<Option<CompactString>, Refusal> {
        self.whole_text(name).map(|text| identity(name.as_str(), text)).transpose()
    }

    fn whole_text(&self, name: FieldName) -> Option<CompactString> {
        let field = self.profile.field(name);
        if !self.applies(field) {
            return None;
        }
        let mut levels =
            field.levels.iter().filter_map(|paths| self.cells(paths).find_map(|cell| self.part(cell, field.part)));
        let first = levels.next()?;
        let mut text = CompactString::from(if field.leading_number { leading_number(&first) } else { &first });
        for level in levels {
            text.push_str(" / ");
            text.push_str(&level);
        }
        Some(text)
    }

    /// A long field; empty where it was sent empty.
    fn long_text(&self, name: FieldName) -> Option<String> {
        let field = self.profile.field(name);
        let mut sent_empty = false;
        for cell in field.levels.iter().flat_map(|paths| self.cells(paths)) {
            if let Some(text) = self.long_part(cell, field.part) {
                return Some(text.into_owned());
            }
            sent_empty |= matches!(cell, Cell::Text(text) if text.is_empty());
        }
        sent_empty.then(String::new)
    }

    fn long_part<'c>(&self, cell: &'c Cell<'_>, part: Part) -> Option<Cow<'c, str>> {
        match cell {
            Cell::Object(_) if atlassian::is_document(cell) => Some(Cow::Owned(atlassian::flatten(cell))),
            _ => self.part(cell, part),
        }
    }

    /// One part of a value: of a list the first element that has it, of an object the member that holds it.
    fn part<'c>(&self, cell: &'c Cell<'_>, part: Part) -> Option<Cow<'c, str>> {
        match cell {
            Cell::List(items) => items.iter().find_map(|item| self.part(item, part)),
            Cell::Object(_) => {
                let parts = &self.profile.parts;
                let (first, second) = match part {
                    Part::Label => (&parts.label, &parts.value),
                    Part::Value => (&parts.value, &parts.label),
                };
                first.iter().chain(second).find_map(|name| self.part(cell.member(name)?, part))
            }
            _ => cell.scalar().filter(|text| !self.is_null(text)),
        }
    }

    /// Whether a text stands for nothing.
    fn is_null(&self, text: &str) -> bool {
        let text = text.trim();
        text.is_empty() || self.profile.nulls.iter().any(|null| null == text)
    }

    /// The first answer of a list of rules.
    fn first<T: Copy>(&self, rules: &[Rule<T>], table: Option<&str>, kind: Option<Kind>) -> Option<T> {
        rules.iter().find_map(|rule| self.answer(rule, table, kind))
    }

    fn answer<T: Copy>(&self, rule: &Rule<T>, table: Option<&str>, kind: Option<Kind>) -> Option<T> {
        if !rule.kinds.is_empty() && !kind.is_some_and(|kind| rule.kinds.contains(&kind)) {
            return None;
        }
        if self.cells(&rule.unless).any(|cell| self.part(cell, Part::Value).is_some()) {
            return None;
        }
        let named = self.cells(&rule.paths).find_map(|cell| self.meaning(cell, rule, table, kind));
        named.or_else(|| {
            let present = self.cells(&rule.paths).any(|cell| self.part(cell, Part::Value).is_some());
            rule.present.filter(|_| present)
        })
    }

    /// What a value means to a rule, by what the system stores or else by what people read.
    fn meaning<T: Copy>(&self, cell: &Cell<'_>, rule: &Rule<T>, table: Option<&str>, kind: Option<Kind>) -> Option<T> {
        if let Cell::List(items) = cell {
            return items.iter().find_map(|item| self.meaning(item, rule, table, kind));
        }
        let by = |part| self.part(cell, part).and_then(|text| rule.meaning(&text, table, kind));
        match cell {
            Cell::Object(_) => by(Part::Value).or_else(|| by(Part::Label)),
            _ => by(Part::Value),
        }
    }

    /// The kind, and the vendor's table where that is known: by a field, the envelope, the id's letters, the topic.
    fn kind(&self, id: Option<&str>) -> Option<(Kind, Option<String>)> {
        let rules = &self.profile.kind;
        let by_name = |name: &str| rules.rule.values.get(name).map(|kind| (kind, Some(fold(name).into_owned())));
        let by_field = self
            .cells(&rules.rule.paths)
            .find_map(|cell| [Part::Value, Part::Label].into_iter().find_map(|part| by_name(&self.part(cell, part)?)));
        let by_letters = || {
            let letters = id?.split(|c: char| !c.is_ascii_alphabetic()).next()?;
            rules.prefixes.get(letters).map(|kind| (kind, None))
        };
        by_field
            .or_else(|| by_name(self.facts.table.as_deref()?))
            .or_else(by_letters)
            .or_else(|| topic_names(&self.record.partition.topic).find_map(by_name))
    }

    fn time(&self, name: FieldName) -> Option<Timestamp> {
        let paths = self.profile.field(name).levels.first()?;
        paths.iter().find_map(|path| self.time_of(self.get(*path)?, self.profile.exported[path.0]))
    }

    fn time_of(&self, cell: &Cell<'_>, exported: bool) -> Option<Timestamp> {
        let parts = &self.profile.parts;
        match cell {
            Cell::Object(_) => parts.value.iter().chain(&parts.label).find_map(|name| {
                let member = cell.member(name)?;
                if parts.utc.contains(name) { utc(member) } else { self.time_of(member, exported) }
            }),
            Cell::List(items) => items.iter().find_map(|item| self.time_of(item, exported)),
            _ => scalar_time(cell, &self.profile.dates, exported),
        }
    }

    fn effort(&self) -> Option<u64> {
        let effort = &self.profile.effort;
        self.cells(&effort.paths).find_map(|cell| self.length(cell, effort.unit))
    }

    /// A length of time in seconds.
    fn length(&self, cell: &Cell<'_>, unit: u32) -> Option<u64> {
        match cell {
            #[expect(clippy::cast_precision_loss, reason = "effort is bounded by a century")]
            Cell::Int(number) => time::seconds(*number as f64, unit),
            Cell::Float(number) => time::seconds(*number, unit),
            Cell::Object(_) => {
                [Part::Value, Part::Label].into_iter().find_map(|part| time::duration(&self.part(cell, part)?, unit))
            }
            _ => self.part(cell, Part::Value).and_then(|text| time::duration(&text, unit)),
        }
    }

    /// Where neither number nor time is known, the envelope's time orders events, else the broker's.
    fn version(&self, updated_at: Option<Timestamp>) -> Version {
        let count = self.text(FieldName::Version).and_then(|text| whole(&text));
        let given = self.time(FieldName::VersionTime).or_else(|| {
            let by_version = if count.is_none() { self.time(FieldName::Version) } else { None };
            by_version.or(updated_at)
        });
        let time = given.map(Timestamp::as_millisecond).or(self.facts.time);
        let time = if count.is_none() { time.or(self.record.timestamp) } else { time };
        Version { count, time }
    }

    fn automated(&self) -> bool {
        self.first(&self.profile.automation, None, None) == Some(true)
    }

    fn external(&self, ticket: &Ticket, table: Option<&str>, kind: Option<Kind>) -> Option<bool> {
        let by_rules = self.first(&self.profile.external, table, kind);
        let known = ticket.requester.is_some() || ticket.requester_email.is_some() || ticket.organization.is_some();
        match self.profile.requesters_external {
            None => by_rules,
            Some(true) => by_rules.or(known.then_some(true)),
            Some(false) => by_rules.filter(|external| !external),
        }
    }

    fn worklogs(&self, deleted: bool) -> Vec<Worklog> {
        let mut found = Vec::new();
        for worklogs in &self.profile.worklogs {
            let Some(cell) = self.cells(&worklogs.list).next() else { continue };
            let items = match cell {
                Cell::List(items) => items.as_slice(),
                one => std::slice::from_ref(one),
            };
            found.extend(items.iter().filter_map(|item| self.worklog(item, worklogs, deleted)));
        }
        found
    }

    fn worklog(&self, item: &Cell<'_>, worklogs: &Worklogs, deleted: bool) -> Option<Worklog> {
        let id = members(item, &worklogs.id).find_map(|cell| self.part(cell, Part::Value))?;
        let seconds = members(item, &worklogs.seconds).find_map(|cell| self.length(cell, worklogs.unit));
        let time = members(item, &worklogs.time).find_map(|cell| self.time_of(cell, false));
        let time = time.map(Timestamp::as_millisecond);
        Some(Worklog {
            id: cut(CompactString::from(id.as_ref())),
            seconds: if deleted { 0 } else { seconds? },
            version: Version { count: None, time: self.worklog_time(time, deleted) },
        })
    }

    /// A deletion is newer than what it deletes, whose own time may be all that the event carries.
    fn worklog_time(&self, time: Option<i64>, deleted: bool) -> Option<i64> {
        let event = self.time(FieldName::VersionTime).map(Timestamp::as_millisecond);
        let event = event.or(self.facts.time).or(self.record.timestamp);
        if deleted { event.max(time.map(|time| time + 1)) } else { time.or(event) }
    }

    fn is_row(&self, row: &Row) -> bool {
        let table = self.facts.table.as_deref().map(fold);
        let by_table = table.is_some_and(|table| row.tables.iter().any(|name| *name == table));
        by_table || self.cells(&row.present).next().is_some()
    }

    /// A row of a table of worklogs: the document itself is the piece of work.
    fn row(&self, row: &Row, tickets: &mut Tickets) -> Result<Ignored, Refusal> {
        let named = |paths| self.cells(paths).find_map(|cell| self.part(cell, Part::Value)).map(CompactString::from);
        let (Some(key), Some(id)) = (named(&row.ticket), named(&row.id)) else {
            return Err(Refusal::new(Reason::Unmappable, "a piece of work without its own or its ticket's id"));
        };
        let (key, id) = (identity("ticket", key)?, identity("id", id)?);
        let time = self.cells(&row.time).find_map(|cell| self.time_of(cell, false)).map(Timestamp::as_millisecond);
        let seconds = self.cells(&row.seconds).find_map(|cell| self.length(cell, row.unit));
        let deleted = self.facts.deleted;
        let Some(seconds) = seconds.filter(|_| !deleted).or(deleted.then_some(0)) else {
            return Ok(Some("a piece of work without a length"));
        };
        let version = Version { count: None, time: self.worklog_time(time, deleted) };
        let worklogs = vec![Worklog { id, seconds, version }];
        let by_person = !self.automated();
        tickets.push(Ticket { key, worklogs, by_person, ..Ticket::default() });
        Ok(None)
    }
}

fn cut(mut text: CompactString) -> CompactString {
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

fn identity(name: &str, text: CompactString) -> Result<CompactString, Refusal> {
    if text.len() <= LONGEST {
        return Ok(text);
    }
    let detail = format!("no ticket: `{name}` has {} bytes, at most {LONGEST} are an identity", text.len());
    Err(Refusal::new(Reason::Unmappable, detail))
}

fn members<'c, 'a>(item: &'c Cell<'a>, names: &'c [String]) -> impl Iterator<Item = &'c Cell<'a>> {
    names.iter().filter_map(|name| item.member(name))
}

fn utc(cell: &Cell<'_>) -> Option<Timestamp> {
    scalar_time(cell, &Dates { zone: TimeZone::UTC, day_first: false }, false)
}

#[expect(clippy::cast_possible_truncation, reason = "a number out of range saturates, and that is no time")]
fn scalar_time(cell: &Cell<'_>, dates: &Dates, exported: bool) -> Option<Timestamp> {
    match cell {
        Cell::Int(number) => time::epoch(*number),
        Cell::Float(number) => time::epoch(*number as i64),
        Cell::Text(text) => dates.parse(text, exported),
        _ => None,
    }
}

/// The number that a text such as `3 - Moderate` begins with, else the text.
fn leading_number(text: &str) -> &str {
    let number = text.split_once(" - ").map_or(text, |(number, _)| number.trim());
    if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) { number } else { text }
}

/// A whole number that is no time since 1970.
fn whole(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// The words of a topic's or file's name, the last first, also without their plural's `s`.
fn topic_names(topic: &str) -> impl Iterator<Item = &str> {
    let name = topic.rsplit(['/', '\\']).next().unwrap_or(topic);
    name.rsplit(['.', '-']).flat_map(|word| [Some(word), word.strip_suffix('s')]).flatten()
}
