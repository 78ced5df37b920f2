//! Numbers as people write them on a command line: ε as `8/255` or `0.03`.
//!
//! [`Epsilon`] keeps both the value and the spelling, so that a report can show what was asked for.

use std::fmt;
use std::str::FromStr;

/// The radius of a ball of perturbations, in the units of the data: finite, above 0, and not 0 in float32.
///
/// ```
/// use mohs::threat::Epsilon;
///
/// let epsilon: Epsilon = "8/255".parse()?;
/// assert_eq!(epsilon.value(), 8.0 / 255.0);
/// assert_eq!(epsilon.to_string(), "8/255");
/// # Ok::<(), mohs::threat::EpsilonError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Epsilon {
    value: f64,
    text: String,
}

impl Epsilon {
    /// The radius.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The spelling that the user chose; for a radius made from a number, a short one that reads back to the same number.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn checked(value: f64, text: String) -> Result<Self, EpsilonError> {
        // Attacks compute in float32: a radius that vanishes or overflows there could not be honoured.
        #[expect(clippy::cast_possible_truncation, reason = "the rounding is the test")]
        let single = value as f32;
        if value.is_nan() {
            Err(EpsilonError::NotANumber)
        } else if value < 0.0 {
            Err(EpsilonError::Negative)
        } else if value == 0.0 {
            Err(EpsilonError::Zero)
        } else if single == 0.0 {
            Err(EpsilonError::TooSmall)
        } else if single.is_infinite() {
            Err(EpsilonError::Infinite)
        } else {
            Ok(Epsilon { value, text })
        }
    }
}

impl FromStr for Epsilon {
    type Err = EpsilonError;

    /// Reads a decimal (`0.03`, `1e-3`) or a fraction (`8/255`).
    ///
    /// # Errors
    ///
    /// Where the text is no number, or the number is no radius: zero, negative, NaN or infinite.
    fn from_str(text: &str) -> Result<Self, EpsilonError> {
        let text = text.trim();
        Epsilon::checked(parse_number(text)?, text.to_owned())
    }
}

impl TryFrom<f64> for Epsilon {
    type Error = EpsilonError;

    /// Spells a number in at most six characters where that is exact, else as a fraction of 255 where that is exact, else in full.
    ///
    /// # Errors
    ///
    /// Where the number is no radius: zero, negative, NaN or infinite.
    fn try_from(value: f64) -> Result<Self, EpsilonError> {
        let decimal = value.to_string();
        let levels = (value * 255.0).round();
        // Every spelling must read back to the same number, hence the exact comparison.
        #[expect(
            clippy::float_cmp,
            reason = "only an exact fraction may stand for the number"
        )]
        let text = if decimal.len() > 6 && levels / 255.0 == value {
            format!("{levels}/255")
        } else {
            decimal
        };
        Epsilon::checked(value, text)
    }
}

impl fmt::Display for Epsilon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Why a text or a number is no [`Epsilon`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpsilonError {
    /// The text is no number at all.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// Zero.
    #[error("epsilon is zero, which allows no perturbation; give a radius above 0, such as 8/255")]
    Zero,
    /// Below zero.
    #[error("epsilon is negative; give a radius above 0, such as 8/255")]
    Negative,
    /// NaN.
    #[error("epsilon is NaN; give a radius above 0, such as 8/255")]
    NotANumber,
    /// Infinite, in float64 or in float32.
    #[error("epsilon is infinite in float32; give a finite radius, such as 8/255")]
    Infinite,
    /// Above zero, but zero in float32.
    #[error("epsilon is so small that it is zero in float32; give a larger radius")]
    TooSmall,
}

/// Reads a decimal (`0.03`, `-1.5`, `1e-3`) or a fraction of two of them (`2/255`).
///
/// NaN and infinities are read too, where they are spelled out: what range is valid is for the caller to say.
///
/// # Errors
///
/// Where the text is empty, a part of it is no number, or it divides by zero.
pub fn parse_number(text: &str) -> Result<f64, NumberError> {
    let text = text.trim();
    let Some((numerator, denominator)) = text.split_once('/') else {
        return parse_decimal(text);
    };
    let numerator = parse_decimal(numerator)?;
    let denominator = parse_decimal(denominator)?;
    if denominator == 0.0 {
        return Err(NumberError::DivisionByZero);
    }
    Ok(numerator / denominator)
}

fn parse_decimal(text: &str) -> Result<f64, NumberError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(NumberError::Empty);
    }
    text.parse().map_err(|_| NumberError::NotANumber {
        text: text.to_owned(),
    })
}

/// Why a text is no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NumberError {
    /// Nothing there, or nothing on one side of the fraction bar.
    #[error("a number is missing; write a decimal such as 0.03 or a fraction such as 8/255")]
    Empty,
    /// Something there that is no number.
    #[error("`{text}` is no number; write a decimal such as 0.03 or a fraction such as 8/255")]
    NotANumber {
        /// The part that could not be read.
        text: String,
    },
    /// A fraction with denominator zero.
    #[error("a fraction cannot have the denominator zero")]
    DivisionByZero,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(f64, String), EpsilonError> {
        text.parse::<Epsilon>()
            .map(|epsilon| (epsilon.value(), epsilon.text().to_owned()))
    }

    #[test]
    fn fractions_and_decimals_keep_their_spelling() {
        assert_eq!(parse("8/255"), Ok((8.0 / 255.0, "8/255".to_owned())));
        assert_eq!(parse("0.030"), Ok((0.03, "0.030".to_owned())));
        assert_eq!(parse(" 1e-3 "), Ok((0.001, "1e-3".to_owned())));
        assert_eq!(parse("0.5/2"), Ok((0.25, "0.5/2".to_owned())));
    }

    #[test]
    fn each_bad_radius_has_its_own_reason() {
        let reason = |text: &str| parse(text).unwrap_err();
        assert_eq!(reason("0"), EpsilonError::Zero);
        assert_eq!(reason("0/255"), EpsilonError::Zero);
        assert_eq!(reason("-0.1"), EpsilonError::Negative);
        assert_eq!(reason("-8/255"), EpsilonError::Negative);
        assert_eq!(reason("nan"), EpsilonError::NotANumber);
        assert_eq!(reason("inf"), EpsilonError::Infinite);
        assert_eq!(reason("1e39"), EpsilonError::Infinite);
        assert_eq!(reason("1e-50"), EpsilonError::TooSmall);
        assert_eq!(reason(""), NumberError::Empty.into());
        assert_eq!(reason("8/"), NumberError::Empty.into());
        assert_eq!(reason("1/0"), NumberError::DivisionByZero.into());
        let text = "1/2/3".to_owned();
        assert!(
            matches!(reason(&text), EpsilonError::Number(NumberError::NotANumber { text }) if text == "2/3")
        );
        assert_eq!(
            reason("8/abc").to_string(),
            "`abc` is no number; write a decimal such as 0.03 or a fraction such as 8/255"
        );
    }

    #[test]
    fn a_number_is_spelled_so_that_it_reads_back() {
        for (value, text) in [
            (8.0 / 255.0, "8/255"),
            (0.2, "0.2"),
            (1.0, "1"),
            (1.0 / 3.0, "85/255"),
            (0.123_456_789, "0.123456789"),
        ] {
            let epsilon = Epsilon::try_from(value).unwrap();
            assert_eq!(epsilon.text(), text);
            assert_eq!(text.parse::<Epsilon>().unwrap().value(), value);
        }
        assert_eq!(Epsilon::try_from(f64::NAN), Err(EpsilonError::NotANumber));
    }
}
