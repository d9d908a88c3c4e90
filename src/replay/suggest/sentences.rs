//! Sentences of tickets, short enough to be examples.

use std::ops::Range;

/// The longest example, in characters.
const LONGEST: usize = 100;

/// How much of a longer sentence is kept on either side of what matters in it, in characters.
const AROUND: usize = 40;

/// The sentences and lines of a text.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.split(['\n', '\r']).flat_map(|line| line.split(". "));
    lines.map(str::trim).filter(|sentence| !sentence.is_empty())
}

/// A sentence, or the words of a long one around a range of its characters.
pub fn shortened(sentence: &str, span: Range<usize>) -> String {
    let characters: Vec<char> = sentence.chars().collect();
    if characters.len() <= LONGEST {
        return sentence.to_owned();
    }
    let is_border = |at: usize| characters.get(at).is_none_or(|c| c.is_whitespace());
    let from = span.start.saturating_sub(AROUND);
    let from = (from..span.start).find(|at| *at == 0 || is_border(*at)).unwrap_or(span.start);
    let to = span.end.saturating_add(AROUND).min(characters.len());
    let to = (span.end..=to).rev().find(|at| is_border(*at)).unwrap_or(span.end);
    let kept: String = characters.get(from..to).unwrap_or_default().iter().collect();
    kept.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sentence_is_cut_between_words() {
        let long = format!("{}the label printer jams{}", "again and ".repeat(20), " and again".repeat(20));
        let start = long.find("label").unwrap();
        let short = shortened(&long, start..start + 13);
        assert!(short.len() <= LONGEST, "{short}");
        assert!(short.contains("the label printer jams and"), "{short}");
        assert!(short.split(' ').all(|word| long.split(' ').any(|whole| whole == word)), "{short}");
        assert_eq!(sentences("One. Two\n\nthree").collect::<Vec<_>>(), ["One", "Two", "three"]);
    }
}
