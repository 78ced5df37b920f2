//! What can be wrong with a data set, each with its place and the way out.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A file, or one array inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The array or column inside the file, where it holds several.
    pub member: Option<String>,
}

impl Place {
    /// The whole file at `path`.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Place {
            path: path.into(),
            member: None,
        }
    }

    /// The part of the file at `path` that is called `member` there.
    pub fn member(path: impl Into<PathBuf>, member: impl Into<String>) -> Self {
        Place {
            path: path.into(),
            member: Some(member.into()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match &self.member {
            Some(member) => write!(f, " ({member})"),
            None => Ok(()),
        }
    }
}

/// Why a data set cannot be used.
///
/// Rows are counted from 0, as `index` in the results is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what the messages print")]
pub enum Error {
    /// The operating system refused.
    #[error("{place} cannot be read")]
    Io { place: Place, source: io::Error },

    /// No reader takes the file.
    #[error("{} is in no format that mohs reads; these are {formats}", path.display())]
    UnknownFormat { path: PathBuf, formats: String },

    /// An option that means nothing in this format.
    #[error("{} is {format}, which has no use for {flag}: leave it out", path.display())]
    UnusedOption {
        path: PathBuf,
        format: &'static str,
        flag: &'static str,
    },

    /// The file breaks the rules of its format.
    #[error("{place} is not {format} that mohs can read: {reason}")]
    Malformed {
        place: Place,
        format: &'static str,
        reason: String,
    },

    /// The file ends before its last row.
    #[error("{place} is cut off in row {row} of {samples}: copy or download the file again")]
    Truncated {
        place: Place,
        row: u64,
        samples: u64,
    },

    /// The compressed data or their checksum are wrong.
    #[error("{place} is damaged near row {row}: copy or download the file again")]
    Damaged {
        place: Place,
        row: u64,
        source: io::Error,
    },

    /// More bytes than the header announces.
    #[error(
        "{place} goes on after the {samples} rows that its header announces: write it again, one array per file"
    )]
    TrailingBytes { place: Place, samples: u64 },

    /// The archive has no array of that name.
    #[error("{} has no array `{key}`, it holds {available}: choose one with {flag}", path.display())]
    NoSuchArray {
        path: PathBuf,
        key: String,
        available: String,
        flag: &'static str,
    },

    /// The file beside the data that should hold the labels does not exist.
    #[error(
        "no labels for {}: {} does not exist; give both files as DATA,LABELS", path.display(), expected.display()
    )]
    NoLabelsFile { path: PathBuf, expected: PathBuf },

    /// It is not clear which column holds the labels.
    #[error("{}: {reason}; the columns are {columns}: choose one with --label-column NAME or its position from 0", path.display())]
    NoLabelColumn {
        path: PathBuf,
        reason: String,
        columns: String,
    },

    /// Elements that are not numbers mohs computes with.
    #[error(
        "{place} holds elements of type {dtype}: save it as uint8, float32 or another number type"
    )]
    UnsupportedType { place: Place, dtype: String },

    /// A pickled Python object.
    #[error(
        "{place} holds pickled Python objects, which mohs does not load because unpickling can run any code: save it as an array of numbers"
    )]
    Pickled { place: Place },

    /// Column-major storage, which cannot be streamed by samples.
    #[error(
        "{place} is stored in Fortran order, in which samples cannot be streamed: save numpy.ascontiguousarray(array)"
    )]
    FortranOrder { place: Place },

    /// Not as many labels as samples.
    #[error(
        "{pixels} holds {samples} samples, but {labels} holds {found} labels: both need the same number"
    )]
    LengthsDiffer {
        pixels: Place,
        samples: u64,
        labels: Place,
        found: u64,
    },

    /// Labels that are neither one number nor one one-hot vector per sample.
    #[error(
        "{place} has shape {shape:?}: labels are one class number [n] or one-hot vector [n, classes] per sample"
    )]
    LabelShape { place: Place, shape: Vec<u64> },

    /// Nothing in it.
    #[error("{place} holds no samples (shape {shape:?}): give a file with at least one")]
    Empty { place: Place, shape: Vec<u64> },

    /// A header that asks for more memory than any real sample needs.
    #[error(
        "{place} has shape {shape:?}: a sample may hold at most {limit} values, so is the header damaged?"
    )]
    SampleTooLarge {
        place: Place,
        shape: Vec<u64>,
        limit: u64,
    },

    /// `--offset` and `--limit` leave nothing.
    #[error("{place} holds {samples} samples: --offset {offset} and --limit {limit} leave none")]
    NothingSelected {
        place: Place,
        samples: u64,
        offset: u64,
        limit: String,
    },

    /// The samples do not fit the model's input.
    #[error("{place}: samples of shape {data:?} do not fit the model's input {model:?}{hint}")]
    Shape {
        place: Place,
        data: Vec<usize>,
        model: Vec<usize>,
        hint: String,
    },

    /// A preparation option out of its range.
    #[error("{flag} {value} is not usable: {reason}")]
    Option {
        flag: &'static str,
        value: String,
        reason: &'static str,
    },

    /// A buffer of the wrong size was handed in.
    #[error("a sample has {expected} values, but the buffer has room for {found}")]
    Buffer { expected: usize, found: usize },

    /// A line of a table that is incomplete or holds something else than numbers.
    /// The line is counted from 1 and may come early by the empty lines before it.
    #[error("{place}, row {row} (near line {line}): {reason}")]
    Field {
        place: Place,
        row: u64,
        line: u64,
        reason: String,
    },

    /// NaN or an infinity.
    #[error(
        "{place}, row {row}: value {position} of the sample is {value}, but all values must be finite float32 numbers: repair or remove the row"
    )]
    NotFinite {
        place: Place,
        row: u64,
        position: usize,
        value: f32,
    },

    /// A value outside the bounds of valid inputs.
    #[error(
        "{place}, row {row}: value {position} of the sample is {value}, outside the bounds {low},{high}: {remedy}"
    )]
    OutsideBounds {
        place: Place,
        row: u64,
        position: usize,
        value: f32,
        low: f32,
        high: f32,
        remedy: String,
    },

    /// A label that is no class number.
    #[error(
        "{place}, row {row}: {reason}; labels are class numbers from 0: renumber the classes or correct the row"
    )]
    Label {
        place: Place,
        row: u64,
        reason: String,
    },

    /// A label that the model cannot give.
    #[error(
        "{place}, row {row}: label {label} is outside the model's classes 0 to {last}: is it the right model for these data?"
    )]
    UnknownClass {
        place: Place,
        row: u64,
        label: u32,
        last: u32,
    },
}
