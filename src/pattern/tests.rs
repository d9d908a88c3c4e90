//! The matcher against a table of cases, and against a slow matcher that is obviously right.

#![allow(clippy::string_slice, reason = "the slow matcher goes from character to character")]

use compact_str::CompactString;
use proptest::prelude::*;

use super::compile::Matcher;
use super::matcher::{Fate, Scratch};
use super::pack::{PackFiles, Packs, read};
use super::rule::Rule;
use crate::diagnostic::Problems;
use crate::ticket::{Affects, Kind, TextField, Ticket};

/// The pack of one text.
fn packs(text: &str) -> Packs {
    let mut problems = Problems::new();
    let files = vec![("t.toml".to_owned(), text.to_owned())];
    let packs = read(&[PackFiles { name: "t".to_owned(), files, tests: Vec::new() }], &mut problems);
    assert!(problems.is_empty(), "{problems}");
    packs
}

/// All matches in a summary, as `id "text"`, with `-` before those that do not count.
fn found(pack: &str, ticket: &Ticket) -> String {
    let packs = packs(pack);
    let matcher = Matcher::new(&packs).unwrap();
    let mut scratch = Scratch::new();
    let text = ticket.summary.as_deref().unwrap();
    matcher.scan(TextField::Summary, text, ticket, &mut scratch);
    let show = |m: &super::matcher::Match| {
        let span = scratch.folded.original(m.start as usize..m.end as usize);
        let piece: String = text.chars().skip(span.start as usize).take((span.end - span.start) as usize).collect();
        let mark = if m.fate == Fate::Live { "" } else { "-" };
        format!("{mark}{} \"{piece}\"", packs.rules[m.rule as usize].id)
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

#[test]
fn gaps_and_sides_end_with_the_sentence() {
    let pack = pack(&[
        ("gap", "phrases = ['refund ... lost']"),
        ("wide", "phrases = ['parcel ...8 lost']"),
        ("side", "phrases = ['guest & {bill|receipt} ... wrong']"),
    ]);
    for (text, expected) in [
        ("refund of the day lost", "gap \"refund of the day lost\""),
        ("refund came. lost", ""),
        ("refund of 5.50 No. 7, e.g. lost", ""),
        ("refund No. 7 lost", "gap \"refund No. 7 lost\""),
        ("refund! lost", ""),
        ("refund of the\nlong line that a mail program wrapped was lost", ""),
        ("Since noon every single refund of this shop is\nlost", ""),
        ("Since noon today every single refund of this shop is\nlost", "gap \"refund of this shop is\nlost\""),
        ("refund\n- lost", ""),
        ("<p>refund</p><p>lost</p>", ""),
        ("the parcel of a man from a far town was lost", "wide \"parcel of a man from a far town was lost\""),
        ("wrong: guest says the bill is wrong", "side \"guest says the bill is wrong\""),
        ("the receipt was wrong, says the guest", "side \"receipt was wrong, says the guest\""),
        ("the bill is wrong. The guest left", ""),
    ] {
        assert_eq!(found(&pack, &summary(text)), expected, "{text}");
    }
}

#[test]
fn a_regex_sees_all_that_it_can_match_around_its_gate() {
    let pack =
        pack(&[("a", "regex = ['(hit|lost)[^.]{0,9} but (our |the )?(guests|dealers) (are|were) not($|[.,])']")]);
    for text in ["we were hit, but our guests were not.", "hit but guests are not", "lost  but the dealers were  not,"]
    {
        assert!(found(&pack, &summary(text)).starts_with("a \""), "{text}");
    }
}

#[test]
fn lists_stand_for_any_of_their_entries() {
    let lists = "[words]\nwho = ['guest[s]', 'passenger*', 'policy[ ]holder']\nnot = ['cannot', 'unable to']\n";
    let pack = lists.to_owned() + &pack(&[("a", "phrases = ['<who> <not> pay', 'our <t/who>']")]);
    for (text, expected) in [
        ("Guests cannot pay", "a \"Guests cannot pay\""),
        ("policyholder, unable to pay", "a \"policyholder, unable to pay\""),
        ("guests really cannot pay", ""),
        ("guests. Cannot pay", ""),
        ("our passengers", "a \"our passengers\""),
    ] {
        assert_eq!(found(&pack, &summary(text)), expected, "{text}");
    }
}

#[test]
fn words_in_a_longer_phrase_are_no_part_of_another() {
    let pack =
        pack(&[("cannot", "phrases = ['customer ... cannot print']"), ("order", "phrases = ['customer order']")])
            + "[[rule]]\nid = 'department'\naffects = 'none'\nphrases = ['customer service']\nunless = ['hotline']\n\
           [[rule]]\nid = 'inside'\naffects = 'internal'\nweight = 1\nphrases = ['internal customer']\n";
    for (text, expected) in [
        ("customer cannot print", "cannot \"customer cannot print\""),
        ("customer service cannot print", "department \"customer service\""),
        (
            "hotline: customer service cannot print",
            "cannot \"customer service cannot print\", -department \"customer service\"",
        ),
        ("internal customer cannot print", "inside \"internal customer\""),
        ("customer order cannot print", "cannot \"customer order cannot print\", -order \"customer order\""),
    ] {
        assert_eq!(found(&pack, &summary(text)), expected, "{text}");
    }
}

#[test]
fn rules_need_and_replace_others_in_the_same_field() {
    let pack = pack(&[
        ("hint", "phrases = ['price']\nneeds = ['place', 'person']"),
        ("person", "phrases = ['guest']\nneeds = ['t/place']"),
        ("special", "phrases = ['price list']\nreplaces = ['usual']"),
        ("usual", "phrases = ['list', 'lists']"),
    ]) + "[[rule]]\nid = 'place'\naffects = 'none'\nphrases = ['hotel']\n";
    for (text, expected) in [
        ("price", "-hint \"price\""),
        ("price, hotel", "hint \"price\", place \"hotel\""),
        ("guest asks for the price", "-person \"guest\", hint \"price\""),
        ("lists and price list", "-usual \"lists\", special \"price list\", -hint \"price\", -usual \"list\""),
        ("hotel, price list", "place \"hotel\", special \"price list\", -hint \"price\", -usual \"list\""),
    ] {
        assert_eq!(found(&pack, &summary(text)), expected, "{text}");
    }
}

#[test]
fn zones_reach_from_line_to_line() {
    let pack = pack(&[("a", "phrases = ['shop']")])
        + "[[zone]]\nid = 'signature'\nweight = 0\nlines = 2\nstarts = ['kind regards']\n\
           [[zone]]\nid = 'quote'\nweight = 0.5\nstarts = ['from ... sent']\nends = ['work notes']\nmarks = ['>']\n";
    for (text, expected) in [
        ("shop, kind regards shop", "a \"shop\", a \"shop\""),
        ("Kind regards\nshop\nshop", "-a \"shop\", a \"shop\""),
        ("From: x Sent: y\nshop\nWork notes: shop", "a \"shop\", a \"shop\""),
        ("<div>Kind regards</div><div>shop</div>", "-a \"shop\""),
    ] {
        assert_eq!(found(&pack, &summary(text)), expected, "{text}");
    }
    let packs = packs(&pack);
    let matcher = Matcher::new(&packs).unwrap();
    let mut scratch = Scratch::new();
    let text = "shop\n> shop\nshop\nFrom: x Sent: y\nshop\nKind regards\nshop\n\nshop\nWork notes\nshop";
    matcher.scan(TextField::Summary, text, &Ticket::default(), &mut scratch);
    let weights: Vec<_> = scratch.matches.iter().map(|m| matcher.weighed(m, 100)).collect();
    assert_eq!(weights, [100, 50, 100, 50, 0, 50, 100]);
}

/// A matcher that tries every rule at every place.
mod slow {
    use super::super::matcher::MAX_APART;
    use super::super::phrase::{Literal, Part, Phrase};
    use super::*;

    type Span = (usize, usize);

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

    fn starts(text: &str) -> impl Iterator<Item = usize> {
        (0..text.len()).filter(|at| text.is_char_boundary(*at))
    }

    /// Every place of a part that the rule may use.
    fn part_places(text: &str, part: &Part, blocked: &[Span]) -> Vec<Span> {
        let ends = |start| part.alternatives.iter().filter_map(move |l| Some((start, literal_end(text, l, start)?)));
        let is_blocked = |place: &Span| blocked.iter().any(|b| is_inside(*place, *b));
        starts(text).flat_map(ends).filter(|place| !is_blocked(place)).collect()
    }

    fn is_inside(a: Span, b: Span) -> bool {
        b.0 <= a.0 && a.1 <= b.1 && a != b
    }

    /// Every place of a chain: for each place of its first part, the earliest end.
    fn chain_places(text: &str, parts: &[Part], blocked: &[Span]) -> Vec<Span> {
        let Some((first, rest)) = parts.split_first() else { return Vec::new() };
        let places = part_places(text, first, blocked);
        let Some(next) = rest.first() else { return places };
        let later = chain_places(text, rest, blocked);
        let follows = |end: usize, start: usize| {
            end <= start && words(text, end, start).is_some_and(|words| words <= u32::from(next.gap))
        };
        let earliest = |end: usize| later.iter().filter(|l| follows(end, l.0)).map(|l| l.1).min();
        places.iter().filter_map(|place| Some((place.0, earliest(place.1)?))).collect()
    }

    /// How many words lie between two places; `None` where a sentence ends between them.
    fn words(text: &str, end: usize, start: usize) -> Option<u32> {
        let mut words = 0;
        let mut at = end;
        while at < start {
            if ends_sentence(text, at) {
                return None;
            }
            let joined = text[..at].ends_with('\'') && at > 0;
            if is_word(text, at) {
                words += u32::from(!joined);
                at = rest_of_word(text, at);
            } else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        Some(words)
    }

    /// Whether the sign at a place ends its sentence; the texts of these tests have no abbreviations of signs.
    fn ends_sentence(text: &str, at: usize) -> bool {
        let before = text[..at].rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        text[at..].starts_with('.')
            && text[at + 1..].chars().next().is_none_or(|c| c == ' ')
            && (before.chars().count() >= 3 || before.is_empty())
    }

    fn phrase_places(text: &str, phrase: &Phrase, blocked: &[Span]) -> Vec<Span> {
        let sides: Vec<Vec<Span>> = phrase.sides.iter().map(|side| chain_places(text, side, blocked)).collect();
        let near = |one: Span, side: &Vec<Span>| {
            let distance = |other: &Span| match (one.1 <= other.0, other.1 <= one.0) {
                (true, _) => words(text, one.1, other.0),
                (_, true) => words(text, other.1, one.0),
                _ => None,
            };
            let near = side.iter().filter_map(|o| Some((distance(o)?, *o))).filter(|(words, _)| *words <= MAX_APART);
            near.min_by_key(|(words, other)| (*words, other.0, other.1)).map(|(_, other)| other)
        };
        let all = |one: Span| {
            sides[1..].iter().try_fold(one, |span: Span, side| {
                near(one, side).map(|other| (span.0.min(other.0), span.1.max(other.1)))
            })
        };
        sides[0].iter().filter_map(|one| all(*one)).collect()
    }

    /// The live matches: id, start and end in the folded text; sorted, each once.
    pub fn live(rules: &[Rule], text: &str) -> Vec<(String, usize, usize)> {
        let cancelled = |rule: &Rule| rule.unless.iter().any(|u| !phrase_places(text, &u.phrase, &[]).is_empty());
        let rules: Vec<&Rule> = rules.iter().filter(|rule| !cancelled(rule)).collect();
        let in_one_piece = |rule: &Rule| -> Vec<Span> {
            let phrases = rule.phrases.iter().map(|written| &written.phrase).filter(|phrase| phrase.is_one_piece());
            phrases.flat_map(|phrase| phrase_places(text, phrase, &[])).collect()
        };
        let mut all = Vec::new();
        for rule in &rules {
            let takes = |other: &&&Rule| match (other.affects, rule.affects) {
                (None, side) => side.is_some(),
                (other, side) => (other, side) == (Some(Affects::Internal), Some(Affects::Customer)),
            };
            let blocked: Vec<Span> = rules.iter().filter(takes).flat_map(|other| in_one_piece(other)).collect();
            for phrase in rule.phrases.iter().map(|written| &written.phrase) {
                let blocked = if phrase.is_one_piece() { &[][..] } else { &blocked };
                let places = phrase_places(text, phrase, blocked);
                all.extend(places.into_iter().map(|place| (rule.id.clone(), place, phrase.sides.len() > 1)));
            }
        }
        all.sort();
        all.dedup();
        let is_swallowed = |(_, place, scattered): &(String, Span, bool)| {
            !scattered && all.iter().any(|(_, other, scattered)| !scattered && is_inside(*place, *other))
        };
        let live = all.iter().filter(|one| !is_swallowed(one));
        let mut live: Vec<_> = live.map(|(id, place, _)| (id.clone(), place.0, place.1)).collect();
        live.dedup();
        live
    }
}

fn live(packs: &Packs, text: &str) -> (Vec<(String, usize, usize)>, String) {
    let matcher = Matcher::new(packs).unwrap();
    let mut scratch = Scratch::new();
    matcher.scan(TextField::Summary, text, &Ticket::default(), &mut scratch);
    let live = scratch.matches.iter().filter(|m| m.fate == Fate::Live);
    let named = live.map(|m| (packs.rules[m.rule as usize].id.clone(), m.start as usize, m.end as usize));
    let mut found: Vec<_> = named.collect();
    found.sort();
    found.dedup();
    (found, String::from_utf8(scratch.folded.bytes().to_vec()).unwrap())
}

/// Words of few letters, so that phrases meet and overlap.
fn phrase_text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "a", "b", "ab", "ä", "a[b]", "{a|b}", "a*", "a[ ]b", "{a b|b}", "ba*", "b b", "<l>", "<m>",
    ]);
    let joint = prop::sample::select(vec![" ", " ", " ... ", " ...1 ", " & "]);
    (word.clone(), prop::collection::vec((joint, word), 0..3))
        .prop_map(|(first, rest)| rest.iter().fold(first.to_owned(), |text, (joint, word)| text + joint + word))
}

fn rule_text() -> impl Strategy<Value = (&'static str, Vec<String>, Vec<String>)> {
    let side = prop::sample::select(vec!["customer", "internal", "none"]);
    (side, prop::collection::vec(phrase_text(), 1..3), prop::collection::vec(phrase_text(), 0..2))
}

fn pack_of(rules: &[(&str, Vec<String>, Vec<String>)]) -> String {
    let rule = |(at, (affects, phrases, unless)): (usize, &(&str, Vec<String>, Vec<String>))| {
        let weight = if *affects == "none" { "" } else { "weight = 1" };
        format!("[[rule]]\nid = 'r{at}'\naffects = '{affects}'\n{weight}\nphrases = {phrases:?}\nunless = {unless:?}\n")
    };
    let lists = "[words]\nl = ['a', 'b a', 'ä*']\nm = ['b', 'ab']\n";
    lists.to_owned() + &rules.iter().enumerate().map(rule).collect::<String>()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_slow_matcher(written in prop::collection::vec(rule_text(), 1..5), text in "[abä ,'.-]{0,24}") {
        let packs = packs(&pack_of(&written));
        let (found, folded) = live(&packs, &text);
        prop_assert_eq!(found, slow::live(&packs.rules, &folded));
    }

    #[test]
    fn the_order_of_rules_does_not_matter(written in prop::collection::vec(rule_text(), 2..5), text in "[abä ]{0,24}", turn in 1_usize..4) {
        let pack = pack_of(&written);
        let starts: Vec<usize> = pack.match_indices("[[rule]]").map(|(at, _)| at).chain([pack.len()]).collect();
        let mut blocks: Vec<&str> = starts.windows(2).map(|w| &pack[w[0]..w[1]]).collect();
        let middle = turn % blocks.len();
        blocks.rotate_left(middle);
        let lists = &pack[..starts[0]];
        prop_assert_eq!(live(&packs(&pack), &text), live(&packs(&(lists.to_owned() + &blocks.concat())), &text));
    }

    #[test]
    fn any_text_is_scanned_and_spans_fold_to_the_literal(
        text in "(?s)(Straße|STRASSE|strasse|<b>|&szlig;|ﬁ|\u{ad}|\\{code\\}|.|[ -]){0,30}",
    ) {
        let packs = packs(&pack(&[("s", "phrases = ['straße', 'fi straße']\nregex = ['strasse \\d+']")]));
        let matcher = Matcher::new(&packs).unwrap();
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
