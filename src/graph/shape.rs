//! Shapes as running a model shows them: extents that are fixed, and extents that follow the batch.

use crate::tensor::{DType, Tensor};
use std::fmt;

/// The extent of one axis: `per_sample · N + fixed`, where N is the batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dim {
    /// How much the extent grows with each further sample; 0 for an extent that does not follow the batch.
    pub per_sample: i64,
    /// The part that is there whatever the batch size.
    pub fixed: i64,
}

impl Dim {
    /// The batch axis itself.
    pub const BATCH: Dim = Dim {
        per_sample: 1,
        fixed: 0,
    };
    /// An extent of one, which stretches in broadcasting.
    pub const ONE: Dim = Dim {
        per_sample: 0,
        fixed: 1,
    };

    /// An extent that does not follow the batch.
    #[must_use]
    pub const fn fixed(extent: i64) -> Self {
        Dim {
            per_sample: 0,
            fixed: extent,
        }
    }

    /// The extent, if it does not follow the batch.
    #[must_use]
    pub fn extent(self) -> Option<i64> {
        (self.per_sample == 0).then_some(self.fixed)
    }

    /// The extent at a batch size.
    #[must_use]
    pub fn at(self, batch: i64) -> i64 {
        self.per_sample * batch + self.fixed
    }

    /// The extent of two axes of this and another extent laid end to end.
    #[must_use]
    pub fn plus(self, other: Dim) -> Self {
        Dim {
            per_sample: self.per_sample + other.per_sample,
            fixed: self.fixed + other.fixed,
        }
    }

    /// The extent times a number.
    #[must_use]
    pub fn times(self, factor: i64) -> Self {
        Dim {
            per_sample: self.per_sample * factor,
            fixed: self.fixed * factor,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.per_sample, self.fixed) {
            (0, fixed) => write!(f, "{fixed}"),
            (1, 0) => f.write_str("N"),
            (per_sample, 0) => write!(f, "{per_sample}N"),
            (1, fixed) => write!(f, "N{fixed:+}"),
            (per_sample, fixed) => write!(f, "{per_sample}N{fixed:+}"),
        }
    }
}

/// The extents of all axes.
pub type Dims = Vec<Dim>;

/// What is known of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// The type of the elements.
    pub dtype: DType,
    /// The extents of the axes.
    pub shape: Dims,
    /// The elements, where they depend neither on the data nor on the batch size (shape arithmetic).
    pub known: Option<Tensor>,
}

impl Fact {
    /// A value of this type and shape.
    #[must_use]
    pub fn new(dtype: DType, shape: Dims) -> Self {
        Fact {
            dtype,
            shape,
            known: None,
        }
    }
}

/// The shape that two shapes broadcast to, as ONNX and NumPy do; `None` where they do not.
#[must_use]
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Dims> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Dim], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .map_or(Dim::ONE, |i| shape[i])
    };
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (a, b) if a == b => Some(a),
            (Dim::ONE, b) => Some(b),
            (a, Dim::ONE) => Some(a),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_from_the_right() {
        let (n, three) = (Dim::BATCH, Dim::fixed(3));
        assert_eq!(broadcast(&[n, three], &[three]), Some(vec![n, three]));
        assert_eq!(
            broadcast(&[n, Dim::ONE], &[Dim::ONE, three]),
            Some(vec![n, three])
        );
        assert_eq!(broadcast(&[n], &[three]), None);
    }
}
