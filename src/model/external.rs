//! Gradient graphs made elsewhere, under the same contract.

use super::slope::{self, Samples, Verdict};
use super::{Answers, Batch, Error, GradientGraph, Model, check, load, ports, trace};
use crate::graph::{Graph, ValueId, passes};
use crate::onnx;
use crate::runtime::Value;
use crate::tensor::Tensor;
use std::path::Path;

impl GradientGraph {
    /// Reads a gradient graph that was made elsewhere, and checks it against the model on samples: the scores, and the gradient against
    /// differences of the loss.
    ///
    /// # Errors
    /// Where the file does not keep the contract, or does not agree with the model.
    pub fn open(path: &Path, model: &Model, samples: &Samples<'_>) -> Result<Self, Error> {
        let found = GradientGraph::read(path, model, samples)?;
        let agreement = slope::compare(model, &found, samples).map_err(|error| match error {
            Error::Unsuitable(reason) => Error::Unsuitable(format!("{}: {reason}", path.display())),
            error => error,
        })?;
        match agreement.verdict() {
            Verdict::Agrees => {}
            Verdict::Undecided => tracing::warn!(
                "the loss is too rough or too flat at the first samples to check the gradient graph by"
            ),
            Verdict::Disagrees { wrong, told } => {
                let passes_through = (found.metadata("mohs.straight-through") == Some("true")
                    && !model.straight_through())
                .then_some("; it was made with --straight-through, so give that here too");
                return Err(Error::Unsuitable(format!(
                    "{}: its gradient is not that of the model for {wrong} of {told} samples: along it the loss rises by {:.4} of its length{}",
                    path.display(),
                    agreement.slope_ratio(),
                    passes_through.unwrap_or_default()
                )));
            }
        }
        Ok(found)
    }

    /// Reads a gradient graph that was made elsewhere; its scores on the samples have to be the model's.
    ///
    /// # Errors
    /// Where the file does not keep the contract, or belongs to another model.
    pub fn read(path: &Path, model: &Model, samples: &Samples<'_>) -> Result<Self, Error> {
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
            points: samples.points,
            labels: samples.labels,
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
        let found = GradientGraph {
            graph,
            labels: labels_input,
            targets: None,
            output,
            loss,
            gradients: vec![(input, gradient)],
            // The losses of the contract are those of logits.
            softmax_removed: model.ends_in_softmax(),
            of_probabilities: matches!(model.answers(), Answers::Probabilities { .. }),
        };
        sample.scores_agree(&found).map_err(|error| match error {
            Error::Unsuitable(reason) => unsuitable(reason),
            error => error,
        })?;
        Ok(found)
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

    /// Compares scores.
    fn scores_agree(&self, found: &GradientGraph) -> Result<(), Error> {
        let size = match self.model.batch() {
            Batch::Dynamic => self.labels.len(),
            Batch::Fixed(size) => size,
        };
        let feeds = self.feeds(size)?;
        let graph = found.graph.to_model();
        let mut session = load(&graph, self.model.session_options())?;
        let inputs: Vec<(&str, &Value)> = feeds
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        let scores = session.run_for(&[self.model.output()], &inputs)?;
        let scores = scores.first().map(Value::to_tensor).transpose()?;
        let scores = scores.ok_or_else(|| Error::Internal("there are no scores".into()))?;
        let points = self.points.iter().copied().cycle();
        let points: Vec<f32> = points.take(size * self.width()).collect();
        let expected = self.model.judge()?.scores(&points, &[])?;
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        let tolerance = check::tolerance_of(self.model.straight_through(), scores.dtype());
        if !check::close(&expected, &scores.to_f64(), tolerance) {
            return Err(Error::Unsuitable(
                "its scores on the first samples are not those of the model: it belongs to another"
                    .into(),
            ));
        }
        Ok(())
    }
}
