//! The phrase language: one line that people read, many literals that the automaton reads.
//!
//! | written | means |
//! |---|---|
//! | `check out` | these words, with any white space or hyphens between them |
//! | `{cannot\|can't\|is unable to}` | one of these; each may hold several words and more brackets |
//! | `customer[s]`, `log[ ]in`, `[web] shop` | with or without it |
//! | `fail*` | this word with any ending |
//! | `refund ... not received` | up to four words between |
//! | `refund ...9 not received` | up to nine |
//! | `<customer> cannot` | one of the pack's word list `customer`, and right after it the word |
//! | `<customer> & invoice[s]` | both in one sentence, in any order |
//!
//! A [`Phrase`] has one or more sides, joined by `&`; a side is a chain of [`Part`]s, joined by `...` or standing side by
//! side; each part is a set of alternatives, spelt out and folded. No gap and no `&` reaches beyond a sentence.

use std::sync::Arc;

use crate::text::{fold_literal, is_word};

/// How many literals one phrase may expand into. More is a sign that it says too many things at once; at ten times
/// this, a pack of 500 phrases would outgrow the automaton's fast form.
pub const MAX_LITERALS: usize = 512;

/// How many literals one word list may hold.
pub const MAX_LIST_LITERALS: usize = 4096;

/// How many words may stand in for one `...`.
pub const GAP_WORDS: u8 = 4;

/// How many words a gap may be given, as in `...12`.
pub const MAX_GAP_WORDS: u8 = 12;

/// How many parts a phrase may have. Beyond this it says nothing that one could foresee.
pub const MAX_PARTS: usize = 8;

/// How many sides, joined by `&`, a phrase may have.
pub const MAX_SIDES: usize = 4;

/// How deep brackets may be nested.
pub const MAX_DEPTH: usize = 16;

/// A phrase, spelt out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Phrase {
    /// The chains joined by `&`, in any order in the text; at least one.
    pub sides: Vec<Vec<Part>>,
}

impl Phrase {
    /// Whether it is one part: words in one piece.
    pub fn is_one_piece(&self) -> bool {
        matches!(&*self.sides, [side] if side.len() == 1)
    }
}

/// What may stand at one place of a phrase.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// How many words may lie between the part before and this one.
    pub gap: u8,
    /// The ways to say it.
    pub alternatives: Alternatives,
}

/// Ways to say one thing, sorted, each once; at least one. Shared by all phrases that name the same word list.
pub type Alternatives = Arc<[Literal]>;

/// One way to say it: folded words, cut at each `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Literal {
    /// The folded pieces; between two of them lies the free ending of a word.
    pub pieces: Vec<String>,
    /// Whether the last word may go on.
    pub open: bool,
}

/// Why a phrase cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PhraseError {
    /// A bracket without its partner.
    #[error("`{0}` has no partner")]
    Unbalanced(char),
    /// `|` outside braces.
    #[error("`|` stands outside `{{…}}`")]
    StrayBar,
    /// `*` that does not end a word.
    #[error("`*` must stand at the end of a word")]
    StrayStar,
    /// `...` inside brackets, or with nothing before or after it.
    #[error("`...` must stand between two parts, outside all brackets")]
    StrayGap,
    /// `...` with a number out of range.
    #[error("`...{0}` allows too many words or none; 1 to {MAX_GAP_WORDS} are possible")]
    BadGap(String),
    /// `&` inside brackets, or with nothing before or after it.
    #[error("`&` must stand between two sides, outside all brackets")]
    StrayAnd,
    /// A list inside brackets or inside another list, or a `<` that starts none.
    #[error("a word list is written `<name>`, outside all brackets and not in another list")]
    StrayList,
    /// A list that is not there.
    #[error("there is no word list `{0}`")]
    UnknownList(String),
    /// A part without a word, or all of which is optional.
    #[error("a part of it would match without any word")]
    Empty,
    /// Brackets in brackets in brackets.
    #[error("its brackets are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// More than [`MAX_LITERALS`].
    #[error("it expands into {0} literals; at most {MAX_LITERALS} are allowed")]
    TooMany(usize),
    /// More than [`MAX_PARTS`] or [`MAX_SIDES`].
    #[error("it has {0} parts; at most {MAX_PARTS} are allowed, and {MAX_SIDES} sides of `&`")]
    TooManyParts(usize),
}

impl PhraseError {
    /// The way out.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unbalanced(_) => "alternatives are written `{a|b}`, optional text `[x]`",
            Self::StrayBar => "write alternatives as `{a|b}`",
            Self::StrayStar => "write `fail*` for fail, fails, failed, failure",
            Self::StrayGap => {
                "write `refund ... not received`; put alternatives that need `...` into phrases of their own"
            }
            Self::BadGap(_) => "write `...` for up to four words, `...9` for up to nine",
            Self::StrayAnd => "write `customer & invoice`; put alternatives that need `&` into phrases of their own",
            Self::StrayList => "put alternatives that need a list into phrases of their own",
            Self::UnknownList(_) => "lists stand under `[words]` of the same pack; those of another are `<pack/name>`",
            Self::Empty => "at least one word must not be optional; `...1` allows a word between two parts",
            Self::TooDeep | Self::TooMany(_) | Self::TooManyParts(_) => {
                "split it into several phrases, or use `*` for endings"
            }
        }
    }
}

/// A piece of a phrase as written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Text(String),
    Star,
    Choice(Vec<Vec<Node>>),
}

/// What stands between two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joint {
    /// At most so many words.
    Gap(u8),
    /// Anything in the same sentence.
    And,
}

/// A part as written, with the joint before it.
struct Written {
    joint: Joint,
    text: Said,
}

enum Said {
    Nodes(Vec<Node>),
    List(String),
}

/// Finds word lists by name.
pub trait Lists {
    /// The ways to say what a list holds.
    fn list(&self, name: &str) -> Option<Alternatives>;
}

/// No lists.
impl Lists for () {
    fn list(&self, _: &str) -> Option<Alternatives> {
        None
    }
}

/// Reads a phrase and spells it out.
///
/// # Errors
/// When it is not written in the phrase language, names a list that is not there, or would become too large.
pub fn parse(text: &str, lists: &impl Lists) -> Result<Phrase, PhraseError> {
    let written = read(text)?;
    let sides = 1 + written.iter().filter(|part| part.joint == Joint::And).count();
    if written.len() > MAX_PARTS || sides > MAX_SIDES {
        return Err(PhraseError::TooManyParts(written.len()));
    }
    let own = |part: &Written| if let Said::Nodes(nodes) = &part.text { count(nodes) } else { 0 };
    let literals = written.iter().map(own).fold(0, usize::saturating_add);
    if literals > MAX_LITERALS {
        return Err(PhraseError::TooMany(literals));
    }
    let mut sides = vec![Vec::new()];
    for part in written {
        let alternatives = match part.text {
            Said::Nodes(nodes) => alternatives(&nodes)?,
            Said::List(name) => lists.list(&name).ok_or(PhraseError::UnknownList(name))?,
        };
        let gap = if let Joint::Gap(words) = part.joint { words } else { 0 };
        if part.joint == Joint::And {
            sides.push(Vec::new());
        }
        if let Some(side) = sides.last_mut() {
            side.push(Part { gap, alternatives });
        }
    }
    Ok(Phrase { sides })
}

/// Reads the entries of a word list.
///
/// # Errors
/// The first entry that is not a phrase in one piece, by its index, and why.
pub fn parse_list<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Alternatives, (usize, PhraseError)> {
    let mut all = Vec::new();
    for (at, entry) in entries.enumerate() {
        let phrase = parse(entry, &()).map_err(|error| (at, error))?;
        match &*phrase.sides {
            [side] if side.len() == 1 => all.extend(side.iter().flat_map(|part| part.alternatives.iter().cloned())),
            _ => return Err((at, PhraseError::StrayGap)),
        }
        if all.len() > MAX_LIST_LITERALS {
            return Err((at, PhraseError::TooMany(all.len())));
        }
    }
    all.sort();
    all.dedup();
    Ok(all.into())
}

/// The parts of a phrase, each with the joint before it; that of the first says nothing.
fn read(text: &str) -> Result<Vec<Written>, PhraseError> {
    let mut reader = Reader { rest: text, depth: 0 };
    let mut parts: Vec<Written> = Vec::new();
    let mut joint = Some(Joint::Gap(0));
    loop {
        let nodes = reader.sequence()?;
        let is_blank = nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()));
        if !is_blank {
            parts.push(Written { joint: joint.take().unwrap_or(Joint::Gap(0)), text: Said::Nodes(nodes) });
        }
        if let Some(name) = reader.list()? {
            parts.push(Written { joint: joint.take().unwrap_or(Joint::Gap(0)), text: Said::List(name) });
            continue;
        }
        let next = reader.joint()?;
        if let Some(before) = joint.filter(|_| next.is_some() || !parts.is_empty()) {
            return Err(if next.unwrap_or(before) == Joint::And {
                PhraseError::StrayAnd
            } else {
                PhraseError::StrayGap
            });
        }
        if parts.is_empty() {
            return Err(PhraseError::Empty);
        }
        if next.is_none() {
            return reader.nothing_left().map(|()| parts);
        }
        joint = next;
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Reads up to a closing bracket, a bar, a joint, a list or the end.
    fn sequence(&mut self) -> Result<Vec<Node>, PhraseError> {
        let mut nodes = Vec::new();
        loop {
            for (length, stray) in [
                (self.gap_length(), PhraseError::StrayGap),
                (self.and_length(), PhraseError::StrayAnd),
                (self.rest.starts_with('<').then_some(1), PhraseError::StrayList),
            ] {
                if length.is_some() {
                    return if self.depth == 0 { Ok(nodes) } else { Err(stray) };
                }
            }
            match self.rest.chars().next() {
                None | Some('}' | ']' | '|') => return Ok(nodes),
                Some('{') => nodes.push(self.choice('{', '}')?),
                Some('[') => nodes.push(self.optional()?),
                Some('*') => {
                    self.skip(1);
                    nodes.push(Node::Star);
                }
                Some(_) => nodes.push(Node::Text(self.plain().to_owned())),
            }
        }
    }

    /// Reads `{a|b}`.
    fn choice(&mut self, open: char, close: char) -> Result<Node, PhraseError> {
        if self.depth == MAX_DEPTH {
            return Err(PhraseError::TooDeep);
        }
        self.skip(1);
        self.depth += 1;
        let mut branches = vec![self.sequence()?];
        while self.rest.starts_with('|') {
            self.skip(1);
            branches.push(self.sequence()?);
        }
        if !self.rest.starts_with(close) {
            return Err(PhraseError::Unbalanced(open));
        }
        self.skip(1);
        self.depth -= 1;
        Ok(Node::Choice(branches))
    }

    /// Reads `[x]`, in which `|` also separates alternatives.
    fn optional(&mut self) -> Result<Node, PhraseError> {
        let Node::Choice(mut branches) = self.choice('[', ']')? else { return Err(PhraseError::Unbalanced('[')) };
        branches.push(Vec::new());
        Ok(Node::Choice(branches))
    }

    /// Reads text up to the next sign of the language.
    fn plain(&mut self) -> &'a str {
        let signs = self.rest.find(['{', '}', '[', ']', '|', '*', '<']).unwrap_or(self.rest.len());
        let joints = ["...", "…", AND].iter().filter_map(|joint| self.rest.find(joint)).min();
        let (text, rest) = self.rest.split_at(signs.min(joints.unwrap_or(signs)));
        self.rest = rest;
        text
    }

    fn and_length(&self) -> Option<usize> {
        self.rest.starts_with(AND).then_some(AND.len())
    }

    /// Reads the name of a list, if one stands here.
    fn list(&mut self) -> Result<Option<String>, PhraseError> {
        let Some(inner) = self.rest.strip_prefix('<') else { return Ok(None) };
        let (name, rest) = inner.split_once('>').ok_or(PhraseError::StrayList)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(PhraseError::StrayList);
        }
        self.rest = rest;
        Ok(Some(name.to_owned()))
    }

    /// Reads a gap or an `&`, if one stands here.
    fn joint(&mut self) -> Result<Option<Joint>, PhraseError> {
        if let Some(length) = self.and_length() {
            self.skip(length);
            return Ok(Some(Joint::And));
        }
        let Some(length) = self.gap_length() else { return Ok(None) };
        self.skip(length);
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = self.rest.get(..digits).unwrap_or_default();
        if number.is_empty() {
            return Ok(Some(Joint::Gap(GAP_WORDS)));
        }
        self.skip(digits);
        match number.parse() {
            Ok(words @ 1..=MAX_GAP_WORDS) => Ok(Some(Joint::Gap(words))),
            _ => Err(PhraseError::BadGap(number.to_owned())),
        }
    }

    fn gap_length(&self) -> Option<usize> {
        ["...", "…"].into_iter().find(|gap| self.rest.starts_with(gap)).map(str::len)
    }

    fn skip(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }

    fn nothing_left(&self) -> Result<(), PhraseError> {
        match self.rest.chars().next() {
            None => Ok(()),
            Some('|') => Err(PhraseError::StrayBar),
            Some(bracket) => Err(PhraseError::Unbalanced(bracket)),
        }
    }
}

/// How many ways there are to say a sequence, without saying them.
fn count(nodes: &[Node]) -> usize {
    let ways = |node: &Node| match node {
        Node::Text(_) | Node::Star => 1,
        Node::Choice(branches) => branches.iter().map(|b| count(b)).fold(0, usize::saturating_add),
    };
    nodes.iter().map(ways).fold(1, usize::saturating_mul)
}

/// What joins two sides; without the blanks it is a sign like others.
const AND: &str = " & ";

/// Where a word may go on; no text that people write holds this character.
const STAR: char = '\u{0}';

fn alternatives(nodes: &[Node]) -> Result<Alternatives, PhraseError> {
    let mut alternatives = spell(nodes).iter().map(|text| literal(text)).collect::<Result<Vec<_>, _>>()?;
    alternatives.sort();
    alternatives.dedup();
    Ok(alternatives.into())
}

/// Every way to say a sequence, with [`STAR`] for `*`.
fn spell(nodes: &[Node]) -> Vec<String> {
    nodes.iter().fold(vec![String::new()], |heads, node| {
        let tails = match node {
            Node::Text(text) => vec![text.replace(STAR, " ")],
            Node::Star => vec![STAR.to_string()],
            Node::Choice(branches) => branches.iter().flat_map(|branch| spell(branch)).collect(),
        };
        heads.iter().flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}"))).collect()
    })
}

/// Folds one way to say it and cuts it at each [`STAR`].
fn literal(text: &str) -> Result<Literal, PhraseError> {
    let mut pieces: Vec<String> = text.trim().split(STAR).map(fold_literal).collect();
    trim(&mut pieces);
    let open = pieces.len() > 1 && pieces.last().is_some_and(String::is_empty);
    if open {
        pieces.pop();
    }
    if !pieces.iter().any(|piece| piece.contains(is_word)) && !text.contains(STAR) {
        return Err(PhraseError::Empty);
    }
    let last = pieces.len() - 1;
    let before_star = pieces.iter().take(if open { last + 1 } else { last });
    let after_star = pieces.iter().skip(1);
    let ends_words = before_star.map(|p| p.chars().next_back()).all(|c| c.is_some_and(is_word));
    let ends_there = after_star.map(|p| p.chars().next()).all(|c| c.is_some_and(|c| !is_word(c)));
    if ends_words && ends_there { Ok(Literal { pieces, open }) } else { Err(PhraseError::StrayStar) }
}

/// Takes the blanks at both ends away.
fn trim(pieces: &mut [String]) {
    if let Some(first) = pieces.first_mut() {
        *first = first.trim_start().to_owned();
    }
    if let Some(last) = pieces.last_mut() {
        *last = last.trim_end().to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pack;

    impl Lists for Pack {
        fn list(&self, name: &str) -> Option<Alternatives> {
            (name == "who").then(|| parse_list(["customer[s]", "guest"].into_iter()).unwrap())
        }
    }

    /// A phrase as one text: alternatives joined by `/`, parts by the words that may lie between, sides by `&`.
    fn spelt(text: &str) -> String {
        let part = |part: &Part| {
            let one = |l: &Literal| l.pieces.join("*") + if l.open { "*" } else { "" };
            (part.gap, part.alternatives.iter().map(one).collect::<Vec<_>>().join("/"))
        };
        let chain = |side: &Vec<Part>| {
            let mut parts = side.iter().map(part);
            let first = parts.next().unwrap().1;
            parts.fold(first, |text, (gap, part)| format!("{text} ~{gap} {part}"))
        };
        match parse(text, &Pack) {
            Err(error) => format!("error: {error}"),
            Ok(phrase) => phrase.sides.iter().map(chain).collect::<Vec<_>>().join(" & "),
        }
    }

    #[test]
    fn phrases_are_spelt_out() {
        for (text, expected) in [
            ("Check-Out", "check out"),
            ("  check \n out ", "check out"),
            ("customer[s]", "customer/customers"),
            ("log[ ]in", "log in/login"),
            ("customer [portal] login", "customer login/customer portal login"),
            ("{a|b c|d}", "a/b c/d"),
            ("{can[not]|can’t} pay", "can pay/can't pay/cannot pay"),
            ("[the|our] shop", "our shop/shop/the shop"),
            ("fail*", "fail*"),
            ("fail* again", "fail* again"),
            ("{fail*|error} again*", "error again*/fail* again*"),
            ("refund ... not received", "refund ~4 not received"),
            ("refund[s] … {not|never}", "refund/refunds ~4 never/not"),
            ("refund ...9 lost", "refund ~9 lost"),
            ("<who> cannot", "customer/customers/guest ~0 cannot"),
            ("our <who> ...2 <who>", "our ~0 customer/customers/guest ~2 customer/customers/guest"),
            ("<who><who>", "customer/customers/guest ~0 customer/customers/guest"),
            ("<who> & invoice ... lost", "customer/customers/guest & invoice ~4 lost"),
            ("r&d", "r&d"),
            ("Straße", "strasse"),
            ("C++ 3.5", "c++ 3.5"),
        ] {
            assert_eq!(spelt(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_phrase_is_said() {
        for (text, expected) in [
            ("", PhraseError::Empty),
            ("[a]", PhraseError::Empty),
            ("{a|}", PhraseError::Empty),
            ("{a", PhraseError::Unbalanced('{')),
            ("a]", PhraseError::Unbalanced(']')),
            ("{a]", PhraseError::Unbalanced('{')),
            ("a|b", PhraseError::StrayBar),
            ("*fail", PhraseError::StrayStar),
            ("fa*il", PhraseError::StrayStar),
            ("fail *", PhraseError::StrayStar),
            ("*", PhraseError::StrayStar),
            ("... a", PhraseError::StrayGap),
            ("a ...", PhraseError::StrayGap),
            ("{a ... b|c}", PhraseError::StrayGap),
            ("a ... ... b", PhraseError::StrayGap),
            ("a ...0 b", PhraseError::BadGap("0".to_owned())),
            ("a ...13 b", PhraseError::BadGap("13".to_owned())),
            ("a & ", PhraseError::StrayAnd),
            (" & a", PhraseError::StrayAnd),
            ("a & ... b", PhraseError::StrayGap),
            ("{a & b}", PhraseError::StrayAnd),
            ("{a|<who>}", PhraseError::StrayList),
            ("a < b", PhraseError::StrayList),
            ("<whom> pays", PhraseError::UnknownList("whom".to_owned())),
            ("<who> [really] <who>", PhraseError::Empty),
            ("a & b & c & d & e", PhraseError::TooManyParts(5)),
            ("{a|b|c|d|e|f|g|h|i} {a|b|c|d|e|f|g|h} {a|b|c|d|e|f|g|h}", PhraseError::TooMany(576)),
            ("a ... b ... c ... d ... e ... f ... g ... h ... i", PhraseError::TooManyParts(9)),
        ] {
            assert_eq!(parse(text, &Pack).err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_monstrous_phrase_is_refused_without_being_spelt_out() {
        let text = "{a|b}".repeat(200);
        assert!(matches!(parse(&text, &()), Err(PhraseError::TooMany(_))));
    }
}
