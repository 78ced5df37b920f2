//! Data sets: files of labelled samples, read as a stream.
//!
//! A data set is opened cheaply ([`Dataset::open`]), fitted to a model ([`Dataset::prepared`]), checked in one pass before
//! anything runs ([`Dataset::validate`]) and then read as often as needed ([`Dataset::samples`]).
//! Memory does not grow with the number of samples, whatever the format and however it is compressed.
//!
//! This module knows nothing of models or attacks: a model is a shape and a number of classes here.
//! Start reading at [`Dataset`]. A format is one file here, its `mod` line and its entry in [`READERS`]:
//! it implements [`Reader`], whose [`Contents`] hand out [`Rows`].
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

mod arrays;
mod columns;
mod dataset;
mod digest;
mod encoding;
mod error;
mod fit;
mod labels;
mod prepare;
mod samples;
mod source;
mod stream;
mod validate;

mod csv;
mod idx;
mod npy;
mod npz;

#[cfg(test)]
mod fixtures;

use std::path::Path;

use crate::tensor::DType;

pub use dataset::Dataset;
pub use digest::sha256;
pub use error::{Error, Place};
pub use fit::Layout;
pub use prepare::{Options, Scale};
pub use samples::{Batch, Entry, Sample, Samples};
pub use source::{Flag, Source};
pub use validate::Checked;

/// Every format that mohs reads; a file is given to the first whose content it has, else to the first whose name it has.
pub const READERS: &[&dyn Reader] = &[&npz::Npz, &npy::Npy, &idx::Idx, &csv::Csv];

/// One file format.
pub trait Reader: Sync {
    /// The format's name, as messages and documentation print it.
    fn name(&self) -> &'static str;

    /// Ends of lower-case file names (before `.gz`) that promise this format, such as `.npz`.
    fn suffixes(&self) -> &'static [&'static str];

    /// The options of a [`Source`] that mean something in this format; others are refused.
    fn flags(&self) -> &'static [Flag];

    /// Whether the content is of this format: `head` holds the first bytes of the file, decompressed where it is gzipped,
    /// and is empty for a folder.
    fn recognises(&self, path: &Path, head: &[u8]) -> bool;

    /// Reads what is needed to know the number, shape and type of the samples.
    ///
    /// # Errors
    /// Where the file cannot be read, is not of this format, or holds something that is no classification data set.
    fn open(&self, source: &Source) -> Result<Box<dyn Contents>, Error>;
}

/// An opened data file (or pair of files).
pub trait Contents: Send + Sync {
    /// What the file holds.
    fn description(&self) -> &Description;

    /// A new stream that begins at row `start`.
    ///
    /// # Errors
    /// Where the file cannot be opened again.
    fn rows(&self, start: u64) -> Result<Box<dyn Rows>, Error>;
}

/// A stream over the rows of a data file.
pub trait Rows: Send {
    /// Reads the next `labels.len()` rows.
    /// `pixels` has room for exactly that many samples and receives the values as stored, neither scaled nor transposed.
    ///
    /// # Errors
    /// Where the file ends too early, is damaged, or a label is not a class number.
    fn read(&mut self, pixels: &mut [f32], labels: &mut [u32]) -> Result<(), Error>;

    /// Called once after the file's last row: checks that nothing follows and that checksums agree.
    ///
    /// # Errors
    /// Where they do not.
    fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// What a data file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The number of rows in the file.
    pub samples: u64,
    /// The shape of one sample as stored, without the sample axis.
    pub shape: Vec<usize>,
    /// The type of the values as stored.
    pub dtype: DType,
    /// Where the values are, for messages.
    pub pixels: Place,
    /// Where the labels are, for messages.
    pub labels: Place,
    /// What was decided while opening the file, in sentences for the log.
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_has_its_own_name_and_suffix() {
        for (i, reader) in READERS.iter().enumerate() {
            assert!(!reader.suffixes().is_empty(), "{}", reader.name());
            for other in &READERS[i + 1..] {
                assert_ne!(reader.name(), other.name());
                assert!(
                    reader
                        .suffixes()
                        .iter()
                        .all(|s| !other.suffixes().contains(s))
                );
            }
        }
    }
}
