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
mod resident;
mod samples;
mod source;
mod stream;
mod validate;

mod cifar;
mod csv;
mod idx;
mod image_folder;
mod npy;
mod npy_header;
mod npz;
mod parquet;
mod picture;

#[cfg(test)]
mod fixtures;

use std::path::Path;

use crate::tensor::DType;

pub use dataset::Dataset;
pub use digest::sha256;
pub use error::{Error, Place};
pub use fit::Layout;
pub(crate) use fit::reshapes;
pub use prepare::{Options, Scale};
pub use resident::{Place as ResidentPlace, Resident};
pub use samples::{Batch, Entry, Sample, Samples};
pub use source::{Flag, Source};
pub use validate::Checked;

/// Every format that mohs reads; a file is given to the first whose content it has, else to the first whose name it has.
pub const READERS: &[&dyn Reader] = &[
    &npz::Npz,
    &npy::Npy,
    &idx::Idx,
    &csv::Csv,
    &cifar::Cifar,
    &parquet::Parquet,
    &image_folder::ImageFolder,
];

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

    /// The same samples in the `shape` of a model's input, where the format has no shape of its own; `None` where it has one.
    fn fitted(&self, _shape: &[usize]) -> Option<Box<dyn Contents>> {
        None
    }

    /// The SHA-256 of everything that belongs to the data, where that is no single file; `None` where the files' own will do.
    ///
    /// # Errors
    /// Where a file cannot be read.
    fn digest(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }
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
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::fixtures::{Folder, array, exercise, gzip, idx, npy, npz};
    use super::*;

    #[test]
    fn every_reader_has_its_own_name_and_suffixes() {
        let names: BTreeSet<_> = READERS.iter().map(|reader| reader.name()).collect();
        let suffixes: Vec<_> = READERS
            .iter()
            .flat_map(|reader| reader.suffixes())
            .collect();
        assert_eq!(names.len(), READERS.len());
        assert_eq!(
            suffixes.iter().collect::<BTreeSet<_>>().len(),
            suffixes.len()
        );
        assert!(READERS.iter().all(|reader| !reader.suffixes().is_empty()));
    }

    /// A good file of every format, with the name that it needs, in a folder that holds the labels of each.
    fn good_files() -> (Folder, Vec<(&'static str, Vec<u8>)>) {
        let folder = Folder::new();
        let x = array(&[5, 3], (0..15u8).collect());
        let y = array(&[5], (0..5i64).collect());
        let images = idx(0x08, &[5, 3], &(0..15).collect::<Vec<u8>>());
        folder.write("y.npy", &npy(&y));
        folder.write("labels-idx1-ubyte", &idx(0x08, &[5], &[0, 1, 2, 3, 4]));
        let table = b"label,a,b\n0,1,2\n1,3,4\n2,5,6.5\n".to_vec();
        let files = vec![
            ("stored.npz", npz(&x, &y, false)),
            ("deflated.npz", npz(&x, &y, true)),
            ("x.npy", npy(&x)),
            ("images-idx2-ubyte", images.clone()),
            ("images-idx2-ubyte.gz", gzip(&images)),
            ("table.csv", table.clone()),
            ("table.csv.gz", gzip(&table)),
            ("test_batch.bin", vec![3; 3073]),
        ];
        (folder, files)
    }

    #[test]
    fn the_good_files_are_good() {
        let (folder, files) = good_files();
        for (name, bytes) in files {
            let samples = exercise(&folder.write(name, &bytes)).unwrap();
            let expected = match name {
                "table.csv" | "table.csv.gz" => 3,
                "test_batch.bin" => 1,
                _ => 5,
            };
            assert_eq!(samples, expected, "{name}");
        }
    }

    #[test]
    fn a_good_file_cut_anywhere_is_an_error_and_no_panic() {
        let (folder, files) = good_files();
        for (name, bytes) in files {
            for length in 0..bytes.len() {
                let read = exercise(&folder.write(name, &bytes[..length]));
                // Only in plain text can a piece be a whole file.
                assert!(
                    read.is_err() || name == "table.csv",
                    "{name} cut to {length} bytes"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
            let (folder, files) = good_files();
            for (name, good) in files {
                // Behind a good beginning they reach deeper.
                for keep in [0, 8, good.len() / 2] {
                    let mut content = good[..keep].to_vec();
                    content.extend(&bytes);
                    let _ = exercise(&folder.write(name, &content));
                }
            }
        }

        #[test]
        fn changed_bytes_never_panic(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let (folder, files) = good_files();
            for (name, mut bytes) in files {
                for (position, value) in &changes {
                    let position = position.index(bytes.len());
                    bytes[position] = *value;
                }
                let _ = exercise(&folder.write(name, &bytes));
            }
        }

        #[test]
        fn random_tables_never_panic(text in "[0-9a-z,;\t\"\r\n.-]{0,200}") {
            let folder = Folder::new();
            for column in [None, Some("0".to_owned())] {
                let source = Source { label_column: column, ..Source::new(folder.write("a.csv", text.as_bytes())) };
                let _ = Dataset::open(&source).and_then(|dataset| dataset.validate(None, (0.0, 1.0)));
            }
        }
    }
}
