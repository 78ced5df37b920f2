//! A data set: an opened file, the rows wanted of it, and what is done to every sample.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::error::{Error, Place};
use super::prepare::Preparation;
use super::samples::Samples;
use super::{Contents, Description, Options, READERS, Reader, Rows, Source, sha256};
use crate::tensor::DType;

/// The number of bytes that a reader may look at to recognise its format.
const HEAD: u64 = 512;

/// Labelled samples in a file (or a pair of files).
///
/// Cheap to clone; the file is read anew by every [`samples`](Dataset::samples).
///
/// ```no_run
/// use mohs::data::{Batch, Dataset, Options, Source};
///
/// let bounds = (0.0, 1.0);
/// let input_shape = Some(vec![1, 28, 28]);
/// let options = Options { bounds, input_shape, ..Options::default() };
/// let dataset = Dataset::open(&Source::new("test.npz"))?.prepared(&options)?;
/// dataset.validate(Some(10), bounds)?;
///
/// let mut samples = dataset.samples()?;
/// let mut batch = Batch::default();
/// while samples.read_batch(64, &mut batch)? > 0 {
///     assert_eq!(batch.pixels.len(), batch.labels.len() * 28 * 28);
/// }
/// # Ok::<(), mohs::data::Error>(())
/// ```
#[derive(Clone)]
pub struct Dataset {
    contents: Arc<dyn Contents>,
    format: &'static str,
    offset: u64,
    samples: u64,
    preparation: Preparation,
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("format", &self.format)
            .field("offset", &self.offset)
            .field("samples", &self.samples)
            .field("description", self.description())
            .field("preparation", &self.preparation)
            .finish_non_exhaustive()
    }
}

impl Dataset {
    /// Opens the file(s) of `source`: reads the headers (of a table all lines, since nothing else tells their number).
    ///
    /// Samples come as stored until [`prepared`](Dataset::prepared) is called.
    ///
    /// # Errors
    /// Where a file cannot be read, is in no format of [`READERS`], breaks the rules of its format, holds no samples, holds not as
    /// many labels as samples, or where the offset and limit select nothing.
    pub fn open(source: &Source) -> Result<Self, Error> {
        let reader = find_reader(&source.path)?;
        for flag in source.flags() {
            if !reader.flags().contains(&flag) {
                return Err(Error::UnusedOption {
                    path: source.path.clone(),
                    format: reader.name(),
                    flag: flag.name(),
                });
            }
        }
        let contents = reader.open(source)?;
        let description = contents.description();
        let rest = description.samples.saturating_sub(source.offset);
        let samples = source.limit.map_or(rest, |limit| limit.min(rest));
        if samples == 0 {
            return Err(Error::NothingSelected {
                place: description.pixels.clone(),
                samples: description.samples,
                offset: source.offset,
                limit: source
                    .limit
                    .map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
            });
        }
        let preparation = Preparation::none(description);
        Ok(Dataset {
            contents: contents.into(),
            format: reader.name(),
            offset: source.offset,
            samples,
            preparation,
        })
    }

    /// The same samples, scaled and shaped for a model; [`notes`](Dataset::notes) says what was decided.
    ///
    /// # Errors
    /// Where the shape does not fit the model's input, or an option is out of its range.
    pub fn prepared(mut self, options: &Options) -> Result<Self, Error> {
        let fitted = options
            .input_shape
            .as_ref()
            .and_then(|shape| self.contents.fitted(shape));
        if let Some(contents) = fitted {
            if options.layout.is_some() {
                return Err(Error::UnusedOption {
                    path: self.description().pixels.path.clone(),
                    format: self.format,
                    flag: "--layout",
                });
            }
            self.contents = contents.into();
        }
        self.preparation = Preparation::plan(self.description(), options)?;
        Ok(self)
    }

    /// The number of samples selected.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.samples
    }

    /// Always false: an empty data set is refused when it is opened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The shape of one sample as [`samples`](Dataset::samples) gives it, without a batch axis.
    #[must_use]
    pub fn sample_shape(&self) -> &[usize] {
        &self.preparation.shape
    }

    /// The number of values of one sample.
    #[must_use]
    pub fn sample_len(&self) -> usize {
        self.preparation.shape.iter().product()
    }

    /// The type of the values in the file; samples are always float32.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.description().dtype
    }

    /// The name of the file's format.
    #[must_use]
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// What the file holds.
    #[must_use]
    pub fn description(&self) -> &Description {
        self.contents.description()
    }

    /// What was decided without being asked, in sentences for the log.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.description()
            .notes
            .iter()
            .chain(&self.preparation.notes)
            .map(String::as_str)
    }

    /// The factor that values are multiplied with.
    pub(super) fn scale(&self) -> f64 {
        self.preparation.scale
    }

    /// A new stream over the selected samples, in the order of the file.
    ///
    /// # Errors
    /// Where the file cannot be opened again.
    pub fn samples(&self) -> Result<Samples, Error> {
        let rows = self.contents.rows(self.offset)?;
        let end = self.offset + self.samples;
        let reaches_end = end == self.description().samples;
        Ok(Samples::new(
            rows,
            self.offset..end,
            reaches_end,
            self.preparation.clone(),
        ))
    }

    /// A new stream over the rows as stored, from the first selected one.
    pub(super) fn rows(&self) -> Result<Box<dyn Rows>, Error> {
        self.contents.rows(self.offset)
    }

    /// The row of the first selected sample.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the selection ends where the file does.
    pub(super) fn reaches_end(&self) -> bool {
        self.offset + self.samples == self.description().samples
    }

    /// What is done to every sample.
    pub(super) fn preparation(&self) -> &Preparation {
        &self.preparation
    }

    /// The file(s) that hold the data set.
    #[must_use]
    pub fn files(&self) -> Vec<&Path> {
        let Description { pixels, labels, .. } = self.description();
        let mut files = vec![pixels.path.as_path()];
        if labels.path != pixels.path {
            files.push(&labels.path);
        }
        files
    }

    /// The file(s) with their SHA-256, for the record of what was evaluated; a folder with that of the list of its files.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn digests(&self) -> Result<Vec<(PathBuf, String)>, Error> {
        if let Some(digest) = self.contents.digest()? {
            return Ok(vec![(self.description().pixels.path.clone(), digest)]);
        }
        self.files()
            .into_iter()
            .map(|path| Ok((path.to_owned(), sha256(path)?)))
            .collect()
    }
}

/// The reader for a file: by its content, else by its name.
fn find_reader(path: &Path) -> Result<&'static dyn Reader, Error> {
    let head = head(path).map_err(|source| Error::Io {
        place: Place::file(path),
        source,
    })?;
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let by_content = READERS.iter().find(|reader| reader.recognises(path, &head));
    let by_name = || {
        READERS.iter().find(|reader| {
            reader
                .suffixes()
                .iter()
                .any(|suffix| name.ends_with(suffix))
        })
    };
    by_content
        .or_else(by_name)
        .copied()
        .ok_or_else(|| Error::UnknownFormat {
            path: path.to_owned(),
            formats: READERS
                .iter()
                .map(|reader| reader.name())
                .collect::<Vec<_>>()
                .join(", "),
        })
}

/// The first bytes of a file, decompressed where it is gzipped; nothing for a folder.
fn head(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    if std::fs::metadata(path)?.is_dir() {
        return Ok(head);
    }
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    if head.starts_with(&[0x1f, 0x8b]) {
        head.clear();
        let decoder = MultiGzDecoder::new(BufReader::new(File::open(path)?));
        // Damage is found again, and reported, by the reader that the name chooses.
        let _ = decoder.take(HEAD).read_to_end(&mut head);
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Folder, array, message, npz, read};
    use super::super::{Layout, Scale};
    use super::*;

    fn ten_rows(folder: &Folder) -> PathBuf {
        let x = array(&[10, 2], (0..20u8).collect());
        folder.write(
            "ten.npz",
            &npz(&x, &array(&[10], (0..10i64).collect()), true),
        )
    }

    #[test]
    fn offset_and_limit_select_rows_that_keep_their_index() {
        let folder = Folder::new();
        let path = ten_rows(&folder);
        for (offset, limit, expected) in [
            (0, None, 0..10),
            (3, Some(4), 3..7),
            (8, Some(100), 8..10),
            (9, None, 9..10),
            (0, Some(1), 0..1),
        ] {
            let dataset = Dataset::open(&Source {
                offset,
                limit,
                ..Source::new(&path)
            })
            .unwrap();
            let samples = read(&dataset).unwrap();
            assert_eq!(dataset.len(), expected.end - expected.start);
            assert_eq!(
                samples.iter().map(|s| s.index).collect::<Vec<_>>(),
                expected.collect::<Vec<_>>()
            );
            for sample in samples {
                assert_eq!(u64::from(sample.label), sample.index);
                assert_eq!(
                    f64::from(sample.pixels[1]),
                    f64::from(sample.label) * 2.0 + 1.0
                );
            }
        }
    }

    #[test]
    fn a_selection_of_nothing_is_refused() {
        let folder = Folder::new();
        let path = ten_rows(&folder);
        for (offset, limit) in [(10, None), (u64::MAX, Some(1)), (0, Some(0))] {
            let error = message(
                Dataset::open(&Source {
                    offset,
                    limit,
                    ..Source::new(&path)
                })
                .unwrap_err(),
            );
            assert!(
                error.contains("10 samples") && error.contains("--offset"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_option_of_another_format_is_refused() {
        let folder = Folder::new();
        let source = Source {
            label_column: Some("y".to_owned()),
            ..Source::new(ten_rows(&folder))
        };
        let error = message(Dataset::open(&source).unwrap_err());
        assert!(
            error.ends_with("is .npz, which has no use for --label-column: leave it out"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_file_lists_the_formats() {
        let folder = Folder::new();
        for (name, bytes) in [
            ("a.bin", &b"\x89PNG"[..]),
            ("empty", b""),
            ("notes.txt", b"x,y\n"),
        ] {
            let error = message(folder.open(name, bytes).unwrap_err());
            for reader in READERS {
                assert!(error.contains(reader.name()), "{error}");
            }
        }
        let error = message(Dataset::open(&Source::new(folder.path("absent.npz"))).unwrap_err());
        assert!(error.contains("absent.npz cannot be read: "), "{error}");
        assert!(Dataset::open(&Source::new(folder.path(""))).is_err());
    }

    #[test]
    fn the_content_decides_before_the_name() {
        let folder = Folder::new();
        let bytes = std::fs::read(ten_rows(&folder)).unwrap();
        assert_eq!(
            folder.open("misnamed.csv", &bytes).unwrap().format(),
            ".npz"
        );
    }

    #[test]
    fn prepared_samples_are_scaled_and_transposed() {
        let folder = Folder::new();
        let x = array(&[1, 1, 2, 3], vec![0u8, 51, 102, 153, 204, 255]);
        let dataset = folder
            .open("a.npz", &npz(&x, &array(&[1], vec![0u8]), false))
            .unwrap();
        let options = Options {
            layout: Some(Layout::Nhwc),
            input_shape: Some(vec![3, 1, 2]),
            ..Options::default()
        };
        let prepared = dataset.clone().prepared(&options).unwrap();
        assert_eq!(prepared.sample_shape(), [3, 1, 2]);
        assert_eq!(
            read(&prepared).unwrap()[0].pixels,
            [0.0, 0.6, 0.2, 0.8, 0.4, 1.0]
        );
        assert_eq!(prepared.notes().count(), 2);

        let unscaled = Options {
            scale: Scale::By(1.0),
            layout: None,
            input_shape: None,
            ..options
        };
        assert_eq!(
            read(&dataset.prepared(&unscaled).unwrap()).unwrap()[0].pixels[5],
            255.0
        );
    }

    #[test]
    fn a_shape_that_does_not_fit_shows_both_and_the_way_out() {
        let folder = Folder::new();
        let x = array(&[1, 2, 2, 3], vec![0u8; 12]);
        let dataset = folder
            .open("a.npz", &npz(&x, &array(&[1], vec![0u8]), false))
            .unwrap();
        let options = Options {
            input_shape: Some(vec![3, 2, 2]),
            ..Options::default()
        };
        let error = message(dataset.prepared(&options).unwrap_err());
        assert!(
            error.contains("samples of shape [2, 2, 3] do not fit the model's input [3, 2, 2]"),
            "{error}"
        );
        assert!(error.ends_with("say --layout nhwc"), "{error}");
    }

    #[test]
    fn digests_name_every_file_once() {
        let folder = Folder::new();
        let path = ten_rows(&folder);
        let digests = Dataset::open(&Source::new(&path))
            .unwrap()
            .digests()
            .unwrap();
        assert_eq!(digests, [(path.clone(), sha256(&path).unwrap())]);
    }
}
