//! The parts of phrases that were found in a field, part by part.

/// A part of a phrase, or a whole phrase, found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartHit {
    pub part: u32,
    /// Its first and its last token.
    pub first: u32,
    pub last: u32,
}

/// All hits of a field, those of a part side by side in the order of their first tokens. Reuse one for many fields: its
/// buffers stay.
#[derive(Clone, Debug, Default)]
pub(super) struct Hits {
    hits: Vec<PartHit>,
    /// By part: where its hits start, and one past their end. Zeros for parts without hits.
    ranges: Vec<(u32, u32)>,
    /// The parts that have hits, in the order in which they were met.
    parts: Vec<u32>,
}

impl Hits {
    /// Takes what was found, in the order of first tokens, and forgets what was here before; there are `parts` parts.
    pub fn fill(&mut self, found: &[PartHit], parts: usize) {
        for part in self.parts.drain(..) {
            if let Some(range) = self.ranges.get_mut(part as usize) {
                *range = (0, 0);
            }
        }
        self.ranges.resize(parts, (0, 0));
        for hit in found {
            let Some((_, count)) = self.ranges.get_mut(hit.part as usize) else { continue };
            if *count == 0 {
                self.parts.push(hit.part);
            }
            *count += 1;
        }
        let mut start = 0;
        for part in &self.parts {
            let Some(range) = self.ranges.get_mut(*part as usize) else { continue };
            let count = range.1;
            *range = (start, start);
            start += count;
        }
        self.hits.clear();
        self.hits.resize(found.len(), PartHit::default());
        for hit in found {
            let Some((_, end)) = self.ranges.get_mut(hit.part as usize) else { continue };
            if let Some(slot) = self.hits.get_mut(*end as usize) {
                *slot = *hit;
            }
            *end += 1;
        }
    }

    /// The parts that have hits.
    pub fn parts(&self) -> &[u32] {
        &self.parts
    }

    /// The hits of a part.
    pub fn of(&self, part: u32) -> &[PartHit] {
        let (start, end) = self.ranges.get(part as usize).copied().unwrap_or_default();
        self.hits.get(start as usize..end as usize).unwrap_or_default()
    }
}
