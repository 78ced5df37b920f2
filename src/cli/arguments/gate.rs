//! The arguments of `mohs gate` and `mohs compare`.

use super::EvaluateArguments;
use super::radius::robust_threshold;
use super::values::{seconds, share};
use crate::gate::{RobustThreshold, Thresholds};
use crate::outcome::Estimate;
use clap::Args;
use std::path::PathBuf;

/// Evaluates a model and holds it against thresholds.
#[derive(Debug, Clone, Args)]
pub struct GateArguments {
    /// The evaluation.
    #[command(flatten)]
    pub evaluate: EvaluateArguments,
    /// The thresholds and where they come from.
    #[command(flatten)]
    pub gate: ThresholdArguments,
}

/// Thresholds and where they come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Gate")]
pub struct ThresholdArguments {
    /// The least share of samples that are right as they are: 0.95 or 95%
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    pub min_clean_accuracy: Option<f64>,
    /// The least robust accuracy, in the worst case over the attacks; everywhere (0.4), or by radius (2/255=0.8,8/255=0.4), by norm
    /// (l2=0.3), or by both (linf:8/255=0.4)
    #[arg(
        long, value_name = "[PLACE=]SHARE", value_delimiter = ',', value_parser = robust_threshold, allow_negative_numbers = true
    )]
    pub min_robust_accuracy: Vec<RobustThreshold>,
    /// Which number is held against a threshold
    #[arg(long, value_enum, default_value = "point")]
    pub estimate: Estimate,
    /// What to compare with, sample by sample: a samples.csv, a report folder, or a model to be evaluated alike
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// The largest drop of the robust accuracy against the baseline
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true, requires = "baseline")]
    pub max_drop: Option<f64>,
    /// The longest time that the evaluation may take, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub max_seconds: Option<f64>,
    /// Let numbers pass that the diagnostics call untrustworthy
    #[arg(long)]
    pub allow_untrusted: bool,
    /// Take settings from this file [default: the nearest mohs.toml, from here upwards]
    #[arg(long, value_name = "FILE", conflicts_with = "no_config")]
    pub config: Option<PathBuf>,
    /// Take no settings from a file
    #[arg(long)]
    pub no_config: bool,
    /// Write a commented mohs.toml into this folder, and do nothing else
    #[arg(long, exclusive = true)]
    pub init: bool,
}

impl ThresholdArguments {
    /// The thresholds.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            min_clean_accuracy: self.min_clean_accuracy,
            min_robust_accuracy: self.min_robust_accuracy.clone(),
            max_drop: self.max_drop,
            max_seconds: self.max_seconds,
            estimate: self.estimate,
            allow_untrusted: self.allow_untrusted,
        }
    }
}

/// Compares two reports, sample by sample.
#[derive(Debug, Args)]
#[command(
    about = "Compares two reports sample by sample: which model is more robust?",
    long_about = "Compares two evaluations of the same samples, attack by attack and radius by radius: the difference in robust \
        accuracy with its confidence interval, and McNemar's exact test of whether chance alone would do it. Says which model is more \
        robust, or that the data cannot tell.",
    after_help = "Examples:
  mohs compare reports/old reports/new
  mohs compare old/samples.csv new/samples.csv --out reports/comparison"
)]
pub struct CompareArguments {
    /// The first report: a samples.csv or the folder that it is in
    #[arg(value_name = "A")]
    pub first: PathBuf,
    /// The second report, of the same samples
    #[arg(value_name = "B")]
    pub second: PathBuf,
    /// Write comparison.csv and changes.csv (the samples that differ) into this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
