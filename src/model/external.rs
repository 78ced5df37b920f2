//! Gradient graphs made elsewhere, under the same contract.

use super::{Batch, Error, GradientGraph, Model, load, ports, trace};
use crate::graph::{Graph, ValueId, passes};
use crate::loss::Loss;
use crate::onnx;
use crate::runtime::Value;
use crate::tensor::Tensor;
use std::path::Path;

/// Scores may differ from the model's by this much, relative to the largest.
const SCORES: f64 = 1e-3;

/// The slope along the gradient may differ from its length by this much, relative, over the samples together: central differences in
/// single precision are no better.
const SLOPE: f64 = 0.1;

/// How far the points of the central difference are from the sample, relative to its size.
const STEP: f64 = 1e-3;

impl GradientGraph {
    /// Reads a gradient graph that was made elsewhere, and checks it against the model on samples: the scores, and the slope of the loss along
    /// the gradient.
    ///
    /// `points` holds a few samples one behind the other, with their labels.
    ///
    /// # Errors
    /// Where the file does not keep the contract, or does not agree with the model.
    pub fn open(path: &Path, model: &Model, points: &[f32], labels: &[u32]) -> Result<Self, Error> {
        if model.cut.is_some() {
            return Err(Error::Unsuitable(
                "--gradient and --wrt cannot be used together".into(),
            ));
        }
        let mut graph = Graph::from_model(onnx::read(path)?);
        // The attack's step is written in operators of the newest opset.
        passes::lift(&mut graph)?;
        let unsuitable =
            |reason: String| Error::Unsuitable(format!("{}: {reason}", path.display()));
        let find = |graph: &Graph, outputs: bool, name: &str| -> Result<ValueId, Error> {
            let ports = if outputs {
                &graph.outputs
            } else {
                &graph.inputs
            };
            let found = ports
                .iter()
                .find(|(id, _)| graph.name(*id) == name)
                .map(|(id, _)| *id);
            found.ok_or_else(|| {
                let kind = if outputs { "output" } else { "input" };
                unsuitable(format!("a gradient graph of this model has an {kind} `{name}`, and this one has not; `mohs gradient` makes one"))
            })
        };
        let input = find(&graph, false, model.input())?;
        let labels_input = find(&graph, false, "labels")?;
        let (output, loss, gradient) = (
            find(&graph, true, model.output())?,
            find(&graph, true, "loss")?,
            find(&graph, true, "grad")?,
        );
        let sample = Sample {
            model,
            points,
            labels,
        };
        let sizes = match model.batch() {
            Batch::Dynamic => trace::BATCHES.to_vec(),
            Batch::Fixed(size) => vec![size],
        };
        trace::trace(
            &mut graph,
            &|size| sample.feeds(size),
            &sizes,
            model.session_options(),
        )?;
        let shape = |id: ValueId| graph.fact(id).map(|fact| fact.shape.clone());
        if shape(gradient) != shape(input) {
            return Err(unsuitable(
                "its output `grad` has another shape than the input".into(),
            ));
        }
        sample.agrees(&graph).map_err(|error| match error {
            Error::Unsuitable(reason) => unsuitable(reason),
            error => error,
        })?;
        Ok(GradientGraph {
            graph,
            labels: labels_input,
            output,
            loss,
            gradients: vec![(input, gradient)],
            softmax_removed: false,
        })
    }
}

/// Samples to check with.
struct Sample<'a> {
    model: &'a Model,
    points: &'a [f32],
    labels: &'a [u32],
}

impl Sample<'_> {
    fn width(&self) -> usize {
        self.model.sample_shape().iter().product()
    }

    /// As many samples as asked for, from the first on and around.
    fn feeds(&self, size: usize) -> Result<super::Feeds, Error> {
        let width = self.width();
        let points: Vec<f32> = self
            .points
            .iter()
            .copied()
            .cycle()
            .take(size * width)
            .collect();
        let labels: Vec<i64> = self
            .labels
            .iter()
            .map(|&label| label.into())
            .cycle()
            .take(size)
            .collect();
        let shape: Vec<usize> = std::iter::once(size)
            .chain(self.model.sample_shape().iter().copied())
            .collect();
        let dtype = self.model.input_dtype();
        let labels = Tensor::new(&[size], labels)
            .ok_or_else(|| Error::Unsuitable("there is no sample to check it with".into()))?;
        Ok(vec![
            (
                self.model.input().to_owned(),
                Value::from_tensor(ports::typed(dtype, &shape, points)?)?,
            ),
            ("labels".to_owned(), Value::from_tensor(labels)?),
        ])
    }

    /// Compares scores and slopes.
    fn agrees(&self, graph: &Graph) -> Result<(), Error> {
        let size = match self.model.batch() {
            Batch::Dynamic => self.labels.len(),
            Batch::Fixed(size) => size,
        };
        let feeds = self.feeds(size)?;
        let mut session = load(&graph.to_model(), self.model.session_options())?;
        let inputs: Vec<(&str, &Value)> = feeds
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        let found = session.run_for(&[self.model.output(), "grad"], &inputs)?;
        let [scores, gradient] = found.as_slice() else {
            return Err(Error::Internal(
                "the gradient graph gave too few outputs".into(),
            ));
        };
        let (scores, gradient) = (scores.to_tensor()?.to_f64(), gradient.to_tensor()?.to_f64());
        let points: Vec<f32> = self
            .points
            .iter()
            .copied()
            .cycle()
            .take(size * self.width())
            .collect();
        let labels: Vec<u32> = self.labels.iter().copied().cycle().take(size).collect();
        let mut judge = self.model.judge()?;
        let expected = judge.scores(&points, &[])?;
        let largest = expected
            .iter()
            .fold(1e-6, |most: f64, &score| most.max(f64::from(score).abs()));
        if scores
            .iter()
            .zip(&expected)
            .any(|(a, &b)| (a - f64::from(b)).abs() > SCORES * largest)
        {
            return Err(Error::Unsuitable(
                "its scores on the first samples are not those of the model: it belongs to another"
                    .into(),
            ));
        }
        if let Some(element) = gradient.iter().position(|g| !g.is_finite()) {
            return Err(Error::Unsuitable(format!(
                "its gradient is {} in element {} of sample {} of those that it is checked with",
                gradient[element],
                element % self.width().max(1),
                element / self.width().max(1)
            )));
        }
        let made_for = graph
            .model
            .metadata_props
            .iter()
            .find(|entry| entry.key.as_deref() == Some("mohs.loss"));
        let cross_entropy =
            made_for.is_none_or(|entry| entry.value.as_deref() == Some(Loss::CrossEntropy.name()));
        if !cross_entropy {
            return Ok(());
        }
        let (mut slope, mut length) = (0.0, 0.0);
        let width = self.width();
        for (sample, (point, gradient)) in
            points.chunks(width).zip(gradient.chunks(width)).enumerate()
        {
            let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            if norm == 0.0 {
                continue;
            }
            let size = point
                .iter()
                .map(|&x| f64::from(x).powi(2))
                .sum::<f64>()
                .sqrt()
                .max(1.0);
            let step = STEP * size;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the model computes in single precision"
            )]
            let moved = |sign: f64| -> Vec<f32> {
                point
                    .iter()
                    .zip(gradient)
                    .map(|(&x, g)| (f64::from(x) + sign * step * g / norm) as f32)
                    .collect()
            };
            let both = [moved(1.0), moved(-1.0)].concat();
            let verdicts = judge.judge(&both, &[], &[labels[sample]; 2])?;
            slope += (verdicts[0].loss - verdicts[1].loss) / (2.0 * step);
            length += norm;
        }
        if (slope - length).abs() > SLOPE * length.max(1e-6) {
            return Err(Error::Unsuitable(format!(
                "its gradient is not that of the model: along it the loss rises by {slope:.4} on the first samples together, and by its length it should be {length:.4}"
            )));
        }
        Ok(())
    }
}
