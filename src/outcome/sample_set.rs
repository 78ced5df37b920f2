//! A set of sample positions, at about one bit per sample.

use std::collections::BTreeMap;

/// Positions per page: small enough that a sparse set stays small, large enough that the map's own cost vanishes.
const PAGE: u64 = 4096;
const WORDS: usize = 64;

/// A set of positions in a data set.
///
/// Pages are made where a position falls into them, so an offset into a long data set costs nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct SampleSet {
    pages: BTreeMap<u64, Box<[u64; WORDS]>>,
    len: u64,
}

impl SampleSet {
    /// Adds a position; `true` where it was not in the set before.
    pub(super) fn insert(&mut self, index: u64) -> bool {
        let words = self
            .pages
            .entry(index / PAGE)
            .or_insert_with(|| Box::new([0; WORDS]));
        let within = index % PAGE;
        let word = &mut words[(within / 64) as usize];
        let bit = 1 << (within % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.len += u64::from(new);
        new
    }

    /// The number of positions in the set.
    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(indices in prop::collection::vec(prop_oneof![0u64..200, any::<u64>()], 0..100)) {
            let mut bits = SampleSet::default();
            let mut reference = HashSet::new();
            for index in indices {
                prop_assert_eq!(bits.insert(index), reference.insert(index));
                prop_assert_eq!(bits.len(), reference.len() as u64);
            }
        }
    }

    #[test]
    fn a_dense_set_takes_about_one_bit_per_sample() {
        let mut bits = SampleSet::default();
        for index in 0..100_000 {
            bits.insert(index);
        }
        assert_eq!(bits.pages.len(), 25);
    }
}
