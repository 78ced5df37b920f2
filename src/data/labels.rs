//! Class numbers out of what files store as labels.

/// The class that a stored number stands for, or why it stands for none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range and wholeness are checked first"
)]
pub(super) fn class(value: f64) -> Result<u32, String> {
    if !value.is_finite() {
        Err(format!("the label is {value}"))
    } else if value < 0.0 {
        Err(format!("the label {value} is negative"))
    } else if value.fract() != 0.0 {
        Err(format!("the label {value} is not a whole number"))
    } else if value > f64::from(u32::MAX) {
        Err(format!("the label {value} is larger than any class number"))
    } else {
        Ok(value as u32)
    }
}

/// The class of a one-hot vector: the position of its only 1 among zeros.
pub(super) fn one_hot(row: &[f64]) -> Result<u32, String> {
    let mut class = None;
    for (position, &value) in row.iter().enumerate() {
        if value == 1.0 && class.is_none() {
            class = Some(position);
        } else if value != 0.0 {
            return Err(format!(
                "the label vector of length {} is not one-hot (value {position} is {value})",
                row.len()
            ));
        }
    }
    let class =
        class.ok_or_else(|| format!("the label vector of length {} has no 1", row.len()))?;
    u32::try_from(class).map_err(|_| format!("the label {class} is larger than any class number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_from_zero_are_classes() {
        assert_eq!(class(0.0), Ok(0));
        assert_eq!(class(-0.0), Ok(0));
        assert_eq!(class(9.0), Ok(9));
        assert_eq!(class(f64::from(u32::MAX)), Ok(u32::MAX));
    }

    #[test]
    fn other_numbers_are_refused_with_the_reason() {
        assert!(class(-1.0).unwrap_err().contains("negative"));
        assert!(class(1.5).unwrap_err().contains("whole"));
        assert!(class(f64::NAN).unwrap_err().contains("NaN"));
        assert!(class(f64::INFINITY).unwrap_err().contains("inf"));
        assert!(
            class(f64::from(u32::MAX) + 1.0)
                .unwrap_err()
                .contains("larger")
        );
    }

    #[test]
    fn a_one_hot_vector_has_a_single_one_among_zeros() {
        assert_eq!(one_hot(&[0.0, 0.0, 1.0]), Ok(2));
        for row in [
            &[0.0, 0.0][..],
            &[1.0, 1.0],
            &[0.4, 0.6],
            &[2.0, 0.0],
            &[f64::NAN, 1.0],
            &[0.0, -1.0, 1.0],
        ] {
            assert!(one_hot(row).is_err(), "{row:?}");
        }
    }
}
