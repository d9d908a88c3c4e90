//! The configuration: one TOML file, overridden by environment variables, overridden by `--set`.
//!
//! Every problem of all three is found in one run. Files that it names are relative to its
//! own folder; the journal, which is written, lies relative to the working directory. Secrets
//! can come from environment variables or files and are never printed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::classify::ClassifierOptions;
use crate::diagnostic::{Place, Problem, Problems, closest};
use crate::document::{self, Node, Table, Text, Value};
use crate::ledger::Settings;
use crate::pattern::pack::PackSource;
use crate::profile::Profile;
use crate::ticket::Affects;
use crate::verdict::{Points, Policy};

/// Environment variables with this prefix and a `__` between section and key override the file.
pub const ENV_PREFIX: &str = "CUSTOMER_REACH_";

/// Everything that can be set.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// Where the events come from.
    pub kafka: Kafka,
    /// Topics, each with its profile.
    pub input: Vec<Input>,
    /// What makes the ledger durable.
    pub journal: Journal,
    /// The server of `/metrics` and the status page.
    pub http: Http,
    /// Topics that are written.
    pub output: Output,
    /// Packs, profiles and service maps.
    pub patterns: Patterns,
    /// How findings become a verdict.
    pub classify: Classify,
    /// What is shown, and how finely.
    pub metrics: Metrics,
    /// How records are taken.
    pub batch: Batch,
    /// How long tickets are held.
    pub ledger: Ledger,
    /// Candidate packs that are only watched.
    pub shadow: Shadow,
    /// Options of profiles, by profile, as the file has them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub profile: BTreeMap<String, Table>,
}

/// `[kafka]`.
#[derive(Clone, Debug, Serialize)]
pub struct Kafka {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// librdkafka's properties, as they are handed over.
    pub librdkafka: BTreeMap<String, Secret>,
}

impl Kafka {
    /// librdkafka's properties of the connection, which every kind of client takes, and those that begin with one of `own`.
    pub fn properties<'a>(&'a self, own: &'a [&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        const CONNECTION: [&str; 6] = ["security.", "ssl.", "sasl.", "socket.", "broker.", "client."];
        let passes = move |property: &str| CONNECTION.iter().chain(own).any(|prefix| property.starts_with(prefix));
        let passed = self.librdkafka.iter().filter(move |(property, _)| passes(property));
        passed.map(|(property, value)| (property.as_str(), value.reveal()))
    }
}

/// `[[input]]`.
#[derive(Clone, Debug, Serialize)]
pub struct Input {
    /// The topic.
    pub topic: String,
    /// The profile that maps its events.
    pub profile: String,
    /// The system whose tickets these are: topics with the same source speak of the same tickets.
    pub source: String,
    /// Whether its records go through a copy that is keyed by ticket.
    pub rekey: bool,
    #[serde(skip)]
    place: Option<Place>,
    #[serde(skip)]
    profile_place: Option<Place>,
}

/// Which journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalKind {
    /// One file; one instance.
    Sqlite,
    /// Compacted topics beside the inputs; any number of instances.
    Kafka,
    /// Nothing is kept: every start begins anew, and the group's positions are not moved.
    None,
}

impl JournalKind {
    /// The name as the configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Kafka => "kafka",
            Self::None => "none",
        }
    }
}

/// `[journal]`.
#[derive(Clone, Debug, Serialize)]
pub struct Journal {
    /// Which one.
    pub kind: JournalKind,
    /// Its folder; with topics, that of the instance's name.
    pub path: PathBuf,
}

/// `[http]`.
#[derive(Clone, Debug, Serialize)]
pub struct Http {
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Whether `POST /explain` answers; its answers hold the text of the tickets that it is sent.
    pub explain: bool,
    /// How long records may wait without any being committed before `/readyz` says no.
    #[serde(serialize_with = "as_seconds")]
    pub stuck_after: Duration,
}

/// `[shadow]`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Shadow {
    /// Folders of packs that tag the live stream beside those in use, laid over them; none for no shadow.
    pub packs: Vec<PathBuf>,
}

/// `[output]`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Output {
    /// The topic for tagged tickets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tagged: Option<String>,
    /// The topic for refused records; a file in the journal's folder without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<String>,
}

/// `[patterns]`.
#[derive(Clone, Debug, Serialize)]
pub struct Patterns {
    /// `builtin`, and folders of packs.
    pub packs: Vec<PathBuf>,
    /// Folders of profiles, looked through before the built-in ones.
    pub profiles: Vec<PathBuf>,
    /// Service maps.
    pub services: Vec<PathBuf>,
}

/// `[classify]`.
#[derive(Clone, Debug, Serialize)]
pub struct Classify {
    /// The tag where nothing speaks, and at a tie.
    pub default: Affects,
    /// A score within this many points of 0 is `narrow`.
    pub margin: f64,
    /// E-mail domains of colleagues.
    pub own_domains: Vec<String>,
    /// Organisations of colleagues: names or ids.
    pub own_organizations: Vec<String>,
}

/// `[metrics]`.
#[derive(Clone, Debug, Serialize)]
pub struct Metrics {
    /// How long a new series shows 0 before its first value.
    #[serde(serialize_with = "as_seconds")]
    pub zero_hold: Duration,
    /// How many teams get a series of their own.
    pub team_cap: usize,
    /// How many services get a series of their own.
    pub service_cap: usize,
}

/// `[batch]`.
#[derive(Clone, Debug, Serialize)]
pub struct Batch {
    /// At most this many records are committed in one step.
    pub records: usize,
    /// A batch that is not full waits at most this long for more.
    #[serde(serialize_with = "as_seconds")]
    pub linger: Duration,
    /// Longer records become dead letters.
    pub max_record_bytes: usize,
}

/// `[ledger]`.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    /// How long a closed ticket is held after its last change.
    #[serde(serialize_with = "as_seconds")]
    pub retention: Duration,
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    match duration.subsec_millis() {
        0 => serializer.serialize_str(&format!("{}s", duration.as_secs())),
        _ => serializer.serialize_str(&format!("{}ms", duration.as_millis())),
    }
}

/// A value that may be a secret; only [`Secret::reveal`] shows it if it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    secret: bool,
}

impl Secret {
    /// The value itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.value
    }

    /// A property's value; secret if its name or its origin says so.
    fn new(property: &str, value: String, hidden: bool) -> Self {
        let named = ["password", "secret", ".pem", "token", "jaas"].iter().any(|word| property.contains(word));
        Self { value, secret: hidden || named }
    }

    fn shown(&self) -> &str {
        if self.secret { "<secret>" } else { &self.value }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// What overrides the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// `--set key=value`, in order.
    pub set: Vec<String>,
}

impl Overrides {
    /// `--set` options over the variables of this process.
    pub fn from_process(set: Vec<String>) -> Self {
        Self { environment: std::env::vars().collect(), set }
    }
}

impl Config {
    /// Reads a configuration file, or the defaults where there is none, and lays the overrides over it.
    ///
    /// # Errors
    /// All problems of the file, the variables and the options, with their places.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<(Self, Problems), Problems> {
        let mut problems = Problems::new();
        let mut table = match file {
            None => Table::empty("the configuration"),
            Some(path) => read(path, &mut problems),
        };
        overrides.apply(&mut table, &mut problems);
        let folder = file.and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        let config = Reader { folder, problems: &mut problems }.config(&table);
        table.finish(&mut problems);
        match problems.counts() {
            (0, _) => Ok((config, problems)),
            _ => Err(problems),
        }
    }

    /// What only `serve` needs: brokers, a group and at least one input.
    ///
    /// # Errors
    /// A problem for each that is missing.
    pub fn check_for_serve(&self, file: &str) -> Result<(), Problems> {
        let mut problems = Problems::new();
        let place = Place::Named(file.to_owned());
        let mut missing = |absent: bool, what: &str, help: &str| {
            if absent {
                problems.push(Problem::error("missing-key", &place, format!("{what} is missing")).help(help));
            }
        };
        missing(self.kafka.brokers.is_empty(), "`[kafka] brokers`", "add `brokers = \"host:9092\"` under `[kafka]`");
        missing(
            self.input.is_empty(),
            "`[[input]]`",
            "add `[[input]]` with `topic = \"…\"` and `profile = \"servicenow\"`",
        );
        problems.into_result(())
    }

    /// How findings become a verdict.
    pub fn policy(&self) -> Policy {
        #[expect(clippy::cast_possible_truncation, reason = "margins are small")]
        Policy {
            default: self.classify.default,
            margin: (self.classify.margin * 100.0).round() as Points,
            ignore_declared: false,
        }
    }

    /// What the classifier is made from.
    pub fn classifier_options(&self) -> ClassifierOptions {
        ClassifierOptions {
            packs: self.patterns.packs.iter().map(|path| pack_source(path)).collect(),
            services: self.patterns.services.clone(),
            own_domains: self.classify.own_domains.clone(),
            own_organizations: self.classify.own_organizations.clone(),
            policy: self.policy(),
        }
    }

    /// What the shadow's classifier is made from; `None` where there is no shadow.
    pub fn shadow_options(&self) -> Option<ClassifierOptions> {
        let mut options = self.classifier_options();
        options.packs.extend(self.shadow.packs.iter().map(|path| pack_source(path)));
        (!self.shadow.packs.is_empty()).then_some(options)
    }

    /// The settings of the ledger.
    pub fn ledger_settings(&self) -> Settings {
        Settings {
            policy: self.policy(),
            team_cap: self.metrics.team_cap,
            service_cap: self.metrics.service_cap,
            retention: Some(self.ledger.retention),
            holds: !self.metrics.zero_hold.is_zero(),
        }
    }

    /// The whole configuration as TOML, with secrets hidden.
    pub fn print(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be printed: {error}\n"))
    }
}

fn read(path: &Path, problems: &mut Problems) -> Table {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => document::parse(&name, &text, problems),
        Err(error) => {
            let problem = Problem::error("unreadable", &Place::Named(name.clone()), format!("cannot be read: {error}"));
            problems.push(problem.help("check the path given to --config"));
            Table::empty(&name)
        }
    }
}

impl Overrides {
    fn apply(&self, table: &mut Table, problems: &mut Problems) {
        for (name, value) in &self.environment {
            if let Some(rest) = name.strip_prefix(ENV_PREFIX)
                && rest.contains("__")
            {
                set(
                    table,
                    &environment_path(rest),
                    value,
                    &Place::Named(format!("environment variable {name}")),
                    problems,
                );
            }
        }
        for option in &self.set {
            let place = Place::Named(format!("--set {}", option.split('=').next().unwrap_or_default()));
            match option.split_once('=') {
                Some((key, value)) => set(table, &dotted(key), value, &place, problems),
                None => problems
                    .push(Problem::error("bad-option", &place, "has no value").help("write `--set section.key=value`")),
            }
        }
    }
}

/// `KAFKA__BROKERS` → kafka, brokers; below librdkafka `_` stands for the dot.
fn environment_path(rest: &str) -> Vec<String> {
    let mut path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    if path.first().is_some_and(|s| s == "kafka") && path.get(1).is_some_and(|s| s == "librdkafka") {
        path.iter_mut().skip(2).for_each(|key| *key = key.replace('_', "."));
    }
    path
}

/// `a.b.c` → a, b, c; all below `kafka.librdkafka.` is one key.
fn dotted(key: &str) -> Vec<String> {
    match key.trim().strip_prefix("kafka.librdkafka.") {
        Some(property) => vec!["kafka".into(), "librdkafka".into(), property.trim_matches('"').into()],
        None => key.trim().split('.').map(str::to_owned).collect(),
    }
}

fn set(table: &mut Table, path: &[String], value: &str, place: &Place, problems: &mut Problems) {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let node = Node { value: parse_value(value), place: place.clone() };
    if let Err(reason) = table.set(&path, node) {
        problems.push(Problem::error("bad-option", place, reason));
    }
}

/// A value as TOML would read it; anything else is text.
fn parse_value(value: &str) -> Value {
    let mut problems = Problems::new();
    let table = document::parse("", &format!("value = {value}"), &mut problems);
    match table.get("value") {
        Some(node) if problems.is_empty() => node.value.clone(),
        _ => Value::Text(value.to_owned()),
    }
}

fn pack_source(path: &Path) -> PackSource {
    match path.to_str() {
        Some("builtin") => PackSource::BuiltIn,
        _ => PackSource::Folder(path.to_owned()),
    }
}

struct Reader<'a> {
    folder: PathBuf,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn config(&mut self, table: &Table) -> Config {
        let none = Table::empty("");
        let section = |key, problems: &mut Problems| table.table(key, problems).unwrap_or(&none).clone();
        let mut sections =
            ["kafka", "journal", "http", "output", "patterns", "classify", "metrics", "batch", "ledger", "shadow"]
                .map(|key| section(key, self.problems));
        let [kafka, journal, http, output, patterns, classify, metrics, batch, ledger, shadow] = &mut sections;
        let config = Config {
            kafka: self.kafka(kafka),
            input: self.inputs(table),
            journal: self.journal(journal),
            http: self.http(http),
            output: Output { tagged: self.plain(output, "tagged"), dead_letters: self.plain(output, "dead_letters") },
            patterns: self.patterns(patterns),
            classify: self.classify(classify),
            metrics: self.metrics(metrics),
            batch: self.batch(batch),
            ledger: Ledger { retention: self.duration(ledger, "retention", Duration::from_secs(90 * 86_400)) },
            profile: self.profiles(table),
            shadow: Shadow { packs: self.paths(shadow, "packs").unwrap_or_default() },
        };
        sections.iter().for_each(|section| section.finish(self.problems));
        self.check_inputs(&config.input);
        self.check_rekey(&config);
        self.check_isolation(&config);
        self.check_profiles(&config);
        config
    }

    fn plain(&mut self, table: &Table, key: &'static str) -> Option<String> {
        table.text(key, self.problems).map(|text| text.value)
    }

    fn duration(&mut self, table: &Table, key: &'static str, default: Duration) -> Duration {
        table.duration(key, self.problems).unwrap_or(default)
    }

    fn count(&mut self, table: &Table, key: &'static str, least: i64, most: i64, default: usize) -> usize {
        let number = table.integer(key, least..=most, self.problems);
        number.and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
    }

    fn path(&self, text: &Text) -> PathBuf {
        self.folder.join(&text.value)
    }

    fn kafka(&mut self, table: &Table) -> Kafka {
        let mut librdkafka = BTreeMap::new();
        if let Some(properties) = table.table("librdkafka", self.problems) {
            for (key, node) in properties.entries() {
                if let Some(value) = self.property(&key.value, node) {
                    librdkafka.insert(key.value.clone(), value);
                }
            }
        }
        self.tls(table, &mut librdkafka);
        self.sasl(table, &mut librdkafka);
        Kafka {
            brokers: self.plain(table, "brokers").unwrap_or_default(),
            group: self.plain(table, "group").unwrap_or_else(|| "customer-reach".to_owned()),
            librdkafka,
        }
    }

    /// `tls = true`, `ca = FILE`: what most set-ups need of TLS.
    fn tls(&mut self, table: &Table, librdkafka: &mut BTreeMap<String, Secret>) {
        let tls = table.bool("tls", self.problems).unwrap_or(false);
        if let Some(ca) = table.text("ca", self.problems) {
            let path = self.path(&ca).display().to_string();
            librdkafka.insert("ssl.ca.location".into(), Secret { value: path, secret: false });
        }
        let sasl = table.get("sasl").is_some();
        let protocol = match (tls, sasl) {
            (false, false) => return,
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        librdkafka.entry("security.protocol".into()).or_insert(Secret { value: protocol.into(), secret: false });
    }

    fn sasl(&mut self, table: &Table, librdkafka: &mut BTreeMap<String, Secret>) {
        const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
        let Some(sasl) = table.table("sasl", self.problems) else { return };
        if let Some(mechanism) = sasl.required_text("mechanism", self.problems) {
            if !MECHANISMS.contains(&mechanism.value.as_str()) {
                let title = format!("`{}` is no mechanism known here", mechanism.value);
                self.problems.push(
                    Problem::error("unknown-value", &mechanism.place, title)
                        .help(format!("one of {}", MECHANISMS.join(", "))),
                );
            }
            librdkafka.insert("sasl.mechanism".into(), Secret { value: mechanism.value, secret: false });
        }
        for (key, property) in [("username", "sasl.username"), ("password", "sasl.password")] {
            match sasl.get(key) {
                Some(node) => {
                    if let Some(value) = self.property(property, node) {
                        librdkafka.insert(property.into(), value);
                    }
                }
                None => self.problems.push(
                    Problem::error("missing-key", &sasl.place, format!("`{key}` is missing")).help(format!(
                        "add `{key} = \"…\"`, `{key} = {{ env = \"NAME\" }}` or `{key} = {{ file = \"PATH\" }}`"
                    )),
                ),
            }
        }
        sasl.finish(self.problems);
    }

    /// A property: text, number or truth, or where to find it: `{ env = NAME }`, `{ file = PATH }`.
    fn property(&mut self, name: &str, node: &Node) -> Option<Secret> {
        match &node.value {
            Value::Text(text) => Some(Secret::new(name, text.clone(), false)),
            Value::Integer(number) => Some(Secret::new(name, number.to_string(), false)),
            Value::Float(number) => Some(Secret::new(name, number.to_string(), false)),
            Value::Bool(yes) => Some(Secret::new(name, yes.to_string(), false)),
            Value::Table(from) => self.indirect(name, from),
            Value::Array(_) => {
                self.problems.push(Problem::error(
                    "wrong-type",
                    &node.place,
                    format!("`{name}` must be one value, but is a list"),
                ));
                None
            }
        }
    }

    fn indirect(&mut self, name: &str, from: &Table) -> Option<Secret> {
        let (env, file) = (from.text("env", self.problems), from.text("file", self.problems));
        from.finish(self.problems);
        let found = match (&env, &file) {
            (Some(variable), None) => std::env::var(&variable.value)
                .map_err(|_| (variable, format!("the environment variable `{}` is not set", variable.value))),
            (None, Some(path)) => std::fs::read_to_string(self.path(path))
                .map_err(|e| (path, format!("`{}` cannot be read: {e}", path.value))),
            _ => {
                let problem =
                    Problem::error("bad-secret", &from.place, format!("`{name}` needs either `env` or `file`"));
                self.problems.push(problem.help("write `{ env = \"NAME\" }` or `{ file = \"PATH\" }`"));
                return None;
            }
        };
        match found {
            Ok(value) => Some(Secret::new(name, value.trim_end_matches(['\n', '\r']).to_owned(), true)),
            Err((text, reason)) => {
                self.problems.push(Problem::error("bad-secret", &text.place, reason));
                None
            }
        }
    }

    fn inputs(&mut self, table: &Table) -> Vec<Input> {
        let mut inputs = Vec::new();
        for input in table.tables("input", self.problems) {
            let topic = input.required_text("topic", self.problems);
            let named = input.text("profile", self.problems);
            let profile_place = named.as_ref().map(|text| text.place.clone());
            let profile = named.map_or_else(|| "generic".to_owned(), |text| text.value);
            let source = self.plain(input, "source").unwrap_or_else(|| profile.clone());
            let rekey = input.bool("rekey", self.problems).unwrap_or_default();
            input.finish(self.problems);
            if let Some(topic) = topic {
                let place = Some(topic.place);
                inputs.push(Input { topic: topic.value, profile, source, rekey, place, profile_place });
            }
        }
        inputs
    }

    fn check_inputs(&mut self, inputs: &[Input]) {
        for (number, input) in inputs.iter().enumerate() {
            let first = inputs.iter().take(number).find(|other| other.topic == input.topic);
            if let (Some(first), Some(place)) = (first, &input.place) {
                let mut problem = Problem::error(
                    "duplicate-input",
                    place,
                    format!("the topic `{}` is already an input", input.topic),
                );
                if let Some(before) = &first.place {
                    problem = problem.other(before, "first here");
                }
                self.problems.push(problem.help("keep one `[[input]]` a topic"));
            }
        }
    }

    /// With a file, one ledger holds all tickets, by whatever partition they come.
    fn check_rekey(&mut self, config: &Config) {
        let needless = |input: &&Input| input.rekey && config.journal.kind != JournalKind::Kafka;
        for place in config.input.iter().filter(needless).filter_map(|input| input.place.as_ref()) {
            let title = "`rekey = true` is for `[journal] kind = \"kafka\"`";
            self.problems.push(
                Problem::error("needless-rekey", place, title)
                    .help("leave it out: with a sqlite journal tickets may come by any partition"),
            );
        }
    }

    /// Copies are written in transactions, and those of one that was aborted would be counted beside those of the next.
    fn check_isolation(&mut self, config: &Config) {
        const NAME: &str = "isolation.level";
        let level = config.kafka.librdkafka.get(NAME).map(Secret::reveal);
        let place = config.input.iter().find(|input| input.rekey).and_then(|input| input.place.as_ref());
        if let (Some(level), Some(place)) = (level.filter(|level| *level != "read_committed"), place) {
            let title = format!("`{NAME} = {level}` would count records of `rekey = true` twice");
            let help = format!("leave `{NAME}` out of `[kafka.librdkafka]`, or `rekey = true` out of the inputs");
            self.problems.push(Problem::error("uncommitted-copies", place, title).help(help));
        }
    }

    /// Every profile that is named must be there, also one that only gets options.
    fn check_profiles(&mut self, config: &Config) {
        let folders = &config.patterns.profiles;
        let known = Profile::names(folders);
        let inputs = config.input.iter().filter_map(|input| Some((&input.profile, input.profile_place.as_ref()?)));
        let options = config.profile.iter().map(|(name, table)| (name, &table.place));
        for (name, place) in inputs.chain(options).filter(|(name, _)| !known.contains(name)) {
            self.problems.push(Profile::unknown(name, folders, place));
        }
    }

    fn journal(&mut self, table: &Table) -> Journal {
        let kind = match table.text("kind", self.problems) {
            None => JournalKind::Sqlite,
            Some(text) => match text.value.as_str() {
                "sqlite" => JournalKind::Sqlite,
                "kafka" => JournalKind::Kafka,
                "none" => JournalKind::None,
                other => {
                    let problem =
                        Problem::error("unknown-value", &text.place, format!("`{other}` is no kind of journal"));
                    self.problems.push(problem.help("one of `sqlite`, `kafka`, `none`"));
                    JournalKind::Sqlite
                }
            },
        };
        let path = self.plain(table, "path").map_or_else(|| PathBuf::from("state"), PathBuf::from);
        Journal { kind, path }
    }

    fn http(&mut self, table: &Table) -> Http {
        let default = SocketAddr::from(([127, 0, 0, 1], 9464));
        let explain = table.bool("explain", self.problems).unwrap_or_default();
        let stuck_after = self.duration(table, "stuck_after", Duration::from_mins(1));
        let Some(text) = table.text("listen", self.problems) else {
            return Http { listen: default, explain, stuck_after };
        };
        let listen = text.value.parse().unwrap_or_else(|_| {
            let problem =
                Problem::error("bad-address", &text.place, format!("`{}` is not an address and port", text.value));
            self.problems
                .push(problem.help("write an IP address and a port: `127.0.0.1:9464`, `0.0.0.0:9464`, `[::1]:9464`"));
            default
        });
        Http { listen, explain, stuck_after }
    }

    fn paths(&mut self, table: &Table, key: &'static str) -> Option<Vec<PathBuf>> {
        let texts = table.texts(key, self.problems)?;
        let mut paths = Vec::new();
        for text in texts {
            let path = self.path(&text);
            match (text.value.as_str(), path.exists()) {
                ("builtin", _) => paths.push(PathBuf::from("builtin")),
                (_, true) => paths.push(path),
                (_, false) => {
                    let title = format!("`{}` does not exist", path.display());
                    self.problems.push(
                        Problem::error("no-such-path", &text.place, title)
                            .help("paths are relative to the folder of the configuration file"),
                    );
                }
            }
        }
        Some(paths)
    }

    fn patterns(&mut self, table: &Table) -> Patterns {
        Patterns {
            packs: self.paths(table, "packs").unwrap_or_else(|| vec![PathBuf::from("builtin")]),
            profiles: self.paths(table, "profiles").unwrap_or_default(),
            services: self.paths(table, "services").unwrap_or_default(),
        }
    }

    fn classify(&mut self, table: &Table) -> Classify {
        let default = table.text("default", self.problems).map_or(Affects::Internal, |text| {
            Affects::from_name(&text.value).unwrap_or_else(|| {
                let near = closest(&text.value, Affects::NAMES.iter().copied())
                    .map_or(String::new(), |n| format!("did you mean `{n}`? "));
                let problem = Problem::error("unknown-value", &text.place, format!("`{}` is no tag", text.value));
                self.problems.push(problem.help(format!("{near}one of {}", Affects::NAMES.join(", "))));
                Affects::Internal
            })
        });
        let list = |key, problems: &mut Problems| -> Vec<String> {
            table.texts(key, problems).unwrap_or_default().into_iter().map(|text| text.value).collect()
        };
        Classify {
            default,
            margin: table.number("margin", self.problems).unwrap_or(2.0).clamp(0.0, 1e6),
            own_domains: list("own_domains", self.problems),
            own_organizations: list("own_organizations", self.problems),
        }
    }

    fn metrics(&mut self, table: &Table) -> Metrics {
        Metrics {
            zero_hold: self.duration(table, "zero_hold", Duration::from_mins(1)),
            team_cap: self.count(table, "team_cap", 0, 10_000, 200),
            service_cap: self.count(table, "service_cap", 0, 10_000, 200),
        }
    }

    fn batch(&mut self, table: &Table) -> Batch {
        Batch {
            records: self.count(table, "records", 1, 1_000_000, 10_000),
            linger: self.duration(table, "linger", Duration::from_millis(50)),
            max_record_bytes: self.count(table, "max_record_bytes", 1_000, 1_000_000_000, 4 * 1024 * 1024),
        }
    }

    fn profiles(&mut self, table: &Table) -> BTreeMap<String, Table> {
        let mut profiles = BTreeMap::new();
        if let Some(tables) = table.table("profile", self.problems) {
            for (name, node) in tables.entries() {
                match &node.value {
                    Value::Table(options) => {
                        profiles.insert(name.value.clone(), options.clone());
                    }
                    other => self.problems.push(
                        Problem::error(
                            "wrong-type",
                            &node.place,
                            format!("`{}` must be a table, but is {}", name.value, other.type_name()),
                        )
                        .help(format!("write `[profile.{}]` and its options below", name.value)),
                    ),
                }
            }
        }
        profiles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Config, Problems> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let overrides = Overrides {
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            set: set.iter().map(|s| (*s).to_owned()).collect(),
        };
        Config::load(Some(&file), &overrides).map(|(config, _)| config)
    }

    #[test]
    fn the_smallest_useful_form() {
        let config =
            load("[kafka]\nbrokers = \"b:9092\"\n[[input]]\ntopic = \"t\"\nprofile = \"jira\"\n", &[], &[]).unwrap();
        assert_eq!((config.kafka.brokers.as_str(), config.kafka.group.as_str()), ("b:9092", "customer-reach"));
        assert_eq!(config.input[0].source, "jira");
        assert_eq!(config.http.listen.port(), 9464);
        config.check_for_serve("c.toml").unwrap();
    }

    #[test]
    fn set_beats_the_environment_beats_the_file() {
        let env = [
            ("CUSTOMER_REACH_KAFKA__BROKERS", "env:1"),
            ("CUSTOMER_REACH_KAFKA__GROUP", "env"),
            ("CUSTOMER_REACH_TEST_BROKER", "x"),
        ];
        let config = load("[kafka]\nbrokers = \"file:1\"\n", &env, &["kafka.group=set", "batch.records=5"]).unwrap();
        assert_eq!(
            (config.kafka.brokers.as_str(), config.kafka.group.as_str(), config.batch.records),
            ("env:1", "set", 5)
        );
    }

    #[test]
    fn librdkafka_properties_pass_and_secrets_stay_secret() {
        let text = "[kafka]\ntls = true\n[kafka.librdkafka]\n\"session.timeout.ms\" = 6000\n\"ssl.key.password\" = \"hush\"\n\
                    [kafka.sasl]\nmechanism = \"PLAIN\"\nusername = \"u\"\npassword = \"hush\"\n";
        let config = load(text, &[("CUSTOMER_REACH_KAFKA__LIBRDKAFKA__CLIENT_ID", "me")], &[]).unwrap();
        let value = |key: &str| config.kafka.librdkafka[key].reveal().to_owned();
        assert_eq!(value("session.timeout.ms"), "6000");
        assert_eq!(value("client.id"), "me");
        assert_eq!(value("security.protocol"), "sasl_ssl");
        assert_eq!(value("sasl.password"), "hush");
        assert!(!config.print().contains("hush") && !format!("{config:?}").contains("hush"), "{}", config.print());
    }

    #[test]
    fn all_problems_at_once_with_a_way_out() {
        let text = "[kafka]\nbroker = \"x\"\n[journal]\nkind = \"rocks\"\n[http]\nlisten = \"here\"\n[batch]\nrecords = 0\n[classify]\ndefault = \"custmer\"\n";
        let problems = load(text, &[("CUSTOMER_REACH_BATCH__LINGER", "soon")], &["nothing"]).unwrap_err();
        let mut codes: Vec<_> = problems.iter().map(|p| p.code).collect();
        codes.sort_unstable();
        assert_eq!(
            codes,
            [
                "bad-address",
                "bad-duration",
                "bad-option",
                "out-of-range",
                "unknown-key",
                "unknown-value",
                "unknown-value"
            ]
        );
        let text = problems.to_string();
        for hint in [
            "did you mean `brokers`?",
            "environment variable CUSTOMER_REACH_BATCH__LINGER",
            "did you mean `customer`?",
            "c.toml:2",
        ] {
            assert!(text.contains(hint), "{hint} not in {text}");
        }
    }
}
