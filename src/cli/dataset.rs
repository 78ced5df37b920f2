//! From the arguments that name a data set to the data set as the model takes it.

use super::arguments::{DataPaths, Layout, ReadingArguments};
use super::exit::{Blame, Failure};
use super::missing;
use crate::data::{self, Source};
use crate::graph::passes::Normalization;
use crate::model::Model;
use crate::threat::Bounds;

/// What data sets end in, for the hint where there is none.
const ENDINGS: &[&str] = &[".npz", ".npy", ".csv", "ubyte", ".gz"];

/// Refuses files that are not there.
pub(super) fn require(paths: &DataPaths) -> Result<(), Failure> {
    let mut paths = std::iter::once(&paths.samples).chain(&paths.labels);
    paths.try_for_each(|path| missing::require(path, ENDINGS))
}

/// The files and what of them is read.
pub(super) fn source(paths: &DataPaths, reading: &ReadingArguments) -> Source {
    Source {
        path: paths.samples.clone(),
        labels: paths.labels.clone(),
        x_key: reading.x_key.clone(),
        y_key: reading.y_key.clone(),
        label_column: reading.label_column.clone(),
        offset: reading.offset,
        limit: reading.limit.map(std::num::NonZeroU64::get),
    }
}

/// How the samples are brought to what the model takes.
pub(super) fn preparation(
    reading: &ReadingArguments,
    bounds: Bounds,
    model: &Model,
) -> data::Options {
    data::Options {
        bounds: (bounds.low, bounds.high),
        scale: reading
            .scale
            .map_or(data::Scale::Auto, |factor| data::Scale::By(factor.into())),
        layout: reading.layout.map(|layout| match layout {
            Layout::Nchw => data::Layout::Nchw,
            Layout::Nhwc => data::Layout::Nhwc,
        }),
        input_shape: Some(model.data_shape().to_vec()),
    }
}

/// The normalisation that goes into the model.
pub(super) fn normalization(reading: &ReadingArguments) -> Result<Option<Normalization>, Failure> {
    let given = reading.normalization().or_bad_input()?;
    Ok(given.map(|given| Normalization {
        mean: given.mean,
        std: given.std,
    }))
}
