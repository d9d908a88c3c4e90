//! From the table of the file to the settings; what is wrong with one keeps none of the others from being looked at.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Batch, Classify, Config, Http, Input, Journal, JournalKind, Kafka, Ledger, Metrics, Output, Patterns, Secret,
    Shadow,
};
use crate::diagnostic::{Problem, Problems, closest};
use crate::document::{Node, Table, Text, Value};
use crate::profile::Profile;
use crate::ticket::Affects;

/// Reads the settings.
pub(super) struct Reader<'a> {
    /// What relative paths are relative to.
    pub(super) folder: PathBuf,
    pub(super) problems: &'a mut Problems,
}

impl Reader<'_> {
    pub(super) fn config(&mut self, table: &Table) -> Config {
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
            librdkafka.insert("ssl.ca.location".into(), Secret::new("ssl.ca.location", path, false));
        }
        let sasl = table.get("sasl").is_some();
        let protocol = match (tls, sasl) {
            (false, false) => return,
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        librdkafka
            .entry("security.protocol".into())
            .or_insert_with(|| Secret::new("security.protocol", protocol.into(), false));
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
            librdkafka.insert("sasl.mechanism".into(), Secret::new("sasl.mechanism", mechanism.value, false));
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
