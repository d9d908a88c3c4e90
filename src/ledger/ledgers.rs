//! The ledgers of a process: one for all partitions, or one for each.

use std::collections::BTreeMap;

use super::Ledger;
use crate::record::Partition;

/// Ledgers by what they are for.
#[derive(Debug)]
pub enum Ledgers {
    /// One for all partitions: it does not matter by which one a ticket comes.
    One(Box<Ledger>),
    /// One for each partition, with which it can move to another process.
    Each(BTreeMap<Partition, Ledger>),
}

impl Ledgers {
    /// One for all partitions.
    pub fn one(ledger: Ledger) -> Self {
        Self::One(Box::new(ledger))
    }

    /// The ledger of a partition, if its state is here.
    pub fn of(&self, partition: &Partition) -> Option<&Ledger> {
        match self {
            Self::One(ledger) => Some(ledger),
            Self::Each(ledgers) => ledgers.get(partition),
        }
    }

    /// The same to be changed.
    pub fn of_mut(&mut self, partition: &Partition) -> Option<&mut Ledger> {
        match self {
            Self::One(ledger) => Some(ledger),
            Self::Each(ledgers) => ledgers.get_mut(partition),
        }
    }

    /// Takes in the ledger of a partition, where each has its own.
    pub fn insert(&mut self, partition: &Partition, ledger: Ledger) {
        if let Self::Each(ledgers) = self {
            ledgers.insert(partition.clone(), ledger);
        }
    }

    /// Lets the ledger of a partition go; one for all partitions stays.
    pub fn remove(&mut self, partition: &Partition) {
        if let Self::Each(ledgers) = self {
            ledgers.remove(partition);
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Ledger> {
        let (one, each) = match self {
            Self::One(ledger) => (Some(&**ledger), None),
            Self::Each(ledgers) => (None, Some(ledgers)),
        };
        one.into_iter().chain(each.into_iter().flat_map(BTreeMap::values))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Ledger> {
        let (one, each) = match self {
            Self::One(ledger) => (Some(&mut **ledger), None),
            Self::Each(ledgers) => (None, Some(ledgers)),
        };
        one.into_iter().chain(each.into_iter().flat_map(BTreeMap::values_mut))
    }

    /// Lets closed tickets go whose retention is over.
    pub fn retire(&mut self) {
        self.iter_mut().for_each(Ledger::retire);
    }

    /// Takes notice that all changes are durable.
    pub fn settle(&mut self) {
        self.iter_mut().for_each(Ledger::settle);
    }
}
