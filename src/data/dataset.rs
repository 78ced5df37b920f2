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
use super::{Contents, Description, Options, READERS, Reader, Source, sha256};
use crate::tensor::DType;

/// The number of bytes that a reader may look at to recognise its format.
const HEAD: u64 = 512;

/// Labelled samples in a file (or a pair of files).
///
/// Cheap to clone; the file is read anew by every [`samples`](Dataset::samples).
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

    /// The file(s) with their SHA-256, for the record of what was evaluated.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn digests(&self) -> Result<Vec<(PathBuf, String)>, Error> {
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
