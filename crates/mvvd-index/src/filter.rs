//! Which rows of a segment may be found: a bitmap over ordinals.

use arrow::buffer::BooleanBuffer;
use mvvd_core::Ordinal;

/// The rows that may be found, of `rows` rows: those that are live and match the conditions of a query.
#[derive(Debug, Clone)]
pub struct Filter {
    words: Vec<u64>,
    rows: usize,
    count: usize,
}

impl Filter {
    /// The rows whose bit is set.
    pub fn new(bits: &BooleanBuffer) -> Self {
        let mut words: Vec<u64> = bits.bit_chunks().iter_padded().collect();
        words.truncate(bits.len().div_ceil(64));
        let count = bits.count_set_bits();
        Self { words, rows: bits.len(), count }
    }

    /// The rows of `rows` that `ordinals` names.
    pub fn of_ordinals(rows: usize, ordinals: impl IntoIterator<Item = Ordinal>) -> Self {
        let mut words = vec![0u64; rows.div_ceil(64)];
        for ordinal in ordinals {
            assert!((ordinal as usize) < rows, "row {ordinal} of {rows}");
            words[ordinal as usize / 64] |= 1 << (ordinal % 64);
        }
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Self { words, rows, count }
    }

    /// Number of rows of the segment.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of rows that may be found.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether this row may be found; rows beyond the segment may not.
    #[inline]
    pub fn has(&self, ordinal: Ordinal) -> bool {
        self.words.get(ordinal as usize / 64).is_some_and(|word| word >> (ordinal % 64) & 1 == 1)
    }

    /// Bits of the rows from `64 * word` on; the lowest bit is the first row. Bits beyond the rows are 0.
    #[inline]
    pub fn word(&self, word: usize) -> u64 {
        self.words.get(word).copied().unwrap_or(0)
    }

    /// The rows that may be found, ascending.
    pub fn ordinals(&self) -> impl Iterator<Item = Ordinal> {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            std::iter::successors((word != 0).then_some(word), |word| {
                let rest = word & (word - 1);
                (rest != 0).then_some(rest)
            })
            .map(move |word| i as Ordinal * 64 + word.trailing_zeros())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_ordinals_agree() {
        let bits: Vec<bool> = (0..200).map(|i| i % 7 == 3 || i == 199).collect();
        let buffer = BooleanBuffer::from(bits.clone()).slice(5, 190);
        let filter = Filter::new(&buffer);
        let expected: Vec<u32> = (0..190).filter(|&i| bits[i as usize + 5]).collect();
        assert_eq!(filter.ordinals().collect::<Vec<_>>(), expected);
        assert_eq!(filter.count(), expected.len());
        let same = Filter::of_ordinals(190, expected.iter().copied());
        assert!((0..300).all(|i| same.has(i) == filter.has(i) && filter.has(i) == expected.contains(&i)));
        assert_eq!(filter.word(9), 0);
        assert_eq!(Filter::of_ordinals(0, []).ordinals().count(), 0);
    }
}
