//! The topics that belong to an input: its journal and, where it is not keyed by ticket, its keyed copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigEntry, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use crate::config::{Input, Kafka};
use crate::record::Partition;
use crate::sink::Standalone;
use crate::source::kafka::ends_of;

/// How long the brokers may take for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to look whether a topic can be read.
const LOOK: Duration = Duration::from_millis(20);
/// The longest name that Kafka gives a topic.
const LONGEST_NAME: usize = 249;
/// The setting that says what becomes of old records.
const CLEANUP: &str = "cleanup.policy";
/// The setting that says how long records are kept.
const RETENTION: &str = "retention.ms";
/// The setting that says how large a batch of records may be.
const MAX_BYTES: &str = "max.message.bytes";
/// Bytes that a copy may be longer than its record, at the most: the name of a topic, and two numbers.
const OWN_HEADERS: u32 = 1024;

/// What is wrong with a topic.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// It would lose entries.
    #[error(
        "the topic `{topic}` holds the journal of `{input}` and has cleanup.policy={found}: entries would be lost. It must \
         be `compact`:\n  kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} \
         --add-config cleanup.policy=compact\nIf it has lost entries already, the next start says so"
    )]
    Cleanup {
        /// The topic.
        topic: String,
        /// The input.
        input: String,
        /// The brokers.
        brokers: String,
        /// What is set.
        found: String,
    },
    /// The input has grown, and its tickets have changed partitions.
    #[error(
        "`{input}` has {partitions} partitions, its journal `{topic}` has {found}: since partitions were added, tickets come \
         by others than before, and each would be counted a second time. Either make the input of {found} partitions again \
         under another name; or stop all instances, and let `[[input]] rekey = true` give it a keyed copy whose partitions \
         never change:\n  customer-reach journal export --config FILE state.ndjson\n  customer-reach journal import --config \
         FILE-WITH-REKEY state.ndjson"
    )]
    Grown {
        /// The topic.
        topic: String,
        /// The input.
        input: String,
        /// Partitions of the input.
        partitions: usize,
        /// Partitions of the journal.
        found: usize,
    },
    /// `rekey` was set and what was counted before was not taken over.
    #[error(
        "`{input}` was counted without `rekey = true`, and the journal `{topic}` of that time was not taken over: every ticket \
         would be counted a second time. Stop all instances, and then:\n  customer-reach journal export --config \
         FILE-WITHOUT-REKEY state.ndjson\n  customer-reach journal import --config FILE state.ndjson\nTo begin at 0 instead, \
         give another `[kafka] group`"
    )]
    CountedDirectly {
        /// The journal of the input.
        topic: String,
        /// The input.
        input: String,
    },
    /// `rekey` was taken away.
    #[error(
        "`{input}` was counted by its keyed copy, as the journal `{topic}` says: every ticket would be counted a second time. \
         Set `rekey = true` for this `[[input]]` again, or begin at 0 with another `[kafka] group`"
    )]
    CountedByCopy {
        /// The journal of the copy.
        topic: String,
        /// The input.
        input: String,
    },
    /// A journal is to be filled whose keyed copy holds records of before.
    #[error(
        "the keyed copy `{0}` holds records already, which would be counted beside what is imported; delete that topic, or give \
         another `[kafka] group`"
    )]
    Copied(String),
    /// The name is longer than Kafka allows.
    #[error("`{0}` is longer than the {LONGEST_NAME} characters that Kafka allows; give a shorter `[kafka] group`")]
    LongName(String),
    /// The brokers refuse.
    #[error("the topic `{topic}` cannot be made: {cause}; make it with:\n  {command}")]
    NotMade {
        /// The topic.
        topic: String,
        /// The brokers' answer.
        cause: String,
        /// What makes it.
        command: String,
    },
    /// The brokers do not answer, or not with what was asked.
    #[error("the brokers at {brokers} cannot be asked about `{topic}`: {cause}")]
    Unknown {
        /// The topic.
        topic: String,
        /// The brokers.
        brokers: String,
        /// Their answer.
        cause: String,
    },
}

impl TopicError {
    /// Whether it may pass by itself.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// What the topics are called: `GROUP-INPUT-journal` and `GROUP-INPUT-keyed`, as Kafka Streams names those of an application.
#[derive(Clone, Debug)]
pub struct JournalTopics {
    group: Arc<str>,
}

impl JournalTopics {
    /// The topics of a consumer group.
    pub fn new(kafka: &Kafka) -> Self {
        Self { group: kafka.group.as_str().into() }
    }

    /// The topic that holds the journal of an input.
    pub fn of(&self, input: &str) -> Arc<str> {
        format!("{}-{input}-journal", self.group).into()
    }

    /// The partition of the journal that belongs to a partition of an input.
    pub fn beside(&self, input: &Partition) -> Partition {
        Partition { topic: self.of(&input.topic), number: input.number }
    }

    /// The topic whose records go into ledgers: the input, or its keyed copy.
    pub fn journalled(&self, input: &Input) -> Arc<str> {
        if input.rekey { self.keyed(&input.topic) } else { input.topic.as_str().into() }
    }

    /// The keyed copy of an input.
    pub fn keyed(&self, input: &str) -> Arc<str> {
        format!("{}-{input}-keyed", self.group).into()
    }
}

/// Makes and checks topics.
pub struct TopicKeeper {
    admin: AdminClient<DefaultClientContext>,
    /// What asks: brokers may make a topic that an administrator's client asks about.
    standalone: Standalone,
    runtime: tokio::runtime::Runtime,
    brokers: String,
    topics: JournalTopics,
}

/// A topic with its partitions and settings.
struct Found {
    partitions: usize,
    settings: BTreeMap<String, String>,
}

impl TopicKeeper {
    /// A keeper of the topics of these brokers and this group.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(kafka: &Kafka) -> Result<Self, TopicError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &kafka.brokers);
        kafka.properties(&[]).for_each(|(property, value)| _ = config.set(property, value));
        let unknown =
            |cause: String| TopicError::Unknown { topic: String::new(), brokers: kafka.brokers.clone(), cause };
        Ok(Self {
            admin: config.create().map_err(|error: KafkaError| unknown(error.to_string()))?,
            standalone: Standalone::new(kafka).map_err(|error| unknown(error.to_string()))?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| unknown(error.to_string()))?,
            brokers: kafka.brokers.clone(),
            topics: JournalTopics::new(kafka),
        })
    }

    /// Makes sure that an input of so many partitions has its journal.
    ///
    /// # Errors
    /// When the topic is there and not as it must be, or cannot be made.
    pub fn ensure_journal(&self, input: &str, partitions: usize) -> Result<(), TopicError> {
        let topic = self.topics.of(input);
        // Small segments: what the newest one holds is not compacted, and has to be read at every restore. An entry may be as
        // long as one: a ticket can have thousands of pieces of work.
        let settings = [
            (CLEANUP, "compact"),
            ("segment.bytes", "8388608"),
            (MAX_BYTES, "8388608"),
            ("min.cleanable.dirty.ratio", "0.2"),
        ];
        let Some(found) = self.find(&topic)? else { return self.make(&topic, partitions, &settings) };
        let cleanup = found.settings.get(CLEANUP).cloned().unwrap_or_default();
        if cleanup != "compact" {
            let (input, brokers) = (input.to_owned(), self.brokers.clone());
            return Err(TopicError::Cleanup { topic: topic.to_string(), input, brokers, found: cleanup });
        }
        match found.partitions == partitions {
            true => Ok(()),
            false => Err(TopicError::Grown {
                topic: topic.to_string(),
                input: input.to_owned(),
                partitions,
                found: found.partitions,
            }),
        }
    }

    /// Makes sure that an input has its keyed copy, and says how many partitions that has: as many as the input had when
    /// the copy was made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn ensure_keyed(&self, input: &str) -> Result<usize, TopicError> {
        let topic = self.topics.keyed(input);
        if let Some(found) = self.find(&topic)? {
            return Ok(found.partitions);
        }
        let Some(original) = self.find(input)? else { return Err(self.unknown(input, "it does not exist")) };
        // Kept as long as the original, so that an audit reaches as far back, and with room for our own headers.
        let retention = original.settings.get(RETENTION).cloned();
        let most = original.settings.get(MAX_BYTES).and_then(|bytes| bytes.parse::<u32>().ok());
        let most = most.map(|bytes| bytes.saturating_add(OWN_HEADERS).min(i32::MAX.unsigned_abs()).to_string());
        let settings = [(RETENTION, retention), (MAX_BYTES, most)];
        let settings: Vec<_> = settings.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
        self.make(&topic, original.partitions, &settings)?;
        Ok(original.partitions)
    }

    /// Makes sure that an input was counted before as it is to be now, by itself or by its keyed copy, if it was.
    ///
    /// # Errors
    /// When the journal of the other way holds entries and that of this way none.
    pub fn check_way(&self, input: &str, rekey: bool) -> Result<(), TopicError> {
        let (direct, copied) = (self.topics.of(input), self.topics.of(&self.topics.keyed(input)));
        let (own, other) = if rekey { (copied, direct) } else { (direct, copied) };
        if self.is_empty(&other)? || !self.is_empty(&own)? {
            return Ok(());
        }
        let (topic, input) = (other.to_string(), input.to_owned());
        Err(if rekey {
            TopicError::CountedDirectly { topic, input }
        } else {
            TopicError::CountedByCopy { topic, input }
        })
    }

    /// Makes sure that a keyed copy holds nothing.
    ///
    /// # Errors
    /// When it does, or the brokers do not say.
    pub fn check_uncopied(&self, keyed: &str) -> Result<(), TopicError> {
        if self.is_empty(keyed)? { Ok(()) } else { Err(TopicError::Copied(keyed.to_owned())) }
    }

    /// Whether a topic holds no records, or is not there.
    fn is_empty(&self, topic: &str) -> Result<bool, TopicError> {
        let ends = self.ends(topic).map_err(|error| self.unknown(topic, error))?;
        Ok(ends.into_iter().all(|(start, end)| start == end))
    }

    /// The first offset of each of a topic's partitions, and the one behind the last.
    fn ends(&self, topic: &str) -> KafkaResult<Vec<(i64, i64)>> {
        let ends = |partition| ends_of(self.standalone.consumer().client(), &partition);
        self.standalone.partitions_of(&topic.into())?.into_iter().map(ends).collect()
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When it is not there, or the brokers do not say.
    pub fn partitions(&self, topic: &str) -> Result<i32, TopicError> {
        let found = self.find(topic)?.ok_or_else(|| self.unknown(topic, "it does not exist"))?;
        Ok(i32::try_from(found.partitions).unwrap_or(i32::MAX))
    }

    fn unknown(&self, topic: &str, cause: impl ToString) -> TopicError {
        TopicError::Unknown { topic: topic.to_owned(), brokers: self.brokers.clone(), cause: cause.to_string() }
    }

    fn find(&self, topic: &str) -> Result<Option<Found>, TopicError> {
        let unknown = |error: KafkaError| self.unknown(topic, error);
        let partitions = self.standalone.partitions_of(&topic.into()).map_err(unknown)?.len();
        if partitions == 0 {
            return Ok(None);
        }
        let (asked, options) = ([ResourceSpecifier::Topic(topic)], options());
        let answer = self.runtime.block_on(self.admin.describe_configs(&asked, &options)).map_err(unknown)?;
        let mut settings = BTreeMap::new();
        for described in answer {
            let described = described.map_err(|code| self.unknown(topic, code))?;
            let set = |entry: ConfigEntry| Some((entry.name, entry.value?));
            settings.extend(described.entries.into_iter().filter_map(set));
        }
        // So answers a broker that has not heard yet of a topic which another has just made.
        if settings.is_empty() {
            return Err(self.unknown(topic, "its settings are not known yet"));
        }
        Ok(Some(Found { partitions, settings }))
    }

    fn make(&self, topic: &str, partitions: usize, settings: &[(&str, &str)]) -> Result<(), TopicError> {
        if topic.len() > LONGEST_NAME {
            return Err(TopicError::LongName(topic.to_owned()));
        }
        let count = i32::try_from(partitions).unwrap_or(i32::MAX);
        // As many copies as the brokers' default says.
        let new = NewTopic::new(topic, count, TopicReplication::Fixed(-1));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let made = self.runtime.block_on(self.admin.create_topics([&new], &options()));
        let made = made.map_err(|error| self.unknown(topic, error))?;
        match made.into_iter().find_map(Result::err) {
            // Another instance was quicker.
            None | Some((_, RDKafkaErrorCode::TopicAlreadyExists)) => {
                self.wait_for_leaders(topic, partitions);
                Ok(())
            }
            Some((_, code)) => Err(TopicError::NotMade {
                topic: topic.to_owned(),
                cause: code.to_string(),
                command: self.command(topic, partitions, settings),
            }),
        }
    }

    /// Waits until a topic that was made just now can be read, which it is refused for a moment.
    fn wait_for_leaders(&self, topic: &str, partitions: usize) {
        let end = Instant::now() + REQUEST_TIMEOUT;
        while self.ends(topic).map_or(0, |ends| ends.len()) < partitions && Instant::now() < end {
            std::thread::park_timeout(LOOK);
        }
    }

    fn command(&self, topic: &str, partitions: usize, settings: &[(&str, &str)]) -> String {
        let settings: String = settings.iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
        let brokers = &self.brokers;
        format!(
            "kafka-topics.sh --bootstrap-server {brokers} --create --topic {topic} --partitions {partitions}{settings}"
        )
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT))
}
