//! The phrase language: one line that people read, many literals that the automaton reads.
//!
//! | written | means |
//! |---|---|
//! | `check out` | these words, with any white space or hyphens between them |
//! | `{cannot\|can't\|is unable to}` | one of these; each may hold several words and more brackets |
//! | `customer[s]`, `log[ ]in`, `[web] shop` | with or without it |
//! | `fail*` | this word with any ending |
//! | `refund ... not received` | up to four words between |
//!
//! A [`Phrase`] holds the parts around `...`; each [`Part`] is a set of alternatives, spelt out and folded.

use crate::text::{fold_literal, is_word};

/// How many literals one phrase may expand into. More is a sign that it says too many things at once; at ten times
/// this, a pack of 500 phrases would outgrow the automaton's fast form.
pub const MAX_LITERALS: usize = 512;

/// How many words may stand in for one `...`.
pub const MAX_GAP_WORDS: usize = 4;

/// How many parts, joined by `...`, a phrase may have. Beyond this it says nothing that one could foresee.
pub const MAX_PARTS: usize = 8;

/// How deep brackets may be nested.
pub const MAX_DEPTH: usize = 16;

/// A phrase, spelt out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phrase {
    /// The parts around each `...`, in their order; at least one.
    pub parts: Vec<Part>,
}

/// What may stand at one place of a phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The ways to say it, sorted, each once; at least one.
    pub alternatives: Vec<Literal>,
}

/// One way to say it: folded words, cut at each `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// A part without a word, or all of which is optional.
    #[error("a part of it would match without any word")]
    Empty,
    /// Brackets in brackets in brackets.
    #[error("its brackets are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// More than [`MAX_LITERALS`].
    #[error("it expands into {0} literals; at most {MAX_LITERALS} are allowed")]
    TooMany(usize),
    /// More than [`MAX_PARTS`].
    #[error("it has {0} parts joined by `...`; at most {MAX_PARTS} are allowed")]
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
            Self::Empty => "at least one word must not be optional",
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

/// Reads a phrase and spells it out.
///
/// # Errors
/// When it is not written in the phrase language, or would become too large.
pub fn parse(text: &str) -> Result<Phrase, PhraseError> {
    let parts = read(text)?;
    if parts.len() > MAX_PARTS {
        return Err(PhraseError::TooManyParts(parts.len()));
    }
    let literals = parts.iter().map(|nodes| count(nodes)).fold(0, usize::saturating_add);
    if literals > MAX_LITERALS {
        return Err(PhraseError::TooMany(literals));
    }
    let parts = parts.iter().map(|nodes| part(nodes)).collect::<Result<_, _>>()?;
    Ok(Phrase { parts })
}

/// The parts around each `...`.
fn read(text: &str) -> Result<Vec<Vec<Node>>, PhraseError> {
    let mut reader = Reader { rest: text, depth: 0 };
    let mut parts = Vec::new();
    loop {
        let nodes = reader.sequence()?;
        let is_blank = nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()));
        let at_gap = reader.skip_gap();
        if is_blank {
            return Err(if at_gap || !parts.is_empty() { PhraseError::StrayGap } else { PhraseError::Empty });
        }
        parts.push(nodes);
        if !at_gap {
            return reader.nothing_left().map(|()| parts);
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Reads up to a closing bracket, a bar, a gap or the end.
    fn sequence(&mut self) -> Result<Vec<Node>, PhraseError> {
        let mut nodes = Vec::new();
        loop {
            if self.gap_length().is_some() {
                return if self.depth == 0 { Ok(nodes) } else { Err(PhraseError::StrayGap) };
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
        let signs = self.rest.find(['{', '}', '[', ']', '|', '*']).unwrap_or(self.rest.len());
        let gap = self.rest.find("...").unwrap_or(signs).min(self.rest.find('…').unwrap_or(signs));
        let (text, rest) = self.rest.split_at(signs.min(gap));
        self.rest = rest;
        text
    }

    fn gap_length(&self) -> Option<usize> {
        ["...", "…"].into_iter().find(|gap| self.rest.starts_with(gap)).map(str::len)
    }

    fn skip_gap(&mut self) -> bool {
        let Some(length) = self.gap_length() else { return false };
        self.skip(length);
        true
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

/// Where a word may go on; no text that people write holds this character.
const STAR: char = '\u{0}';

fn part(nodes: &[Node]) -> Result<Part, PhraseError> {
    let mut alternatives = spell(nodes).iter().map(|text| literal(text)).collect::<Result<Vec<_>, _>>()?;
    alternatives.sort();
    alternatives.dedup();
    Ok(Part { alternatives })
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

    /// The parts of a phrase as one text: alternatives joined by `/`, parts by ` ~ `, free endings as `*`.
    fn spelt(text: &str) -> String {
        match parse(text) {
            Err(error) => format!("error: {error}"),
            Ok(phrase) => {
                let part = |part: &Part| {
                    let one = |l: &Literal| l.pieces.join("*") + if l.open { "*" } else { "" };
                    part.alternatives.iter().map(one).collect::<Vec<_>>().join("/")
                };
                phrase.parts.iter().map(part).collect::<Vec<_>>().join(" ~ ")
            }
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
            ("refund ... not received", "refund ~ not received"),
            ("refund[s] … {not|never}", "refund/refunds ~ never/not"),
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
            ("{a|b|c|d|e|f|g|h|i} {a|b|c|d|e|f|g|h} {a|b|c|d|e|f|g|h}", PhraseError::TooMany(576)),
            ("a ... b ... c ... d ... e ... f ... g ... h ... i", PhraseError::TooManyParts(9)),
        ] {
            assert_eq!(parse(text).err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_monstrous_phrase_is_refused_without_being_spelt_out() {
        let text = "{a|b}".repeat(200);
        assert!(matches!(parse(&text), Err(PhraseError::TooMany(_))));
    }
}
