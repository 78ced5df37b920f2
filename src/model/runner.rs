//! A forward session that takes samples as plain floats and gives one output back, whatever batch the model takes.

use super::{Batch, Error, ports};
use crate::graph::Graph;
use crate::runtime::{Session, SessionOptions, Value};
use crate::tensor::DType;

/// An input that is fed with samples.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    pub(super) name: String,
    pub(super) dtype: DType,
    /// The shape of one sample.
    pub(super) sample_shape: Vec<usize>,
}

impl Feed {
    /// The number of elements of one sample.
    pub(super) fn width(&self) -> usize {
        self.sample_shape.iter().product()
    }

    /// Samples, one behind the other, as a value of the input's type.
    pub(super) fn value(&self, rows: usize, elements: Vec<f32>) -> Result<Value, Error> {
        let shape: Vec<usize> = std::iter::once(rows)
            .chain(self.sample_shape.iter().copied())
            .collect();
        Ok(Value::from_tensor(ports::typed(
            self.dtype, &shape, elements,
        )?)?)
    }
}

/// A session of a graph with its batch.
#[derive(Debug)]
pub(super) struct Runner {
    session: Session,
    feeds: Vec<Feed>,
    output: String,
    batch: Batch,
}

impl Runner {
    pub(super) fn new(
        graph: &Graph,
        feeds: Vec<Feed>,
        output: &str,
        batch: Batch,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let session = super::load(&graph.to_model(), options)?;
        Ok(Runner {
            session,
            feeds,
            output: output.to_owned(),
            batch,
        })
    }

    /// The output for each sample, one behind the other; `columns` has the samples of each feed.
    pub(super) fn run(&mut self, columns: &[&[f32]]) -> Result<Vec<f32>, Error> {
        let rows = match (columns.first(), self.feeds.first()) {
            (Some(column), Some(feed)) => column.len() / feed.width().max(1),
            _ => 0,
        };
        let size = match self.batch {
            Batch::Dynamic => rows.max(1),
            Batch::Fixed(size) => size,
        };
        let mut results = Vec::new();
        for start in (0..rows).step_by(size) {
            let used = size.min(rows - start);
            let mut values = Vec::with_capacity(self.feeds.len());
            for (feed, column) in self.feeds.iter().zip(columns) {
                let width = feed.width();
                let mut part = column[start * width..(start + used) * width].to_vec();
                part.resize(size * width, 0.0);
                values.push(feed.value(size, part)?);
            }
            let inputs: Vec<(&str, &Value)> = self
                .feeds
                .iter()
                .map(|feed| feed.name.as_str())
                .zip(&values)
                .collect();
            let outputs = self.session.run_for(&[&self.output], &inputs)?;
            let output = outputs
                .first()
                .ok_or_else(|| Error::Internal("the model gave no output".into()))?;
            append(output, size, used, &mut results)?;
        }
        Ok(results)
    }
}

/// Appends the first `used` of `size` rows.
fn append(output: &Value, size: usize, used: usize, results: &mut Vec<f32>) -> Result<(), Error> {
    if output.dtype() == Some(DType::F32) {
        let elements = output.as_slice::<f32>()?;
        results.extend(&elements[..elements.len() / size * used]);
    } else {
        let elements = output.to_tensor()?.to_f64();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "samples are single precision"
        )]
        results.extend(
            elements[..elements.len() / size * used]
                .iter()
                .map(|&value| value as f32),
        );
    }
    Ok(())
}
