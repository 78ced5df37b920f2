//! The samples in order, as the points that are attacked.

use super::Error;
use crate::data::{Batch, Dataset, Samples};
use crate::model::{Front, Model};
use crate::threat::{Bounds, Precision};

/// Samples that are read at once.
const BLOCK: usize = 64;

/// A stream over a data set; where the model is attacked at an inner tensor, its front computes that from the data.
pub(super) struct Source {
    samples: Samples,
    front: Option<Front>,
    precision: Precision,
    bounds: Bounds,
    batch: Batch,
    /// What the front made of the batch.
    points: Vec<f32>,
    /// The position of the next sample in the batch.
    cursor: usize,
    /// How many samples were given out.
    position: usize,
    /// How many samples are given out one by one, at most.
    most: u64,
}

/// Samples one behind the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// The rows in the data set.
    pub(super) indices: &'a [u64],
    pub(super) labels: &'a [u32],
    /// The points that are attacked.
    pub(super) points: &'a [f32],
    /// The data that they come from.
    pub(super) data: &'a [f32],
}

/// One sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    /// The row in the data set.
    pub(super) index: u64,
    /// The position among the samples that are read, from 0.
    pub(super) position: usize,
    pub(super) label: u32,
    /// The point that is attacked.
    pub(super) clean: &'a [f32],
    /// The data that it comes from; empty where it is the data themselves.
    pub(super) data: &'a [f32],
}

impl Source {
    /// The data as the model's input holds them, within the bounds.
    pub(super) fn new(model: &Model, data: &Dataset, bounds: Bounds) -> Result<Self, Error> {
        Ok(Source {
            samples: data.samples()?,
            front: model.front()?,
            precision: model.precision(),
            bounds,
            batch: Batch::default(),
            points: Vec::new(),
            cursor: 0,
            position: 0,
            most: u64::MAX,
        })
    }

    /// At most so many samples.
    pub(super) fn first(self, most: u64) -> Self {
        Source { most, ..self }
    }

    /// The next samples; `None` after the last.
    pub(super) fn block(&mut self) -> Result<Option<Block<'_>>, Error> {
        self.cursor = 0;
        if self.samples.read_batch(BLOCK, &mut self.batch)? == 0 {
            return Ok(None);
        }
        if let Some(front) = &mut self.front {
            self.points = front.points(&self.batch.pixels)?;
        } else if self.precision != Precision::Single {
            for pixel in &mut self.batch.pixels {
                *pixel = self.precision.nearest_within(self.bounds, *pixel);
            }
        }
        Ok(Some(Block {
            indices: &self.batch.indices,
            labels: &self.batch.labels,
            points: if self.front.is_some() {
                &self.points
            } else {
                &self.batch.pixels
            },
            data: &self.batch.pixels,
        }))
    }

    /// The next sample; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Item<'_>>, Error> {
        if self.position as u64 >= self.most {
            return Ok(None);
        }
        if self.cursor == self.batch.labels.len() && self.block()?.is_none() {
            return Ok(None);
        }
        let (at, position) = (self.cursor, self.position);
        self.cursor += 1;
        self.position += 1;
        let count = self.batch.labels.len();
        let (points, data): (&[f32], &[f32]) = match self.front {
            Some(_) => (&self.points, row(&self.batch.pixels, at, count)),
            None => (&self.batch.pixels, &[]),
        };
        Ok(Some(Item {
            index: self.batch.indices[at],
            position,
            label: self.batch.labels[at],
            clean: row(points, at, count),
            data,
        }))
    }
}

fn row(rows: &[f32], at: usize, count: usize) -> &[f32] {
    let width = rows.len() / count;
    &rows[at * width..(at + 1) * width]
}
