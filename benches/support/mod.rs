//! Invented input that several benches share: ServiceNow incidents, and packs of a given size.

#![allow(dead_code, reason = "each bench uses its part")]

use std::sync::Arc;

use customer_reach::classify::{Classifier, ClassifierOptions, PackSource};
use customer_reach::record::{Partition, Record};

/// Enough different documents that the branch predictor does not learn them by heart.
pub const DOCUMENTS: usize = 1000;

const WORDS: [&str; 24] = [
    "customers",
    "cannot",
    "pay",
    "since",
    "nine",
    "the",
    "page",
    "shows",
    "an",
    "error",
    "after",
    "login",
    "warehouse",
    "printer",
    "jams",
    "label",
    "order",
    "queue",
    "is",
    "stuck",
    "please",
    "restart",
    "service",
    "again",
];

fn words(seed: usize, count: usize) -> String {
    let picked = (0..count).map(|i| WORDS[(seed * 31 + i * i * 7 + i) % WORDS.len()]);
    picked.collect::<Vec<_>>().join(" ")
}

/// One invented incident.
pub fn incident(number: usize) -> String {
    let reference = |name: &str, id: usize| {
        format!(r#""{name}":{{"link":"https://acme.example/api/now/table/{name}/{id:032x}","value":"{id:032x}"}}"#)
    };
    let mut fields = vec![
        format!(r#""sys_id":"{number:032x}""#),
        format!(r#""number":"INC{number:07}""#),
        r#""sys_class_name":"incident""#.to_owned(),
        r#""state":"2""#.to_owned(),
        format!(r#""short_description":"{}""#, words(number, 9)),
        format!(r#""description":"{}\nsince the last update.""#, words(number + 1, 110)),
        format!(r#""sys_mod_count":"{}""#, number % 40),
        r#""opened_at":"2026-03-02 08:14:00""#.to_owned(),
        r#""sys_updated_on":"2026-03-02 09:31:27""#.to_owned(),
        r#""resolved_at":"""#.to_owned(),
        r#""time_worked":"1970-01-01 01:30:00""#.to_owned(),
        r#""priority":"3""#.to_owned(),
        r#""category":"software""#.to_owned(),
        r#""subcategory":"shop""#.to_owned(),
        r#""reopen_count":"0""#.to_owned(),
        r#""sys_updated_by":"mia.berg""#.to_owned(),
        reference("caller_id", number * 3),
        reference("assignment_group", number % 50),
        reference("business_service", number % 70),
        reference("cmdb_ci", number % 900),
    ];
    fields.extend(
        (fields.len()..91).map(|i| format!(r#""u_field_{i}":"{}""#, if i % 3 == 0 { "" } else { "some value" })),
    );
    format!("{{{}}}", fields.join(","))
}

/// Records of invented incidents, each wrapped in an envelope by `wrap`.
pub fn records(wrap: fn(String) -> String) -> Vec<Record> {
    let partition = Partition { topic: Arc::from("itsm.incidents"), number: 0 };
    let record = |number: usize| Record {
        partition: partition.clone(),
        offset: 0,
        timestamp: Some(1_772_439_240_000),
        key: None,
        headers: Vec::new(),
        value: Some(wrap(incident(number)).into_bytes()),
    };
    (0..DOCUMENTS).map(record).collect()
}

/// The words of English texts and phrases.
pub const ENGLISH: &[&str] = &[
    "the",
    "since",
    "this",
    "morning",
    "customer",
    "order",
    "cannot",
    "we",
    "have",
    "service",
    "server",
    "error",
    "please",
    "user",
    "account",
    "password",
    "failed",
    "system",
    "check",
    "invoice",
    "portal",
    "report",
    "not",
    "working",
    "and",
    "in",
    "after",
    "update",
    "message",
    "application",
    "restart",
    "network",
    "delivery",
    "status",
    "team",
    "is",
    "to",
    "of",
];

/// The words of German ones.
pub const GERMAN: &[&str] = &[
    "der",
    "die",
    "seit",
    "heute",
    "früh",
    "Kunde",
    "Bestellung",
    "können",
    "nicht",
    "wir",
    "Störung",
    "für",
    "über",
    "Gerät",
    "bitte",
    "Änderung",
    "Zugriff",
    "Passwort",
    "fehlgeschlagen",
    "System",
    "prüfen",
    "Rechnung",
    "Straße",
    "und",
    "in",
    "nach",
    "Übertragung",
    "Meldung",
    "Anwendung",
    "Neustart",
    "Netzwerk",
    "Lieferung",
    "Büro",
    "läuft",
    "größer",
    "ist",
];

/// Numbers that look random and are the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(self.0 >> 33).unwrap_or(0) % words.len();
        words.get(at).copied().unwrap_or_default()
    }
}

/// A pack whose phrases share words with the texts but seldom match, as real ones do.
pub fn pack(phrases: usize, regexes: usize) -> String {
    let mut dice = Dice(7);
    let mut pack = String::new();
    for at in 0..phrases {
        let words = if at % 3 == 0 { GERMAN } else { ENGLISH };
        let (a, b, c) = (dice.pick(words), dice.pick(words), dice.pick(words));
        pack += &rule(&format!("p{at}"), &format!("phrases = ['{a} {b} {c}{at}']"));
    }
    for at in 0..regexes {
        let word = dice.pick(ENGLISH);
        pack += &rule(&format!("r{at}"), &format!("regex = ['{word}{} \\d{{4,}} \\w+']", at % 10));
    }
    pack + &rule("usual", "phrases = ['customer', 'kunde']")
}

fn rule(id: &str, what: &str) -> String {
    format!("[[rule]]\nid = '{id}'\naffects = 'customer'\nweight = 1\n{what}\n")
}

/// A classifier with so many phrases and regexes.
pub fn classifier(phrases: usize, regexes: usize) -> Classifier {
    let folder = tempfile::tempdir().expect("a folder for the pack");
    std::fs::write(folder.path().join("pack.toml"), pack(phrases, regexes)).expect("a file in it");
    let packs = vec![PackSource::Folder(folder.path().to_owned())];
    Classifier::load(&ClassifierOptions { packs, ..ClassifierOptions::default() }).expect("the pack is good")
}
