//! What it costs to classify one ticket, on one thread: 200 phrases and 20 regexes, and ten times as many, over English
//! and German texts of about 875 bytes. Run with `cargo bench --bench classify`.

mod support;

use customer_reach::ticket::Ticket;
use divan::{Bencher, black_box};
use support::{Dice, ENGLISH, GERMAN, classifier};

fn main() {
    divan::main();
}

/// Characters of a description; with the summary, what tickets have on average.
const LENGTH: usize = 800;

/// Tickets a sample: as in a batch, they find the rules in the caches, but no ticket comes twice in a row.
const BATCH: u32 = 200;

fn tickets(words: &[&str]) -> Vec<Ticket> {
    let mut dice = Dice(42);
    let text = |dice: &mut Dice, length: usize| {
        let mut text = String::new();
        while text.len() < length {
            text += dice.pick(words);
            text += dice.pick(&[" ", " ", " ", ", ", ". ", "\n"]);
        }
        text
    };
    let ticket = |_| Ticket {
        summary: Some(text(&mut dice, 60)),
        description: Some(text(&mut dice, LENGTH)),
        category: Some("Software / Web".into()),
        group: Some("Web Team".into()),
        service: Some("webshop".into()),
        ..Ticket::default()
    };
    (0..200).map(ticket).collect()
}

fn run(bencher: Bencher<'_, '_>, (phrases, regexes): (usize, usize), words: &[&str]) {
    let classifier = classifier(phrases, regexes);
    let tickets = tickets(words);
    let mut scratch = classifier.scratch();
    let mut next = tickets.iter().cycle();
    bencher.bench_local(|| next.next().map(|ticket| black_box(classifier.classify(ticket, &mut scratch))));
}

const SIZES: &[(usize, usize)] = &[(200, 20), (2_000, 200)];

#[divan::bench(args = SIZES, sample_size = BATCH)]
fn english(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    run(bencher, size, ENGLISH);
}

#[divan::bench(args = SIZES, sample_size = BATCH)]
fn german(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    run(bencher, size, GERMAN);
}

/// Folding alone.
#[divan::bench(args = ["english", "german"], sample_size = BATCH)]
fn fold(bencher: Bencher<'_, '_>, language: &str) {
    let tickets = tickets(if language == "english" { ENGLISH } else { GERMAN });
    let mut folded = customer_reach::text::Folded::default();
    let mut next = tickets.iter().cycle();
    bencher.bench_local(|| next.next().and_then(|t| t.description.as_deref()).map(|text| folded.fold(black_box(text))));
}
