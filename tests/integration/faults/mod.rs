//! What goes wrong around the service, one fault after the other. However it goes, every ticket and every second of effort
//! is counted exactly once, as an audit says, and nothing that was shown falls.

mod brokers;
mod clocks;
mod damage;
mod disks;
mod kills;
mod networks;
mod partitions;
mod poison;
mod random;
mod rebalances;
mod retention;
mod topics;
mod upgrade;
mod zombies;
