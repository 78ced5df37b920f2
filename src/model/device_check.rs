//! Whether a device computes the gradients that the CPU computes.
//!
//! A provider that gets one operator wrong makes attacks weak without a word, and a model that is attacked badly looks robust.

use super::runner::Feed;
use super::{Batch, Error, GradientGraph, Model, load};
use crate::runtime::{Arithmetic, Device, SessionOptions, Value};
use crate::tensor::Tensor;

/// Samples that are compared, at most.
const ROWS: usize = 8;

/// The cosine between the two gradients of a sample that the median sample has to reach: in single precision, and below it.
/// (A sample whose activation lies within rounding of a kink may differ by any amount.)
const LEAST_COSINE: [f64; 2] = [0.99, 0.8];

impl Model {
    /// Compares the gradients of a few samples (`points`, and the `data` that they come from where an inner tensor is perturbed) on the
    /// model's devices with those of ONNX Runtime's CPU kernels; a sentence about how well they agree, one for each device but the CPU.
    ///
    /// # Errors
    /// Where they do not agree, or a session cannot be made or run.
    pub fn check_device(
        &self,
        gradient: &GradientGraph,
        points: &[f32],
        data: &[f32],
        labels: &[u32],
    ) -> Result<Vec<String>, Error> {
        let devices = std::iter::once(&self.session.device).chain(&self.session.others);
        let devices = devices.filter(|device| **device != Device::Cpu && !labels.is_empty());
        devices
            .map(|&device| self.check_one(device, gradient, points, data, labels))
            .collect()
    }

    fn check_one(
        &self,
        device: Device,
        gradient: &GradientGraph,
        points: &[f32],
        data: &[f32],
        labels: &[u32],
    ) -> Result<String, Error> {
        let rows = match self.batch {
            Batch::Dynamic => labels.len().min(ROWS),
            Batch::Fixed(size) => size,
        };
        let attacked = Feed {
            name: self.input().to_owned(),
            dtype: self.input_dtype(),
            sample_shape: self.sample_shape.clone(),
        };
        let mut inputs = vec![(attacked.name.clone(), cycled(&attacked, points, rows)?)];
        if let Some(feed) = self.carried() {
            inputs.push((feed.name.clone(), cycled(feed, data, rows)?));
        }
        let names = labels.iter().map(|&label| i64::from(label)).cycle();
        let labels = Tensor::new(&[rows], names.take(rows).collect::<Vec<_>>());
        let labels = labels.ok_or_else(|| Error::Internal("labels do not fit".into()))?;
        inputs.push(("labels".to_owned(), Value::from_tensor(labels)?));
        let output = gradient.gradients.first().map(|(_, grad)| *grad);
        let output = output.ok_or_else(|| Error::Internal("there is no gradient".into()))?;
        let output = gradient.graph.name(output);
        let message = gradient.graph.to_model();
        let run = |options: &SessionOptions| -> Result<Vec<f64>, Error> {
            let inputs: Vec<_> = inputs
                .iter()
                .map(|(name, value)| (name.as_str(), value))
                .collect();
            let found = load(&message, options)?.run_for(&[output], &inputs)?;
            let found = found.first().map(Value::to_tensor).transpose()?;
            Ok(found.map(|tensor| tensor.to_f64()).unwrap_or_default())
        };
        let on_device = run(&SessionOptions {
            device,
            arithmetic: self.search,
            ..self.session.clone()
        })?;
        let on_cpu = run(&SessionOptions {
            device: Device::Cpu,
            arithmetic: Arithmetic::Exact,
            ..self.session.clone()
        })?;
        let cosine = median_cosine(&on_device, &on_cpu, on_cpu.len() / rows.max(1));
        let low = matches!(self.search, Arithmetic::Brain | Arithmetic::Half);
        if cosine < LEAST_COSINE[usize::from(low)] {
            return Err(Error::Unsuitable(format!(
                "{device} computes another gradient of this model than the CPU (median cosine {cosine:.3} over the first samples): an attack \
                 that followed it would make the model look robust; use --device cpu"
            )));
        }
        Ok(format!(
            "gradients on {device} in {} have a median cosine of {cosine:.6} with the CPU's in fp32",
            self.search
        ))
    }
}

/// As many rows as asked for, from the first on and around.
fn cycled(feed: &Feed, elements: &[f32], rows: usize) -> Result<Value, Error> {
    let all = elements.iter().copied().cycle();
    feed.value(rows, all.take(rows * feed.width()).collect())
}

/// The median over samples of the cosine between two gradients; both zero agree, one zero does not, and no number agrees with nothing.
fn median_cosine(a: &[f64], b: &[f64], width: usize) -> f64 {
    if a.len() != b.len() || width == 0 {
        return f64::NEG_INFINITY;
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut cosines: Vec<f64> = a
        .chunks(width)
        .zip(b.chunks(width))
        .map(|(a, b)| {
            // Scaled first, so that squares of tiny gradients are not 0.
            let unit = |row: &[f64]| {
                let largest = row.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
                row.iter()
                    .map(|x| x / largest.max(f64::MIN_POSITIVE))
                    .collect::<Vec<_>>()
            };
            let (a, b) = (unit(a), unit(b));
            let (own, other) = (dot(&a, &a), dot(&b, &b));
            if own == 0.0 && other == 0.0 {
                return 1.0;
            }
            let cosine = dot(&a, &b) / (own * other).sqrt().max(f64::MIN_POSITIVE);
            if cosine.is_finite() {
                cosine
            } else {
                f64::NEG_INFINITY
            }
        })
        .collect();
    cosines.sort_by(f64::total_cmp);
    cosines[cosines.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_gradients_does_not_matter_their_direction_does() {
        let gradient = [1e-200, 2e-200, -1e-200, 3.0, 4.0, 5.0];
        let scaled: Vec<f64> = gradient.iter().map(|g| g * 7.0).collect();
        assert!((median_cosine(&gradient, &scaled, 3) - 1.0).abs() < 1e-12);
        let turned: Vec<f64> = gradient.iter().map(|g| -g).collect();
        assert!((median_cosine(&gradient, &turned, 3) + 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_gradient_that_is_zero_on_one_side_or_no_number_does_not_agree() {
        assert_eq!(median_cosine(&[0.0, 0.0], &[0.0, 0.0], 2), 1.0);
        assert_eq!(median_cosine(&[0.0, 0.0], &[1.0, 0.0], 2), 0.0);
        assert_eq!(
            median_cosine(&[f64::NAN, 0.0], &[1.0, 0.0], 2),
            f64::NEG_INFINITY
        );
        assert_eq!(median_cosine(&[1.0], &[1.0, 0.0], 1), f64::NEG_INFINITY);
    }
}
