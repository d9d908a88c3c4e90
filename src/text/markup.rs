//! HTML and Jira wiki markup in ticket texts: recognised so that it weighs nothing.
//!
//! Nothing is parsed: a glance at one place says whether markup starts there, how long it is and what stands for it.
//! Whatever only looks like markup (`a < b`, `<customer cannot pay>`) stays text.

use crate::text::{Replacement, is_word};

/// Tags and macros beyond this many bytes are taken for text: a stray `<` must not make the rest of a ticket vanish.
const LONGEST: usize = 2048;

/// Wiki macros of Jira; other names in braces stay text.
const MACROS: &[&str] = &[
    "adf",
    "anchor",
    "bgcolor",
    "code",
    "color",
    "expand",
    "html",
    "info",
    "loremipsum",
    "noformat",
    "note",
    "panel",
    "quote",
    "tip",
    "toc",
    "warning",
];

/// HTML elements that stand in lines of their own.
const BLOCKS: &[&str] = &[
    "blockquote",
    "dd",
    "div",
    "dt",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "table",
    "td",
    "th",
    "tr",
    "ul",
];

/// Named entities beyond those of ASCII that Western European mail programs write.
const ENTITIES: &[(&str, char)] = &[
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", ' '),
    ("ensp", ' '),
    ("emsp", ' '),
    ("thinsp", ' '),
    ("shy", '\u{ad}'),
    ("ndash", '–'),
    ("mdash", '—'),
    ("lsquo", '‘'),
    ("rsquo", '’'),
    ("sbquo", '‚'),
    ("ldquo", '“'),
    ("rdquo", '”'),
    ("bdquo", '„'),
    ("laquo", '«'),
    ("raquo", '»'),
    ("hellip", '…'),
    ("bull", '•'),
    ("middot", '·'),
    ("euro", '€'),
    ("pound", '£'),
    ("sect", '§'),
    ("szlig", 'ß'),
    ("auml", 'ä'),
    ("ouml", 'ö'),
    ("uuml", 'ü'),
    ("Auml", 'Ä'),
    ("Ouml", 'Ö'),
    ("Uuml", 'Ü'),
    ("agrave", 'à'),
    ("aacute", 'á'),
    ("acirc", 'â'),
    ("atilde", 'ã'),
    ("aring", 'å'),
    ("aelig", 'æ'),
    ("ccedil", 'ç'),
    ("egrave", 'è'),
    ("eacute", 'é'),
    ("ecirc", 'ê'),
    ("euml", 'ë'),
    ("igrave", 'ì'),
    ("iacute", 'í'),
    ("icirc", 'î'),
    ("iuml", 'ï'),
    ("ntilde", 'ñ'),
    ("ograve", 'ò'),
    ("oacute", 'ó'),
    ("ocirc", 'ô'),
    ("otilde", 'õ'),
    ("oslash", 'ø'),
    ("ugrave", 'ù'),
    ("uacute", 'ú'),
    ("ucirc", 'û'),
    ("yacute", 'ý'),
    ("Eacute", 'É'),
    ("Egrave", 'È'),
    ("Agrave", 'À'),
    ("Ccedil", 'Ç'),
    ("Aring", 'Å'),
    ("Oslash", 'Ø'),
    ("Ntilde", 'Ñ'),
];

/// The markup that starts at a byte: its length in bytes and what stands for it.
pub(crate) fn at(text: &str, at: usize) -> Option<(usize, Replacement)> {
    let rest = text.get(at..)?;
    match rest.as_bytes().first()? {
        b'<' => {
            tag(rest).map(|length| (length, if is_block(rest) { Replacement::Line } else { Replacement::Separator }))
        }
        b'&' => entity(rest),
        b'{' => Some((wiki_macro(rest).unwrap_or(1), Replacement::Separator)),
        b'}' | b'*' => Some((1, Replacement::Separator)),
        b'_' => (!inside_name(text, at)).then_some((1, Replacement::Separator)),
        b'!' => image(rest).map(|length| (length, Replacement::Separator)),
        b'[' => attachment(rest).map(|length| (length, Replacement::Separator)),
        _ => None,
    }
}

/// Whether an underscore joins two words, as in `order_id`, and is no emphasis.
fn inside_name(text: &str, at: usize) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| is_word(c) || c == '_');
    let before = text.get(..at).and_then(|before| before.chars().next_back());
    joins(before) && joins(text.get(at + 1..).and_then(|after| after.chars().next()))
}

/// The length of an HTML tag, comment, or element whose content is no text.
fn tag(rest: &str) -> Option<usize> {
    if rest.starts_with("<!--") {
        return until(rest, "-->");
    }
    let end = until(rest, ">")?;
    let inner = rest.get(1..end - 1)?;
    if inner.starts_with('!') || inner.starts_with('?') {
        return Some(end);
    }
    let body = inner.strip_prefix('/').unwrap_or(inner);
    let name_length = body.find(|c: char| !(c.is_ascii_alphanumeric() || c == ':')).unwrap_or(body.len());
    let (name, attributes) = body.split_at(name_length);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !are_attributes(attributes) {
        return None;
    }
    Some(without_text(rest, name, end).unwrap_or(end))
}

/// Whether a tag opens or closes an element that stands in lines of its own.
fn is_block(tag: &str) -> bool {
    let name = tag.trim_start_matches(['<', '/']);
    let length = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    name.get(..length).is_some_and(|name| BLOCKS.iter().any(|block| name.eq_ignore_ascii_case(block)))
}

/// Whether what follows a tag's name can be attributes, rather than the words of somebody who likes brackets.
fn are_attributes(text: &str) -> bool {
    let trimmed = text.trim_end_matches('/').trim_end();
    trimmed.is_empty() || (text.starts_with(char::is_whitespace) && text.contains('='))
}

/// The length of a whole `style` or `script` element.
fn without_text(rest: &str, name: &str, open: usize) -> Option<usize> {
    let close = ["style", "script"].into_iter().find(|n| name.eq_ignore_ascii_case(n))?;
    let closing = rest.get(open..)?.match_indices("</").find(|(at, _)| {
        let name = rest.get(open + at + 2..open + at + 2 + close.len());
        name.is_some_and(|name| name.eq_ignore_ascii_case(close))
    })?;
    let start = open + closing.0;
    Some(start + until(rest.get(start..)?, ">")?)
}

/// The length up to and with `end`, within the bound.
fn until(rest: &str, end: &str) -> Option<usize> {
    let head = rest.get(..rest.floor_char_boundary(LONGEST))?;
    head.find(end).map(|at| at + end.len())
}

/// An HTML entity, by name or number.
fn entity(rest: &str) -> Option<(usize, Replacement)> {
    let head = rest.get(1..rest.floor_char_boundary(12))?;
    let name = head.get(..head.find(';')?)?;
    let c = match name.strip_prefix('#') {
        Some(number) => char::from_u32(entity_number(number)?)?,
        None => ENTITIES.iter().find(|(known, _)| *known == name)?.1,
    };
    Some((name.len() + 2, Replacement::Char(c)))
}

fn entity_number(number: &str) -> Option<u32> {
    match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => number.parse().ok(),
    }
}

/// The length of a wiki macro such as `{color:red}`.
fn wiki_macro(rest: &str) -> Option<usize> {
    let end = until(rest, "}")?;
    let inner = rest.get(1..end - 1)?;
    let name = inner.split(':').next()?;
    MACROS.iter().any(|known| name.eq_ignore_ascii_case(known)).then_some(end)
}

/// The length of an embedded wiki image such as `!screen.png|thumbnail!`.
fn image(rest: &str) -> Option<usize> {
    let inner = rest.get(1..)?;
    let length = inner.find(['!', '\n'])?;
    let name = inner.get(..length).filter(|_| inner.as_bytes().get(length) == Some(&b'!'))?;
    let file = name.split('|').next()?;
    let (stem, extension) = file.rsplit_once('.')?;
    let is_image = ["png", "jpg", "jpeg", "gif", "bmp", "svg"].iter().any(|e| extension.eq_ignore_ascii_case(e));
    (is_image && !stem.is_empty() && !stem.starts_with(' ') && name.len() <= LONGEST).then_some(length + 2)
}

/// The length of a wiki link to an attachment such as `[^order.pdf]`.
fn attachment(rest: &str) -> Option<usize> {
    if rest.starts_with("[^") { until(rest, "]").filter(|length| *length <= 256) } else { None }
}
