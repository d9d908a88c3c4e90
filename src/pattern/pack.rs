//! Packs: folders of TOML files with rules, read into [`Rule`]s whose phrases are spelt out and whose regexes compile.
//!
//! Whatever is wrong with a pack is found in one run. A rule's id is unique in its pack, over all files of it.

use std::fs;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;

use super::phrase::{self, Phrase};
use super::regex::{GatedRegex, RegexError};
use super::when::{Condition, Key};
use crate::builtin;
use crate::diagnostic::{Place, Problem, Problems, closest};
use crate::document::{self, Table, Text};
use crate::ticket::{Affects, Kind, State, TextField};
use crate::verdict::{Findings, Points};

/// A weight beyond this would outvote everything else for ever; it keeps sums far from overflow.
const MAX_WEIGHT: f64 = 1000.0;

/// Where packs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackSource {
    /// Those in the binary.
    BuiltIn,
    /// A folder that is a pack (holds `*.toml`) or holds packs; or one file of a pack, under its folder's name.
    Folder(PathBuf),
}

/// The files of one pack, unread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackFiles {
    /// The pack's name: that of its folder.
    pub name: String,
    /// Path and text of each file, by path.
    pub files: Vec<(String, String)>,
}

/// A rule as loaded.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The name of its pack.
    pub pack: String,
    /// Its id in the pack.
    pub id: String,
    /// Where it stands.
    pub place: Place,
    /// The side it speaks for; `None` where it only swallows shorter matches.
    pub affects: Option<Affects>,
    /// How strongly, in hundredths of a point; 0 where it speaks for neither side.
    pub weight: Points,
    /// The fields it looks at, as bits of [`Findings::bit`].
    pub fields: u8,
    /// What it looks for, in the phrase language.
    pub phrases: Vec<WrittenPhrase>,
    /// What it looks for by regex.
    pub regexes: Vec<WrittenRegex>,
    /// What cancels it in the same field.
    pub unless: Vec<WrittenPhrase>,
    /// What must hold of the ticket.
    pub when: Vec<Condition>,
    /// Texts in which it must count.
    pub examples: Vec<Text>,
    /// Texts in which it must not.
    pub counter_examples: Vec<Text>,
}

/// A phrase with its place.
#[derive(Clone, Debug)]
pub struct WrittenPhrase {
    /// As written.
    pub text: Text,
    /// As spelt out.
    pub phrase: Phrase,
}

/// A regex with its place.
#[derive(Clone, Debug)]
pub struct WrittenRegex {
    /// As written.
    pub text: Text,
    /// As compiled.
    pub regex: GatedRegex,
}

impl Rule {
    /// The name under which it is shown: `pack/id`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.pack, self.id)
    }

    /// The weight with its sign: above 0 for the customer.
    pub fn points(&self) -> Points {
        match self.affects {
            Some(Affects::Customer) => self.weight,
            Some(Affects::Internal) => -self.weight,
            None => 0,
        }
    }
}

/// Loads the rules of all sources. A pack replaces one of the same name from an earlier source as a whole.
pub fn load(sources: &[PackSource], problems: &mut Problems) -> Vec<Rule> {
    let mut packs: Vec<PackFiles> = Vec::new();
    for pack in sources.iter().flat_map(|source| files(source, problems)) {
        packs.retain(|held| held.name != pack.name);
        packs.push(pack);
    }
    packs.iter().flat_map(|pack| read(pack, problems)).collect()
}

/// The unread packs of one source.
pub fn files(source: &PackSource, problems: &mut Problems) -> Vec<PackFiles> {
    match source {
        PackSource::BuiltIn => built_in(),
        PackSource::Folder(path) => folder(path, problems),
    }
}

fn built_in() -> Vec<PackFiles> {
    let mut packs: Vec<PackFiles> = Vec::new();
    for (name, path, text) in builtin::packs() {
        let file = ((*path).to_owned(), (*text).to_owned());
        match packs.iter_mut().find(|pack| pack.name == *name) {
            Some(pack) => pack.files.push(file),
            None => packs.push(PackFiles { name: (*name).to_owned(), files: vec![file] }),
        }
    }
    packs
}

fn folder(path: &Path, problems: &mut Problems) -> Vec<PackFiles> {
    if path.is_file() {
        let folder = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
        return vec![read_files(folder.as_deref().unwrap_or(path), vec![path.to_owned()], problems)];
    }
    let own = listed(path, problems, is_pack_file);
    if !own.is_empty() {
        return vec![read_files(path, own, problems)];
    }
    let mut packs = Vec::new();
    for folder in listed(path, problems, |path| path.is_dir()) {
        let files = listed(&folder, problems, is_pack_file);
        if !files.is_empty() {
            packs.push(read_files(&folder, files, problems));
        }
    }
    if packs.is_empty() && path.is_dir() {
        let place = Place::Named(path.display().to_string());
        problems.push(
            Problem::error("no-pack", &place, "this folder holds no pack")
                .help("a pack is a folder with `*.toml` files; name it, or the folder above it"),
        );
    }
    packs
}

fn is_pack_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml") && path.is_file()
}

/// The wanted entries of a folder, by name, so that nothing depends on the file system's order.
fn listed(folder: &Path, problems: &mut Problems, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            paths.retain(|path| wanted(path));
            paths.sort();
            paths
        }
        Err(error) => {
            problems.push(unreadable(folder, &error));
            Vec::new()
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::error("unreadable", &Place::Named(path.display().to_string()), format!("cannot be read: {error}"))
}

fn read_files(folder: &Path, paths: Vec<PathBuf>, problems: &mut Problems) -> PackFiles {
    let name = folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let mut files = Vec::new();
    for path in paths {
        match fs::read_to_string(&path) {
            Ok(text) => files.push((path.display().to_string(), text)),
            Err(error) => problems.push(unreadable(&path, &error)),
        }
    }
    PackFiles { name: name.unwrap_or_else(|| "pack".to_owned()), files }
}

/// Reads the rules of one pack.
pub fn read(pack: &PackFiles, problems: &mut Problems) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (path, text) in &pack.files {
        let table = document::parse(path, text, problems);
        for rule in table.tables("rule", problems) {
            rules.extend(read_rule(&pack.name, rule, problems));
        }
        table.finish(problems);
    }
    without_repeated_ids(rules, problems)
}

/// Reports every id that is taken, with both places, and keeps the first rule of each.
fn without_repeated_ids(rules: Vec<Rule>, problems: &mut Problems) -> Vec<Rule> {
    let mut first: HashMap<String, Place> = HashMap::new();
    let mut kept = Vec::new();
    for rule in rules {
        if let Some(place) = first.get(&rule.id) {
            let title = format!("the id `{}` is taken in pack `{}`", rule.id, rule.pack);
            problems.push(
                Problem::error("duplicate-rule", &rule.place, title)
                    .other(place, "first used here")
                    .help("give one of them another id, or merge the two rules"),
            );
            continue;
        }
        first.insert(rule.id.clone(), rule.place.clone());
        kept.push(rule);
    }
    kept
}

/// Reads one rule; one without a usable id is reported and left out.
fn read_rule(pack: &str, table: &Table, problems: &mut Problems) -> Option<Rule> {
    let id = table.required_text("id", problems).filter(|id| is_good_id(id, problems));
    let affects = read_affects(table, problems);
    let weight = read_weight(table, matches!(affects, Some(None)), problems);
    let rule = Rule {
        pack: pack.to_owned(),
        id: id.as_ref().map(|id| id.value.clone()).unwrap_or_default(),
        place: id.as_ref().map_or_else(|| table.place.clone(), |id| id.place.clone()),
        affects: affects.flatten(),
        weight,
        fields: read_fields(table, problems),
        phrases: read_phrases(table, "phrases", problems),
        regexes: read_regexes(table, problems),
        unless: read_phrases(table, "unless", problems),
        when: read_when(table, problems),
        examples: table.texts("examples", problems).unwrap_or_default(),
        counter_examples: table.texts("counter_examples", problems).unwrap_or_default(),
    };
    if table.get("phrases").is_none() && table.get("regex").is_none() {
        problems.push(
            Problem::error("missing-key", &rule.place, "the rule looks for nothing")
                .help("add `phrases = [\"…\"]`, or `regex` for the few things that phrases cannot say"),
        );
    }
    table.finish(problems);
    id.map(|_| rule)
}

/// Ids become label values and parts of names: lower-case letters, digits, `-`, `_`, `.`.
fn is_good_id(id: &Text, problems: &mut Problems) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let is_good = !id.value.is_empty() && id.value.chars().all(good);
    if !is_good {
        problems.push(
            Problem::error("bad-id", &id.place, format!("`{}` is not an id", id.value))
                .help("ids consist of lower-case letters, digits, `-`, `_` and `.`, as in `checkout-failure`"),
        );
    }
    is_good
}

/// The side of a rule; the outer `None` where it is missing or wrong.
fn read_affects(table: &Table, problems: &mut Problems) -> Option<Option<Affects>> {
    let text = table.required_text("affects", problems)?;
    match (text.value.as_str(), Affects::from_name(&text.value)) {
        ("none", _) => Some(None),
        (_, Some(side)) => Some(Some(side)),
        _ => {
            let known = Affects::NAMES.iter().copied().chain(["none"]);
            problems.push(unknown_value("affects", &text, known));
            None
        }
    }
}

fn unknown_value(key: &str, text: &Text, known: impl Iterator<Item = &'static str> + Clone) -> Problem {
    let help = match closest(&text.value, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Problem::error("unknown-value", &text.place, format!("`{}` is no value of `{key}`", text.value)).help(help)
}

/// The weight in hundredths; 0 where there is none.
fn read_weight(table: &Table, is_none: bool, problems: &mut Problems) -> Points {
    let Some(node) = table.get("weight") else {
        if !is_none {
            problems.push(
                Problem::error("missing-key", &table.place, "`weight` is missing")
                    .help("add `weight = 3`: 1 is a hint, 5 decides"),
            );
        }
        return 0;
    };
    if is_none {
        let title = "a rule with `affects = \"none\"` weighs nothing";
        problems.push(Problem::warning("useless-weight", &node.place, title).help("remove `weight`"));
        return 0;
    }
    let Some(number) = table.number("weight", problems) else { return 0 };
    points(number).unwrap_or_else(|| {
        let title = format!("`weight` is {number}; it must lie between 0.01 and {MAX_WEIGHT}");
        problems.push(
            Problem::error("out-of-range", &node.place, title)
                .help("weights are above 0; `affects` says for which side they count"),
        );
        0
    })
}

/// A weight as points, if it lies within the bounds.
pub(crate) fn points(number: f64) -> Option<Points> {
    #[expect(clippy::cast_possible_truncation, reason = "checked against the bounds")]
    (0.01..=MAX_WEIGHT).contains(&number).then(|| (number * 100.0).round() as Points)
}

fn read_fields(table: &Table, problems: &mut Problems) -> u8 {
    let Some(names) = table.texts("fields", problems) else {
        return Findings::bit(TextField::Summary) | Findings::bit(TextField::Description);
    };
    names.iter().fold(0, |fields, name| match TextField::from_name(&name.value) {
        Some(field) => fields | Findings::bit(field),
        None => {
            problems.push(unknown_value("fields", name, TextField::NAMES.iter().copied()));
            fields
        }
    })
}

fn read_phrases(table: &Table, key: &'static str, problems: &mut Problems) -> Vec<WrittenPhrase> {
    let mut phrases = Vec::new();
    for text in table.texts(key, problems).unwrap_or_default() {
        match phrase::parse(&text.value) {
            Ok(phrase) => phrases.push(WrittenPhrase { text, phrase }),
            Err(error) => {
                let title = format!("this is no phrase: {error}");
                problems.push(Problem::error("bad-phrase", &text.place, title).help(error.help()));
            }
        }
    }
    phrases
}

fn read_regexes(table: &Table, problems: &mut Problems) -> Vec<WrittenRegex> {
    let mut regexes = Vec::new();
    for text in table.texts("regex", problems).unwrap_or_default() {
        match GatedRegex::new(&text.value) {
            Ok(regex) => regexes.push(WrittenRegex { text, regex }),
            Err(error) => problems.push(regex_problem(&text, &error)),
        }
    }
    regexes
}

fn regex_problem(text: &Text, error: &RegexError) -> Problem {
    match error {
        RegexError::WithoutLiteral => {
            let title = "this regex has no text that every match must contain";
            Problem::error("regex-without-literal", &text.place, title)
                .help("it would run on every ticket; add a word or a rare sign that is always there, or write phrases")
        }
        RegexError::Syntax(message) => Problem::error("bad-regex", &text.place, format!("this is no regex: {message}"))
            .help("the syntax is that of https://docs.rs/regex; write it in single quotes"),
        RegexError::Size(message) => {
            Problem::error("bad-regex", &text.place, format!("this regex cannot be compiled: {message}"))
                .help("use smaller repetition counts, or ASCII classes such as [0-9]")
        }
    }
}

fn read_when(table: &Table, problems: &mut Problems) -> Vec<Condition> {
    let Some(when) = table.table("when", problems) else { return Vec::new() };
    let mut conditions = Vec::new();
    for (key, name) in Key::ALL.iter().zip(Key::NAMES) {
        let Some(values) = when.texts(name, problems) else { continue };
        values.iter().for_each(|value| check_value(*key, value, problems));
        if values.is_empty() {
            let title = format!("`{name}` accepts nothing, so the rule never counts");
            problems.push(Problem::error("empty-condition", &when.place, title).help("list at least one value"));
        }
        conditions.push(Condition::new(*key, values.into_iter().map(|value| value.value).collect()));
    }
    when.finish(problems);
    conditions
}

/// Kinds and states are closed sets, so a value outside is a mistake.
fn check_value(key: Key, value: &Text, problems: &mut Problems) {
    let known = match key {
        Key::Kind => Kind::NAMES,
        Key::State => State::NAMES,
        _ => return,
    };
    let folded = value.value.trim().to_lowercase();
    if !known.contains(&folded.as_str()) {
        problems.push(unknown_value(key.as_str(), value, known.iter().copied()));
    }
}
