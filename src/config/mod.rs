//! The configuration: one TOML file, overridden by environment variables, overridden by `--set`.
//!
//! Every problem of all three is found in one run. Files that it names are relative to its
//! own folder; the journal, which is written, lies relative to the working directory. Secrets
//! can come from environment variables or files and are never printed.

mod overrides;
mod read;
mod secret;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};

pub use overrides::{ENV_PREFIX, Overrides};
pub use secret::Secret;

use crate::classify::ClassifierOptions;
use crate::diagnostic::{Place, Problem, Problems};
use crate::document::{self, Table};
use crate::ledger::Settings;
use crate::pattern::pack::PackSource;
use crate::ticket::Affects;
use crate::verdict::{Points, Policy};
use read::Reader;

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

fn pack_source(path: &Path) -> PackSource {
    match path.to_str() {
        Some("builtin") => PackSource::BuiltIn,
        _ => PackSource::Folder(path.to_owned()),
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
