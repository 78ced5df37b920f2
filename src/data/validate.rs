//! The pass over a data set before anything runs.

use super::error::Error;
use super::prepare::check_bounds;
use super::{Dataset, Entry};

/// What a data set was found to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The number of samples.
    pub samples: u64,
    /// The smallest value, after scaling.
    pub smallest: f32,
    /// The largest value, after scaling.
    pub largest: f32,
    /// The largest label.
    pub largest_label: u32,
    /// What looks wrong without being an error, in sentences for the log.
    pub notes: Vec<String>,
}

impl Dataset {
    /// Reads all selected samples once and checks that a model with `classes` classes (if known) and inputs within `bounds`
    /// (infinite where there is none) can be evaluated on them.
    ///
    /// # Errors
    /// Names the first row with a label that is no class of the model, with NaN, an infinity or a value outside the bounds, or where
    /// the file is cut off or damaged.
    pub fn validate(&self, classes: Option<u32>, bounds: (f32, f32)) -> Result<Checked, Error> {
        check_bounds(bounds)?;
        let (low, high) = bounds;
        let mut checked = Checked {
            samples: 0,
            smallest: f32::INFINITY,
            largest: f32::NEG_INFINITY,
            largest_label: 0,
            notes: Vec::new(),
        };
        let mut samples = self.samples()?;
        let mut pixels = vec![0.0; self.sample_len()];
        while let Some(entry) = samples.read_into(&mut pixels)? {
            let (smallest, largest, finite) = range(&pixels);
            if !finite || smallest < low || largest > high {
                return Err(self.bad_value(entry.index, &pixels, bounds));
            }
            if let Some(classes) = classes
                && entry.label >= classes
            {
                return Err(self.unknown_class(entry, classes));
            }
            checked.samples += 1;
            checked.smallest = checked.smallest.min(smallest);
            checked.largest = checked.largest.max(largest);
            checked.largest_label = checked.largest_label.max(entry.label);
        }
        checked
            .notes
            .extend(self.scale_note(checked.largest, bounds));
        Ok(checked)
    }

    /// A doubt about the scale of data that fill less than half of the bounds, as pixels of 0 to 16 divided by 255 do.
    fn scale_note(&self, largest: f32, bounds: (f32, f32)) -> Option<String> {
        let doubtful = self.scale() != 1.0 && bounds == (0.0, 1.0) && largest < 0.5;
        doubtful.then(|| {
            let scale = self.scale();
            format!(
                "the largest value is {largest} of at most 1 after multiplying by {scale}: is that the right --scale?"
            )
        })
    }

    fn unknown_class(&self, entry: Entry, classes: u32) -> Error {
        Error::UnknownClass {
            place: self.description().labels.clone(),
            row: entry.index,
            label: entry.label,
            last: classes.saturating_sub(1),
        }
    }

    /// The error for the first value that is not finite or outside the bounds.
    fn bad_value(&self, row: u64, pixels: &[f32], (low, high): (f32, f32)) -> Error {
        let place = self.description().pixels.clone();
        let bad = |value: f32| !value.is_finite() || value < low || value > high;
        let found = pixels
            .iter()
            .copied()
            .enumerate()
            .find(|&(_, value)| bad(value));
        let (position, value) = found.unwrap_or((0, f32::NAN));
        if value.is_finite() {
            let remedy = self.bounds_remedy();
            Error::OutsideBounds {
                place,
                row,
                position,
                value,
                low,
                high,
                remedy,
            }
        } else {
            Error::NotFinite {
                place,
                row,
                position,
                value,
            }
        }
    }

    fn bounds_remedy(&self) -> String {
        let scale = self.scale();
        let scaled = if scale == 1.0 {
            String::new()
        } else {
            format!("values were multiplied by {scale}; ")
        };
        format!(
            "{scaled}bring them into the bounds with --scale (1/255 for pixels from 0 to 255), give the range that the model takes with --bounds, or undo a normalisation of the data and give it as --mean and --std"
        )
    }
}

/// The smallest and largest value and whether all are finite numbers.
fn range(values: &[f32]) -> (f32, f32, bool) {
    // Without an early exit, so that the loop runs on whole vectors.
    values.iter().fold(
        (f32::INFINITY, f32::NEG_INFINITY, true),
        |(smallest, largest, finite), &value| {
            (
                smallest.min(value),
                largest.max(value),
                finite & value.is_finite(),
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Folder, array, message, npz};
    use super::super::{Options, Source};
    use super::*;

    fn refusal(values: [f32; 4], classes: Option<u32>) -> String {
        let folder = Folder::new();
        let bytes = npz(
            &array(&[2, 2], values.to_vec()),
            &array(&[2], vec![0u8, 2]),
            true,
        );
        message(
            folder
                .open("a.npz", &bytes)
                .unwrap()
                .validate(classes, (0.0, 1.0))
                .unwrap_err(),
        )
    }

    #[test]
    fn good_data_are_summed_up() {
        let folder = Folder::new();
        let bytes = npz(
            &array(&[2, 2], vec![0.25f32, 1.0, 0.0, 0.5]),
            &array(&[2], vec![0u8, 2]),
            true,
        );
        let dataset = folder.open("a.npz", &bytes).unwrap();
        let checked = dataset.validate(Some(3), (0.0, 1.0)).unwrap();
        assert_eq!(
            checked,
            Checked {
                samples: 2,
                smallest: 0.0,
                largest: 1.0,
                largest_label: 2,
                notes: Vec::new(),
            }
        );
    }

    #[test]
    fn bad_values_name_row_value_and_way_out() {
        for (value, reason) in [
            (f32::NAN, "row 1: value 0 of the sample is NaN"),
            (f32::INFINITY, "row 1: value 0 of the sample is inf"),
            (f32::NEG_INFINITY, "row 1: value 0 of the sample is -inf"),
            (
                1.5,
                "row 1: value 0 of the sample is 1.5, outside the bounds 0,1: ",
            ),
            (
                -0.25,
                "row 1: value 0 of the sample is -0.25, outside the bounds 0,1: ",
            ),
        ] {
            let error = refusal([0.0, 1.0, value, 0.0], None);
            assert!(error.contains(reason), "{error}");
        }
        let error = refusal([0.0, 1.0, 2.0, 0.0], None);
        for way in ["--scale", "--bounds", "--mean", "--std"] {
            assert!(error.contains(way), "{error}");
        }
    }

    #[test]
    fn a_label_beyond_the_classes_is_refused() {
        let error = refusal([0.0; 4], Some(2));
        assert!(
            error.contains("(array y), row 1: label 2 is outside the model's classes 0 to 1"),
            "{error}"
        );
    }

    #[test]
    fn bounds_hold_for_scaled_values() {
        let folder = Folder::new();
        let bytes = npz(
            &array(&[1, 2], vec![0u16, 300]),
            &array(&[1], vec![0u8]),
            false,
        );
        let path = folder.write("a.npz", &bytes);
        let dataset = Dataset::open(&Source::new(path)).unwrap();
        assert!(dataset.validate(None, (0.0, 1.0)).is_err());
        let prepared = dataset.prepared(&Options::default()).unwrap();
        assert_eq!(
            prepared.validate(None, (0.0, 1.0)).unwrap().largest,
            300.0 / 65535.0
        );
    }

    #[test]
    fn a_scale_that_leaves_the_bounds_unused_is_doubted() {
        let folder = Folder::new();
        for (largest, doubts) in [(16, 1), (255, 0)] {
            let bytes = npz(
                &array(&[1, 2], vec![0u8, largest]),
                &array(&[1], vec![0u8]),
                false,
            );
            let dataset = folder.open("a.npz", &bytes).unwrap();
            let prepared = dataset.prepared(&Options::default()).unwrap();
            assert_eq!(
                prepared.validate(None, (0.0, 1.0)).unwrap().notes.len(),
                doubts
            );
        }
    }

    #[test]
    fn infinite_bounds_allow_every_finite_value() {
        let folder = Folder::new();
        let bytes = npz(
            &array(&[1, 2], vec![-1e30f32, 1e30]),
            &array(&[1], vec![0u8]),
            false,
        );
        let dataset = folder.open("a.npz", &bytes).unwrap();
        assert!(
            dataset
                .validate(None, (f32::NEG_INFINITY, f32::INFINITY))
                .is_ok()
        );
    }
}
