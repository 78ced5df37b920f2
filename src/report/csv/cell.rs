//! What single fields look like.

use crate::outcome::Norm;

/// A value that one field of a CSV file holds.
pub(super) trait Cell: Sized {
    fn to_cell(&self) -> String;
    /// On failure, what the field should have been.
    fn from_cell(text: &str) -> Result<Self, &'static str>;
}

impl Cell for String {
    fn to_cell(&self) -> String {
        self.clone()
    }

    fn from_cell(text: &str) -> Result<Self, &'static str> {
        Ok(text.to_owned())
    }
}

macro_rules! parsed_cells {
    ($($type:ty => $what:literal),* $(,)?) => {
        $(impl Cell for $type {
            fn to_cell(&self) -> String {
                self.to_string()
            }

            fn from_cell(text: &str) -> Result<Self, &'static str> {
                text.trim().parse().map_err(|_| $what)
            }
        })*
    };
}

parsed_cells! {
    u32 => "a whole number below 2^32",
    u64 => "a whole number below 2^64",
}

impl Cell for bool {
    fn to_cell(&self) -> String {
        self.to_string()
    }

    /// Spreadsheets write `TRUE`.
    fn from_cell(text: &str) -> Result<Self, &'static str> {
        text.trim()
            .to_ascii_lowercase()
            .parse()
            .map_err(|_| "true or false")
    }
}

impl Cell for f64 {
    /// Rust's shortest decimal that reads back to the same number, which has no exponent; NaN is empty.
    fn to_cell(&self) -> String {
        if self.is_nan() {
            String::new()
        } else {
            self.to_string()
        }
    }

    fn from_cell(text: &str) -> Result<Self, &'static str> {
        match text.trim() {
            "" => Ok(f64::NAN),
            text => text.parse().map_err(|_| "a number"),
        }
    }
}

impl Cell for Norm {
    fn to_cell(&self) -> String {
        self.name().to_owned()
    }

    fn from_cell(text: &str) -> Result<Self, &'static str> {
        Norm::ALL
            .into_iter()
            .find(|norm| norm.name() == text.trim())
            .ok_or("one of linf, l2, l1, l0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_float_reads_back_bit_for_bit(bits: u64) {
            let number = f64::from_bits(bits);
            let back = f64::from_cell(&number.to_cell()).unwrap();
            prop_assert!(back.to_bits() == number.to_bits() || (number.is_nan() && back.is_nan()));
        }
    }

    #[test]
    fn floats_are_short_and_have_no_exponent() {
        assert_eq!((8.0_f64 / 255.0).to_cell(), "0.03137254901960784");
        assert_eq!(1e-7.to_cell(), "0.0000001");
        assert_eq!(1e16.to_cell(), "10000000000000000");
        assert_eq!(1.0.to_cell(), "1");
        assert_eq!(f64::NAN.to_cell(), "");
        assert_eq!(f64::INFINITY.to_cell(), "inf");
    }

    #[test]
    fn every_norm_reads_back() {
        for norm in Norm::ALL {
            assert_eq!(Norm::from_cell(&norm.to_cell()), Ok(norm));
        }
        assert!(Norm::from_cell("linfty").is_err());
    }
}
