//! Numbers as people write them: decimals and fractions.

/// Reads a finite number: a decimal (`0.03`, `1e-3`) or a fraction of two decimals (`8/255`).
///
/// # Errors
/// Where the text is neither, or its value is not finite.
pub fn parse_number(text: &str) -> Result<f64, NumberError> {
    let refused = || NumberError(text.to_owned());
    let decimal = |part: &str| part.trim().parse::<f64>().map_err(|_| refused());
    let value = match text.split_once('/') {
        None => decimal(text)?,
        Some((numerator, denominator)) => decimal(numerator)? / decimal(denominator)?,
    };
    if value.is_finite() {
        Ok(value)
    } else {
        Err(refused())
    }
}

/// A text that is no finite number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no finite number; write a decimal such as 0.03 or a fraction such as 8/255")]
pub struct NumberError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_and_fractions_are_read() {
        assert_eq!(parse_number("0.03"), Ok(0.03));
        assert_eq!(parse_number("1e-3"), Ok(0.001));
        assert_eq!(parse_number("8/255"), Ok(8.0 / 255.0));
        assert_eq!(parse_number(" 8 / 255 "), Ok(8.0 / 255.0));
        assert_eq!(parse_number("-2"), Ok(-2.0));
    }

    #[test]
    fn what_is_no_finite_number_is_refused() {
        for text in [
            "", "x", "1/0", "0/0", "1/2/3", "/2", "2/", "nan", "inf", "1e999",
        ] {
            assert!(parse_number(text).is_err(), "{text}");
        }
    }
}
