//! `mohs evaluate`: the arguments.

use super::RuntimeArguments;
use super::radius::Radius;
use super::values::{
    BatchSize, DataPaths, Keep, Layout, Range, SearchPrecision, Shape, above_zero, attack, bounds,
    default_formats, format, number, positive, radii, whole,
};
use crate::threat::{Bounds, Epsilon, Norm};
use clap::Args;
use std::num::NonZeroU64;
use std::path::PathBuf;

/// A model, and what of it is used.
#[derive(Debug, Clone, Args)]
pub struct ModelArguments {
    /// The ONNX file
    pub model: PathBuf,
    /// The input to perturb, where the model has several
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub input: Option<String>,
    /// The output that holds the logits, where the model has several
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub output: Option<String>,
    /// Perturb this inner tensor, such as an embedding, instead of an input
    #[arg(long, value_name = "TENSOR", help_heading = "Model")]
    pub wrt: Option<String>,
    /// The shape of one sample, such as 3,224,224, where the model leaves it open
    #[arg(long, value_name = "SHAPE", help_heading = "Model")]
    pub input_shape: Option<Shape>,
    /// Differentiate through a final Softmax instead of taking the logits below it
    #[arg(long, help_heading = "Model")]
    pub keep_softmax: bool,
    /// Pass gradients straight through rounding, signs and quantisation, which have none of their own
    #[arg(long, help_heading = "Model")]
    pub straight_through: bool,
}

/// How a data set is read, and how the model takes it.
#[derive(Debug, Clone, Args)]
pub struct ReadingArguments {
    /// The name of the samples in an .npz file [default: x]
    #[arg(long, value_name = "KEY", help_heading = "Data")]
    pub x_key: Option<String>,
    /// The name of the labels in an .npz file [default: y]
    #[arg(long, value_name = "KEY", help_heading = "Data")]
    pub y_key: Option<String>,
    /// The label's column in a .csv file, by name or by position from 0 [default: label]
    #[arg(long, value_name = "COLUMN", help_heading = "Data")]
    pub label_column: Option<String>,
    /// Multiply the data by this [default: 1/255 for integers where the bounds are 0,1; else 1]
    #[arg(long, value_name = "FACTOR", value_parser = positive, allow_hyphen_values = true, help_heading = "Data")]
    pub scale: Option<f32>,
    /// The order of axes in the data, where it is not the model's
    #[arg(long, value_enum, help_heading = "Data")]
    pub layout: Option<Layout>,
    /// Skip this many samples
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true, default_value = "0", help_heading = "Data")]
    pub offset: u64,
    /// Use at most this many samples
    #[arg(long, value_name = "N", value_parser = above_zero::<NonZeroU64>, allow_negative_numbers = true, help_heading = "Data")]
    pub limit: Option<NonZeroU64>,
    /// Subtract these means inside the model, one per channel, so that ε counts in the data's own space
    #[arg(
        long, value_name = "A,B,C", value_delimiter = ',', value_parser = number, allow_hyphen_values = true, requires = "std",
        help_heading = "Data"
    )]
    pub mean: Vec<f32>,
    /// Divide by these standard deviations inside the model, one per channel
    #[arg(
        long, value_name = "A,B,C", value_delimiter = ',', value_parser = positive, allow_hyphen_values = true, requires = "mean",
        help_heading = "Data"
    )]
    pub std: Vec<f32>,
}

impl ReadingArguments {
    /// Whether any of the arguments was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.x_key.is_some()
            || self.y_key.is_some()
            || self.label_column.is_some()
            || self.scale.is_some()
            || self.layout.is_some()
            || self.offset > 0
            || self.limit.is_some()
    }

    /// `--mean` and `--std`, if given.
    ///
    /// # Errors
    ///
    /// Where they differ in length.
    pub fn normalization(&self) -> Result<Option<Normalization>, CheckError> {
        if self.mean.len() != self.std.len() {
            return Err(CheckError::Lengths {
                mean: self.mean.len(),
                std: self.std.len(),
            });
        }
        Ok((!self.mean.is_empty()).then(|| Normalization {
            mean: self.mean.clone(),
            std: self.std.clone(),
        }))
    }
}

/// Attacks a model and reports how robust it is.
#[derive(Debug, Clone, Args)]
#[command(
    about = "Attacks a model on a data set and reports how robust it is",
    long_about = "Attacks a classifier on every sample of a data set, within a ball of radius ε, with exact gradients derived from \
        the model itself. Shows a summary table; with --out, also writes the report as CSV, JSON and a page \
        for the browser.",
    after_help = "Examples:
  mohs evaluate model.onnx --data test.npz --epsilon 8/255
  mohs evaluate model.onnx --data test.npz --epsilon 2/255,8/255 \\
      --attack fgsm,pgd:steps=40,restarts=5 --out report
  mohs evaluate model.onnx --data images.npy,labels.npy --norm l2 \\
      --epsilon 0.5 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
  mohs evaluate model.onnx --data images-idx3-ubyte.gz,labels-idx1-ubyte.gz \\
      --epsilon 0.1,0.2,0.3 --limit 1000"
)]
pub struct EvaluateArguments {
    /// The model and what of it is used.
    #[command(flatten)]
    pub model: ModelArguments,

    /// The data set: .npz, .csv, .parquet, CIFAR .bin, a folder of images, or two .npy or IDX files (samples,labels)
    #[arg(long, value_name = "DATA[,LABELS]", help_heading = "Data")]
    pub data: DataPaths,
    /// How the data set is read.
    #[command(flatten)]
    pub reading: ReadingArguments,

    /// The attacks, each with its parameters after a colon: fgsm,pgd:steps=40,restarts=5 (may be repeated)
    #[arg(
        long, value_name = "ATTACKS", value_parser = attack, default_value = "pgd", help_heading = "Attack"
    )]
    pub attack: Vec<String>,
    /// The norm that perturbations are measured in; of several, one after the other: linf,l2
    #[arg(
        long,
        value_name = "NORMS",
        value_enum,
        value_delimiter = ',',
        default_value = "linf",
        help_heading = "Attack"
    )]
    pub norm: Vec<Norm>,
    /// The radii, as fractions or decimals in the units of the data: 2/255,0.03; of one norm alone: l2:0.5
    #[arg(
        long, value_name = "RADII", value_delimiter = ',', value_parser = clap::value_parser!(Radius), allow_hyphen_values = true,
        required_unless_present = "minimal_epsilon", help_heading = "Attack"
    )]
    pub epsilon: Vec<Radius>,
    /// Look for the smallest radius that breaks each sample, between these two, and show its quantiles
    #[arg(long, value_name = "LOW,HIGH", value_parser = radii, allow_hyphen_values = true, help_heading = "Attack")]
    pub minimal_epsilon: Option<Range>,
    /// The smallest and the largest valid value of the data, or none
    #[arg(
        long, value_name = "LOW,HIGH", value_parser = bounds, allow_hyphen_values = true, default_value = "0,1",
        help_heading = "Attack"
    )]
    pub bounds: Bounds,
    /// Which points of an attack count
    #[arg(long, value_enum, default_value_t = Keep::Any, help_heading = "Attack")]
    pub keep: Keep,
    /// The seed of every random number
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true, default_value = "0", help_heading = "Attack")]
    pub seed: u64,
    /// Take gradients from this graph, made under the contract of `mohs gradient`, after checking it against the model
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "keep_softmax",
        help_heading = "Attack"
    )]
    pub gradient: Option<PathBuf>,

    /// Write the report into this folder
    #[arg(long, value_name = "DIR", help_heading = "Results")]
    pub out: Option<PathBuf>,
    /// The forms of the report
    #[arg(
        long, value_name = "FORMATS", value_delimiter = ',', value_parser = format(), default_value = default_formats(),
        requires = "out", help_heading = "Results"
    )]
    pub format: Vec<String>,
    /// Write the adversarial examples into this .npz file
    #[arg(
        long,
        value_name = "FILE.npz",
        requires = "epsilon",
        help_heading = "Results"
    )]
    pub save_adversarial: Option<PathBuf>,

    /// Samples at a time, or auto
    #[arg(
        long,
        value_name = "N",
        default_value = "auto",
        allow_negative_numbers = true,
        help_heading = "Runtime"
    )]
    pub batch_size: BatchSize,
    /// The precision that gradients are computed in; every verdict is computed in fp32
    #[arg(long, value_enum, default_value_t = SearchPrecision::Fp32, help_heading = "Runtime")]
    pub search_precision: SearchPrecision,
    /// The runtime.
    #[command(flatten)]
    pub runtime: RuntimeArguments,
}

/// Per-channel means and standard deviations of the model's training data, to be folded into the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalization {
    /// One per channel, in the units of the data.
    pub mean: Vec<f32>,
    /// As many, each above 0.
    pub std: Vec<f32>,
}

impl EvaluateArguments {
    /// The norms, each with its radii as they were written, ascending.
    #[must_use]
    pub fn threats(&self) -> Vec<(Norm, Vec<Epsilon>)> {
        let radii = |norm: Norm| {
            let own = self.epsilon.iter().filter(|radius| radius.counts_in(norm));
            let mut own: Vec<Epsilon> = own.map(|radius| radius.epsilon.clone()).collect();
            own.sort_by(|a, b| a.value().total_cmp(&b.value()));
            own
        };
        self.norm.iter().map(|&norm| (norm, radii(norm))).collect()
    }

    /// Checks what no argument can tell alone.
    ///
    /// # Errors
    ///
    /// Where `--mean` and `--std` differ in length, a norm or a radius is given twice, or one of them without the other.
    pub fn check(&self) -> Result<(), CheckError> {
        self.reading.normalization()?;
        let norms = || self.norm.iter().map(Norm::to_string).collect::<Vec<_>>();
        for (position, norm) in self.norm.iter().enumerate() {
            if self.norm.iter().take(position).any(|other| other == norm) {
                return Err(CheckError::RepeatedNorm(*norm));
            }
        }
        for radius in &self.epsilon {
            if !self.norm.iter().any(|&norm| radius.counts_in(norm)) {
                return Err(CheckError::OtherNorm {
                    radius: radius.to_string(),
                    norms: norms().join(","),
                });
            }
        }
        if self.minimal_epsilon.is_some() && self.norm.len() > 1 {
            return Err(CheckError::SeveralNorms(norms().join(",")));
        }
        for (norm, radii) in self.threats() {
            if radii.is_empty() && !self.epsilon.is_empty() {
                return Err(CheckError::NoRadius(norm));
            }
            for pair in radii.windows(2) {
                if let [first, second] = pair
                    && first.value().to_bits() == second.value().to_bits()
                {
                    return Err(CheckError::RepeatedEpsilon {
                        first: first.text().to_owned(),
                        second: second.text().to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Why arguments that are fine alone do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// Means and standard deviations of different numbers of channels.
    #[error("--mean has {mean} values and --std has {std}; give one of each per channel")]
    Lengths {
        /// The number of means.
        mean: usize,
        /// The number of standard deviations.
        std: usize,
    },
    /// Two radii that are the same number.
    #[error(
        "--epsilon has `{first}` and `{second}`, which are the same radius; give each radius once"
    )]
    RepeatedEpsilon {
        /// The first spelling.
        first: String,
        /// The second spelling.
        second: String,
    },
    /// A norm twice.
    #[error("--norm has {0} twice; give each norm once")]
    RepeatedNorm(Norm),
    /// A norm without radii.
    #[error(
        "--norm has {0}, and no radius of --epsilon counts in it; give one, such as {0}:0.5, or take the norm out"
    )]
    NoRadius(Norm),
    /// A radius of a norm that is not evaluated.
    #[error(
        "--epsilon has {radius}, and --norm is {norms}; add that norm to --norm, or take the radius out"
    )]
    OtherNorm {
        /// The radius with its norm.
        radius: String,
        /// The norms.
        norms: String,
    },
    /// One range in several norms.
    #[error(
        "--minimal-epsilon looks in one range, and --norm is {0}; give one norm, and search in the others by themselves"
    )]
    SeveralNorms(String),
}
