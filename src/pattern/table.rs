//! A hash table that is made once and then only read: it is asked for every word of every text.

/// Values by 64-bit keys.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    /// At most half full; their number is a power of two.
    slots: Box<[(u64, T)]>,
}

/// The key of a slot that holds nothing. Nothing is found under it.
const FREE: u64 = u64::MAX;

impl<T: Copy + Default> Table<T> {
    /// A table of entries whose keys differ from one another.
    pub fn new(entries: impl ExactSizeIterator<Item = (u64, T)>) -> Self {
        let mut slots = vec![(FREE, T::default()); (entries.len() * 2).next_power_of_two()];
        let mask = slots.len() - 1;
        for (key, value) in entries {
            let places = (spread(key)..).map(|at| at & mask);
            if let Some(free) = places.into_iter().find(|at| slots[*at].0 == FREE) {
                slots[free] = (key, value);
            }
        }
        Self { slots: slots.into() }
    }

    /// The value of a key.
    pub fn get(&self, key: u64) -> Option<T> {
        let mask = self.slots.len() - 1;
        let mut at = spread(key);
        loop {
            match self.slots.get(at & mask) {
                Some((FREE, _)) | None => return None,
                Some((known, value)) if *known == key => return Some(*value),
                Some(_) => at += 1,
            }
        }
    }

    /// Bytes on the heap.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.slots)
    }
}

impl<T: Copy + Default> Default for Table<T> {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

/// Where to look for a key first: a number of 32 bits in whose low ones all bits of the key have a say.
fn spread(key: u64) -> usize {
    let mixed = (key ^ (key >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(mixed >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_nothing_else() {
        let empty: Table<u32> = Table::default();
        assert_eq!(empty.get(0), None);
        let table = Table::new((0..1000_u32).map(|number| (u64::from(number) << 40, number)));
        for number in 0..1000 {
            assert_eq!(table.get(u64::from(number) << 40), Some(number));
            assert_eq!(table.get(u64::from(number) << 40 | 1), None);
        }
        assert_eq!(table.get(FREE), None);
    }
}
