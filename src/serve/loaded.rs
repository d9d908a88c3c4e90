//! Packs, service maps and profiles: everything loaded from files.

use std::sync::Arc;
use std::sync::atomic::AtomicI32;

use hashbrown::HashMap;

use crate::classify::Classifier;
use crate::config::{self, Config};
use crate::diagnostic::Problems;
use crate::journal::kafka::JournalTopics;
use crate::prepare::{Input, KeyedCopy, Route, Rules};
use crate::profile::{Decoder, Profile};

/// Everything loaded from files, or all problems of all of them.
pub struct Loaded {
    /// What finds the evidence.
    pub rules: Rules,
    /// By topic.
    pub inputs: Inputs,
}

/// Inputs by topic.
pub type Inputs = Arc<HashMap<String, Arc<Input>>>;

impl Loaded {
    /// Loads packs, service maps and profiles.
    ///
    /// # Errors
    /// All problems of all files.
    pub fn load(config: &Config) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let mut inputs = HashMap::new();
        for input in &config.input {
            let options = config.profile.get(&input.profile);
            match Profile::load(&input.profile, &config.patterns.profiles, options, None) {
                Ok(profile) => inputs.extend(routed(config, input, Arc::new(Decoder::new(profile)))),
                Err(found) => problems.extend(found),
            }
        }
        match load_rules(config) {
            Ok(rules) => problems.into_result(Self { rules, inputs: Arc::new(inputs) }),
            Err(found) => {
                problems.extend(found);
                Err(problems)
            }
        }
    }
}

/// An input and, where its records are copied, the copy as another.
fn routed(config: &Config, input: &config::Input, decoder: Arc<Decoder>) -> Vec<(String, Arc<Input>)> {
    let source: Arc<str> = input.source.as_str().into();
    let made = |route| Arc::new(Input { decoder: decoder.clone(), source: source.clone(), route });
    if !input.rekey {
        return vec![(input.topic.clone(), made(Route::Ledger))];
    }
    let topic = JournalTopics::new(&config.kafka).keyed(&input.topic);
    let copy = Arc::new(KeyedCopy { topic: topic.clone(), partitions: AtomicI32::new(0) });
    vec![(input.topic.clone(), made(Route::Copy(copy.clone()))), (topic.to_string(), made(Route::FromCopy(copy)))]
}

/// Loads packs and service maps, those of the shadow included.
pub(super) fn load_rules(config: &Config) -> Result<Rules, Problems> {
    let mut problems = Problems::new();
    let mut load = |options| Classifier::load(&options).map(Arc::new).map_err(|found| problems.extend(found)).ok();
    let own = load(config.classifier_options());
    let shadow = config.shadow_options().and_then(&mut load);
    match own {
        Some(own) if problems.is_empty() => Ok(Rules { own, shadow }),
        _ => Err(problems),
    }
}
