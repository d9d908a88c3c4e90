//! The matcher against a table of cases, and against a slow matcher that is obviously right.

#![allow(clippy::string_slice, reason = "the slow matcher goes from character to character")]

use compact_str::CompactString;
use proptest::prelude::*;

use super::compile::Matcher;
use super::matcher::{Fate, Scratch};
use super::pack::{PackFiles, Rule, read};
use crate::diagnostic::Problems;
use crate::ticket::{Kind, TextField, Ticket};

/// The rules of one pack text, sorted as the matcher wants them.
fn rules(text: &str) -> Vec<Rule> {
    let mut problems = Problems::new();
    let pack = PackFiles { name: "t".to_owned(), files: vec![("t.toml".to_owned(), text.to_owned())] };
    let mut rules = read(&pack, &mut problems);
    assert!(problems.is_empty(), "{problems}");
    rules.sort_by_key(Rule::name);
    rules
}

/// All matches in a summary, as `id "text"`, with `-` before those that do not count.
fn found(pack: &str, ticket: &Ticket) -> String {
    let rules = rules(pack);
    let matcher = Matcher::new(&rules).unwrap();
    let mut scratch = Scratch::new();
    let text = ticket.summary.as_deref().unwrap();
    matcher.scan(TextField::Summary, text, ticket, &mut scratch);
    let show = |m: &super::matcher::Match| {
        let span = scratch.folded.original(m.start as usize..m.end as usize);
        let piece: String = text.chars().skip(span.start as usize).take((span.end - span.start) as usize).collect();
        let mark = if m.fate == Fate::Live { "" } else { "-" };
        format!("{mark}{} \"{piece}\"", rules[m.rule as usize].id)
    };
    scratch.matches.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn summary(text: &str) -> Ticket {
    Ticket { summary: Some(text.to_owned()), ..Ticket::default() }
}

/// A pack of rules `id = phrases` that speak for the customer.
fn pack(rules: &[(&str, &str)]) -> String {
    let rule =
        |(id, rest): &(&str, &str)| format!("[[rule]]\nid = {id:?}\naffects = \"customer\"\nweight = 1\n{rest}\n");
    rules.iter().map(rule).collect()
}

#[test]
fn phrases_match_on_word_borders_in_any_spelling() {
    let pack = pack(&[
        ("a", "phrases = ['customer[s]', 'check[ ]out fail*', 'straße', 'ärger', 'fi x']"),
        ("b", "phrases = ['refund ... not received', 'c++', '#1 priority']"),
        ("c", "phrases = ['fail* again', 'колл*']"),
    ]);
    for (text, expected) in [
        ("Customers", "a \"Customers\""),
        ("ecustomer customery customer’s", "a \"customer\""),
        ("the CHECK-OUT  failures", "a \"CHECK-OUT  failures\""),
        ("checkout fail", "a \"checkout fail\""),
        ("STRASSE Straßen strasse", "a \"STRASSE\", a \"strasse\""),
        ("ÄRGER A\u{308}RGER ärgerlich", "a \"ÄRGER\", a \"A\u{308}RGER\""),
        ("ﬁ x", "a \"ﬁ x\""),
        ("ｃｕｓｔｏｍｅｒ", "a \"ｃｕｓｔｏｍｅｒ\""),
        ("customer\u{302}s", ""),
        ("refund was never ever really not received", "b \"refund was never ever really not received\""),
        ("refund a b c d e not received", ""),
        ("refund refund not received", "b \"refund refund not received\", -b \"refund not received\""),
        ("refund: not received, not received", "b \"refund: not received\""),
        ("c++ c++x c+ #1 priority", "b \"c++\", b \"c++\", b \"#1 priority\""),
        ("failed again, failing  again. fail, again", "c \"failed again\", c \"failing  again\""),
        ("КОЛЛЕГА", "c \"КОЛЛЕГА\""),
        ("<b>customer</b> <a href='customer'>", "a \"customer\""),
    ] {
        assert_eq!(found(&pack, &summary(text)), expected, "{text}");
    }
}

#[test]
fn a_match_inside_a_longer_match_does_not_count() {
    let pack = pack(&[
        ("customer", "phrases = ['customer']"),
        ("impact", "phrases = ['no customer impact', 'no ... impact']"),
        ("same", "phrases = ['customer']"),
        ("sku", "regex = ['customer sku-\\d+']"),
    ]) + "[[rule]]\nid = \"internal\"\naffects = \"none\"\nphrases = [\"internal customer\"]\n";
    for (text, expected) in [
        ("customer", "customer \"customer\", same \"customer\""),
        ("internal customer", "internal \"internal customer\", -customer \"customer\", -same \"customer\""),
        (
            "no internal customer impact",
            "impact \"no internal customer impact\", -internal \"internal customer\", -customer \"customer\", -same \"customer\"",
        ),
        ("Customer SKU-12", "sku \"Customer SKU-12\", -customer \"Customer\", -same \"Customer\""),
        ("Customer SKU-12x", "customer \"Customer\", same \"Customer\""),
    ] {
        assert_eq!(found(&pack, &summary(text)), expected, "{text}");
    }
}

#[test]
fn unless_and_when_take_a_rule_out_of_the_field() {
    let pack = pack(&[
        ("cancelled", "phrases = ['customer login']\nunless = ['uat', 'test ... environment']"),
        ("short", "phrases = ['customer']"),
        ("incident", "phrases = ['login']\nwhen = { kind = ['Incident'], group = ['Web Team'] }"),
        ("level", "phrases = ['log*']\nwhen = { category = ['sap'] }"),
    ]);
    let ticket = |text: &str, group: &str| Ticket {
        kind: Some(Kind::Incident),
        group: Some(CompactString::from(group)),
        category: Some(CompactString::from("Software / SAP")),
        ..summary(text)
    };
    for (ticket, expected) in [
        (
            summary("customer login"),
            "cancelled \"customer login\", -short \"customer\", -incident \"login\", -level \"login\"",
        ),
        (
            summary("UAT: customer login"),
            "-cancelled \"customer login\", short \"customer\", -incident \"login\", -level \"login\"",
        ),
        (summary("login on our test web environment"), "-incident \"login\", -level \"login\""),
        (ticket("login", "WEB team"), "incident \"login\", level \"login\""),
        (ticket("login", "Other"), "-incident \"login\", level \"login\""),
    ] {
        assert_eq!(found(&pack, &ticket), expected);
    }
}

/// A matcher that tries every rule at every place.
mod slow {
    use super::super::matcher::MAX_GAP_BYTES;
    use super::super::phrase::{Literal, MAX_GAP_WORDS, Part, Phrase};
    use super::*;

    fn is_word(text: &str, at: usize) -> bool {
        text[at..].chars().next().is_some_and(char::is_alphanumeric)
    }

    fn cuts_word(text: &str, at: usize) -> bool {
        text[..at].chars().next_back().is_some_and(char::is_alphanumeric) && is_word(text, at)
    }

    fn rest_of_word(text: &str, at: usize) -> usize {
        text[at..].find(|c: char| !c.is_alphanumeric()).map_or(text.len(), |length| at + length)
    }

    fn literal_end(text: &str, literal: &Literal, start: usize) -> Option<usize> {
        let mut end = start;
        for (at, piece) in literal.pieces.iter().enumerate() {
            if at > 0 {
                end = rest_of_word(text, end);
            }
            end += text[end..].starts_with(piece.as_str()).then_some(piece.len())?;
        }
        if literal.open {
            end = rest_of_word(text, end);
        }
        (!cuts_word(text, start) && !cuts_word(text, end)).then_some(end)
    }

    fn earliest_end(text: &str, parts: &[Part], start: usize) -> Option<usize> {
        let (first, rest) = parts.split_first()?;
        let ends = first.alternatives.iter().filter_map(|literal| literal_end(text, literal, start));
        if rest.is_empty() {
            return ends.min();
        }
        let later = |end: usize| {
            let starts = (end..text.len()).filter(move |at| text.is_char_boundary(*at));
            starts.filter(move |at| is_near(&text[end..*at])).filter_map(|at| earliest_end(text, rest, at)).min()
        };
        ends.filter_map(later).min()
    }

    fn is_near(between: &str) -> bool {
        let words = between.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|w| w.chars().any(|c| c != '\''));
        between.len() <= MAX_GAP_BYTES as usize && words.count() <= MAX_GAP_WORDS
    }

    /// Every place of a phrase; of one without `...`, every way to say it there.
    fn places(text: &str, phrase: &Phrase) -> Vec<(usize, usize)> {
        let starts = (0..text.len()).filter(|at| text.is_char_boundary(*at));
        match &*phrase.parts {
            [part] => starts
                .flat_map(|start| {
                    part.alternatives.iter().filter_map(move |l| Some((start, literal_end(text, l, start)?)))
                })
                .collect(),
            parts => starts.filter_map(|start| Some((start, earliest_end(text, parts, start)?))).collect(),
        }
    }

    /// The live matches: id, start and end in the folded text; sorted, each once.
    pub fn live(rules: &[Rule], text: &str) -> Vec<(String, usize, usize)> {
        let mut all = Vec::new();
        for rule in rules {
            if rule.unless.iter().any(|unless| !places(text, &unless.phrase).is_empty()) {
                continue;
            }
            let spans = rule.phrases.iter().flat_map(|phrase| places(text, &phrase.phrase));
            all.extend(spans.map(|(start, end)| (rule.id.clone(), start, end)));
        }
        all.sort();
        all.dedup();
        let is_inside = |a: &(String, usize, usize), b: &(String, usize, usize)| {
            b.1 <= a.1 && a.2 <= b.2 && (a.1, a.2) != (b.1, b.2)
        };
        all.iter().filter(|one| !all.iter().any(|other| is_inside(one, other))).cloned().collect()
    }
}

fn live(rules: &[Rule], text: &str) -> (Vec<(String, usize, usize)>, String) {
    let matcher = Matcher::new(rules).unwrap();
    let mut scratch = Scratch::new();
    matcher.scan(TextField::Summary, text, &Ticket::default(), &mut scratch);
    let live = scratch.matches.iter().filter(|m| m.fate == Fate::Live);
    let named = live.map(|m| (rules[m.rule as usize].id.clone(), m.start as usize, m.end as usize));
    let mut found: Vec<_> = named.collect();
    found.sort();
    (found, String::from_utf8(scratch.folded.bytes().to_vec()).unwrap())
}

/// Words of few letters, so that phrases meet and overlap.
fn phrase_text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["a", "b", "ab", "ä", "a[b]", "{a|b}", "a*", "a[ ]b", "{a b|b}", "ba*", "b b"]);
    let joint = prop::sample::select(vec![" ", " ", " ... "]);
    (word.clone(), prop::collection::vec((joint, word), 0..3))
        .prop_map(|(first, rest)| rest.iter().fold(first.to_owned(), |text, (joint, word)| text + joint + word))
}

fn rule_text() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    (prop::collection::vec(phrase_text(), 1..3), prop::collection::vec(phrase_text(), 0..2))
}

fn pack_of(rules: &[(Vec<String>, Vec<String>)]) -> String {
    let rule = |(at, (phrases, unless)): (usize, &(Vec<String>, Vec<String>))| {
        format!(
            "[[rule]]\nid = 'r{at}'\naffects = 'customer'\nweight = 1\nphrases = {phrases:?}\nunless = {unless:?}\n"
        )
    };
    rules.iter().enumerate().map(rule).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_slow_matcher(written in prop::collection::vec(rule_text(), 1..5), text in "[abä ,'-]{0,24}") {
        let rules = rules(&pack_of(&written));
        let (found, folded) = live(&rules, &text);
        prop_assert_eq!(found, slow::live(&rules, &folded));
    }

    #[test]
    fn the_order_of_rules_does_not_matter(written in prop::collection::vec(rule_text(), 2..5), text in "[abä ]{0,24}", turn in 1_usize..4) {
        let pack = pack_of(&written);
        let starts: Vec<usize> = pack.match_indices("[[rule]]").map(|(at, _)| at).chain([pack.len()]).collect();
        let mut blocks: Vec<&str> = starts.windows(2).map(|w| &pack[w[0]..w[1]]).collect();
        let middle = turn % blocks.len();
        blocks.rotate_left(middle);
        prop_assert_eq!(live(&rules(&pack), &text), live(&rules(&blocks.concat()), &text));
    }

    #[test]
    fn any_text_is_scanned_and_spans_fold_to_the_literal(
        text in "(?s)(Straße|STRASSE|strasse|<b>|&szlig;|ﬁ|\u{ad}|\\{code\\}|.|[ -]){0,30}",
    ) {
        let rules = rules(&pack(&[("s", "phrases = ['straße', 'fi straße']\nregex = ['strasse \\d+']")]));
        let matcher = Matcher::new(&rules).unwrap();
        let mut scratch = Scratch::new();
        matcher.scan(TextField::Summary, &text, &Ticket::default(), &mut scratch);
        for m in &scratch.matches {
            let span = scratch.folded.original(m.start as usize..m.end as usize);
            let piece: String = text.chars().skip(span.start as usize).take((span.end - span.start) as usize).collect();
            let folded = crate::text::Folded::of(&piece);
            let shown = std::str::from_utf8(folded.bytes()).unwrap();
            let expected = std::str::from_utf8(&scratch.folded.bytes()[m.start as usize..m.end as usize]).unwrap();
            // A match may end inside a character that folds to several, such as ¼ to 1⁄4.
            prop_assert!(shown.contains(expected), "{shown:?} {expected:?}");
        }
    }
}
