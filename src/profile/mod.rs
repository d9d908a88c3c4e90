//! What a vendor's events look like, and how they become tickets.
//!
//! A [`Profile`] is a data file in `patterns/profiles`; a [`Decoder`] applies one to records: bytes go in, [`Ticket`]s
//! come out, or the reason why there are none.

mod atlassian;
mod file;
mod map;
mod rule;
#[cfg(test)]
mod tests;
mod time;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::diagnostic::{Place, Problem, Problems, closest};
use crate::document::{self, Table};
use crate::envelope::path::Path;
use crate::envelope::trie::{PathId, Trie};
use crate::envelope::{self, Wanted};
use crate::outcome::Refusal;
use crate::record::Record;
use crate::ticket::{Affects, Kind, State, Ticket, names};
use rule::{Names, Rule};
use time::Dates;

names! {
    /// The fields of a ticket that a profile says where to find, under `[fields]`.
    FieldName {
        /// The vendor's lasting identity.
        Key = "key",
        /// What people see.
        Id = "id",
        /// The headline.
        Summary = "summary",
        /// The body.
        Description = "description",
        /// Who wants it.
        Requester = "requester",
        /// The requester's address.
        RequesterEmail = "requester_email",
        /// The requester's organisation.
        Organization = "organization",
        /// The service.
        Service = "service",
        /// The configuration item.
        Ci = "ci",
        /// The category, in levels.
        Category = "category",
        /// The team.
        Group = "group",
        /// The priority.
        Priority = "priority",
        /// When it was opened.
        OpenedAt = "opened_at",
        /// When this version was made.
        UpdatedAt = "updated_at",
        /// When it was resolved.
        ResolvedAt = "resolved_at",
        /// How often it was re-opened.
        Reopened = "reopened",
        /// What it was merged into.
        MergedInto = "merged_into",
        /// What it continues.
        Follows = "follows",
        /// A number that each update raises, or a time.
        Version = "version",
        /// The time that orders updates, where it is not `updated_at`.
        VersionTime = "version_time",
    }
}

impl FieldName {
    /// Which part of an object the field takes where the profile does not say.
    fn part(self) -> Part {
        match self {
            Self::Requester | Self::Organization | Self::Service | Self::Ci => Part::Label,
            Self::Category | Self::Group | Self::Summary | Self::Description => Part::Label,
            _ => Part::Value,
        }
    }
}

names! {
    /// Which part of an object such as `{"display_value": …, "value": …}` is wanted.
    Part {
        /// What people read.
        Label = "label",
        /// What the system stores.
        Value = "value",
    }
}

names! {
    /// What an event of a vendor is, by its name.
    Action {
        /// A view of a ticket.
        Ticket = "ticket",
        /// Nothing about tickets.
        Ignore = "ignore",
        /// An update such as a comment: a ticket if it carries one, else ignored.
        Touch = "touch",
        /// The ticket was deleted.
        Deleted = "deleted",
        /// A piece of logged work and no view of the ticket.
        Worklog = "worklog",
        /// A piece of logged work was deleted.
        WorklogDeleted = "worklog_deleted",
    }
}

/// Where a field is found.
#[derive(Clone, Debug)]
struct Field {
    /// The levels of the field, most have one; of each level the first path that has a value counts.
    levels: Vec<Vec<PathId>>,
    part: Part,
    /// Keep only the number of `3 - Moderate`.
    leading_number: bool,
    /// The field counts only where this rule says so.
    when: Option<Rule<bool>>,
}

impl Default for Field {
    fn default() -> Self {
        Self { levels: Vec::new(), part: Part::Value, leading_number: false, when: None }
    }
}

/// The names of the members of an object that hold its parts, in order of preference.
#[derive(Clone, Debug, Default)]
struct Parts {
    label: Vec<String>,
    value: Vec<String>,
    /// Members whose times are UTC whatever the profile's time zone.
    utc: Vec<String>,
}

#[derive(Clone, Debug)]
struct KindRules {
    rule: Rule<Kind>,
    /// Kinds by the letters that an id begins with.
    prefixes: Names<Kind>,
    default: Option<Kind>,
}

/// Where the effort logged so far stands, and the seconds that a bare number of it counts for.
#[derive(Clone, Debug, Default)]
struct Effort {
    paths: Vec<PathId>,
    unit: u32,
}

/// Where single pieces of work stand, and the members of each.
#[derive(Clone, Debug)]
struct Worklogs {
    /// The object or list of objects.
    list: Vec<PathId>,
    id: Vec<String>,
    seconds: Vec<String>,
    time: Vec<String>,
    unit: u32,
}

/// Documents that are each a single piece of work, as rows of their own table.
#[derive(Clone, Debug)]
struct Row {
    tables: Vec<String>,
    /// Where the envelope names no table, a value here tells.
    present: Vec<PathId>,
    /// Where the ticket's key stands.
    ticket: Vec<PathId>,
    id: Vec<PathId>,
    seconds: Vec<PathId>,
    time: Vec<PathId>,
    unit: u32,
}

/// How one vendor's documents become tickets.
#[derive(Clone, Debug)]
pub struct Profile {
    name: String,
    paths: Vec<Path>,
    exported: Vec<bool>,
    roots: Vec<Path>,
    nulls: Vec<String>,
    fold_keys: bool,
    parts: Parts,
    dates: Dates,
    fields: Vec<Field>,
    effort: Effort,
    kind: KindRules,
    states: Vec<Rule<State>>,
    declared: Vec<Rule<Affects>>,
    external: Vec<Rule<bool>>,
    automation: Vec<Rule<bool>>,
    deleted: Vec<Rule<bool>>,
    events: Vec<Rule<Action>>,
    worklogs: Vec<Worklogs>,
    rows: Vec<Row>,
    requesters_external: Option<bool>,
}

impl Profile {
    /// Loads a profile: `NAME.toml` from the first folder that has it, else the one that is built in. `options` are
    /// the site's, from the configuration; `timezone` is the zone of times that name none, unless an option says so.
    ///
    /// # Errors
    /// Every problem of the file and of the options.
    pub fn load(
        name: &str,
        folders: &[PathBuf],
        options: Option<&Table>,
        timezone: Option<&str>,
    ) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let Some((path, text)) = find(name, folders, &mut problems) else { return Err(problems) };
        let table = document::parse(&path, &text, &mut problems);
        let profile = file::read(name, &table, options, timezone, &mut problems);
        problems.into_result(profile)
    }

    /// The names of all profiles that can be loaded, in order.
    pub fn names(folders: &[PathBuf]) -> Vec<String> {
        let files = folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten().flatten().map(|e| e.path());
        let own = files.filter(|path| path.extension().is_some_and(|e| e == "toml"));
        let own = own.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        let mut names: Vec<String> =
            crate::builtin::profiles().iter().map(|(path, _)| stem(path).to_owned()).chain(own).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The problem that there is no profile of this name.
    pub fn unknown(name: &str, folders: &[PathBuf], place: &Place) -> Problem {
        let names = Self::names(folders);
        let help = closest(name, names.iter().map(String::as_str))
            .map_or_else(|| format!("there are: {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
        Problem::error("unknown-profile", place, format!("there is no profile `{name}`")).help(help)
    }

    /// The profile's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn field(&self, name: FieldName) -> &Field {
        &self.fields[name as usize]
    }
}

/// The path and text of a profile's file.
fn find(name: &str, folders: &[PathBuf], problems: &mut Problems) -> Option<(String, String)> {
    for folder in folders {
        let path = folder.join(format!("{name}.toml"));
        match std::fs::read_to_string(&path) {
            Ok(text) => return Some((path.display().to_string(), text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let place = Place::Named(path.display().to_string());
                problems.push(Problem::error("unreadable", &place, error.to_string()));
                return None;
            }
        }
    }
    let built_in = crate::builtin::profiles().iter().find(|(path, _)| stem(path) == name);
    if built_in.is_none() {
        problems.push(Profile::unknown(name, folders, &Place::Named("profile".to_owned())));
    }
    built_in.map(|(path, text)| (format!("built in: {path}"), (*text).to_owned()))
}
fn stem(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path).trim_end_matches(".toml")
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every record holds exactly one ticket: no allocation for it")]
pub enum Decoded {
    /// Tickets, or parts of tickets; most records hold one.
    Tickets(SmallVec<[Ticket; 1]>),
    /// None, by design; why.
    Ignored(&'static str),
}

/// A profile at work. Used by many threads at a time.
#[derive(Debug)]
pub struct Decoder {
    profile: Profile,
    wanted: Wanted,
}

impl Decoder {
    /// A decoder of a profile.
    pub fn new(profile: Profile) -> Self {
        let trie = Trie::new(&profile.paths, &profile.roots, profile.fold_keys);
        let identity = [FieldName::Key, FieldName::Id].map(|name| profile.field(name).levels.concat()).concat();
        Self { profile, wanted: Wanted { trie, identity } }
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The tickets in a record.
    ///
    /// # Errors
    /// When the record cannot be taken; the whole of it is refused then, also if it holds other, sound tickets.
    pub fn decode(&self, record: &Record) -> Result<Decoded, Refusal> {
        let mut tickets = map::Tickets::new();
        let mut ignored = None;
        let why = envelope::open(record, &self.wanted, &mut |document, facts| {
            let view = map::View { profile: &self.profile, trie: &self.wanted.trie, document, facts, record };
            ignored = view.ticket(&mut tickets)?.or(ignored);
            Ok(())
        })?;
        match ignored.or(why) {
            Some(why) if tickets.is_empty() => Ok(Decoded::Ignored(why)),
            _ => Ok(Decoded::Tickets(tickets)),
        }
    }
}
