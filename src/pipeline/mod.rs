//! From prepared records to committed counters, one batch at a time: apply in order, gather what goes out, commit, show.

mod holds;
#[cfg(test)]
mod tests;
mod unkeyed;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use prometheus::IntCounter;
use smallvec::SmallVec;

use self::holds::Holds;
use self::unkeyed::Watch;
use crate::classify::{Classifier, RuleInfo};
use crate::journal::{Commit, CommitError, Journal, SqliteError};
use crate::language::Language;
use crate::ledger::{Held, Ledger, Ledgers, PartitionState, Settings, TicketKey, best};
use crate::metrics::{Metrics, unix_seconds};
use crate::outcome::{Outcome, Refusal};
use crate::panic::caught;
use crate::prepare::{Batch, Classified, Input, Prepared, Preparer, Route, Rules, refusal};
use crate::record::{Partition, Record};
use crate::sink::{DeadLetter, DeadLetterError, DeadLetters, Outgoing, TaggedLine, copy_of, cut};
use crate::source::kafka::{Epoch, Fetched};
use crate::verdict::RuleId;

/// Everything a pipeline is made of.
pub struct Parts {
    /// From bytes to findings.
    pub preparer: Preparer,
    /// What makes it durable.
    pub journal: Journal,
    /// As restored from the journal.
    pub ledgers: Ledgers,
    /// Where refused records go.
    pub dead_letters: Option<DeadLetters>,
    /// The topic where tagged tickets go.
    pub tagged: Option<Arc<str>>,
    /// What is shown.
    pub metrics: Arc<Metrics>,
    /// How long a new series is shown at 0.
    pub zero_hold: Duration,
}

/// Why a batch could not be committed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The journal did not take it.
    #[error(transparent)]
    Journal(#[from] CommitError),
    /// Refused records could not be written.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
}

impl PipelineError {
    /// Whether it is not known what is committed, so that all has to be restored. Otherwise the same can be tried again.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Journal(error) if error.is_lost())
    }

    /// Whether it stays so until somebody does something, so that the service has to end.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Journal(error) if error.is_final())
    }
}

/// The tickets as other rules tag them, to compare with those that count. Only the comparison is shown, and nothing is
/// written.
#[derive(Clone, Copy, Debug)]
pub struct Shadow<'a> {
    /// What finds their evidence.
    pub classifier: &'a Classifier,
    /// The tickets as they tag them.
    pub ledger: &'a Ledger,
}

/// The pipeline with its state.
pub struct Pipeline {
    parts: Parts,
    rules: Rules,
    shadow: Option<Ledger>,
    counters: HashMap<RuleId, IntCounter>,
    /// The partitions that are this process's, where there are others.
    owned: Option<HashMap<Partition, Epoch>>,
    /// What goes out with the next commit, and what it comes from.
    outbox: Vec<(Partition, Outgoing)>,
    /// Refused records that go into a file.
    letters: Vec<DeadLetter>,
    /// The next offset of inputs that are copied, and which of them moved since the last commit.
    copied: BTreeMap<Partition, (i64, bool)>,
    holds: Holds,
    /// Partitions whose journal is behind what was shown of them, and up to where: until then they are not shown, for a
    /// counter must not fall. None is shown where that is not known yet.
    behind: Option<HashMap<Partition, i64>>,
    /// Records that make the ledger panic, by position: they are refused when they come again.
    defects: HashMap<(Partition, i64), Refusal>,
    /// Whether a ledger was left in the middle of a change.
    torn: bool,
    watch: Watch,
}

/// What was held of a ticket before an event.
#[derive(Clone, Copy)]
struct Before {
    is_open: bool,
    effort_seconds: u64,
}

impl Pipeline {
    /// A pipeline that goes on where the ledgers end.
    pub fn new(parts: Parts) -> Self {
        let rules = parts.preparer.rules.clone();
        let mut pipeline = Self {
            shadow: None,
            counters: HashMap::new(),
            owned: None,
            outbox: Vec::new(),
            letters: Vec::new(),
            copied: BTreeMap::new(),
            holds: Holds::new(parts.zero_hold),
            behind: (!parts.journal.is_behind()).then(HashMap::new),
            defects: HashMap::new(),
            torn: false,
            watch: Watch::new(parts.metrics.clone()),
            rules,
            parts,
        };
        pipeline.use_rules();
        pipeline.publish();
        pipeline
    }

    /// What makes records ready for it.
    pub fn preparer(&self) -> &Preparer {
        &self.parts.preparer
    }

    /// The other rules, with the tickets as they tag them.
    pub fn shadow(&self) -> Option<Shadow<'_>> {
        Some(Shadow { classifier: self.rules.shadow.as_deref()?, ledger: self.shadow.as_ref()? })
    }

    /// Adds a topic or dump.
    pub fn add_input(&mut self, topic: &str, input: Input) {
        Arc::make_mut(&mut self.parts.preparer.inputs).insert(topic.to_owned(), Arc::new(input));
    }

    /// The ledgers as they are now.
    pub fn ledgers(&self) -> &Ledgers {
        &self.parts.ledgers
    }

    /// The ledger where there is one for all partitions, as in a replay; an empty one where each has its own.
    pub fn ledger(&self) -> &Ledger {
        static NONE: LazyLock<Ledger> = LazyLock::new(|| Ledger::new(Settings::default()));
        match &self.parts.ledgers {
            Ledgers::One(ledger) => ledger,
            Ledgers::Each(_) => &NONE,
        }
    }

    /// What finds the evidence.
    pub fn classifier(&self) -> &Classifier {
        &self.rules.own
    }

    /// The journal.
    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.parts.journal
    }

    /// Takes records of these partitions, by this assignment and no other. Where there is one ledger for all, their series
    /// are shown from now on.
    pub fn own(&mut self, partitions: &[(Partition, Epoch)]) {
        self.owned.get_or_insert_default().extend(partitions.iter().cloned());
        if let Ledgers::One(ledger) = &mut self.parts.ledgers {
            partitions.iter().for_each(|(partition, _)| _ = ledger.partition(partition));
        }
        self.publish();
    }

    /// Takes notice of how far these partitions had come when they were shown last.
    pub fn catch_up(&mut self, committed: HashMap<Partition, i64>) {
        self.behind = Some(committed);
        self.leave_behind();
        self.publish();
    }

    /// Takes in the ledger of a partition that was restored, if it is still this process's by that assignment.
    pub fn take_over(&mut self, partition: &Partition, epoch: Epoch, ledger: Ledger) -> bool {
        if self.owned.as_ref().and_then(|owned| owned.get(partition)) != Some(&epoch) {
            return false;
        }
        if let Journal::Kafka(journal) = &mut self.parts.journal {
            journal.take_over(partition, &ledger);
        }
        self.parts.ledgers.insert(partition, ledger);
        self.publish();
        true
    }

    /// Lets partitions go with all that is not committed of them; their series are shown no more.
    pub fn let_go(&mut self, partitions: &[Partition]) {
        self.forget(partitions);
        self.publish();
    }

    /// Whether a record made a ledger panic, so that nothing can go on before [`Pipeline::go_back`].
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Goes back to the last commit: a file is read again, ledgers in topics are forgotten, to be restored. What is
    /// committed is shown meanwhile.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn go_back(&mut self) -> Result<(), SqliteError> {
        let owned = self.owned.as_ref().map(|owned| owned.keys().cloned().collect::<Vec<_>>());
        self.forget(&owned.unwrap_or_default());
        self.outbox.clear();
        self.letters.clear();
        if let (Journal::Sqlite(journal, _), Ledgers::One(ledger)) = (&mut self.parts.journal, &mut self.parts.ledgers)
        {
            **ledger = journal.restore(ledger.settings())?;
        }
        self.torn = false;
        Ok(())
    }

    fn forget(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.parts.ledgers.remove(partition);
            self.copied.remove(partition);
            self.owned.as_mut().map(|owned| owned.remove(partition));
        }
        // One ledger for all keeps what it has taken of them, and commits it with what goes out.
        if let Ledgers::Each(_) = self.parts.ledgers {
            self.outbox.retain(|(partition, _)| !partitions.contains(partition));
            self.letters.retain(|letter| !partitions.contains(&letter.record.partition));
        }
    }

    /// Decodes, maps, classifies and takes records. They are neither durable nor shown before [`Pipeline::commit`].
    pub fn take(&mut self, records: Vec<Record>) {
        let batch = self.parts.preparer.prepare_all(records);
        self.apply(batch);
    }

    /// Takes records that are prepared. They are neither durable nor shown before [`Pipeline::commit`].
    pub fn apply(&mut self, batch: Batch) {
        if !Arc::ptr_eq(&self.rules.own, &batch.rules.own) {
            self.rules = batch.rules;
            self.use_rules();
        }
        for (fetched, prepared) in batch.records {
            if !self.torn {
                self.apply_one(fetched, prepared);
            }
        }
        self.parts.ledgers.retire();
        if let Some(shadow) = &mut self.shadow {
            shadow.retire();
        }
    }

    /// Counts for the rules in use, and shows which they are.
    fn use_rules(&mut self) {
        self.counters = rule_counters(&self.rules.own, &self.parts.metrics);
        if let Some(shadow) = &self.rules.shadow {
            self.parts.metrics.use_shadow(shadow.hash());
            let settings = self.parts.ledgers.iter().next().map(Ledger::settings).unwrap_or_default();
            self.shadow.get_or_insert_with(|| Ledger::new(settings));
        }
    }

    fn apply_one(&mut self, fetched: Fetched, prepared: Prepared) {
        let Fetched { record, epoch } = fetched;
        let is_owned = |owned: &HashMap<Partition, Epoch>| owned.get(&record.partition) == Some(&epoch);
        if !self.owned.as_ref().is_none_or(is_owned) {
            return; // Fetched before the partition was given up; whoever has it now takes it.
        }
        if let Prepared::Copies(partitions) = prepared {
            return self.copy(&record, &partitions);
        }
        let Some(ledger) = self.parts.ledgers.of_mut(&record.partition) else { return };
        if ledger.state(&record.partition).is_some_and(|state| record.offset < state.next_offset) {
            return; // Fetched a second time after a rebalance; it was counted the first time.
        }
        match self.defect(&record).map_or(prepared, Prepared::Refused) {
            Prepared::Ignored | Prepared::Copies(_) => self.finish(&record, Outcome::Ignored),
            Prepared::Tickets(tickets) => {
                if let Some(outcome) = self.apply_tickets(&record, tickets) {
                    self.finish(&record, outcome);
                }
            }
            Prepared::Refused(refusal) => {
                self.finish(&record, Outcome::DeadLetter);
                self.refuse(record, refusal);
            }
        }
    }

    /// Why a record is refused that made the ledger panic when it came before.
    fn defect(&mut self, record: &Record) -> Option<Refusal> {
        if self.defects.is_empty() {
            None
        } else {
            self.defects.get(&(record.partition.clone(), record.offset)).cloned()
        }
    }

    /// Takes the tickets of a record; no outcome if one of them tears the ledger.
    fn apply_tickets(&mut self, record: &Record, tickets: Vec<Classified>) -> Option<Outcome> {
        let input = self.parts.preparer.inputs.get(&*record.partition.topic);
        let source = input.map(|input| input.source.clone()).unwrap_or_default();
        let applied = caught(|| {
            let outcomes = tickets.into_iter().map(|classified| self.apply_ticket(&source, record, classified));
            outcomes.reduce(best).unwrap_or(Outcome::Ignored)
        });
        match applied {
            Ok(outcome) => Some(outcome),
            Err(panicked) => {
                self.torn = true;
                self.defects.insert((record.partition.clone(), record.offset), refusal(record, panicked));
                None
            }
        }
    }

    /// Ends a record with its outcome.
    fn finish(&mut self, record: &Record, outcome: Outcome) {
        for ledger in self.parts.ledgers.of_mut(&record.partition).into_iter().chain(&mut self.shadow) {
            let partition = ledger.partition(&record.partition);
            ledger.finish_record(partition, record.offset, record.timestamp, outcome);
        }
    }

    fn apply_ticket(&mut self, source: &str, record: &Record, classified: Classified) -> Outcome {
        let Classified { ticket, findings, language, shadow } = classified;
        let key = TicketKey::of(source, &ticket.key);
        let own_time = ticket.updated_at.map(jiff::Timestamp::as_millisecond);
        let time = record.timestamp.or(own_time).unwrap_or_default();
        if let Some((ledger, findings)) = self.shadow.as_mut().zip(shadow) {
            let partition = ledger.partition(&record.partition);
            ledger.apply(source, partition, time, &ticket, findings);
        }
        let Some(ledger) = self.parts.ledgers.of_mut(&record.partition) else { return Outcome::Ignored };
        let is_compared = self.shadow.is_some() || ticket.state.is_some_and(|state| !state.is_open());
        let before = is_compared.then(|| ledger.held(key).map(before));
        let is_new = ledger.ticket(key).is_none();
        let spoke: SmallVec<[RuleId; 4]> = findings.counting().map(|evidence| evidence.rule).collect();
        let partition = ledger.partition(&record.partition);
        let outcome = ledger.apply(source, partition, time, &ticket, findings);
        if outcome == Outcome::Applied {
            spoke.iter().filter_map(|rule| self.counters.get(rule)).for_each(IntCounter::inc);
            if let Some(before) = before {
                self.compare(record, key, before, language.unwrap_or(Language::Other));
            }
            self.watch_key(record, key, is_new);
        }
        outcome
    }

    fn watch_key(&mut self, record: &Record, ticket: TicketKey, is_new: bool) {
        let input = self.parts.preparer.inputs.get(&*record.partition.topic);
        if input.is_some_and(|input| matches!(input.route, Route::Ledger)) {
            self.watch.look(&mut self.parts.ledgers, record, ticket, is_new);
        }
    }

    /// Compares the ticket's tag with those that other people and other rules give.
    fn compare(&self, record: &Record, key: TicketKey, before: Option<Before>, language: Language) {
        let Some(held) = self.parts.ledgers.of(&record.partition).and_then(|ledger| ledger.held(key)) else { return };
        self.count_agreement(held, before, language);
        if let Some(shadow) = self.shadow.as_ref().and_then(|shadow| shadow.held(key)) {
            self.count_shadow(held, shadow, before);
        }
    }

    /// Counts a ticket with a declared tag when it ends for the first time, with all its effort.
    fn count_agreement(&self, held: &Held, before: Option<Before>, language: Language) {
        let ends = before.is_none_or(|b| b.is_open) && !held.is_open() && held.reopened == 0;
        let Some(declared) = held.findings.declared.filter(|_| ends && !held.deleted) else { return };
        let predicted = self.rules.predict(&held.findings);
        let labels = [predicted.as_str(), declared.as_str(), language.as_str()];
        self.parts.metrics.agreement.with_label_values(&labels).inc();
        self.parts.metrics.agreement_effort.with_label_values(&labels).inc_by(held.effort.seconds());
    }

    /// Counts a new ticket, and effort logged since, by the tags of both sides.
    fn count_shadow(&self, own: &Held, shadow: &Held, before: Option<Before>) {
        let labels = [own.verdict.affects.as_str(), shadow.verdict.affects.as_str()];
        let more = own.effort.seconds().saturating_sub(before.map_or(0, |before| before.effort_seconds));
        let metrics = &self.parts.metrics;
        metrics.shadow_tickets.with_label_values(&labels).inc_by(u64::from(before.is_none()));
        metrics.shadow_effort.with_label_values(&labels).inc_by(more);
    }

    /// Sends a record on to the partitions of its tickets.
    fn copy(&mut self, record: &Record, partitions: &[i32]) {
        let Some(Route::Copy(copy)) = self.parts.preparer.inputs.get(&*record.partition.topic).map(|i| &i.route) else {
            return;
        };
        let (next, moved) = self.copied.entry(record.partition.clone()).or_insert((i64::MIN, false));
        if record.offset < *next {
            return; // Fetched a second time after a rebalance; it was copied the first time.
        }
        (*next, *moved) = (record.offset + 1, true);
        for partition in partitions {
            self.outbox.push((record.partition.clone(), copy_of(record, &copy.topic, *partition)));
        }
        let labels = [&*record.partition.topic, &record.partition.number.to_string()];
        self.parts.metrics.rekeyed.with_label_values(&labels).inc();
    }

    /// Takes a record that was refused before it could be decoded, such as a broken row of a dump.
    pub fn take_refused(&mut self, record: Record, refusal: Refusal) {
        self.apply_one(Fetched { record, epoch: Epoch::default() }, Prepared::Refused(refusal));
    }

    fn refuse(&mut self, record: Record, refusal: Refusal) {
        self.parts.metrics.dead_letters.with_label_values(&[refusal.reason.as_str()]).inc();
        let input = self.parts.preparer.inputs.get(&*record.partition.topic);
        let profile = input.map_or(String::new(), |input| input.decoder.profile().name().to_owned());
        let letter = DeadLetter { record, refusal, profile };
        match &self.parts.dead_letters {
            Some(DeadLetters::Topic(topic)) => {
                self.outbox.push((letter.record.partition.clone(), letter.outgoing(topic)));
            }
            _ => self.letters.push(letter),
        }
    }

    /// Releases the series that have been shown at 0 for long enough; says whether there are some, and so something to be
    /// committed.
    pub fn release(&mut self, now: Instant) -> bool {
        self.release_behind();
        self.holds.release(&mut self.parts.ledgers, now)
    }

    /// Releases the series of partitions that are behind: most were shown already, and must not fall to 0.
    fn release_behind(&mut self) {
        for partition in self.behind.iter().flatten().map(|(partition, _)| partition) {
            let Some(ledger) = self.parts.ledgers.of_mut(partition) else { continue };
            let begun = ledger.state(partition).filter(|state| state.next_offset > 0 && !state.fresh.is_empty());
            if let Some(fresh) = begun.map(|state| state.fresh.clone()) {
                ledger.release(partition, &fresh);
            }
        }
    }

    /// Makes durable and shows what was taken; returns the new positions. After an error nothing is shown, and the same
    /// call may be made again unless all [`is lost`](PipelineError::is_lost).
    ///
    /// # Errors
    /// When dead letters, tagged tickets or the journal could not be written.
    pub fn commit(&mut self) -> Result<Vec<(Partition, i64)>, PipelineError> {
        if let Some(dead_letters) = &mut self.parts.dead_letters {
            dead_letters.write(&self.letters)?;
        }
        self.letters.clear();
        let positions = self.positions();
        let tagged = self.tagged();
        let outgoing: Vec<&Outgoing> = self.outbox.iter().map(|(_, outgoing)| outgoing).chain(&tagged).collect();
        let timer = self.parts.metrics.commit_seconds.start_timer();
        let commit = Commit { ledgers: &self.parts.ledgers, outgoing: &outgoing, positions: &positions };
        if let Err(error) = self.parts.journal.commit(commit) {
            error.too_large().into_iter().for_each(|length| self.cut_letters(length));
            return Err(error.into());
        }
        timer.observe_duration();
        self.outbox.clear();
        let is_past =
            |(partition, offset): &(Partition, i64)| positions.iter().any(|(p, next)| p == partition && offset < next);
        self.defects.retain(|defect, _| !is_past(defect));
        self.copied.values_mut().for_each(|(_, moved)| *moved = false);
        self.parts.ledgers.settle();
        self.leave_behind();
        self.publish();
        self.parts.metrics.last_progress.set(unix_seconds());
        Ok(positions)
    }

    /// Cuts dead letters that are as large as what their topic has refused: it would refuse them for ever.
    fn cut_letters(&mut self, length: usize) {
        let Some(DeadLetters::Topic(topic)) = &self.parts.dead_letters else { return };
        let letters = self.outbox.iter_mut().filter(|(_, outgoing)| outgoing.topic == *topic);
        for (partition, letter) in letters.filter(|(_, letter)| letter.length() >= length.max(1)) {
            tracing::warn!(%partition, bytes = letter.length(), %topic, "a dead letter is larger than its topic takes, and goes there without its record; a higher max.message.bytes avoids this");
            cut(letter);
        }
    }

    fn publish(&mut self) {
        let Some(behind) = &self.behind else { return };
        self.holds.note(&self.parts.ledgers, Instant::now());
        let is_shown = |state: &PartitionState| !behind.contains_key(&state.partition);
        self.parts.metrics.publish(&self.parts.ledgers, is_shown);
    }

    /// Takes notice of the partitions that hold by now what was shown of them.
    fn leave_behind(&mut self) {
        let (Some(behind), ledgers) = (&mut self.behind, &self.parts.ledgers) else { return };
        let position = |partition: &Partition| Some(ledgers.of(partition)?.state(partition)?.next_offset);
        behind.retain(|partition, shown| position(partition).is_none_or(|position| position < *shown));
        if behind.is_empty()
            && let Journal::Sqlite(journal, _) = &mut self.parts.journal
            && let Err(error) = journal.catch_up()
        {
            tracing::warn!(%error, "the journal cannot be marked as caught up; tried again with the next commit");
        }
    }

    /// The next offset of each partition that moved since the last commit.
    fn positions(&self) -> Vec<(Partition, i64)> {
        let mut positions: Vec<_> =
            self.copied.iter().filter(|(_, (_, moved))| *moved).map(|(p, (next, _))| (p.clone(), *next)).collect();
        for ledger in self.parts.ledgers.iter() {
            let states = ledger.changed_partitions().iter().filter_map(|n| ledger.partitions().get(*n as usize));
            positions
                .extend(states.filter(|state| state.next_offset > 0).map(|s| (s.partition.clone(), s.next_offset)));
        }
        positions
    }

    /// The lines of the tickets that changed.
    fn tagged(&self) -> Vec<Outgoing> {
        let Some(topic) = &self.parts.tagged else { return Vec::new() };
        let lines = self.parts.ledgers.iter().flat_map(|ledger| {
            let held = ledger.changed_tickets().iter().filter_map(|key| ledger.held(*key));
            held.filter_map(|held| TaggedLine::new(held, ledger, &self.rules.own).outgoing(topic))
        });
        lines.collect()
    }
}

fn before(held: &Held) -> Before {
    Before { is_open: held.is_open(), effort_seconds: held.effort.seconds() }
}

/// A counter for each rule, at 0 from the start; also shows the hash of the rules.
fn rule_counters(classifier: &Classifier, metrics: &Metrics) -> HashMap<RuleId, IntCounter> {
    metrics.use_patterns(classifier.hash());
    let counter =
        |rule: &RuleInfo| (rule.id, metrics.rule_matches.with_label_values(&[rule.pack.as_str(), rule.short_name()]));
    classifier.rules().map(counter).collect()
}
