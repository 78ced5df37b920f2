//! What is decided once about a data set before it is fed to a model: scaling and shape.

use super::error::Error;
use super::fit::{Fit, Layout, fit};
use super::{Description, encoding::Decoded};
use crate::tensor::DType;

/// What to know for fitting a data set to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The smallest and the largest valid value of the model's input; infinite where there is none.
    pub bounds: (f32, f32),
    /// The factor on all values.
    pub scale: Scale,
    /// The layout of the data, where it must be said.
    pub layout: Option<Layout>,
    /// The shape of the model's input without the batch axis; the data's own shape if not given.
    pub input_shape: Option<Vec<usize>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            bounds: (0.0, 1.0),
            scale: Scale::Auto,
            layout: None,
            input_shape: None,
        }
    }
}

/// The factor that brings stored values into the model's range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// 1/255 for integers (1/65535 for uint16) where the bounds are 0 and 1; otherwise 1.
    Auto,
    /// This one; 1 leaves the values as they are.
    By(f64),
}

/// What is done to every sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Preparation {
    pub(super) scale: f64,
    pub(super) transpose: Option<usize>,
    pub(super) shape: Vec<usize>,
    pub(super) notes: Vec<String>,
}

impl Preparation {
    /// Leaves the samples as stored.
    pub(super) fn none(description: &Description) -> Self {
        Preparation {
            scale: 1.0,
            transpose: None,
            shape: description.shape.clone(),
            notes: Vec::new(),
        }
    }

    /// Decides what to do.
    pub(super) fn plan(description: &Description, options: &Options) -> Result<Self, Error> {
        check_bounds(options.bounds)?;
        let (scale, scale_note) = scale(description.dtype, options)?;
        let model = options.input_shape.as_ref().unwrap_or(&description.shape);
        let Fit { transpose, note } =
            fit(&description.shape, model, options.layout).map_err(|hint| Error::Shape {
                place: description.pixels.clone(),
                data: description.shape.clone(),
                model: model.clone(),
                hint,
            })?;
        let notes = scale_note.into_iter().chain(note).collect();
        Ok(Preparation {
            scale,
            transpose,
            shape: model.clone(),
            notes,
        })
    }

    /// Scales values in place.
    pub(super) fn rescale(&self, values: &mut [f32]) {
        if self.scale != 1.0 {
            // In double precision, so that v·(1/255) is exactly v/255 rounded once.
            for value in values {
                *value = f32::nearest(f64::from(*value) * self.scale);
            }
        }
    }

    /// What each byte stands for.
    pub(super) fn of_bytes(&self) -> Box<[f32; 256]> {
        let mut meaning = Box::new([0.0; 256]);
        for (value, byte) in meaning.iter_mut().zip(0u8..=255) {
            *value = f32::from(byte);
        }
        self.rescale(meaning.as_mut_slice());
        meaning
    }

    /// Whether the model's order is another than the file's.
    pub(super) fn transposes(&self) -> bool {
        self.transpose.is_some_and(|columns| columns > 1)
    }

    /// Writes a scaled sample in the model's order.
    pub(super) fn arrange(&self, sample: &[f32], out: &mut [f32]) {
        match self.transpose {
            Some(columns) if columns > 1 => {
                let column = |column| sample.iter().skip(column).step_by(columns);
                for (out, value) in out.iter_mut().zip((0..columns).flat_map(column)) {
                    *out = *value;
                }
            }
            _ => {
                for (out, value) in out.iter_mut().zip(sample) {
                    *out = *value;
                }
            }
        }
    }
}

/// Refuses bounds that contain nothing.
pub(super) fn check_bounds((low, high): (f32, f32)) -> Result<(), Error> {
    if low < high {
        return Ok(());
    }
    let reason = "the first bound must be smaller than the second";
    Err(Error::Option {
        flag: "--bounds",
        value: format!("{low},{high}"),
        reason,
    })
}

fn scale(dtype: DType, options: &Options) -> Result<(f64, Option<String>), Error> {
    let factor = match options.scale {
        Scale::By(1.0) => return Ok((1.0, None)),
        Scale::By(factor) if factor.is_normal() => {
            return Ok((
                factor,
                Some(format!("values are {dtype}: multiplied by {factor}")),
            ));
        }
        Scale::By(factor) => {
            let reason = "the factor must be a finite number other than 0";
            return Err(Error::Option {
                flag: "--scale",
                value: factor.to_string(),
                reason,
            });
        }
        Scale::Auto if dtype.is_float() || dtype == DType::Bool => return Ok((1.0, None)),
        Scale::Auto if dtype == DType::U16 => 65535.0,
        Scale::Auto => 255.0,
    };
    let (low, high) = options.bounds;
    if options.bounds == (0.0, 1.0) {
        let note =
            format!("pixels are {dtype}: divided by {factor} (--scale 1 leaves them as they are)");
        Ok((1.0 / factor, Some(note)))
    } else {
        let bounds = if low.is_infinite() && high.is_infinite() {
            "there are no bounds".to_owned()
        } else {
            format!("the bounds are {low},{high} and not 0,1")
        };
        let note = format!(
            "pixels are {dtype} and taken as they are, because {bounds} (--scale changes them)"
        );
        Ok((1.0, Some(note)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Place;

    fn description(dtype: DType, shape: &[usize]) -> Description {
        let place = Place::file("x");
        Description {
            samples: 1,
            shape: shape.to_vec(),
            dtype,
            pixels: place.clone(),
            labels: place,
            notes: Vec::new(),
        }
    }

    fn scale_of(dtype: DType, options: &Options) -> f64 {
        Preparation::plan(&description(dtype, &[1]), options)
            .unwrap()
            .scale
    }

    #[test]
    fn integer_pixels_are_divided_where_the_bounds_are_zero_and_one() {
        let options = Options::default();
        assert_eq!(scale_of(DType::U8, &options), 1.0 / 255.0);
        assert_eq!(scale_of(DType::U16, &options), 1.0 / 65535.0);
        assert_eq!(scale_of(DType::F32, &options), 1.0);
        assert_eq!(scale_of(DType::Bool, &options), 1.0);
        let wide = Options {
            bounds: (0.0, 255.0),
            ..Options::default()
        };
        assert_eq!(scale_of(DType::U8, &wide), 1.0);
    }

    #[test]
    fn a_given_scale_wins() {
        let options = Options {
            scale: Scale::By(0.5),
            ..Options::default()
        };
        assert_eq!(scale_of(DType::U8, &options), 0.5);
        assert_eq!(scale_of(DType::F32, &options), 0.5);
        for factor in [0.0, f64::NAN, f64::INFINITY] {
            let options = Options {
                scale: Scale::By(factor),
                ..Options::default()
            };
            assert!(Preparation::plan(&description(DType::U8, &[1]), &options).is_err());
        }
    }

    #[test]
    fn scaled_pixels_equal_the_rounded_quotient() {
        let plan =
            |dtype| Preparation::plan(&description(dtype, &[1]), &Options::default()).unwrap();
        let (bytes, words) = (plan(DType::U8), plan(DType::U16));
        for value in 0..=u16::MAX {
            let mut scaled = [f32::from(value)];
            words.rescale(&mut scaled);
            assert_eq!(scaled, [f32::from(value) / 65535.0]);
            if value <= 255 {
                let mut scaled = [f32::from(value)];
                bytes.rescale(&mut scaled);
                assert_eq!(scaled, [f32::from(value) / 255.0]);
            }
        }
    }

    #[test]
    fn decisions_are_said() {
        let options = Options {
            input_shape: Some(vec![1, 28, 28]),
            ..Options::default()
        };
        let plan = Preparation::plan(&description(DType::U8, &[28, 28]), &options).unwrap();
        assert_eq!(
            plan.notes,
            [
                "pixels are uint8: divided by 255 (--scale 1 leaves them as they are)",
                "samples of shape [28, 28] are reshaped to the model's [1, 28, 28]"
            ]
        );
    }

    #[test]
    fn transposing_moves_the_channels() {
        let options = Options {
            layout: Some(Layout::Nhwc),
            input_shape: Some(vec![3, 1, 2]),
            ..Options::default()
        };
        let plan = Preparation::plan(&description(DType::F32, &[1, 2, 3]), &options).unwrap();
        let mut out = [0.0; 6];
        plan.arrange(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &mut out);
        assert_eq!(out, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[test]
    fn bounds_that_contain_nothing_are_refused() {
        for bounds in [(1.0, 0.0), (0.5, 0.5), (f32::NAN, 1.0)] {
            let options = Options {
                bounds,
                ..Options::default()
            };
            assert!(Preparation::plan(&description(DType::F32, &[1]), &options).is_err());
        }
    }
}
