//! Several instances in one consumer group, what they show together, and that none of it ever falls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::*;

/// What is shown of the ledgers: values by series.
pub type Shown = BTreeMap<String, f64>;

/// Which journal a fleet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    Sqlite,
    Kafka,
}

impl Journal {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Kafka => "kafka",
        }
    }
}

/// Instances of one group, each with a folder of its own.
pub struct Fleet {
    pub topic: String,
    members: Vec<Member>,
    /// The highest value that anybody has shown.
    highest: Shown,
    /// The brokers have lost what they had acknowledged, so that counters fall.
    may_fall: bool,
    /// Gone with the fleet.
    _folder: TempDir,
}

#[derive(Default)]
struct Member {
    config: PathBuf,
    instance: Option<Instance>,
    paused: bool,
    /// It was paused since its start, and may not know yet what others have counted meanwhile.
    stale: bool,
    last: Shown,
}

impl Fleet {
    /// A fleet that reads a topic; nobody runs yet.
    pub fn new(brokers: &str, topic: &str, journal: Journal, size: usize) -> Self {
        Self::with(brokers, topic, journal, size, "")
    }

    /// The same with more lines at the end of the configuration, after `[kafka.librdkafka]`.
    pub fn with(brokers: &str, topic: &str, journal: Journal, size: usize, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The tickets declare their tags: with one rule instead of all packs an instance starts at once.
        let pack = folder.path().join("site.toml");
        let rule = "[[rule]]\nid = 'a'\naffects = 'customer'\nweight = 5\nphrases = ['boatyard']\n";
        std::fs::write(&pack, rule).unwrap();
        let member = |number: usize| {
            let own = folder.path().join(number.to_string());
            std::fs::create_dir(&own).unwrap();
            let (config, state, journal) = (own.join("customer-reach.toml"), own.join("state"), journal.name());
            let text = format!(
                "[[input]]\ntopic = {topic:?}\n[journal]\nkind = {journal:?}\npath = {state:?}\n[http]\n\
                 listen = \"127.0.0.1:0\"\n[metrics]\nzero_hold = \"0s\"\n[patterns]\npacks = [{pack:?}]\n[batch]\n\
                 records = 50\nlinger = \"1ms\"\nmax_record_bytes = 10000\n[kafka]\nbrokers = {brokers:?}\ngroup = {topic:?}\n\
                 [kafka.librdkafka]\n\"session.timeout.ms\" = 6000\n\"heartbeat.interval.ms\" = 300\n{more}\n"
            );
            std::fs::write(&config, text).unwrap();
            Member { config, ..Member::default() }
        };
        let members = (0..size).map(member).collect();
        Self { topic: topic.to_owned(), members, highest: Shown::new(), may_fall: false, _folder: folder }
    }

    /// The configuration of an instance.
    pub fn config(&self, number: usize) -> &Path {
        &self.members[number].config
    }

    /// Has an instance reach the brokers by another address from its next start on.
    pub fn reach(&self, number: usize, brokers: &str) {
        self.set(number, "brokers", &format!("{brokers:?}"));
    }

    /// Has an instance read with another group from its next start on.
    pub fn join(&self, number: usize, group: &str) {
        self.set(number, "group", &format!("{group:?}"));
    }

    /// Has batches be so large from the next start on; they are small otherwise, so that a fault falls into one of many
    /// commits.
    pub fn set_batch(&self, records: usize) {
        (0..self.members.len()).for_each(|number| self.set(number, "records", &records.to_string()));
    }

    fn set(&self, number: usize, key: &str, value: &str) {
        let config = &self.members[number].config;
        let text = std::fs::read_to_string(config).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        std::fs::write(config, text.replace(line, &format!("{key} = {value}"))).unwrap();
    }

    /// The folder of an instance's journal.
    pub fn state(&self, number: usize) -> PathBuf {
        self.config(number).with_file_name("state")
    }

    /// A running instance.
    pub fn instance(&self, number: usize) -> &Instance {
        self.members[number].instance.as_ref().expect("it runs")
    }

    pub fn runs(&self, number: usize) -> bool {
        self.members[number].instance.is_some()
    }

    pub fn is_paused(&self, number: usize) -> bool {
        self.members[number].paused
    }

    /// Starts an instance and waits until it listens.
    pub fn start(&mut self, number: usize) {
        let instance = Instance::start(self.config(number), &[]);
        let member = &mut self.members[number];
        *member = Member { config: std::mem::take(&mut member.config), instance: Some(instance), ..Member::default() };
    }

    pub fn start_all(&mut self) {
        (0..self.members.len()).for_each(|number| self.start(number));
    }

    fn take(&mut self, number: usize) -> Instance {
        let member = &mut self.members[number];
        (member.paused, member.last) = (false, Shown::new());
        member.instance.take().expect("it runs")
    }

    /// Ends an instance as `kill -9` does.
    pub fn kill(&mut self, number: usize) {
        self.take(number).kill();
    }

    /// Ends an instance with SIGTERM, and gives what it said; its drain must end well.
    pub fn terminate(&mut self, number: usize) -> String {
        let instance = self.take(number);
        instance.signal("-TERM");
        let (success, log) = instance.ended();
        assert!(success, "the drain ends well: {log}");
        log
    }

    /// Whether an instance has ended by itself.
    pub fn has_ended(&mut self, number: usize) -> bool {
        self.members[number].instance.as_mut().is_some_and(Instance::has_ended)
    }

    /// Waits until an instance ends by itself, and gives what it said.
    pub fn ended(&mut self, number: usize) -> String {
        let (success, log) = self.take(number).ended();
        assert!(!success, "it says with its exit code that something is wrong: {log}");
        log
    }

    /// Stops an instance as SIGSTOP does: it lives, and does nothing.
    pub fn pause(&mut self, number: usize) {
        self.instance(number).signal("-STOP");
        self.members[number].paused = true;
        self.may_be_stale(number);
    }

    /// Others may have counted in an instance's place, without that it knows already.
    pub fn may_be_stale(&mut self, number: usize) {
        self.members[number].stale = true;
    }

    /// Kills the broker and starts it again. Where it has lost what it had acknowledged, counters may fall from now on; in
    /// the end all must be counted once nevertheless.
    pub fn broker_dies(&mut self, broker: &Broker) {
        broker.control("kill");
        broker.control("restart");
        self.may_fall |= broker.has_lost_a_transaction();
    }

    /// Lets it go on.
    pub fn resume(&mut self, number: usize) {
        self.instance(number).signal("-CONT");
        self.members[number].paused = false;
    }

    /// What all show together, the highest of each series. Fails when something fell: an instance goes on at least where
    /// it was itself, and one that takes a partition over at least where anybody was.
    pub fn look(&mut self) -> Shown {
        let mut together = Shown::new();
        for member in self.members.iter_mut().filter(|member| !member.paused) {
            let Some(shown) = member.instance.as_ref().and_then(Instance::scrape).map(ledgers_of) else { continue };
            for (series, value) in shown.iter().filter(|(series, _)| !series.contains("_open_")) {
                let newly = if member.stale { None } else { self.highest.get(series) };
                let floor = member.last.get(series).or(newly).copied().unwrap_or_default();
                assert!(*value >= floor || self.may_fall, "{series} fell from {floor} to {value}");
                let highest = self.highest.entry(series.clone()).or_default();
                *highest = highest.max(*value);
            }
            for (series, value) in &shown {
                let highest = together.entry(series.clone()).or_insert(*value);
                *highest = highest.max(*value);
            }
            member.last = shown;
        }
        together
    }

    /// How many partitions each instance shows.
    pub fn partitions_shown(&mut self) -> Vec<usize> {
        self.look();
        let count = |member: &Member| {
            let of = |series: &&String| series.starts_with("customer_reach_records_total{outcome=\"applied\"");
            if member.instance.is_some() { member.last.keys().filter(of).count() } else { 0 }
        };
        self.members.iter().map(count).collect()
    }

    /// Waits until the instances show so many partitions each, whichever has how many.
    pub fn wait_for_partitions(&mut self, expected: &[usize]) {
        let sorted = |mut counts: Vec<usize>| {
            counts.sort_unstable();
            counts
        };
        let expected = sorted(expected.to_vec());
        let what = format!("partitions are shown by the instances as in {expected:?}");
        until(&what, || (sorted(self.partitions_shown()) == expected).then_some(()));
    }

    /// How many records are shown as counted.
    pub fn records(&mut self) -> usize {
        records_of(&self.look())
    }

    /// Waits until at least this many records are shown as counted.
    pub fn wait_for_at_least(&mut self, count: usize) {
        until(&format!("{count} records are counted"), || (self.records() >= count).then_some(()));
    }

    /// Waits until all records are counted, and fails unless every one was counted once: by what is shown, by an
    /// independent recount, and by an audit.
    pub fn assert_counted(&mut self, messages: &[Message]) -> Shown {
        let count = messages.len();
        let shown = until(&format!("all {count} records are counted"), || {
            let shown = self.look();
            let taken = records_of(&shown);
            assert!(taken <= count, "{taken} records were counted, there are only {count}");
            (taken == count).then_some(shown)
        });
        assert_eq!(Recount::shown(&shown, &self.topic), Recount::of(messages));
        for (series, highest) in &self.highest {
            let now = shown.get(series).copied().unwrap_or_default();
            assert!(now >= *highest || self.may_fall, "{series} fell from {highest} to {now}");
        }
        assert_exact(self.config(0), messages);
        shown
    }

    /// Ends everybody in order.
    pub fn end(mut self) {
        for number in 0..self.members.len() {
            if self.runs(number) {
                self.terminate(number);
            }
        }
    }
}

fn records_of(shown: &Shown) -> usize {
    sum(shown, "customer_reach_records_total", &[]) as usize
}
