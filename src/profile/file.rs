//! A profile's file as people write it, read into a [`Profile`] with every problem at its place.
//!
//! A path is `fields.status.name`, relative to the first of `roots` that a document has; `$.name` begins at the top;
//! `'Assignment group'` is the heading of a column in an export; `{option}` is filled in from the profile's options, and
//! a path whose option is not set is left out.

use hashbrown::HashMap;
use jiff::tz::TimeZone;

use super::rule::{Names, Rule};
use super::time::Dates;
use super::{Action, Effort, Field, FieldName, KindRules, Part, Parts, Profile, Row, Worklogs};
use crate::diagnostic::{Place, Problem, Problems, closest};
use crate::document::{Node, Table, Text, Value, text_of};
use crate::envelope::path::{Path, fold};
use crate::envelope::trie::PathId;
use crate::ticket::{Affects, Kind, State};

/// The options that every profile has.
const COMMON_OPTIONS: [&str; 8] = [
    "automation_users",
    "date_order",
    "declared_field",
    "declared_values",
    "kind",
    "requesters_external",
    "states",
    "timezone",
];

/// Each root takes a bit in a document and a column in the table of paths; vendors have up to three.
const MAX_ROOTS: usize = 16;

/// A value that a table of names can give.
trait Meaning: Copy {
    fn read(node: &Node, problems: &mut Problems) -> Option<Self>;
    /// What being on a plain list of names means.
    const LISTED: Option<Self> = None;
}

impl Meaning for bool {
    const LISTED: Option<Self> = Some(true);

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Bool(yes) => Some(yes),
            _ => wrong(node, "true or false", &["true", "false"], problems),
        }
    }
}

macro_rules! meanings {
    ($($name:ident),+) => { $(impl Meaning for $name {
        fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
            let name = match &node.value { Value::Text(name) => name.as_str(), _ => "" };
            Self::from_name(name).or_else(|| wrong(node, "one of the known names", Self::NAMES, problems))
        }
    })+ };
}
meanings!(Kind, State, Affects, Action, Part);

fn wrong<T>(node: &Node, what: &str, known: &[&str], problems: &mut Problems) -> Option<T> {
    let word = match &node.value {
        Value::Text(text) => format!("`{text}`"),
        other => other.type_name().to_owned(),
    };
    let near = match &node.value {
        Value::Text(text) => closest(text, known.iter().copied()),
        _ => None,
    };
    let help =
        near.map_or_else(|| format!("known here: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
    problems.push(Problem::error("unknown-value", &node.place, format!("{word} is not {what}")).help(help));
    None
}

/// What the options say, beside those that fill in paths.
#[derive(Default)]
struct Settings {
    fill: HashMap<String, String>,
    declared: HashMap<String, Option<String>>,
    automation_users: Vec<String>,
    declared_values: Option<Names<Affects>>,
    kind: Option<Kind>,
    requesters_external: Option<bool>,
    day_first: Option<bool>,
    states: Names<State>,
    state_tables: Vec<(String, Names<State>)>,
    zone: Option<TimeZone>,
}

/// Reads a profile from the table of its file and the options from the configuration.
pub fn read(
    name: &str,
    table: &Table,
    options: Option<&Table>,
    timezone: Option<&str>,
    problems: &mut Problems,
) -> Profile {
    let mut reader = Reader { problems, settings: Settings::default(), paths: Vec::new(), exported: Vec::new() };
    reader.declare_options(table);
    reader.options(options);
    reader.zone(timezone);
    let profile = reader.profile(name, table);
    table.finish(problems);
    profile
}

struct Reader<'p> {
    problems: &'p mut Problems,
    settings: Settings,
    paths: Vec<Path>,
    exported: Vec<bool>,
}

impl Reader<'_> {
    fn profile(&mut self, name: &str, table: &Table) -> Profile {
        let _about = table.text("about", self.problems);
        let roots = table.texts("roots", self.problems).unwrap_or_default();
        self.check_roots(&roots);
        let roots = roots.iter().take(MAX_ROOTS).filter_map(|root| self.parse_path(root)).collect();
        let nulls = table.texts("nulls", self.problems).unwrap_or_default();
        let fields = self.fields(table);
        let kind = self.kind(table);
        let mut automation = self.rules(table, "automation");
        self.add_automation(&mut automation);
        Profile {
            name: name.to_owned(),
            roots,
            nulls: nulls.into_iter().map(|text| text.value).collect(),
            fold_keys: table.bool("fold_keys", self.problems).unwrap_or(false),
            parts: self.parts(table),
            dates: self.dates(table),
            effort: self.effort(table),
            states: self.states(table),
            declared: self.declared(table),
            external: self.rules(table, "external"),
            deleted: self.rules(table, "deleted"),
            events: self.rules(table, "events"),
            worklogs: self.tables(table, "worklog", Self::worklog),
            rows: self.tables(table, "row", Self::row),
            requesters_external: self.settings.requesters_external,
            automation,
            fields,
            kind,
            paths: std::mem::take(&mut self.paths),
            exported: std::mem::take(&mut self.exported),
        }
    }

    fn check_roots(&mut self, roots: &[Text]) {
        if let Some(root) = roots.get(MAX_ROOTS) {
            let title = format!("there are {} roots; the limit is {MAX_ROOTS}", roots.len());
            self.problems.push(Problem::error("too-many", &root.place, title));
        }
    }

    /// `[options]`: what each is for, or a table with `help` and `default`.
    fn declare_options(&mut self, table: &Table) {
        let Some(options) = table.table("options", self.problems) else { return };
        for (key, node) in options.entries() {
            let default = match &node.value {
                Value::Table(option) => {
                    let _help = option.text("help", self.problems);
                    let default = option.get("default").and_then(scalar);
                    option.finish(self.problems);
                    default
                }
                _ => text_of(node, "help", self.problems).and(None),
            };
            self.settings.declared.insert(key.value.clone(), default);
        }
    }

    fn options(&mut self, options: Option<&Table>) {
        let Some(options) = options else { return };
        for (key, node) in options.entries() {
            if self.settings.declared.contains_key(&key.value) {
                self.fill(key, node);
            } else if COMMON_OPTIONS.contains(&key.value.as_str()) {
                self.common_option(&key.value, node);
            } else {
                self.unknown_option(key);
            }
        }
    }

    fn fill(&mut self, key: &Text, node: &Node) {
        match scalar(node) {
            Some(text) => {
                self.settings.fill.insert(key.value.clone(), text);
            }
            None => {
                let title =
                    format!("`{}` must be text or a whole number, but is {}", key.value, node.value.type_name());
                self.problems.push(Problem::error("wrong-type", &node.place, title));
            }
        }
    }

    fn unknown_option(&mut self, key: &Text) {
        let declared = self.settings.declared.keys().map(String::as_str);
        let mut known: Vec<&str> = declared.chain(COMMON_OPTIONS).collect();
        known.sort_unstable();
        let help = closest(&key.value, known.iter().copied())
            .map_or_else(|| format!("known here: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
        let title = format!("unknown option `{}` of the profile", key.value);
        self.problems.push(Problem::error("unknown-key", &key.place, title).help(help));
    }

    fn common_option(&mut self, name: &str, node: &Node) {
        match name {
            "automation_users" => self.settings.automation_users = self.listed(node, name),
            "declared_field" => {
                if let Some(text) = text_of(node, name, self.problems) {
                    self.settings.fill.insert(name.to_owned(), text.value);
                }
            }
            "declared_values" => self.settings.declared_values = Some(self.names(node)),
            "kind" => self.settings.kind = Kind::read(node, self.problems),
            "requesters_external" => self.settings.requesters_external = bool::read(node, self.problems),
            "states" => self.state_options(node),
            "timezone" => {
                if let Some(text) = text_of(node, name, self.problems) {
                    self.settings.zone = self.find_zone(&text.value, &text.place);
                }
            }
            _ => self.settings.day_first = self.day_first(node),
        }
    }

    /// `states`: a state for each value, or for each table a table of them.
    fn state_options(&mut self, node: &Node) {
        let Value::Table(table) = &node.value else {
            wrong::<()>(node, "a table of states", State::NAMES, self.problems);
            return;
        };
        for (key, node) in table.entries() {
            if matches!(node.value, Value::Table(_)) {
                let names = self.names(node);
                self.settings.state_tables.push((fold(&key.value).into_owned(), names));
            } else if let Some(state) = State::read(node, self.problems) {
                self.settings.states.insert(&key.value, state);
            }
        }
    }

    fn day_first(&mut self, node: &Node) -> Option<bool> {
        let known = ["day-first", "month-first"];
        match &node.value {
            Value::Text(text) if text == known[0] => Some(true),
            Value::Text(text) if text == known[1] => Some(false),
            _ => wrong(node, "an order of day and month", &known, self.problems),
        }
    }

    fn zone(&mut self, timezone: Option<&str>) {
        if let (None, Some(name)) = (&self.settings.zone, timezone) {
            self.settings.zone = self.find_zone(name, &Place::Named("timezone".to_owned()));
        }
    }

    fn find_zone(&mut self, name: &str, place: &Place) -> Option<TimeZone> {
        let zone = TimeZone::get(name).ok();
        if zone.is_none() {
            let title = format!("`{name}` is no known time zone");
            let help = "write a name of the IANA database, such as `Europe/Berlin` or `UTC`";
            self.problems.push(Problem::error("unknown-value", place, title).help(help));
        }
        zone
    }

    fn dates(&mut self, table: &Table) -> Dates {
        let by_file = table.get("date_order").and_then(|node| self.day_first(node));
        let day_first = self.settings.day_first.or(by_file).unwrap_or(true);
        Dates { zone: self.settings.zone.clone().unwrap_or(TimeZone::UTC), day_first }
    }

    fn parts(&mut self, table: &Table) -> Parts {
        let Some(objects) = table.table("objects", self.problems) else { return Parts::default() };
        let mut list = |key| -> Vec<String> {
            let texts = objects.texts(key, self.problems).unwrap_or_default();
            texts.into_iter().map(|text| text.value).collect()
        };
        let parts = Parts { label: list("label"), value: list("value"), utc: list("utc") };
        objects.finish(self.problems);
        parts
    }

    fn fields(&mut self, table: &Table) -> Vec<Field> {
        let Some(fields) = table.table("fields", self.problems) else {
            self.problems.push(
                Problem::error("missing-key", &table.place, "`[fields]` is missing")
                    .help("add a table `[fields]` with at least `id = \"…\"`"),
            );
            return FieldName::ALL.iter().map(|_| Field::default()).collect();
        };
        let all = FieldName::ALL.iter().map(|name| self.field(*name, fields)).collect();
        if fields.get("id").is_none() && fields.get("key").is_none() {
            let title = "`id` is missing";
            self.problems
                .push(Problem::error("missing-key", &fields.place, title).help("say where a ticket's id stands"));
        }
        fields.finish(self.problems);
        all
    }

    fn field(&mut self, name: FieldName, fields: &Table) -> Field {
        let mut field = Field { part: name.part(), ..Field::default() };
        let Some(node) = fields.get(name.as_str()) else { return field };
        let Value::Table(table) = &node.value else {
            field.levels = vec![self.path_list(node)];
            return field;
        };
        field.levels = match table.get("levels").map(|node| &node.value) {
            Some(Value::Array(levels)) => levels.iter().map(|level| self.path_list(level)).collect(),
            Some(_) => Vec::new(),
            None => vec![self.paths_at(table, "paths")],
        };
        if let Some(part) = table.get("part").and_then(|node| Part::read(node, self.problems)) {
            field.part = part;
        }
        field.leading_number = table.bool("leading_number", self.problems).unwrap_or(false);
        field.when = table.table("when", self.problems).map(|when| self.rule(when));
        table.finish(self.problems);
        field
    }

    fn kind(&mut self, table: &Table) -> KindRules {
        let empty = || Table::empty("kind");
        let kinds = table.table("kind", self.problems).cloned().unwrap_or_else(empty);
        let prefixes = kinds.get("prefixes").map(|node| self.names(node)).unwrap_or_default();
        let by_file = kinds.get("default").and_then(|node| Kind::read(node, self.problems));
        KindRules { prefixes, default: self.settings.kind.or(by_file), rule: self.rule(&kinds) }
    }

    fn effort(&mut self, table: &Table) -> Effort {
        let Some(effort) = table.table("effort", self.problems) else { return Effort::default() };
        let effort_rule = Effort { paths: self.paths_at(effort, "paths"), unit: self.unit(effort) };
        effort.finish(self.problems);
        effort_rule
    }

    /// How many seconds a bare number counts for.
    fn unit(&mut self, table: &Table) -> u32 {
        let Some(node) = table.get("unit") else { return 1 };
        match &node.value {
            Value::Text(unit) if unit == "seconds" => 1,
            Value::Text(unit) if unit == "minutes" => 60,
            Value::Text(unit) if unit == "hours" => 3600,
            _ => wrong(node, "a unit of time", &["seconds", "minutes", "hours"], self.problems).unwrap_or(1),
        }
    }

    /// The site's own states come before those of the file.
    fn states(&mut self, table: &Table) -> Vec<Rule<State>> {
        let mut rules: Vec<Rule<State>> = self.rules(table, "state");
        let site = Rule {
            paths: rules.iter().flat_map(|rule| rule.paths.iter().copied()).collect(),
            values: std::mem::take(&mut self.settings.states),
            tables: std::mem::take(&mut self.settings.state_tables),
            present: None,
            kinds: Vec::new(),
            unless: Vec::new(),
        };
        if !(site.values.is_empty() && site.tables.is_empty()) {
            rules.insert(0, site);
        }
        rules
    }

    fn declared(&mut self, table: &Table) -> Vec<Rule<Affects>> {
        let mut rules: Vec<Rule<Affects>> = self.rules(table, "declared");
        if let Some(values) = self.settings.declared_values.take() {
            rules.iter_mut().for_each(|rule| rule.values = values.clone());
        }
        rules
    }

    fn add_automation(&self, rules: &mut [Rule<bool>]) {
        if let Some(rule) = rules.first_mut() {
            self.settings.automation_users.iter().for_each(|user| rule.values.insert(user, true));
        }
    }

    fn worklog(&mut self, table: &Table) -> Worklogs {
        let mut members = |key| -> Vec<String> {
            let texts = table.texts(key, self.problems).unwrap_or_default();
            texts.into_iter().map(|text| text.value).collect()
        };
        let (id, seconds, time) = (members("id"), members("seconds"), members("time"));
        let worklogs = Worklogs { id, seconds, time, list: self.paths_at(table, "list"), unit: self.unit(table) };
        table.finish(self.problems);
        worklogs
    }

    fn row(&mut self, table: &Table) -> Row {
        let tables = table.texts("tables", self.problems).unwrap_or_default();
        let row = Row {
            tables: tables.iter().map(|text| fold(&text.value).into_owned()).collect(),
            present: self.paths_at(table, "present"),
            ticket: self.paths_at(table, "ticket"),
            id: self.paths_at(table, "id"),
            seconds: self.paths_at(table, "seconds"),
            time: self.paths_at(table, "time"),
            unit: self.unit(table),
        };
        table.finish(self.problems);
        row
    }

    fn rules<T: Meaning>(&mut self, table: &Table, key: &'static str) -> Vec<Rule<T>> {
        self.tables(table, key, Self::rule)
    }

    fn tables<T>(&mut self, table: &Table, key: &'static str, read: fn(&mut Self, &Table) -> T) -> Vec<T> {
        table.tables(key, self.problems).into_iter().map(|table| read(self, table)).collect()
    }

    fn rule<T: Meaning>(&mut self, table: &Table) -> Rule<T> {
        let tables = match table.table("tables", self.problems) {
            Some(tables) => {
                tables.entries().map(|(key, node)| (fold(&key.value).into_owned(), self.names(node))).collect()
            }
            None => Vec::new(),
        };
        let kinds = match table.get("kinds").map(|node| &node.value) {
            Some(Value::Array(kinds)) => kinds.iter().filter_map(|kind| Kind::read(kind, self.problems)).collect(),
            _ => Vec::new(),
        };
        let rule = Rule {
            paths: self.paths_at(table, "paths"),
            values: table.get("values").map(|node| self.names(node)).unwrap_or_default(),
            tables,
            present: table.get("present").and_then(|node| T::read(node, self.problems)),
            kinds,
            unless: self.paths_at(table, "unless"),
        };
        table.finish(self.problems);
        rule
    }

    /// A table of names and meanings, or a list of names where being listed has a meaning.
    fn names<T: Meaning>(&mut self, node: &Node) -> Names<T> {
        let mut names = Names::default();
        match (&node.value, T::LISTED) {
            (Value::Table(table), _) => {
                for (key, node) in table.entries() {
                    if let Some(meaning) = T::read(node, self.problems) {
                        names.insert(&key.value, meaning);
                    }
                }
            }
            (Value::Array(_), Some(listed)) => {
                self.listed(node, "values").iter().for_each(|name| names.insert(name, listed));
            }
            _ => {
                wrong::<()>(node, "a table of names", &["{ name = … }"], self.problems);
            }
        }
        names
    }

    fn listed(&mut self, node: &Node, key: &str) -> Vec<String> {
        let texts: Vec<Text> = match &node.value {
            Value::Array(items) => items.iter().filter_map(|item| text_of(item, key, self.problems)).collect(),
            _ => text_of(node, key, self.problems).into_iter().collect(),
        };
        texts.into_iter().map(|text| text.value).collect()
    }

    fn paths_at(&mut self, table: &Table, key: &'static str) -> Vec<PathId> {
        table.get(key).map(|node| self.path_list(node)).unwrap_or_default()
    }

    fn path_list(&mut self, node: &Node) -> Vec<PathId> {
        let texts: Vec<Text> = match &node.value {
            Value::Array(items) => items.iter().filter_map(|item| text_of(item, "path", self.problems)).collect(),
            _ => text_of(node, "path", self.problems).into_iter().collect(),
        };
        texts.iter().filter_map(|text| self.path(text)).collect()
    }

    fn path(&mut self, text: &Text) -> Option<PathId> {
        let heading = text.value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        let path = match heading {
            Some(heading) => Path::column(heading),
            None => self.parse_path(text)?,
        };
        self.paths.push(path);
        self.exported.push(heading.is_some());
        Some(PathId(self.paths.len() - 1))
    }

    fn parse_path(&mut self, text: &Text) -> Option<Path> {
        let filled = self.filled(text)?;
        let path = Path::parse(&filled);
        if path.is_none() {
            self.problems.push(
                Problem::error("bad-path", &text.place, format!("`{}` is no path", text.value)).help(
                    "write keys with dots between them, `name[key=value]` to select, or `'Heading'` for a column",
                ),
            );
        }
        path
    }

    /// The text with its options filled in; `None` if one is not set (or not declared, which is a problem).
    fn filled(&mut self, text: &Text) -> Option<String> {
        let mut filled = text.value.clone();
        while let Some((before, rest)) = filled.split_once('{') {
            let (name, after) = rest.split_once('}').unwrap_or((rest, ""));
            let value = match (self.settings.fill.get(name), self.settings.declared.get(name)) {
                (Some(value), _) | (None, Some(Some(value))) => value.replace(['{', '}'], ""),
                (None, Some(None)) => return None,
                (None, None) if COMMON_OPTIONS.contains(&name) => return None,
                (None, None) => {
                    let title = format!("`{name}` is not declared in `[options]`");
                    self.problems.push(Problem::error("unknown-option", &text.place, title));
                    return None;
                }
            };
            filled = format!("{before}{value}{after}");
        }
        Some(filled)
    }
}

/// A text or whole number as text.
fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}
