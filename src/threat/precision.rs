//! The numbers that a model's input can hold: a point that is none of them is another point for the model.

use super::Bounds;
use half::{bf16, f16};

/// The precision of the attacked values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// float32 (and float64, whose points are stored as float32).
    #[default]
    Single,
    /// float16.
    Half,
    /// bfloat16.
    Brain,
}

impl Precision {
    /// The nearest number, to even on ties.
    #[must_use]
    pub fn nearest(self, value: f32) -> f32 {
        self.value(self.bits(value), value)
    }

    /// The nearest number that is within the bounds.
    ///
    /// `value` must be finite and within the bounds itself, and they must not be so narrow that none is between them.
    #[must_use]
    pub fn nearest_within(self, bounds: Bounds, value: f32) -> f32 {
        let nearest = self.nearest(value);
        if nearest > bounds.high {
            self.step(nearest, false)
        } else if nearest < bounds.low {
            self.step(nearest, true)
        } else {
            nearest
        }
    }

    /// The number at `value`, or the first one from there toward `clean`, which must be such a number itself.
    #[must_use]
    pub fn toward(self, value: f32, clean: f32) -> f32 {
        let nearest = self.nearest(value);
        let overshoots = (value > clean && nearest > value) || (value < clean && nearest < value);
        if overshoots {
            self.step(nearest, clean > value)
        } else {
            nearest
        }
    }

    fn bits(self, value: f32) -> u16 {
        match self {
            Precision::Single => 0,
            Precision::Half => f16::from_f32(value).to_bits(),
            Precision::Brain => bf16::from_f32(value).to_bits(),
        }
    }

    fn value(self, bits: u16, single: f32) -> f32 {
        match self {
            Precision::Single => single,
            Precision::Half => f16::from_bits(bits).to_f32(),
            Precision::Brain => bf16::from_bits(bits).to_f32(),
        }
    }

    /// The neighbour of a number of this precision.
    fn step(self, value: f32, up: bool) -> f32 {
        const SIGN: u16 = 0x8000;
        let neighbor = if up {
            value.next_up()
        } else {
            value.next_down()
        };
        // Apart from the sign, the bits are in the order of the magnitudes; both zeros count as one.
        let bits = self.bits(value);
        let stepped = match (bits & !SIGN, bits & SIGN != 0) {
            (0, _) if up => 1,
            (0, _) => SIGN | 1,
            (_, negative) if negative == up => bits - 1,
            _ => bits + 1,
        };
        self.value(stepped, neighbor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Precision; 2] = [Precision::Half, Precision::Brain];

    #[test]
    fn single_precision_changes_nothing() {
        assert_eq!(Precision::Single.nearest(0.1), 0.1);
        assert_eq!(Precision::Single.toward(0.1, 0.0), 0.1);
    }

    #[test]
    fn a_step_leads_to_the_neighbour() {
        assert_eq!(Precision::Half.step(1.0, true), 1.0 + 2f32.powi(-10));
        assert_eq!(Precision::Half.step(1.0, false), 1.0 - 2f32.powi(-11));
        assert_eq!(Precision::Half.step(-1.0, true), -1.0 + 2f32.powi(-11));
        assert_eq!(Precision::Half.step(0.0, false), -(2f32.powi(-24)));
        assert_eq!(Precision::Half.step(f32::INFINITY, false), 65504.0);
        assert_eq!(Precision::Brain.step(1.0, true), 1.0 + 2f32.powi(-7));
        assert_eq!(Precision::Brain.step(-1.0, false), -1.0 - 2f32.powi(-7));
    }

    #[test]
    fn toward_never_goes_beyond_the_value() {
        for precision in BOTH {
            for clean in [0.0, 0.5, -0.25] {
                for index in -100_i16..100 {
                    let value = clean + 0.013 * f32::from(index);
                    let found = precision.toward(value, clean);
                    assert_eq!(found, precision.nearest(found), "{precision:?} {value}");
                    assert!((found - clean).abs() <= (value - clean).abs());
                    assert!((found - value).abs() <= 0.01 * value.abs());
                }
            }
        }
    }

    #[test]
    fn rounding_stays_within_the_bounds() {
        let bounds = Bounds {
            low: -0.1,
            high: 0.1,
        };
        for precision in BOTH {
            for value in [-0.1, 0.1] {
                let found = precision.nearest_within(bounds, value);
                assert!(bounds.contain(found), "{precision:?} {found}");
                assert!((found - value).abs() <= 1e-3);
            }
        }
    }
}
