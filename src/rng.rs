//! Random streams keyed by what they are for.
//!
//! A stream depends on its [`Key`] alone: the seed, the sample's index, the restart and the purpose.
//! Batch size, order, sharding and thread count therefore cannot change a draw, and neither can a new use of randomness elsewhere.
//! Start at [`stream`].

use rand::SeedableRng;

/// A stream of random numbers: ChaCha with 8 rounds, the same on every platform.
pub type Stream = rand_chacha::ChaCha8Rng;

/// What random numbers are drawn for; streams for different purposes are independent.
///
/// The numbers are part of the results' definition: none is ever changed or used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// The point in the ball from which an attack starts.
    RandomStart = 1,
    /// The points that an attack without gradients asks about.
    Queries = 2,
    /// The order of the samples in an epoch of training (the epoch stands in the sample's place).
    Shuffle = 101,
    /// Where a sample is cropped and whether it is flipped, in an epoch of training (in the restart's place).
    Augmentation = 102,
    /// The point from which a perturbation starts in an epoch of training (in the restart's place).
    TrainingStart = 103,
    /// The first weights of a parameter (in the sample's place).
    Weights = 104,
    /// Which elements dropout keeps of a sample in an epoch of training (in the restart's place).
    Dropout = 105,
}

/// What a stream is keyed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The user's seed.
    pub seed: u64,
    /// The sample's position in the data set, from 0.
    pub sample: u64,
    /// The restart, from 0.
    pub restart: u32,
    /// What the numbers are for.
    pub purpose: Purpose,
}

/// The stream for `key`, from its beginning.
#[must_use]
pub fn stream(key: Key) -> Stream {
    let words = [
        key.seed,
        key.sample,
        u64::from(key.restart),
        key.purpose as u64,
    ];
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    Stream::from_seed(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore;

    const KEY: Key = Key {
        seed: 7,
        sample: 1_000_003,
        restart: 2,
        purpose: Purpose::RandomStart,
    };

    #[test]
    fn draws_never_change_between_versions() {
        let mut stream = stream(KEY);
        let drawn = [stream.next_u64(), stream.next_u64(), stream.next_u64()];
        assert_eq!(drawn, GOLDEN);
    }

    #[test]
    fn every_part_of_the_key_changes_the_stream() {
        let first = |key| stream(key).next_u64();
        let others = [
            Key { seed: 8, ..KEY },
            Key { sample: 7, ..KEY },
            Key { restart: 3, ..KEY },
            // The same four numbers in other places.
            Key {
                seed: 1_000_003,
                sample: 7,
                ..KEY
            },
        ];
        for other in others {
            assert_ne!(first(other), first(KEY), "{other:?}");
        }
    }

    #[test]
    fn a_key_gives_the_same_stream_again() {
        let (mut one, mut two) = (stream(KEY), stream(KEY));
        for _ in 0..100 {
            assert_eq!(one.next_u64(), two.next_u64());
        }
    }

    const GOLDEN: [u64; 3] = [
        9_907_316_359_618_989_124,
        10_292_590_521_080_812_692,
        9_071_024_594_208_543_470,
    ];
}
