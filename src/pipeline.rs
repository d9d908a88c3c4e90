//! From records to committed counters, one batch at a time: decode, map and classify on all cores, apply in order,
//! write what goes out, commit, show.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use prometheus::IntCounter;
use rayon::prelude::*;
use smallvec::SmallVec;

use crate::classify::{Classifier, RuleInfo};
use crate::journal::{Journal, JournalError};
use crate::ledger::{Changes, Ledger, best};
use crate::metrics::{Metrics, unix_seconds};
use crate::outcome::{Outcome, Reason, Refusal};
use crate::pattern::matcher::Scratch;
use crate::profile::{Decoded, Decoder};
use crate::record::{Partition, Record};
use crate::sink::{DeadLetter, DeadLetters, Tagger};
use crate::ticket::{Affects, Ticket};
use crate::verdict::{Findings, Policy, RuleId};

/// A topic or dump: how its records become tickets, and whose they are.
#[derive(Debug)]
pub struct Input {
    /// The profile, ready for use.
    pub decoder: Decoder,
    /// The system whose tickets these are.
    pub source: Arc<str>,
}

/// The pure part, shared by all cores: from bytes to findings.
#[derive(Debug)]
pub struct Preparer {
    /// By topic.
    pub inputs: HashMap<String, Input>,
    /// What finds the evidence.
    pub classifier: Classifier,
    /// Longer records are refused.
    pub max_record_bytes: usize,
}

/// Everything a pipeline is made of.
pub struct Parts {
    /// From bytes to findings.
    pub preparer: Preparer,
    /// What makes it durable.
    pub journal: Journal,
    /// As restored from the journal.
    pub ledger: Ledger,
    /// Where refused records go.
    pub dead_letters: Option<DeadLetters>,
    /// Where tagged tickets go.
    pub tagger: Option<Tagger>,
    /// What is shown.
    pub metrics: Arc<Metrics>,
}

/// Why a batch could not be committed; it can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The journal did not take it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Refused records could not be written.
    #[error(transparent)]
    DeadLetters(#[from] crate::sink::DeadLetterError),
    /// Tagged tickets could not be written.
    #[error(transparent)]
    Tagged(#[from] crate::sink::DeliveryError),
}

/// Other rules that tag the same records, to compare with those that count. Nothing of theirs is written or shown.
#[derive(Debug)]
pub struct Shadow {
    /// What finds their evidence.
    pub classifier: Classifier,
    /// The tickets as they tag them.
    pub ledger: Ledger,
}

/// The pipeline with its state.
pub struct Pipeline {
    parts: Parts,
    shadow: Option<Shadow>,
    rules: HashMap<RuleId, IntCounter>,
    letters: Vec<DeadLetter>,
}

/// A record after decoding, mapping and classifying.
enum Prepared {
    Tickets(Vec<Classified>),
    Ignored,
    Refused(Refusal),
}

/// A ticket, without its texts, and what was found in them.
struct Classified {
    ticket: Ticket,
    findings: Findings,
    /// By the rules of the shadow, where there is one.
    shadow: Option<Findings>,
}

impl Pipeline {
    /// A pipeline that goes on where the ledger ends.
    pub fn new(parts: Parts) -> Self {
        let rules = rule_counters(&parts.preparer.classifier, &parts.metrics);
        Self { parts, shadow: None, rules, letters: Vec::new() }
    }

    /// Has other rules tag the same records from the next batch on.
    pub fn set_shadow(&mut self, shadow: Shadow) {
        self.shadow = Some(shadow);
    }

    /// The other rules, with the tickets as they tag them.
    pub fn shadow(&self) -> Option<&Shadow> {
        self.shadow.as_ref()
    }

    /// Tags with other rules from the next batch on.
    pub fn replace_classifier(&mut self, classifier: Classifier) {
        self.rules = rule_counters(&classifier, &self.parts.metrics);
        self.parts.preparer.classifier = classifier;
    }

    /// Adds a topic or dump.
    pub fn add_input(&mut self, topic: &str, input: Input) {
        self.parts.preparer.inputs.insert(topic.to_owned(), input);
    }

    /// The ledger as it is now.
    pub fn ledger(&self) -> &Ledger {
        &self.parts.ledger
    }

    /// What finds the evidence.
    pub fn classifier(&self) -> &Classifier {
        &self.parts.preparer.classifier
    }

    /// Takes notice of partitions, so that their series are shown from the start.
    pub fn assign(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.parts.ledger.partition(partition);
        }
        self.parts.metrics.publish(&self.parts.ledger, Instant::now());
    }

    /// Takes a batch into the ledger. It is neither durable nor shown before [`Pipeline::commit`].
    pub fn take(&mut self, batch: Vec<Record>) {
        let preparer = &self.parts.preparer;
        let shadow = self.shadow.as_ref().map(|shadow| &shadow.classifier);
        let prepared: Vec<Prepared> = batch
            .par_iter()
            .with_min_len(16)
            .map_init(Scratches::default, |scratches, record| preparer.prepare(record, shadow, scratches))
            .collect();
        for (record, prepared) in batch.into_iter().zip(prepared) {
            self.apply(record, prepared);
        }
        self.parts.ledger.retire();
        if let Some(shadow) = &mut self.shadow {
            shadow.ledger.retire();
        }
    }

    fn apply(&mut self, record: Record, prepared: Prepared) {
        let partition = self.parts.ledger.partition(&record.partition);
        let (offset, timestamp) = (record.offset, record.timestamp);
        if self.parts.ledger.partitions().get(partition as usize).is_some_and(|state| offset < state.next_offset) {
            return; // Fetched a second time after a rebalance; it was counted the first time.
        }
        let shadow_partition = self.shadow.as_mut().map_or(0, |shadow| shadow.ledger.partition(&record.partition));
        let outcome = match prepared {
            Prepared::Ignored => Outcome::Ignored,
            Prepared::Refused(refusal) => {
                self.refuse(record, refusal);
                Outcome::DeadLetter
            }
            Prepared::Tickets(tickets) => {
                let input = self.parts.preparer.inputs.get(&*record.partition.topic);
                let source = input.map(|input| input.source.clone()).unwrap_or_default();
                let outcomes = tickets.into_iter().map(|Classified { ticket, findings, shadow }| {
                    let time = timestamp.or(ticket.updated_at.map(jiff::Timestamp::as_millisecond)).unwrap_or_default();
                    if let Some((shadow, findings)) = self.shadow.as_mut().zip(shadow) {
                        shadow.ledger.apply(&source, shadow_partition, time, &ticket, findings);
                    }
                    self.apply_ticket(&source, partition, time, &ticket, findings)
                });
                outcomes.reduce(best).unwrap_or(Outcome::Ignored)
            }
        };
        self.parts.ledger.finish_record(partition, offset, timestamp, outcome);
        if let Some(shadow) = &mut self.shadow {
            shadow.ledger.finish_record(shadow_partition, offset, timestamp, outcome);
        }
    }

    fn apply_ticket(
        &mut self,
        source: &str,
        partition: u32,
        time: i64,
        ticket: &Ticket,
        findings: Findings,
    ) -> Outcome {
        let spoke: SmallVec<[RuleId; 4]> = findings.counting().map(|evidence| evidence.rule).collect();
        let agreement = findings.declared.map(|declared| (self.parts.preparer.predict(&findings), declared));
        let outcome = self.parts.ledger.apply(source, partition, time, ticket, findings);
        if outcome == Outcome::Applied {
            spoke.iter().filter_map(|rule| self.rules.get(rule)).for_each(IntCounter::inc);
            if let Some((predicted, declared)) = agreement {
                self.parts.metrics.agreement.with_label_values(&[predicted.as_str(), declared.as_str()]).inc();
            }
        }
        outcome
    }

    /// Takes a record that was refused before it could be decoded, such as a broken row of a dump.
    pub fn take_refused(&mut self, record: Record, refusal: Refusal) {
        self.apply(record, Prepared::Refused(refusal));
    }

    fn refuse(&mut self, record: Record, refusal: Refusal) {
        self.parts.metrics.dead_letters.with_label_values(&[refusal.reason.as_str()]).inc();
        let input = self.parts.preparer.inputs.get(&*record.partition.topic);
        let profile = input.map_or(String::new(), |input| input.decoder.profile().name().to_owned());
        self.letters.push(DeadLetter { record, refusal, profile });
    }

    /// Makes durable and shows what was taken; returns the new positions. After an error nothing is shown, and the same
    /// call may be made again.
    ///
    /// # Errors
    /// When dead letters, tagged tickets or the journal could not be written.
    pub fn commit(&mut self) -> Result<Vec<(Partition, i64)>, PipelineError> {
        if let Some(dead_letters) = &mut self.parts.dead_letters {
            dead_letters.write(&self.letters)?;
        }
        self.letters.clear();
        let changes = self.parts.ledger.take_changes();
        if let Err(error) = self.parts.commit(&changes) {
            self.parts.ledger.return_changes(changes);
            return Err(error);
        }
        self.parts.metrics.publish(&self.parts.ledger, Instant::now());
        self.parts.metrics.last_progress.set(unix_seconds());
        let states =
            changes.partitions.iter().filter_map(|number| self.parts.ledger.partitions().get(*number as usize));
        Ok(states.map(|state| (state.partition.clone(), state.next_offset)).collect())
    }
}

/// A counter for each rule, at 0 from the start; also shows the hash of the rules.
fn rule_counters(classifier: &Classifier, metrics: &Metrics) -> HashMap<RuleId, IntCounter> {
    metrics.use_patterns(classifier.hash());
    let counter =
        |rule: &RuleInfo| (rule.id, metrics.rule_matches.with_label_values(&[rule.pack.as_str(), rule.short_name()]));
    classifier.rules().map(counter).collect()
}

/// The buffers of one thread.
#[derive(Default)]
struct Scratches {
    own: Scratch,
    shadow: Scratch,
}

impl Preparer {
    /// Decodes, maps and classifies one record; a panic on the way is the record's refusal, not the service's end.
    fn prepare(&self, record: &Record, shadow: Option<&Classifier>, scratches: &mut Scratches) -> Prepared {
        let length = record.value.as_ref().map_or(0, Vec::len);
        if length > self.max_record_bytes {
            let detail =
                format!("the record has {length} bytes, `[batch] max_record_bytes` allows {}", self.max_record_bytes);
            return Prepared::Refused(Refusal::new(Reason::TooLong, detail));
        }
        let Some(input) = self.inputs.get(&*record.partition.topic) else { return Prepared::Ignored };
        catch_unwind(AssertUnwindSafe(|| self.classify(input, record, shadow, scratches))).unwrap_or_else(|_| {
            *scratches = Scratches::default();
            Prepared::Refused(Refusal::new(Reason::Panic, "a defect of this program; please report it with the record"))
        })
    }

    fn classify(
        &self,
        input: &Input,
        record: &Record,
        shadow: Option<&Classifier>,
        scratches: &mut Scratches,
    ) -> Prepared {
        match input.decoder.decode(record) {
            Err(refusal) => Prepared::Refused(refusal),
            Ok(Decoded::Ignored(_)) => Prepared::Ignored,
            Ok(Decoded::Tickets(tickets)) => {
                let found = tickets.into_iter().map(|mut ticket| {
                    let findings = self.classifier.classify(&ticket, &mut scratches.own);
                    let shadow = shadow.map(|other| other.classify(&ticket, &mut scratches.shadow));
                    (ticket.summary, ticket.description) = (None, None);
                    Classified { ticket, findings, shadow }
                });
                Prepared::Tickets(found.collect())
            }
        }
    }

    /// The tag that would follow if none were declared.
    fn predict(&self, findings: &Findings) -> Affects {
        findings.decide(Policy { ignore_declared: true, ..self.classifier.policy() }).affects
    }
}

impl Parts {
    fn commit(&mut self, changes: &Changes) -> Result<(), PipelineError> {
        if let Some(tagger) = &self.tagger {
            tagger.write(&self.ledger, &self.preparer.classifier, &changes.tickets)?;
        }
        let timer = self.metrics.commit_seconds.start_timer();
        self.journal.commit(&self.ledger, changes)?;
        timer.observe_duration();
        Ok(())
    }
}
