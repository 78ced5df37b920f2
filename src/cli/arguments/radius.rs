//! Radii, and what is held against them, each with or without its norm.

use super::values::{Share, ValueError};
use crate::gate::RobustThreshold;
use crate::threat::{Epsilon, Norm};
use std::fmt;
use std::str::FromStr;

/// A radius: in one norm where it names it, else in every norm of the evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Radius {
    /// The norm that it counts in; none for every one.
    pub norm: Option<Norm>,
    /// The radius.
    pub epsilon: Epsilon,
}

impl Radius {
    /// Whether it counts in a norm.
    #[must_use]
    pub fn counts_in(&self, norm: Norm) -> bool {
        self.norm.is_none_or(|own| own == norm)
    }
}

impl FromStr for Radius {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (norm, radius) = match text.split_once(':') {
            Some((norm, radius)) => (Some(norm.trim().parse()?), radius),
            None => (None, text),
        };
        Ok(Radius {
            norm,
            epsilon: radius.parse()?,
        })
    }
}

impl fmt::Display for Radius {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.norm {
            Some(norm) => write!(f, "{norm}:{}", self.epsilon),
            None => self.epsilon.fmt(f),
        }
    }
}

/// `SHARE`, `RADIUS=SHARE`, `NORM=SHARE` or `NORM:RADIUS=SHARE`
pub(super) fn robust_threshold(text: &str) -> Result<RobustThreshold, ValueError> {
    let (place, accuracy) = match text.rsplit_once('=') {
        Some((place, accuracy)) => (Some(place.trim()), accuracy),
        None => (None, text),
    };
    let Share(accuracy) = accuracy.parse()?;
    let (norm, epsilon) = match place {
        None => (None, None),
        Some(place) => match place.parse::<Norm>() {
            Ok(norm) => (Some(norm), None),
            Err(_) => {
                let Radius { norm, epsilon } = place.parse()?;
                (norm, Some(epsilon))
            }
        },
    };
    Ok(RobustThreshold {
        norm,
        epsilon,
        accuracy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_radius_may_name_its_norm() {
        let radius: Radius = "l2:1/2".parse().unwrap();
        assert_eq!((radius.norm, radius.epsilon.value()), (Some(Norm::L2), 0.5));
        assert!(radius.counts_in(Norm::L2) && !radius.counts_in(Norm::Linf));
        assert_eq!(radius.to_string(), "l2:1/2");
        let everywhere: Radius = "0.1".parse().unwrap();
        assert!(Norm::ALL.into_iter().all(|norm| everywhere.counts_in(norm)));
        for wrong in ["l3:0.5", "l2:", "l2:0", ":0.1", "0.1:l2"] {
            assert!(wrong.parse::<Radius>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_threshold_speaks_of_everything_a_norm_a_radius_or_both() {
        let read = |text| {
            let read = robust_threshold(text).unwrap();
            let radius = read.epsilon.map(|epsilon| epsilon.text().to_owned());
            (read.norm, radius, read.accuracy)
        };
        let radius = Some("0.5".to_owned());
        assert_eq!(read("40%"), (None, None, 0.4));
        assert_eq!(read("l2=0.4"), (Some(Norm::L2), None, 0.4));
        assert_eq!(read("0.5=0.4"), (None, radius.clone(), 0.4));
        assert_eq!(read("l2:0.5=0.4"), (Some(Norm::L2), radius, 0.4));
        for wrong in ["l2", "l2:0.5", "=0.4", "l2=", "l9=0.4", "0.5=40"] {
            assert!(robust_threshold(wrong).is_err(), "{wrong}");
        }
    }
}
