//! Three brokers that each have a copy of everything, so that one of them may be away.

use std::path::Path;

use crate::support::*;

/// A cluster that the test may kill brokers of, one at a time.
pub struct Cluster {
    /// For clients, which reach whoever is there.
    pub all: Broker,
    pub brokers: [Broker; 3],
}

impl Cluster {
    /// Starts three brokers, which elect a controller among themselves. What was acknowledged is with two of them at least.
    pub fn start(folder: &Path) -> Option<Self> {
        let controllers: [(u16, u16); 3] = std::array::from_fn(|number| (1 + number as u16, listening_port()));
        let voters = controllers.map(|(node, port)| format!("{node}@127.0.0.1:{port}")).join(",");
        // None answers before two of them run.
        let started = std::thread::scope(|scope| {
            let starts = controllers.map(|(node, port)| {
                let settings = [
                    format!("node.id={node}"),
                    format!("controller.quorum.voters={voters}"),
                    format!("listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{port}"),
                    "default.replication.factor=3".to_owned(),
                    "min.insync.replicas=2".to_owned(),
                    "offsets.topic.replication.factor=3".to_owned(),
                    "transaction.state.log.replication.factor=3".to_owned(),
                    "transaction.state.log.min.isr=2".to_owned(),
                ];
                let own = folder.join(node.to_string());
                scope.spawn(move || Broker::with(&own, &settings.each_ref().map(String::as_str)))
            });
            starts.map(|start| start.join().unwrap())
        });
        let [Some(a), Some(b), Some(c)] = started else { return None };
        let brokers = [a, b, c];
        let all = Broker::at(&brokers.each_ref().map(|broker| broker.address.as_str()).join(","))?;
        Some(Self { all, brokers })
    }

    /// Kills a broker, as soon as the others have every copy and can do without it.
    pub fn kill(&self, number: usize) {
        until("every broker has every copy", || self.all.has_copies(self.brokers.len()).then_some(()));
        self.brokers[number].control("kill");
    }
}
