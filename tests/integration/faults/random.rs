//! Faults of all kinds, one after the other, as a seed has it.
//!
//! `CUSTOMER_REACH_TEST_SEED` repeats a run as far as a race can be repeated; `CUSTOMER_REACH_TEST_SOAK` is its length in
//! seconds, and `tests/soak` runs it for an hour.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, Journal};
use crate::proxy::{Network, Proxy};
use crate::support::*;

const INSTANCES: usize = 3;
const TOPIC: &str = "random";
/// How long the last records may take: sessions and transactions of whoever was killed last have to end first.
const RECOVERY: Duration = Duration::from_secs(180);
/// From this length on brokers are killed as well.
const LONG: u64 = 120;

struct Story {
    random: Random,
    fleet: Fleet,
    proxies: Vec<Proxy>,
    broker: Broker,
    long: bool,
}

#[test]
fn faults_of_all_kinds_in_random_order_lose_nothing_and_count_nothing_twice() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("CUSTOMER_REACH_TEST_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000);
    let seconds = number("CUSTOMER_REACH_TEST_SOAK").unwrap_or(15);
    println!("CUSTOMER_REACH_TEST_SEED={seed} CUSTOMER_REACH_TEST_SOAK={seconds}");

    let folder = tempfile::tempdir().unwrap();
    let proxies: Vec<Proxy> = (0..INSTANCES).map(|_| Proxy::new()).collect();
    let Some(broker) = Broker::behind(folder.path(), &proxies) else { return };
    broker.create_topic(TOPIC, 4);
    let fleet = Fleet::new(&broker.address, TOPIC, Journal::Kafka, INSTANCES);
    for (number, proxy) in proxies.iter().enumerate() {
        fleet.reach(number, &proxy.address());
    }
    let mut story = Story { random: Random::new(seed), fleet, proxies, broker, long: seconds >= LONG };
    story.fleet.start_all();

    // More than are needed; what is produced counts.
    let messages = invented(seed, 300 * (seconds as usize + 10));
    let mut produced = 0;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end && produced + 200 < messages.len() {
        let more = 20 + story.random.below(180) as usize;
        story.broker.produce(TOPIC, &messages[produced..produced + more]);
        produced += more;
        story.next();
        story.go_on_a_while();
    }
    story.recover(produced);
    story.fleet.assert_counted(&messages[..produced]);
    println!("{produced} records");
    story.fleet.end();
}

impl Story {
    /// The next fault, or the end of one.
    fn next(&mut self) {
        let number = self.random.below(INSTANCES as u64) as usize;
        let runs = self.fleet.runs(number);
        let kind = self.random.below(if self.long { 40 } else { 38 });
        println!("{kind} for instance {number}");
        match kind {
            // Whoever is dead or sleeps goes on more often than it is killed, so that somebody counts.
            0..12 if !runs => self.fleet.start(number),
            0..12 if self.fleet.is_paused(number) => self.fleet.resume(number),
            0..6 => {
                self.fleet.kill(number);
                self.fleet.start(number);
            }
            6..8 if runs => self.fleet.kill(number),
            8..10 if runs && !self.fleet.is_paused(number) => {
                // Without brokers a drain takes as long as it may, and says so with its exit code.
                self.network(number, Network::Open);
                self.fleet.terminate(number);
            }
            10..16 if runs => self.fleet.pause(number),
            16..26 => self.network(number, Network::Open),
            26..30 => self.network(number, Network::Cut),
            30..32 => self.network(number, Network::Deaf),
            32..34 => self.network(number, Network::Slow(Duration::from_millis(5))),
            38.. => self.fleet.broker_dies(&self.broker),
            _ => {}
        }
    }

    fn network(&mut self, number: usize, network: Network) {
        self.proxies[number].set(network);
        // Others may count in its place without its notice.
        self.fleet.may_be_stale(number);
    }

    /// Lets some more be counted, if anybody can.
    fn go_on_a_while(&mut self) {
        let before = self.fleet.records();
        let more = self.random.below(300) as usize;
        let end = Instant::now() + Duration::from_millis(self.random.below(1_000));
        while self.fleet.records() < before + more && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Ends all faults, and waits until everything is counted.
    fn recover(&mut self, produced: usize) {
        for number in 0..INSTANCES {
            self.proxies[number].set(Network::Open);
            match (self.fleet.runs(number), self.fleet.is_paused(number)) {
                (false, _) => self.fleet.start(number),
                (true, true) => self.fleet.resume(number),
                (true, false) => {}
            }
        }
        until_within(RECOVERY, "everything is counted", || {
            if self.long {
                self.do_as_told();
            }
            (self.fleet.records() >= produced).then_some(())
        });
    }

    /// A broker that is killed can lose the end of a transaction. Whoever operates it does what the service says.
    fn do_as_told(&self) {
        for number in 0..INSTANCES {
            let log = self.fleet.instance(number).log();
            let told = log.lines().filter_map(|line| line.trim().strip_prefix("kafka-transactions.sh ")).next_back();
            if let Some(arguments) = told {
                println!("as told: {arguments}");
                // By the tests' own way to the broker.
                let (_, rest) = arguments.trim_end_matches('"').split_once(" abort ").unwrap();
                let own = ["--bootstrap-server", &self.broker.address, "abort"];
                self.broker.tool("TransactionsCommand", own.into_iter().chain(rest.split(' ')));
            }
        }
    }
}
