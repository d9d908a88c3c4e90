//! Regexes of rules: folded like the text that they run on, and run only where a literal that they require was found.
//!
//! A regex is parsed, its literals and classes are folded (so authors need not think of case, hyphens or typographic
//! signs), and the rarest set of *inner* literals is found, one of which every match must contain: the [`Gate`], with
//! how far a match can reach around it. Matches stand on word borders like those of phrases. Folded text is one line.

use std::ops::Range;
use std::sync::OnceLock;

use regex_automata::{Input, meta};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition};

use crate::text::{fold_literal, is_word};

/// How many literals a gate may consist of; each costs automaton states.
const MAX_GATE: usize = 32;

/// Bits of surprise that a gate needs: a single rare letter or sign has them, a blank or an `e` has not.
const MIN_BITS: f32 = 6.0;

/// Classes of at most this many characters are spelt out to find literals and folded one by one.
const MAX_CLASS: usize = 64;

/// A match cannot be longer than this around its gate for a window to be worth its while, in bytes.
const MAX_WINDOW: usize = 512;

/// Compiled size limit of one regex, in bytes: what a few `\w{50}` need. Larger ones are mistakes.
const SIZE_LIMIT: usize = 1 << 20;

/// A compiled regex with its gate.
#[derive(Clone, Debug)]
pub struct GatedRegex {
    /// What must be found before it runs.
    pub gate: Gate,
    /// Finds a superset: no borders, so it can always run as a DFA.
    loose: meta::Regex,
    /// Says what really matches; compiled when the other one has found something for the first time.
    exact: OnceLock<Option<meta::Regex>>,
    folded: Hir,
}

/// The literals one of which every match contains, and how far matches reach around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The literals, folded; at least one.
    pub literals: Vec<String>,
    /// Bytes of a match before the literal at most; `None` where there is no bound.
    pub before: Option<usize>,
    /// Bytes of a match after the literal at most.
    pub after: Option<usize>,
}

impl Gate {
    /// Whether a literal of the gate can only start where a word or sign does: at the start of a match, which is a border,
    /// or with a sign or blank.
    pub fn starts_word(&self, literal: &str) -> bool {
        (self.before == Some(0) || !literal.starts_with(is_word)) && !literal.trim().is_empty()
    }
}

/// Why a regex cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegexError {
    /// It is no regex.
    #[error("{0}")]
    Syntax(String),
    /// It is too large.
    #[error("{0}")]
    Size(String),
    /// Nothing that could be looked for first.
    #[error("no text that every match must contain")]
    WithoutLiteral,
}

impl GatedRegex {
    /// Compiles a regex.
    ///
    /// # Errors
    /// When it is not a regex, too large, or has no required literal.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let parsed = ParserBuilder::new().case_insensitive(true).build().parse(pattern);
        let hir = fold(&parsed.map_err(|error| RegexError::Syntax(syntax_message(&error)))?);
        let gate = gate(&hir).ok_or(RegexError::WithoutLiteral)?;
        let loose = compile(&without_looks(&hir))?;
        Ok(Self { gate, loose, exact: OnceLock::new(), folded: hir })
    }

    /// The part of a text in which matches lie that contain a literal of the gate at `literal`.
    pub fn window(&self, literal: Range<usize>, length: usize) -> Range<usize> {
        let start = self.gate.before.map_or(0, |before| literal.start.saturating_sub(before));
        let end = self.gate.after.map_or(length, |after| (literal.end + after).min(length));
        start..end
    }

    /// Calls `found` with each match inside a window of folded text; matches do not overlap one another.
    pub fn matches(&self, text: &[u8], window: Range<usize>, mut found: impl FnMut(Range<usize>)) {
        let input = Input::new(text).range(window);
        if !self.loose.is_match(input.clone()) {
            return;
        }
        let exact = self.exact.get_or_init(|| self.compile_exact());
        for hit in exact.iter().flat_map(|exact| exact.find_iter(input.clone())).filter(|hit| !hit.is_empty()) {
            found(hit.range());
        }
    }

    /// Borders add next to nothing to a regex that was compiled without them, so this cannot fail; if it did, the rule
    /// would not count.
    fn compile_exact(&self) -> Option<meta::Regex> {
        compile_within(&Hir::concat(vec![border(), self.folded.clone(), border()]), 2 * SIZE_LIMIT).ok()
    }
}

fn compile(hir: &Hir) -> Result<meta::Regex, RegexError> {
    compile_within(hir, SIZE_LIMIT)
}

fn compile_within(hir: &Hir, size: usize) -> Result<meta::Regex, RegexError> {
    let config = meta::Config::new().nfa_size_limit(Some(size)).utf8_empty(false);
    let built = meta::Builder::new().configure(config).build_from_hir(hir);
    built.map_err(|error| RegexError::Size(error.to_string()))
}

/// The last line of the message, which says what is wrong; those before draw the pattern, which we show anyway.
fn syntax_message(error: &regex_syntax::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Any place that is not inside a word.
fn border() -> Hir {
    Hir::alternation(vec![Hir::look(Look::WordStartHalfUnicode), Hir::look(Look::WordEndHalfUnicode)])
}

/// Applies `leaf` to the leaves of a tree and rebuilds it.
fn rebuild(hir: &Hir, leaf: &impl Fn(&Hir) -> Hir) -> Hir {
    match hir.kind() {
        HirKind::Repetition(repetition) => {
            Hir::repetition(Repetition { sub: Box::new(rebuild(&repetition.sub, leaf)), ..repetition.clone() })
        }
        HirKind::Capture(capture) => rebuild(&capture.sub, leaf),
        HirKind::Concat(subs) => Hir::concat(subs.iter().map(|sub| rebuild(sub, leaf)).collect()),
        HirKind::Alternation(subs) => Hir::alternation(subs.iter().map(|sub| rebuild(sub, leaf)).collect()),
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => leaf(hir),
    }
}

/// The regex without anchors and borders: whatever it matched before, it still does.
fn without_looks(hir: &Hir) -> Hir {
    rebuild(hir, &|leaf| if matches!(leaf.kind(), HirKind::Look(_)) { Hir::empty() } else { leaf.clone() })
}

/// The regex that matches folded texts as the given one matches texts.
fn fold(hir: &Hir) -> Hir {
    rebuild(hir, &|leaf| match leaf.kind() {
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => Hir::literal(fold_literal(text).into_bytes()),
            Err(_) => leaf.clone(),
        },
        HirKind::Class(Class::Unicode(class)) => fold_class(class),
        _ => leaf.clone(),
    })
}

fn fold_class(class: &ClassUnicode) -> Hir {
    match members(class) {
        Some(members) => {
            let mut folded: Vec<String> = members.iter().map(|c| fold_literal(c.encode_utf8(&mut [0; 4]))).collect();
            folded.sort();
            folded.dedup();
            Hir::alternation(folded.into_iter().map(|text| Hir::literal(text.into_bytes())).collect())
        }
        None => Hir::class(Class::Unicode(with_blank_for_hyphen(class))),
    }
}

/// Hyphens are blanks in folded text: a class that names the hyphen gets the blank. A class with `!` in it, too, is the
/// complement of something (`\S`, `[^ ]`), which says nothing about hyphens.
fn with_blank_for_hyphen(class: &ClassUnicode) -> ClassUnicode {
    let has = |c: char| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&c));
    let mut class = class.clone();
    if has('-') && !has('!') {
        class.push(ClassUnicodeRange::new(' ', ' '));
    }
    class
}

/// The characters of a small class.
fn members(class: &ClassUnicode) -> Option<Vec<char>> {
    let size: usize = class.ranges().iter().map(ClassUnicodeRange::len).sum();
    (size <= MAX_CLASS).then(|| class.ranges().iter().flat_map(|r| r.start()..=r.end()).collect())
}

/// What is known of a part of a regex.
struct Known {
    /// All that it can match, if that is little.
    exact: Option<Vec<String>>,
    /// The best gate inside it; not that of `exact`.
    gate: Option<Gate>,
    /// Bytes of its longest match.
    longest: Option<usize>,
}

impl Known {
    fn exactly(texts: Vec<String>) -> Self {
        let longest = texts.iter().map(String::len).max();
        Self { exact: Some(texts), gate: None, longest }
    }

    /// The best gate, that of `exact` included.
    fn best(&self) -> Option<Gate> {
        let whole = self.exact.clone().map(|literals| Gate { literals, before: Some(0), after: Some(0) });
        better(whole, self.gate.clone())
    }
}

/// The best gate of a folded regex, if there is one that is rare enough to be worth its while.
fn gate(hir: &Hir) -> Option<Gate> {
    let mut gate = known(hir).best().filter(|gate| bits(gate) >= MIN_BITS)?;
    let bounded = |reach: Option<usize>| reach.filter(|bytes| *bytes <= MAX_WINDOW);
    gate.before = bounded(gate.before);
    gate.after = bounded(gate.after);
    gate.literals.sort();
    gate.literals.dedup();
    Some(gate)
}

fn known(hir: &Hir) -> Known {
    let longest = hir.properties().maximum_len();
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Known::exactly(vec![String::new()]),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => Known::exactly(vec![text.to_owned()]),
            Err(_) => Known { exact: None, gate: None, longest },
        },
        HirKind::Class(_) => Known { exact: small_class(hir), gate: None, longest },
        HirKind::Capture(capture) => known(&capture.sub),
        HirKind::Repetition(repetition) => known_repetition(repetition, longest),
        HirKind::Alternation(subs) => known_alternation(subs, longest),
        HirKind::Concat(subs) => known_concat(subs, longest),
    }
}

fn small_class(hir: &Hir) -> Option<Vec<String>> {
    let HirKind::Class(Class::Unicode(class)) = hir.kind() else { return None };
    members(class).filter(|m| m.len() <= 4).map(|m| m.iter().map(char::to_string).collect())
}

/// The first round of a repetition must match; of one that may be left out, nothing must.
fn known_repetition(repetition: &Repetition, longest: Option<usize>) -> Known {
    let sub = known(&repetition.sub);
    let exact = match (&sub.exact, repetition.min, repetition.max) {
        (Some(texts), 0, Some(1)) => Some(texts.iter().cloned().chain([String::new()]).collect()),
        (Some(texts), 1, Some(1)) => Some(texts.clone()),
        _ => None,
    };
    let gate = sub.best().filter(|_| repetition.min > 0);
    let more_rounds = repetition.max.and_then(|max| sub.longest?.checked_mul(max.saturating_sub(1) as usize));
    let gate = gate.map(|gate| Gate { after: add(gate.after, more_rounds), ..gate });
    Known { exact, gate, longest }
}

/// Each way needs a gate of its own.
fn known_alternation(subs: &[Hir], longest: Option<usize>) -> Known {
    let subs: Vec<Known> = subs.iter().map(known).collect();
    let exact: Option<Vec<Vec<String>>> = subs.iter().map(|sub| sub.exact.clone()).collect();
    let exact = exact.map(|texts| texts.concat()).filter(|texts| texts.len() <= MAX_GATE);
    let gates: Option<Vec<Gate>> = subs.iter().map(Known::best).collect();
    Known { exact, gate: gates.and_then(union), longest }
}

fn union(gates: Vec<Gate>) -> Option<Gate> {
    let reach = |side: fn(&Gate) -> Option<usize>| {
        gates.iter().map(side).try_fold(0, |most, reach| reach.map(|reach| most.max(reach)))
    };
    let (before, after) = (reach(|g| g.before), reach(|g| g.after));
    let literals: Vec<String> = gates.into_iter().flat_map(|gate| gate.literals).collect();
    (literals.len() <= MAX_GATE).then_some(Gate { literals, before, after })
}

/// Neighbours that are known exactly are joined into longer literals; of all gates along the way the best is taken.
fn known_concat(subs: &[Hir], longest: Option<usize>) -> Known {
    let subs: Vec<Known> = subs.iter().map(known).collect();
    let reach = |part: &[Known]| part.iter().try_fold(0_usize, |sum, sub| sub.longest.map(|len| sum + len));
    let mut best = None;
    let mut run = vec![String::new()];
    let mut run_start = 0;
    for (at, sub) in subs.iter().enumerate() {
        let (before, after) = subs.split_at(at);
        let inner = sub.gate.clone().map(|gate| Gate {
            before: add(gate.before, reach(before)),
            after: add(gate.after, reach(after.get(1..).unwrap_or_default())),
            ..gate
        });
        best = better(best, inner);
        match sub.exact.as_ref().and_then(|texts| product(&run, texts)) {
            Some(longer) => run = longer,
            None => {
                best = better(best, run_gate(&subs, run_start..at, &run));
                run = sub.exact.clone().unwrap_or_else(|| vec![String::new()]);
                run_start = if sub.exact.is_some() { at } else { at + 1 };
            }
        }
    }
    if run_start == 0 {
        return Known { exact: Some(run), gate: best, longest };
    }
    Known { exact: None, gate: better(best, run_gate(&subs, run_start..subs.len(), &run)), longest }
}

/// The gate of neighbours that are known exactly together.
fn run_gate(subs: &[Known], run: Range<usize>, texts: &[String]) -> Option<Gate> {
    let reach = |part: Option<&[Known]>| {
        part.unwrap_or_default().iter().try_fold(0_usize, |sum, sub| sub.longest.map(|len| sum + len))
    };
    let (before, after) = (reach(subs.get(..run.start)), reach(subs.get(run.end..)));
    Some(Gate { literals: texts.to_vec(), before, after })
}

fn product(heads: &[String], tails: &[String]) -> Option<Vec<String>> {
    let size = heads.len().checked_mul(tails.len())?;
    let joined = || heads.iter().flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}"))).collect();
    (size <= MAX_GATE).then(joined)
}

fn add(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    a?.checked_add(b?)
}

fn better(a: Option<Gate>, b: Option<Gate>) -> Option<Gate> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if bits(&b) > bits(&a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// How rare a gate is in tickets: the surprise of its most usual literal, less what the number of literals costs.
fn bits(gate: &Gate) -> f32 {
    let rarest = gate.literals.iter().map(|text| text.bytes().map(byte_bits).sum::<f32>());
    #[expect(clippy::cast_precision_loss, reason = "gates have few literals")]
    let cost = (gate.literals.len().max(1) as f32).log2();
    rarest.min_by(f32::total_cmp).unwrap_or(0.0) - cost
}

/// The surprise of one byte of folded text, in bits, from the letter frequencies of English.
fn byte_bits(byte: u8) -> f32 {
    match byte {
        b' ' => 2.5,
        b'e' => 3.3,
        b't' | b'a' | b'o' | b'i' | b'n' => 4.0,
        b's' | b'r' | b'h' => 4.4,
        b'l' | b'd' | b'c' | b'u' | b'm' => 5.1,
        b'f' | b'p' | b'g' | b'w' | b'y' | b'b' => 6.0,
        b'v' | b'k' => 7.0,
        b'0'..=b'9' => 7.0,
        b'x' | b'j' | b'q' | b'z' => 9.5,
        0x80.. => 5.0,
        _ => 8.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(pattern: &str) -> String {
        match GatedRegex::new(pattern) {
            Ok(GatedRegex { gate, .. }) => format!("{} {:?} {:?}", gate.literals.join("/"), gate.before, gate.after),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn the_rarest_inner_literal_is_the_gate() {
        for (pattern, expected) in [
            (r"order #?\d{6,} (lost|missing)", "order /order # Some(0) None"),
            (r"\d{4} checkout", " checkout Some(16) Some(0)"),
            (
                "(?:Kunde|customer)[- ]?(?:nr|no)",
                "customer no/customer nr/customerno/customernr/kunde no/kunde nr/kundeno/kundenr Some(0) Some(0)",
            ),
            (r"\bsku-\d+", "sku  Some(0) None"),
            ("STRASSE [0-9]{1,3}", "strasse  Some(0) Some(3)"),
            (r"\w+@\w+", "@ None None"),
            (r"\w+", "error: no text that every match must contain"),
            ("e?", "error: no text that every match must contain"),
            ("(a", "error: unclosed group"),
        ] {
            assert_eq!(described(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn matches_stand_on_word_borders() {
        let regex = GatedRegex::new(r"order \d+").unwrap();
        let found = |text: &[u8]| {
            let mut all = Vec::new();
            regex.matches(text, 0..text.len(), |range| all.push((range.start, range.end)));
            all
        };
        assert_eq!(found(b"reorder 12 order 34x order 56"), [(21, 29)]);
        assert_eq!(found(b"(order 5)"), [(1, 8)]);
    }
}
