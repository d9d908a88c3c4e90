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
use crate::language::Language;
use crate::ledger::{Changes, Held, Ledger, TicketKey, best};
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
    pub classifier: Arc<Classifier>,
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

/// Other rules that tag the same records, to compare with those that count. Of theirs only the comparison is shown, and
/// nothing is written.
#[derive(Debug)]
pub struct Shadow {
    /// What finds their evidence.
    pub classifier: Arc<Classifier>,
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
    /// The language of the texts, where the event declares a tag and ends the ticket.
    language: Option<Language>,
}

/// What was held of a ticket before an event.
#[derive(Clone, Copy)]
struct Before {
    is_open: bool,
    effort_seconds: u64,
}

impl Pipeline {
    /// A pipeline that goes on where the ledger ends.
    pub fn new(parts: Parts) -> Self {
        let rules = rule_counters(&parts.preparer.classifier, &parts.metrics);
        Self { parts, shadow: None, rules, letters: Vec::new() }
    }

    /// Has other rules tag the same records from the next batch on.
    pub fn set_shadow(&mut self, shadow: Shadow) {
        self.parts.metrics.use_shadow(shadow.classifier.hash());
        self.shadow = Some(shadow);
    }

    /// The other rules, with the tickets as they tag them.
    pub fn shadow(&self) -> Option<&Shadow> {
        self.shadow.as_ref()
    }

    /// Tags with other rules from the next batch on; a shadow gets others, too, if there are any.
    pub fn replace_rules(&mut self, own: Arc<Classifier>, shadow: Option<Arc<Classifier>>) {
        self.rules = rule_counters(&own, &self.parts.metrics);
        self.parts.preparer.classifier = own;
        if let Some((shadow, classifier)) = self.shadow.as_mut().zip(shadow) {
            self.parts.metrics.use_shadow(classifier.hash());
            shadow.classifier = classifier;
        }
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
        let shadow = self.shadow.as_ref().map(|shadow| &*shadow.classifier);
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
                let outcomes = tickets.into_iter().map(|mut classified| {
                    let ticket = &classified.ticket;
                    let time = timestamp.or(ticket.updated_at.map(jiff::Timestamp::as_millisecond)).unwrap_or_default();
                    if let Some((shadow, findings)) = self.shadow.as_mut().zip(classified.shadow.take()) {
                        shadow.ledger.apply(&source, shadow_partition, time, ticket, findings);
                    }
                    self.apply_ticket(&source, partition, time, classified)
                });
                outcomes.reduce(best).unwrap_or(Outcome::Ignored)
            }
        };
        self.parts.ledger.finish_record(partition, offset, timestamp, outcome);
        if let Some(shadow) = &mut self.shadow {
            shadow.ledger.finish_record(shadow_partition, offset, timestamp, outcome);
        }
    }

    fn apply_ticket(&mut self, source: &str, partition: u32, time: i64, classified: Classified) -> Outcome {
        let Classified { ticket, findings, language, .. } = classified;
        let key = TicketKey::of(source, &ticket.key);
        let is_compared = self.shadow.is_some() || ticket.state.is_some_and(|state| !state.is_open());
        let before = is_compared.then(|| self.parts.ledger.held(key).map(before));
        let spoke: SmallVec<[RuleId; 4]> = findings.counting().map(|evidence| evidence.rule).collect();
        let outcome = self.parts.ledger.apply(source, partition, time, &ticket, findings);
        if outcome == Outcome::Applied {
            spoke.iter().filter_map(|rule| self.rules.get(rule)).for_each(IntCounter::inc);
            if let Some(before) = before {
                self.count_agreement(key, before, language.unwrap_or(Language::Other));
                self.count_shadow(key, before);
            }
        }
        outcome
    }

    /// Counts a ticket with a declared tag when it ends for the first time, with all its effort.
    fn count_agreement(&self, key: TicketKey, before: Option<Before>, language: Language) {
        let ends = |held: &&Held| before.is_none_or(|b| b.is_open) && !held.is_open() && held.reopened == 0;
        let Some(held) = self.parts.ledger.held(key).filter(ends) else { return };
        let Some(declared) = held.findings.declared.filter(|_| !held.deleted) else { return };
        let predicted = self.parts.preparer.predict(&held.findings);
        let labels = [predicted.as_str(), declared.as_str(), language.as_str()];
        self.parts.metrics.agreement.with_label_values(&labels).inc();
        self.parts.metrics.agreement_effort.with_label_values(&labels).inc_by(held.effort.seconds());
    }

    /// Counts a new ticket, and effort logged since, by the tags of both sides.
    fn count_shadow(&self, key: TicketKey, before: Option<Before>) {
        let Some(shadow) = self.shadow.as_ref().and_then(|shadow| shadow.ledger.held(key)) else { return };
        let Some(own) = self.parts.ledger.held(key) else { return };
        let labels = [own.verdict.affects.as_str(), shadow.verdict.affects.as_str()];
        let more = own.effort.seconds().saturating_sub(before.map_or(0, |before| before.effort_seconds));
        let metrics = &self.parts.metrics;
        metrics.shadow_tickets.with_label_values(&labels).inc_by(u64::from(before.is_none()));
        metrics.shadow_effort.with_label_values(&labels).inc_by(more);
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
                    let language = self.language(&ticket, &findings);
                    (ticket.summary, ticket.description) = (None, None);
                    Classified { ticket, findings, shadow, language }
                });
                Prepared::Tickets(found.collect())
            }
        }
    }

    /// The language of a ticket that ends with a declared tag; telling it costs more than all else, so others go without.
    /// Where there is too little text to tell, it is that of the pack which spoke loudest.
    fn language(&self, ticket: &Ticket, findings: &Findings) -> Option<Language> {
        let ends = ticket.state.is_some_and(|state| !state.is_open());
        findings.declared.filter(|_| ends)?;
        let text = [ticket.summary.as_deref(), ticket.description.as_deref()].into_iter().flatten();
        let told = Language::of(&text.collect::<Vec<_>>().join("\n"));
        let loudest = || findings.counting().max_by_key(|evidence| evidence.weight.abs());
        let pack = || Some(self.classifier.rule(loudest()?.rule)?.pack.as_str());
        Some(if told == Language::Other { pack().and_then(Language::from_name).unwrap_or(told) } else { told })
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::classify::{ClassifierOptions, PackSource};
    use crate::ledger::Settings;
    use crate::profile::Profile;

    const RULES: &str = "[[rule]]\nid = 'pay'\naffects = 'customer'\nweight = 5\nphrases = ['nobody can pay']\n";
    const OTHER_RULES: &str = "[[rule]]\nid = 'shop'\naffects = 'internal'\nweight = 5\nphrases = ['shop']\n";

    fn classifier(rules: &str) -> Arc<Classifier> {
        let folder = tempfile::tempdir().unwrap();
        let pack = folder.path().join("fr");
        std::fs::create_dir(&pack).unwrap();
        std::fs::write(pack.join("rules.toml"), rules).unwrap();
        let packs = vec![PackSource::Folder(pack)];
        Arc::new(Classifier::load(&ClassifierOptions { packs, ..ClassifierOptions::default() }).unwrap())
    }

    fn pipeline() -> Pipeline {
        let ledger = Ledger::new(Settings::default());
        let metrics = Arc::new(Metrics::new(&ledger, Duration::ZERO).unwrap());
        let decoder = Decoder::new(Profile::load("generic", &[], None, None).unwrap());
        let inputs = HashMap::from([("t".to_owned(), Input { decoder, source: "s".into() })]);
        let preparer = Preparer { inputs, classifier: classifier(RULES), max_record_bytes: 1 << 20 };
        let (dead_letters, tagger) = (None, None);
        Pipeline::new(Parts { preparer, journal: Journal::None, ledger, dead_letters, tagger, metrics })
    }

    /// Takes one event of a ticket after the other.
    fn take(pipeline: &mut Pipeline, events: &[&str]) {
        let first = pipeline.ledger().partitions().first().map_or(0, |partition| partition.next_offset);
        let record = |(event, offset): (&&str, i64)| Record {
            partition: Partition { topic: "t".into(), number: 0 },
            offset,
            timestamp: Some(offset),
            key: None,
            headers: Vec::new(),
            value: Some(format!("{{\"version\":{offset},{event}}}").into_bytes()),
        };
        pipeline.take(events.iter().zip(first..).map(record).collect());
        pipeline.commit().unwrap();
    }

    /// The lines of a metric that are not 0, without its prefix.
    fn shown(pipeline: &Pipeline, metric: &str) -> Vec<String> {
        let text = pipeline.parts.metrics.render(Instant::now()).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("customer_reach_"));
        lines.filter(|line| line.starts_with(metric) && !line.ends_with(" 0")).map(str::to_owned).collect()
    }

    #[test]
    fn agreement_is_counted_once_when_a_declared_ticket_ends() {
        let mut pipeline = pipeline();
        let text = "\"summary\":\"Since this morning nobody can pay in the shop, the page shows an error\"";
        let open = format!("\"id\":\"1\",\"state\":\"open\",{text},\"affects\":\"internal\",\"effort_seconds\":60");
        take(&mut pipeline, &[&open]);
        assert!(shown(&pipeline, "agreement").is_empty());
        let closed = format!("\"id\":\"1\",\"state\":\"closed\",{text},\"affects\":\"internal\",\"effort_seconds\":90");
        let reopened = open.replace("60", "95");
        take(&mut pipeline, &[&closed, &reopened, &closed, "\"id\":\"2\",\"state\":\"closed\""]);
        let labels = "{declared=\"internal\",language=\"en\",predicted=\"customer\"}";
        assert_eq!(
            shown(&pipeline, "agreement"),
            [format!("agreement_effort_seconds_total{labels} 90"), format!("agreement_total{labels} 1")]
        );
    }

    #[test]
    fn a_text_too_short_to_tell_has_the_language_of_the_pack_that_spoke() {
        let mut pipeline = pipeline();
        let closed = "\"state\":\"closed\",\"affects\":\"customer\"";
        let spoken = format!("\"id\":\"1\",\"summary\":\"POS: nobody can pay\",{closed}");
        take(&mut pipeline, &[&spoken, &format!("\"id\":\"2\",\"summary\":\"ORA-00600\",{closed}")]);
        let shown = shown(&pipeline, "agreement_total");
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert!(shown.iter().any(|line| line.contains("language=\"fr\",predicted=\"customer\"")), "{shown:?}");
        assert!(shown.iter().any(|line| line.contains("language=\"other\",predicted=\"internal\"")), "{shown:?}");
    }

    #[test]
    fn a_shadow_shows_what_other_rules_would_move_and_changes_nothing() {
        let events = [
            "\"id\":\"1\",\"summary\":\"nobody can pay in the shop\",\"effort_seconds\":60",
            "\"id\":\"2\",\"summary\":\"shop\",\"effort_seconds\":5",
            "\"id\":\"1\",\"effort_seconds\":100",
        ];
        let (mut alone, mut beside) = (pipeline(), pipeline());
        let rules = format!("{RULES}{}", OTHER_RULES.replace("= 5", "= 7"));
        let ledger = Ledger::new(Settings::default());
        beside.set_shadow(Shadow { classifier: classifier(&rules), ledger });
        take(&mut alone, &events);
        take(&mut beside, &events);
        assert!(shown(&alone, "shadow").is_empty());
        assert_eq!(shown(&alone, "effort_seconds_total"), shown(&beside, "effort_seconds_total"));
        let hash = beside.shadow().unwrap().classifier.hash();
        assert_eq!(
            shown(&beside, "shadow"),
            [
                "shadow_effort_seconds_total{live=\"customer\",shadow=\"internal\"} 100".to_owned(),
                "shadow_effort_seconds_total{live=\"internal\",shadow=\"internal\"} 5".to_owned(),
                format!("shadow_pattern_set_info{{hash=\"{hash}\"}} 1"),
                "shadow_tickets_total{live=\"customer\",shadow=\"internal\"} 1".to_owned(),
                "shadow_tickets_total{live=\"internal\",shadow=\"internal\"} 1".to_owned(),
            ]
        );
    }
}
