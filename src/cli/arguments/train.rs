//! `mohs train`: the arguments.

use super::values::{DataPaths, Layout, above_zero, bounds, epsilon, number, positive, whole};
use super::{ModelArguments, ReadingArguments, RuntimeArguments};
use crate::threat::{Bounds, Epsilon, Norm};
use clap::{Args, ValueEnum};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

/// In a constant, as the words with underscores are no code in a comment.
const OPTIMIZER_HELP: &str = "The optimizer, with parameters after a colon: sgd:learning_rate=0.1,momentum=0.9; weight \
    decay spares biases and normalisation, unless decay_all=true is given";

/// Trains a model to withstand perturbations.
#[derive(Debug, Clone, Args)]
#[command(
    about = "Trains a model to withstand perturbations, and writes it with new weights",
    long_about = "Trains an exported classifier on perturbed samples and writes it with new weights: same inputs, outputs, operators \
        and opset. Writes training.csv beside it, with a row per epoch. `mohs list methods` shows the methods with their parameters.",
    after_help = "Examples:
  mohs train model.onnx --data train.npz --method pgd:steps=7 --epsilon 8/255 \\
      --validation test.npz --epochs 20 -o hardened.onnx
  mohs train model.onnx --data train.npz --method free:replays=8 --epsilon 0.3 \\
      --optimizer sgd:learning_rate=0.05,momentum=0.9,weight_decay=5e-4 \\
      --schedule one-cycle --epochs 40 -o hardened.onnx
  mohs train bert.onnx --data tokens.npz --method freelb --norm l2 --epsilon 0.3 \\
      --wrt embeddings --padding 0 --optimizer adamw:learning_rate=2e-5 -o out.onnx
  mohs train model.onnx --data train.npz --method standard --reinitialize 1 \\
      --checkpoint run --epochs 90 -o model-90.onnx"
)]
pub struct TrainArguments {
    /// The model and what of it is used.
    #[command(flatten)]
    pub model: ModelArguments,

    /// The training data: .npz, .csv, CIFAR .bin, a folder of images, or two .npy or IDX files (samples,labels)
    #[arg(long, value_name = "DATA[,LABELS]", help_heading = "Data")]
    pub data: DataPaths,
    /// Data to measure clean and robust accuracy on after each epoch; the best weights are kept
    #[arg(long, value_name = "DATA[,LABELS]", help_heading = "Data")]
    pub validation: Option<DataPaths>,
    /// Use at most this many validation samples
    #[arg(long, value_name = "N", value_parser = above_zero::<NonZeroU64>, allow_negative_numbers = true, requires = "validation", help_heading = "Data")]
    pub validation_limit: Option<NonZeroU64>,
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
    /// Skip this many training samples
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true, default_value = "0", help_heading = "Data")]
    pub offset: u64,
    /// Use at most this many training samples
    #[arg(long, value_name = "N", value_parser = above_zero::<NonZeroU64>, allow_negative_numbers = true, help_heading = "Data")]
    pub limit: Option<NonZeroU64>,
    /// Subtract these means in front of the model, one per channel, so that ε counts in the data's own space
    #[arg(
        long, value_name = "A,B,C", value_delimiter = ',', value_parser = number, allow_hyphen_values = true, requires = "std",
        help_heading = "Data"
    )]
    pub mean: Vec<f32>,
    /// Divide by these standard deviations in front of the model, one per channel
    #[arg(
        long, value_name = "A,B,C", value_delimiter = ',', value_parser = positive, allow_hyphen_values = true, requires = "mean",
        help_heading = "Data"
    )]
    pub std: Vec<f32>,
    /// Put so many pixels around each image, and take a random crop of its size
    #[arg(
        long,
        value_name = "PIXELS",
        default_value_t = 0,
        help_heading = "Data"
    )]
    pub crop: usize,
    /// Flip half of the images from left to right
    #[arg(long, help_heading = "Data")]
    pub flip: bool,
    /// The token that stands for padding: its positions are not perturbed
    #[arg(long, value_name = "TOKEN", value_parser = number, allow_hyphen_values = true, help_heading = "Data")]
    pub padding: Option<f32>,

    /// How to train, with parameters after a colon: pgd:steps=7
    #[arg(
        long,
        value_name = "METHOD",
        default_value = "pgd",
        help_heading = "Training"
    )]
    pub method: String,
    /// The norm that perturbations are measured in
    #[arg(long, value_enum, default_value_t = Norm::Linf, help_heading = "Training")]
    pub norm: Norm,
    /// The radius, as a fraction or decimal in the units of the data: 8/255
    #[arg(long, value_name = "RADIUS", value_parser = epsilon, allow_hyphen_values = true, help_heading = "Training")]
    pub epsilon: Option<Epsilon>,
    /// The smallest and the largest valid value of the data, or none
    #[arg(
        long, value_name = "LOW,HIGH", value_parser = bounds, allow_hyphen_values = true, default_value = "0,1",
        help_heading = "Training"
    )]
    pub bounds: Bounds,
    /// How often to go through the data
    #[arg(long, value_name = "N", value_parser = above_zero::<NonZeroU32>, allow_negative_numbers = true, default_value = "10", help_heading = "Training")]
    pub epochs: NonZeroU32,
    /// Samples in a batch
    #[arg(long, value_name = "N", value_parser = above_zero::<NonZeroUsize>, allow_negative_numbers = true, default_value = "128", help_heading = "Training")]
    pub batch_size: NonZeroUsize,
    /// The optimizer
    #[arg(
        long, help = OPTIMIZER_HELP,
        value_name = "OPTIMIZER",
        default_value = "adam",
        help_heading = "Training"
    )]
    pub optimizer: String,
    /// The learning rate's course: constant, cosine, piecewise or one-cycle, with parameters after a colon
    #[arg(
        long,
        value_name = "SCHEDULE",
        default_value = "constant",
        help_heading = "Training"
    )]
    pub schedule: String,
    /// Whether batch normalisation uses and updates statistics of the batches, or keeps those of the file
    #[arg(long, value_enum, default_value_t = BatchNormArgument::Train, help_heading = "Training")]
    pub batch_norm: BatchNormArgument,
    /// Leave parameters whose names fit this pattern as they are (may be repeated): features.*
    #[arg(long, value_name = "PATTERN", help_heading = "Training")]
    pub freeze: Vec<String>,
    /// Draw all parameters anew by this seed before training
    #[arg(long, value_name = "SEED", value_parser = whole, allow_negative_numbers = true, help_heading = "Training")]
    pub reinitialize: Option<u64>,
    /// Take losses and gradients from this graph, made under the contract of `mohs gradient --parameters`
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "wrt",
        help_heading = "Training"
    )]
    pub training_graph: Option<PathBuf>,
    /// The steps of the attack that measures robust accuracy after each epoch
    #[arg(long, value_name = "N", value_parser = above_zero::<NonZeroU32>, allow_negative_numbers = true, default_value = "10", help_heading = "Training")]
    pub validation_steps: NonZeroU32,
    /// The seed of every random number
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true, default_value = "0", help_heading = "Training")]
    pub seed: u64,

    /// The ONNX file to write
    #[arg(short, long, value_name = "FILE", help_heading = "Results")]
    pub out: PathBuf,
    /// The table to write, with a row per epoch [default: training.csv beside the ONNX file]
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub log: Option<PathBuf>,
    /// Write a checkpoint into this folder after each epoch, every five minutes, and on Ctrl-C
    #[arg(long, value_name = "DIR", help_heading = "Results")]
    pub checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint in that folder
    #[arg(long, requires = "checkpoint", help_heading = "Results")]
    pub resume: bool,

    /// The runtime.
    #[command(flatten)]
    pub runtime: RuntimeArguments,
}

/// Which statistics batch normalisation uses in weight steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BatchNormArgument {
    /// Those of each batch; running ones are updated
    Train,
    /// The running ones, as they are in the file
    Frozen,
}

impl TrainArguments {
    /// How the training data are read; the help here speaks of training samples, which is why the arguments stand here again.
    #[must_use]
    pub fn reading(&self) -> ReadingArguments {
        ReadingArguments {
            x_key: self.x_key.clone(),
            y_key: self.y_key.clone(),
            label_column: self.label_column.clone(),
            scale: self.scale,
            layout: self.layout,
            offset: self.offset,
            limit: self.limit,
            mean: self.mean.clone(),
            std: self.std.clone(),
        }
    }

    /// Where the table goes.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        let beside = || self.out.with_file_name("training.csv");
        self.log.clone().unwrap_or_else(beside)
    }
}
