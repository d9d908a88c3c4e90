//! Text out of structured documents: Atlassian's document format, flattened.

use crate::envelope::cell::Cell;

/// The text of an Atlassian document: words in order, a line for each block. Unknown nodes are descended into.
pub fn flatten(node: &Cell<'_>) -> String {
    let mut text = String::new();
    append(node, &mut text);
    text.truncate(text.trim_end().len());
    text
}

/// Whether an object is an Atlassian document.
pub fn is_document(cell: &Cell<'_>) -> bool {
    matches!(cell.member("content"), Some(Cell::List(_)))
}

fn append(node: &Cell<'_>, text: &mut String) {
    if let Cell::List(nodes) = node {
        nodes.iter().for_each(|node| append(node, text));
        return;
    }
    let kind = node.member("type").and_then(Cell::scalar).unwrap_or_default();
    match &*kind {
        "hardBreak" => text.push('\n'),
        "text" => push(node.member("text"), text),
        "mention" | "emoji" | "status" | "date" | "inlineCard" | "blockCard" => leaf(node, text),
        _ => {}
    }
    if let Some(content) = node.member("content") {
        append(content, text);
    }
    if is_block(&kind) && !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
}

/// A node whose text stands in its attributes.
fn leaf(node: &Cell<'_>, text: &mut String) {
    let attributes = node.member("attrs");
    let named = |name| attributes.and_then(|attributes| attributes.member(name));
    push(named("text").or_else(|| named("shortName")).or_else(|| named("url")), text);
}

fn push(cell: Option<&Cell<'_>>, text: &mut String) {
    if let Some(words) = cell.and_then(Cell::scalar) {
        text.push_str(&words);
    }
}

fn is_block(kind: &str) -> bool {
    matches!(
        kind,
        "paragraph" | "heading" | "codeBlock" | "listItem" | "blockquote" | "panel" | "tableRow" | "rule" | "blockCard"
    )
}
