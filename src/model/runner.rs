//! A forward session that takes samples as plain floats and gives one output back, whatever batch the model takes.

use super::lane::{self, abreast};
use super::{Batch, Error, ports};
use crate::graph::Graph;
use crate::runtime::{Session, SessionOptions, Value};
use crate::tensor::DType;
use std::ops::Range;

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

/// A lane takes at least so many rows: fewer are done before another thread has woken up.
const LEAST: usize = 8;

/// Sessions of a graph, one per lane, with their batch.
#[derive(Debug)]
pub(super) struct Runner {
    sessions: Vec<Session>,
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
        let message = graph.to_model();
        let plan = lane::plan(options, &message, usize::MAX)?;
        Ok(Runner {
            sessions: lane::load(&message, &plan)?,
            feeds,
            output: output.to_owned(),
            batch,
        })
    }

    /// The number of sessions.
    pub(super) fn lanes(&self) -> usize {
        self.sessions.len()
    }

    /// Spreads the sessions over that many runners, at most as many as there are, which leaves this one without.
    pub(super) fn split(&mut self, count: usize) -> Vec<Runner> {
        let mut sessions = std::mem::take(&mut self.sessions);
        let count = count.clamp(1, sessions.len().max(1));
        let mut parts: Vec<Runner> = (0..count)
            .map(|part| Runner {
                // From the back, what is left divided among those that are left.
                sessions: sessions.split_off(sessions.len() - sessions.len() / (count - part)),
                feeds: self.feeds.clone(),
                output: self.output.clone(),
                batch: self.batch,
            })
            .collect();
        parts.reverse();
        parts
    }

    /// Takes the sessions of another runner of the same graph.
    pub(super) fn join(&mut self, mut other: Runner) {
        self.sessions.append(&mut other.sessions);
    }

    /// The output for each sample, one behind the other; `columns` has the samples of each feed.
    pub(super) fn run(&mut self, columns: &[&[f32]]) -> Result<Vec<f32>, Error> {
        let rows = match (columns.first(), self.feeds.first()) {
            (Some(column), Some(feed)) => column.len() / feed.width().max(1),
            _ => 0,
        };
        let (size, fixed) = match self.batch {
            Batch::Dynamic => {
                let lanes = self.sessions.len().min(rows / LEAST).max(1);
                (rows.div_ceil(lanes).max(1), None)
            }
            Batch::Fixed(size) => (size, Some(size)),
        };
        let lanes = self.sessions.len();
        let starts: Vec<usize> = (0..rows).step_by(size).collect();
        let asked = Asked {
            feeds: &self.feeds,
            output: &self.output,
            columns,
            fixed,
        };
        let part = |session: &mut Session, start: usize| {
            asked.part(session, start..(start + size).min(rows))
        };
        if starts.len() <= 1 || lanes == 1 {
            let session = self.sessions.first_mut();
            let session = session.ok_or_else(|| Error::Internal("there is no session".into()))?;
            let parts: Result<Vec<_>, _> = starts.iter().map(|&at| part(session, at)).collect();
            return Ok(parts?.concat());
        }
        let by_lane: Vec<Vec<Vec<f32>>> = abreast(&mut self.sessions, |lane, session| {
            let own = starts.iter().skip(lane).step_by(lanes);
            own.map(|&start| part(session, start)).collect()
        })?;
        let parts = (0..starts.len()).filter_map(|at| by_lane.get(at % lanes)?.get(at / lanes));
        Ok(parts.flatten().copied().collect())
    }
}

/// What a run is asked for: an output for the samples of all feeds.
struct Asked<'a> {
    feeds: &'a [Feed],
    output: &'a str,
    columns: &'a [&'a [f32]],
    /// The batch, where the model has fixed it.
    fixed: Option<usize>,
}

impl Asked<'_> {
    /// The output for some samples, no more than a batch has; in halves where memory does not suffice.
    fn part(&self, session: &mut Session, rows: Range<usize>) -> Result<Vec<f32>, Error> {
        match self.whole(session, rows.clone()) {
            Err(error) if error.is_out_of_memory() && self.fixed.is_none() && rows.len() > 1 => {
                let middle = rows.start + rows.len() / 2;
                let mut first = self.part(session, rows.start..middle)?;
                first.extend(self.part(session, middle..rows.end)?);
                Ok(first)
            }
            result => result,
        }
    }

    /// The output for some samples, filled up to a fixed batch.
    fn whole(&self, session: &mut Session, rows: Range<usize>) -> Result<Vec<f32>, Error> {
        let used = rows.len();
        let size = self.fixed.unwrap_or(used);
        let mut values = Vec::with_capacity(self.feeds.len());
        for (feed, column) in self.feeds.iter().zip(self.columns) {
            let width = feed.width();
            let mut part = column[rows.start * width..rows.end * width].to_vec();
            part.resize(size * width, 0.0);
            values.push(feed.value(size, part)?);
        }
        let names = self.feeds.iter().map(|feed| feed.name.as_str());
        let inputs: Vec<(&str, &Value)> = names.zip(&values).collect();
        let outputs = session.run_for(&[self.output], &inputs)?;
        let output = outputs
            .first()
            .ok_or_else(|| Error::Internal("the model gave no output".into()))?;
        let mut results = Vec::new();
        append(output, size, used, &mut results)?;
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
