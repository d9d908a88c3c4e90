//! Packs: folders of TOML files with rules, word lists and zones, read into [`Packs`].
//!
//! Whatever is wrong with a pack is found in one run. Ids and names of lists are unique in their pack, over all its files.

use std::fs;
use std::path::{Path, PathBuf};

use hashbrown::{HashMap, HashSet};

use super::phrase::{Alternatives, Lists, parse_list};
use super::rule::{self, Rule};
use super::zone::{self, Zone};
use crate::builtin;
use crate::diagnostic::{Place, Problem, Problems, closest};
use crate::document::{self, Table, Text};

/// The folder of a pack in which its verdict tests lie.
pub const TESTS: &str = "tests";

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
    /// Path and text of each file of verdict tests, by path.
    pub tests: Vec<(String, String)>,
}

/// What packs hold, loaded.
#[derive(Clone, Debug, Default)]
pub struct Packs {
    /// All rules, by name.
    pub rules: Vec<Rule>,
    /// All zones, by name.
    pub zones: Vec<Zone>,
    /// Every word list by its full name, `pack/name`.
    pub lists: HashMap<String, Alternatives>,
}

/// Loads all sources. A pack replaces one of the same name from an earlier source as a whole.
pub fn load(sources: &[PackSource], problems: &mut Problems) -> Packs {
    read(&files(sources, problems), problems)
}

/// The unread packs of all sources. A pack replaces one of the same name from an earlier source as a whole.
pub fn files(sources: &[PackSource], problems: &mut Problems) -> Vec<PackFiles> {
    let mut packs: Vec<PackFiles> = Vec::new();
    for pack in sources.iter().flat_map(|source| files_of(source, problems)) {
        packs.retain(|held| held.name != pack.name);
        packs.push(pack);
    }
    packs
}

fn files_of(source: &PackSource, problems: &mut Problems) -> Vec<PackFiles> {
    match source {
        PackSource::BuiltIn => built_in(),
        PackSource::Folder(path) => folder(path, problems),
    }
}

fn built_in() -> Vec<PackFiles> {
    let mut packs: Vec<PackFiles> = Vec::new();
    for (name, path, text) in builtin::packs() {
        if packs.last().is_none_or(|pack| pack.name != *name) {
            packs.push(PackFiles { name: (*name).to_owned(), ..PackFiles::default() });
        }
        let is_test = Path::new(path).parent().is_some_and(|folder| folder.ends_with(TESTS));
        let Some(pack) = packs.last_mut() else { continue };
        let files = if is_test { &mut pack.tests } else { &mut pack.files };
        files.push(((*path).to_owned(), (*text).to_owned()));
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
    let tests = folder.join(TESTS);
    let tests = if tests.is_dir() { listed(&tests, problems, is_pack_file) } else { Vec::new() };
    PackFiles {
        name: name.unwrap_or_else(|| "pack".to_owned()),
        files: read_texts(&paths, problems),
        tests: read_texts(&tests, problems),
    }
}

fn read_texts(paths: &[PathBuf], problems: &mut Problems) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for path in paths {
        match fs::read_to_string(path) {
            Ok(text) => texts.push((path.display().to_string(), text)),
            Err(error) => problems.push(unreadable(path, &error)),
        }
    }
    texts
}

/// Reads packs: first all word lists, since rules of any file may name them.
pub fn read(packs: &[PackFiles], problems: &mut Problems) -> Packs {
    let parsed: Vec<(&str, Table)> = packs
        .iter()
        .flat_map(|pack| pack.files.iter().map(move |(path, text)| (pack.name.as_str(), path, text)))
        .map(|(pack, path, text)| (pack, document::parse(path, text, problems)))
        .collect();
    let mut read = Packs::default();
    let mut places = HashMap::new();
    for (pack, table) in &parsed {
        read_lists(pack, table, &mut read.lists, &mut places, problems);
    }
    for (pack, table) in &parsed {
        let lists = PackLists { pack, lists: &read.lists };
        for table in table.tables("rule", problems) {
            read.rules.extend(rule::read(pack, table, &lists, problems));
        }
        for table in table.tables("zone", problems) {
            read.zones.extend(zone::read(pack, table, &lists, problems));
        }
        table.finish(problems);
    }
    check_ids(read.rules.iter().map(|rule| (&*rule.pack, &*rule.id, &rule.place)), problems);
    check_ids(read.zones.iter().map(|zone| (&*zone.pack, &*zone.id, &zone.place)), problems);
    read.rules.sort_by_cached_key(Rule::name);
    read.rules.dedup_by_key(|rule| rule.name());
    read.zones.sort_by_cached_key(Zone::name);
    check_relations(&read.rules, problems);
    read
}

/// The lists that a pack's phrases can name: its own by name, others as `pack/name`.
struct PackLists<'a> {
    pack: &'a str,
    lists: &'a HashMap<String, Alternatives>,
}

impl Lists for PackLists<'_> {
    fn list(&self, name: &str) -> Option<Alternatives> {
        let own = || self.lists.get(&format!("{}/{name}", self.pack));
        self.lists.get(name).or_else(own).cloned()
    }
}

/// Reads the word lists of one file.
fn read_lists(
    pack: &str,
    table: &Table,
    lists: &mut HashMap<String, Alternatives>,
    places: &mut HashMap<String, Place>,
    problems: &mut Problems,
) {
    let Some(words) = table.table("words", problems) else { return };
    for (name, node) in words.entries() {
        let full = format!("{pack}/{}", name.value);
        if let Some(first) = places.insert(full.clone(), name.place.clone()) {
            problems.push(
                Problem::error("duplicate-list", &name.place, format!("the word list `{full}` is there already"))
                    .other(&first, "first written here")
                    .help("put all its words into one list, or give one of them another name"),
            );
            continue;
        }
        let is_name = is_good_id(name, problems);
        let entries = document::texts_of(node, &name.value, problems).filter(|_| is_name).unwrap_or_default();
        match parse_list(entries.iter().map(|entry| entry.value.as_str())) {
            Ok(alternatives) => {
                lists.insert(full, alternatives);
            }
            Err((at, error)) => {
                let place = entries.get(at).map_or(&name.place, |entry| &entry.place);
                let title = format!("this is no entry of a word list: {error}");
                problems.push(Problem::error("bad-phrase", place, title).help(error.help()));
            }
        }
    }
}

/// Reports every id that is taken, with both places.
fn check_ids<'a>(ids: impl Iterator<Item = (&'a str, &'a str, &'a Place)>, problems: &mut Problems) {
    let mut first: HashMap<(&str, &str), &Place> = HashMap::new();
    for (pack, id, place) in ids {
        let Some(taken) = first.insert((pack, id), place) else { continue };
        problems.push(
            Problem::error("duplicate-rule", place, format!("the id `{id}` is taken in pack `{pack}`"))
                .other(taken, "first used here")
                .help("give one of them another id, or merge the two"),
        );
    }
}

/// Reports every rule that another one needs or replaces and that is not there.
fn check_relations(rules: &[Rule], problems: &mut Problems) {
    let names: HashSet<String> = rules.iter().map(Rule::name).collect();
    let related = rules.iter().flat_map(|rule| rule.needs.iter().chain(&rule.replaces).map(move |name| (rule, name)));
    for (rule, name) in related.filter(|(_, name)| !names.contains(*name)) {
        let help = match closest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "load the pack that holds it, too; rules of other packs are named `pack/id`".to_owned(),
        };
        let title = format!("`{}` names the rule `{name}`, which is not there", rule.name());
        problems.push(Problem::error("unknown-rule", &rule.place, title).help(help));
    }
}

/// Ids become label values and parts of names: lower-case letters, digits, `-`, `_`, `.`.
pub(super) fn is_good_id(id: &Text, problems: &mut Problems) -> bool {
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
