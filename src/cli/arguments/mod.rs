//! The arguments of every command, checked as far as they can be without opening a file.
//!
//! Attacks and devices stay text: the modules that know them read them.

mod evaluate;
mod gate;
mod radius;
#[cfg(test)]
mod tests;
mod train;
mod values;

use crate::loss::Loss;
use crate::runtime::Build;
use crate::threat::Bounds;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
pub use evaluate::{
    CheckError, EvaluateArguments, ModelArguments, Normalization, ReadingArguments,
};
pub use gate::{CompareArguments, GateArguments, ThresholdArguments};
pub use radius::Radius;
use std::num::NonZeroUsize;
use std::path::PathBuf;
pub use train::{BatchNormArgument, TrainArguments};
pub use values::{
    BatchSize, DataPaths, Keep, Layout, Range, SAMPLES, SearchPrecision, Shape, ValueError,
    default_formats as formats_by_default,
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "mohs",
    version,
    max_term_width = 100,
    about = "The scratch test for exported models: attacks an ONNX classifier with exact gradients and reports how robust it is.",
    after_help = "Examples:
  mohs demo
  mohs evaluate model.onnx --data test.npz --epsilon 2/255,8/255
  mohs evaluate --help

Exit codes: 0 fine; 1 a gate or a check failed; 2 bad usage or bad input; 3 the runtime or
the device failed."
)]
pub struct Arguments {
    /// How much to say on stderr.
    #[command(flatten)]
    pub verbosity: VerbosityArguments,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
// A comment on a variant would replace the help text of the arguments in it.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant is the command of that name")]
pub enum Command {
    Evaluate(Box<EvaluateArguments>),
    #[command(
        about = "Evaluates a model and fails where it falls short of thresholds",
        long_about = "Evaluates a model as `mohs evaluate` does and holds it against thresholds, from flags or from the nearest mohs.toml. \
            Exits with 1 where one of them is missed, or where a number that a threshold leans on cannot be trusted.",
        after_help = "Examples:
  mohs gate --init
  mohs gate
  mohs gate model.onnx --data test.npz --epsilon 8/255 --min-robust-accuracy 0.4
  mohs gate model.onnx --data test.npz --epsilon 2/255,8/255 \\
      --min-robust-accuracy 2/255=0.8,8/255=0.4 --estimate bound
  mohs gate new.onnx --data test.npz --epsilon 8/255 \\
      --baseline old.onnx --max-drop 0.02"
    )]
    Gate(Box<GateArguments>),
    Compare(CompareArguments),
    Gradient(Box<GradientArguments>),
    Train(Box<TrainArguments>),
    Inspect(InspectArguments),
    Demo(DemoArguments),
    Doctor(DoctorArguments),
    List(ListArguments),
    Completions(CompletionsArguments),
    Man(ManArguments),
}

/// Behind a command's own flags.
const LAST: usize = 900;

/// The global flags `--quiet` and `--verbose`.
#[derive(Debug, Clone, Copy, Args)]
pub struct VerbosityArguments {
    /// Say nothing on stderr but errors; show no progress bar
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        display_order = LAST
    )]
    pub quiet: bool,
    /// Say more on stderr; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = LAST)]
    pub verbose: u8,
}

impl VerbosityArguments {
    /// How much to say on stderr.
    #[must_use]
    pub fn verbosity(self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, 1) => Verbosity::Verbose,
            (false, _) => Verbosity::Everything,
        }
    }
}

/// How much to say on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verbosity {
    /// Errors alone.
    Quiet,
    /// What a user should know about a run.
    #[default]
    Normal,
    /// What helps to understand a run.
    Verbose,
    /// What helps to debug mohs.
    Everything,
}

/// Which ONNX Runtime runs, where, on how many threads.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Runtime")]
pub struct RuntimeArguments {
    /// Where to run: auto, cpu, cuda, cuda:N, openvino or tensorrt, or several that share the samples, as in cuda:0,cuda:1
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Threads that compute at the same time [default: one per core]
    #[arg(long, value_name = "N", value_parser = values::above_zero::<NonZeroUsize>, allow_negative_numbers = true)]
    pub threads: Option<NonZeroUsize>,
    /// The ONNX Runtime library to load [default: found or downloaded, see `mohs doctor`]
    #[arg(long, value_name = "PATH")]
    pub onnxruntime: Option<PathBuf>,
}

/// Derives the gradient graph of a model, writes it as an ONNX model of its own, or checks it.
#[derive(Debug, Args)]
#[command(
    about = "Derives the gradient graph of a model, writes it as ONNX, or checks it",
    long_about = "Derives the exact gradient of a model's loss and writes it as an ONNX model in standard operators. It takes the \
        model's inputs and `labels` (int64 [N]), and gives the model's outputs, `loss` (one per sample) and `grad` (the shape of \
        the input).\n\n\
        With --check, the gradient is compared with differences of the model's own loss on samples, along the gradient and along \
        random directions at ever smaller steps, and what was found is printed; where they disagree, or nothing can be told, the exit code is 1 and no \
        file is written.\n\n\
        With --parameters, the graph also takes every trainable tensor as an input, and gives the gradient of the mean loss by it as `grad.NAME`; \
        running statistics come out as `next.NAME`, dropout masks go in as `mask.NODE`, and an inner tensor named by --wrt has an input \
        `perturbation.NAME` that is added to it.",
    after_help = "Examples:
  mohs gradient model.onnx -o gradient.onnx
  mohs gradient model.onnx -o training.onnx --parameters --freeze 'features.*'
  mohs gradient model.onnx -o gradient.onnx --loss margin
  mohs gradient bert.onnx -o gradient.onnx --wrt embeddings
  mohs gradient model.onnx --check test.npz --limit 100
  mohs gradient model.onnx --check test.npz --gradient from-jax.onnx"
)]
pub struct GradientArguments {
    /// The model and what of it is used.
    #[command(flatten)]
    pub model: ModelArguments,
    /// The ONNX file to write
    #[arg(
        short,
        long,
        value_name = "FILE",
        required_unless_present = "check",
        conflicts_with = "gradient"
    )]
    pub out: Option<PathBuf>,
    /// The loss per sample, on the logits
    #[arg(long, value_enum, default_value_t = Loss::CrossEntropy)]
    pub loss: Loss,
    /// Write the training graph: every trainable tensor becomes an input, with its gradient as `grad.NAME`
    #[arg(long, conflicts_with_all = ["check", "gradient"], help_heading = "Training graph")]
    pub parameters: bool,
    /// Leave parameters whose names fit this pattern as they are (may be repeated): features.*
    #[arg(
        long,
        value_name = "PATTERN",
        requires = "parameters",
        help_heading = "Training graph"
    )]
    pub freeze: Vec<String>,
    /// Whether batch normalisation uses statistics of the batch, or the running ones
    #[arg(long, value_enum, default_value_t = BatchNormArgument::Train, requires = "parameters", help_heading = "Training graph")]
    pub batch_norm: BatchNormArgument,
    /// Compare the gradient with differences of the model's loss on these samples: the first 32, or --limit
    #[arg(long, value_name = "DATA[,LABELS]")]
    pub check: Option<DataPaths>,
    /// Check this gradient graph, made elsewhere, instead of deriving one
    #[arg(long, value_name = "FILE", requires = "check", conflicts_with_all = ["keep_softmax", "loss"])]
    pub gradient: Option<PathBuf>,
    /// How the data set is read.
    #[command(flatten)]
    pub reading: ReadingArguments,
    /// The smallest and the largest valid value of the data, or none
    #[arg(
        long, value_name = "LOW,HIGH", value_parser = values::bounds, allow_hyphen_values = true, default_value = "0,1",
        help_heading = "Data"
    )]
    pub bounds: Bounds,
    /// The runtime.
    #[command(flatten)]
    pub runtime: RuntimeArguments,
}

/// Shows what a model is and whether it can be attacked.
#[derive(Debug, Args)]
#[command(
    about = "Shows a model's inputs, outputs and operators, and whether it can be differentiated",
    long_about = "Shows a model's inputs, outputs, opset and parameters, and operator by operator whether mohs can differentiate \
        it. Nothing is written.",
    after_help = "Examples:
  mohs inspect model.onnx
  mohs inspect model.onnx --tensors"
)]
pub struct InspectArguments {
    /// The ONNX file
    pub model: PathBuf,
    /// List the names of the tensors inside, for --wrt
    #[arg(long)]
    pub tensors: bool,
}

/// Attacks two small models and shows their robustness side by side.
#[derive(Debug, Args)]
#[command(
    about = "Attacks two small models and shows their robustness side by side",
    long_about = "Attacks two classifiers of handwritten digits, one trained normally and one trained adversarially, with every \
        attack at several ε, writes the reports and shows the two robustness curves side by side. Takes under a minute.",
    after_help = "Examples:
  mohs demo
  mohs demo --out /tmp/demo"
)]
pub struct DemoArguments {
    /// The folder to write the reports into
    #[arg(long, value_name = "DIR", default_value = "reports/demo")]
    pub out: PathBuf,
    /// The runtime.
    #[command(flatten)]
    pub runtime: RuntimeArguments,
}

/// Shows which ONNX Runtime is used and why.
#[derive(Debug, Args)]
#[command(
    about = "Shows which ONNX Runtime and which devices are used, and why",
    long_about = "Shows which ONNX Runtime library was chosen and why, its version, its execution providers, the devices that \
        answer and the number of threads; where none is found, every place that was looked at.",
    after_help = "Examples:
  mohs doctor
  mohs doctor --device cuda
  mohs doctor --install openvino
  mohs doctor --onnxruntime /opt/onnxruntime/lib/libonnxruntime.so"
)]
pub struct DoctorArguments {
    /// Download a build of ONNX Runtime into mohs's cache first: cpu, cuda (with CUDA's own libraries, 1.3 GB) or openvino
    #[arg(long, value_name = "BUILD")]
    pub install: Option<Build>,
    /// The runtime.
    #[command(flatten)]
    pub runtime: RuntimeArguments,
}

/// Prints what a shell needs to complete the command line.
#[derive(Debug, Args)]
#[command(
    about = "Prints completions for a shell",
    long_about = "Prints a script by which a shell completes mohs's commands, flags and their values.",
    after_help = "Examples:
  mohs completions bash > ~/.local/share/bash-completion/completions/mohs
  mohs completions zsh > ~/.zfunc/_mohs
  mohs completions fish > ~/.config/fish/completions/mohs.fish"
)]
pub struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Writes manual pages.
#[derive(Debug, Args)]
#[command(
    about = "Writes manual pages, one per command",
    long_about = "Writes a manual page for mohs and one for each of its commands into a folder.",
    after_help = "Examples:
  mohs man ~/.local/share/man/man1"
)]
pub struct ManArguments {
    /// The folder to write the pages into
    #[arg(value_name = "DIR")]
    pub out: PathBuf,
}

/// Lists what mohs knows.
#[derive(Debug, Args)]
#[command(
    about = "Lists the attacks, the methods of training, or the operators that can be differentiated",
    long_about = "Lists what this version of mohs knows: the attacks with their parameters and defaults, the methods of training, \
        or the ONNX operators that it can differentiate.",
    after_help = "Examples:
  mohs list attacks
  mohs list methods
  mohs list operators"
)]
pub struct ListArguments {
    /// What to list
    #[arg(value_enum)]
    pub what: Listed,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Listed {
    /// The attacks with their parameters
    Attacks,
    /// The methods of training with their parameters, optimizers and schedules
    Methods,
    /// The operators that can be differentiated
    Operators,
}
