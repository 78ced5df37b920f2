//! Values of single arguments, each refused with its own reason.

use crate::loss::Loss;
use crate::outcome::Estimate;
use crate::report::FORMATS;
use crate::runtime::Arithmetic;
use crate::threat::{Bounds, Epsilon, EpsilonError, Norm, parse_number};
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser};
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;

impl ValueEnum for Norm {
    fn value_variants<'a>() -> &'a [Self] {
        &Norm::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Norm::Linf => "The largest absolute change of any element",
            Norm::L2 => "The Euclidean length of the change",
            Norm::L1 => "The sum of absolute changes",
            Norm::L0 => "How many elements are changed (attack: fmn)",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for Loss {
    fn value_variants<'a>() -> &'a [Self] {
        &Loss::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Loss::CrossEntropy => "−log softmax(logits) at the label",
            Loss::Margin => "The largest other logit minus the label's",
            Loss::Dlr => "Difference of logits ratio (Croce and Hein 2020)",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for Estimate {
    fn value_variants<'a>() -> &'a [Self] {
        &[Estimate::Point, Estimate::Bound]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Estimate::Point => ("point", "The share that was measured"),
            Estimate::Bound => (
                "bound",
                "The cautious end of its 95 % confidence interval: the lower one of an accuracy, the upper one of a drop",
            ),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// Which points of an attack count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Keep {
    /// Any misclassified point on the way breaks a sample
    #[default]
    Any,
    /// Only the last point of each restart is judged
    Last,
}

/// The precision that gradients are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SearchPrecision {
    /// Single precision (on NVIDIA GPUs with TF32)
    #[default]
    Fp32,
    /// bfloat16, on OpenVINO and NVIDIA GPUs
    Bf16,
    /// float16, on NVIDIA GPUs
    Fp16,
}

impl From<SearchPrecision> for Arithmetic {
    fn from(precision: SearchPrecision) -> Self {
        match precision {
            SearchPrecision::Fp32 => Arithmetic::Single,
            SearchPrecision::Bf16 => Arithmetic::Brain,
            SearchPrecision::Fp16 => Arithmetic::Half,
        }
    }
}

/// The order of axes in a data set of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// Channels first
    Nchw,
    /// Channels last
    Nhwc,
}

/// How many samples run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchSize {
    /// Chosen by mohs.
    #[default]
    Auto,
    /// Just so many.
    Fixed(NonZeroUsize),
}

impl FromStr for BatchSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "auto" {
            return Ok(BatchSize::Auto);
        }
        text.parse()
            .map(BatchSize::Fixed)
            .map_err(|_| ValueError::BatchSize)
    }
}

/// The files of a data set: one with samples and labels, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPaths {
    /// The samples, or everything.
    pub samples: PathBuf,
    /// The labels, where they have a file of their own.
    pub labels: Option<PathBuf>,
}

impl FromStr for DataPaths {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some(paths) = DataPaths::with_commas(text) {
            return Ok(paths);
        }
        let mut paths = text.split(',');
        let (samples, labels) = (paths.next().unwrap_or_default(), paths.next());
        if samples.is_empty() || labels.is_some_and(str::is_empty) {
            return Err(ValueError::EmptyPath);
        }
        if paths.next().is_some() {
            return Err(ValueError::TooManyPaths);
        }
        Ok(DataPaths {
            samples: samples.into(),
            labels: labels.map(PathBuf::from),
        })
    }
}

impl DataPaths {
    /// Paths that have commas in themselves: told by the files that are there.
    fn with_commas(text: &str) -> Option<Self> {
        if !text.contains(',') {
            return None;
        }
        let is_file = |path: &str| Path::new(path).is_file();
        if is_file(text) {
            return Some(DataPaths {
                samples: text.into(),
                labels: None,
            });
        }
        let mut places = text
            .match_indices(',')
            .map(|(place, _)| text.split_at(place));
        let (samples, labels) =
            places.find(|(samples, labels)| is_file(samples) && is_file(&labels[1..]))?;
        Some(DataPaths {
            samples: samples.into(),
            labels: Some(labels[1..].into()),
        })
    }
}

/// The shape of one sample, without the batch axis; every extent is above 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape(pub Vec<usize>);

impl FromStr for Shape {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.split(',')
            .map(|extent| extent.trim().parse().map(NonZeroUsize::get))
            .collect::<Result<_, _>>()
            .map(Shape)
            .map_err(|_| ValueError::Shape)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extents: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&extents.join(","))
    }
}

pub(super) fn epsilon(text: &str) -> Result<Epsilon, EpsilonError> {
    text.parse()
}

/// An attack's text is read by the module `attack`; here it only has to be there.
pub(super) fn attack(text: &str) -> Result<String, ValueError> {
    if text.trim().is_empty() {
        return Err(ValueError::NoAttack);
    }
    Ok(text.to_owned())
}

pub(super) fn whole(text: &str) -> Result<u64, ValueError> {
    text.parse().map_err(|_| ValueError::Whole)
}

/// For the types `NonZero…`.
pub(super) fn above_zero<T: FromStr>(text: &str) -> Result<T, ValueError> {
    text.parse().map_err(|_| ValueError::AboveZero)
}

pub(super) fn number(text: &str) -> Result<f32, ValueError> {
    let number = parse_number(text)?;
    #[expect(clippy::cast_possible_truncation, reason = "models compute in float32")]
    let single = number as f32;
    if single.is_finite() {
        Ok(single)
    } else {
        Err(ValueError::NotFinite)
    }
}

pub(super) fn positive(text: &str) -> Result<f32, ValueError> {
    let number = number(text)?;
    if number > 0.0 {
        Ok(number)
    } else {
        Err(ValueError::NotPositive)
    }
}

/// Two radii, the first of which may be 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The smaller one.
    pub low: f64,
    /// The larger one.
    pub high: f64,
}

pub(super) fn radii(text: &str) -> Result<Range, ValueError> {
    let (low, high) = text.split_once(',').ok_or(ValueError::RangeCount)?;
    let high: Epsilon = high.parse()?;
    let (low, high) = (parse_number(low)?, high.value());
    if 0.0 <= low && low < high {
        Ok(Range { low, high })
    } else {
        Err(ValueError::RangeOrder)
    }
}

/// A share from 0 to 1, or a percentage with its sign.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share(pub(super) f64);

impl FromStr for Share {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let share = match text.trim().strip_suffix('%') {
            Some(percent) => parse_number(percent)? / 100.0,
            None => parse_number(text)?,
        };
        if (0.0..=1.0).contains(&share) {
            Ok(Share(share))
        } else {
            Err(ValueError::NotAShare)
        }
    }
}

pub(super) fn share(text: &str) -> Result<f64, ValueError> {
    text.parse().map(|Share(share)| share)
}

pub(super) fn seconds(text: &str) -> Result<f64, ValueError> {
    let seconds = parse_number(text)?;
    if seconds > 0.0 && seconds.is_finite() {
        Ok(seconds)
    } else {
        Err(ValueError::NotPositive)
    }
}

pub(super) fn bounds(text: &str) -> Result<Bounds, ValueError> {
    if text == "none" {
        return Ok(Bounds::NONE);
    }
    let parts: Vec<&str> = text.split(',').collect();
    let [low, high] = parts.as_slice() else {
        return Err(ValueError::BoundsCount);
    };
    let (low, high) = (number(low)?, number(high)?);
    if low < high {
        Ok(Bounds { low, high })
    } else {
        Err(ValueError::BoundsOrder)
    }
}

/// Why an argument's value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says it")]
pub enum ValueError {
    #[error(transparent)]
    Number(#[from] crate::threat::NumberError),
    #[error(transparent)]
    Epsilon(#[from] EpsilonError),
    #[error(transparent)]
    Norm(#[from] crate::threat::UnknownNorm),
    #[error("a range of radii is two numbers LOW,HIGH")]
    RangeCount,
    #[error("the first radius must be 0 or above, and below the second")]
    RangeOrder,
    #[error("a share lies between 0 and 1; write 0.95 or 95% for 95 %")]
    NotAShare,
    #[error("the number is NaN, infinite or too large for float32")]
    NotFinite,
    #[error("this must be a whole number, 0 or above")]
    Whole,
    #[error("this must be a whole number above 0")]
    AboveZero,
    #[error("the number must be above 0")]
    NotPositive,
    #[error("bounds are two numbers LOW,HIGH, or none")]
    BoundsCount,
    #[error("the first bound must be below the second")]
    BoundsOrder,
    #[error("a batch size is a whole number above 0, or auto")]
    BatchSize,
    #[error("a file name is missing; give one file, or two as SAMPLES,LABELS")]
    EmptyPath,
    #[error("more than two file names; give one file, or two as SAMPLES,LABELS")]
    TooManyPaths,
    #[error("a shape is whole numbers above 0, such as 3,224,224, without the batch axis")]
    Shape,
    #[error("an attack is missing; `mohs list attacks` shows them")]
    NoAttack,
}
/// The name of the form that has a row per sample, which is written while the evaluation runs.
pub const SAMPLES: &str = "samples";

/// The forms of a report, as the command line calls them.
pub(super) fn format() -> PossibleValuesParser {
    let samples = PossibleValue::new(SAMPLES).help("samples.csv: A row per sample, attack and ε");
    let others = FORMATS.iter().map(|format| {
        PossibleValue::new(format.name()).help(format!(
            "{}: {}",
            format.file_name(),
            format.about()
        ))
    });
    PossibleValuesParser::new(std::iter::once(samples).chain(others))
}

/// The forms that are written where nobody says which are, as the command line takes them.
#[must_use]
pub fn default_formats() -> &'static str {
    static NAMES: LazyLock<String> = LazyLock::new(|| {
        let others = FORMATS.iter().filter(|format| format.is_default());
        let names = others.map(|format| format.name());
        let names: Vec<&str> = std::iter::once(SAMPLES).chain(names).collect();
        names.join(",")
    });
    &NAMES
}
