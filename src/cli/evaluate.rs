//! `mohs evaluate`: attacks a model and reports how robust it is.

use super::adversarial::AdversarialWriter;
use super::arguments::{BatchSize, EvaluateArguments, Keep, Verbosity};
use super::dataset;
use super::exit::{Blame, Failure};
use super::missing;
use super::output::{OutputFile, OutputFolder, commit, distinct};
use super::progress::{Position, Progress};
use super::session;
use super::terminal::{print, stdout_style};
use crate::attack::AttackPlan;
use crate::data::{self, Dataset};
use crate::evaluate::{self, Adversarial, Config, Observer, ObserverError, Report};
use crate::model::{GradientGraph, Model, slope};
use crate::outcome::{SampleOutcome, Summary, SummaryRow};
use crate::report::csv::{SamplesWriter, SummaryWriter};
use crate::report::number::percent;
use crate::report::table;
use crate::threat::{Bounds, Epsilon};
use std::path::Path;

/// Runs the command.
pub(super) fn run(arguments: &EvaluateArguments, verbosity: Verbosity) -> Result<(), Failure> {
    arguments.check().or_bad_input()?;
    let attacks = AttackPlan::parse(&arguments.attack.join(",")).or_bad_input()?;
    attacks.check_norm(arguments.norm).or_bad_input()?;
    dataset::require(&arguments.data)?;
    if let Some(path) = &arguments.gradient {
        missing::require(path, &[".onnx"])?;
    }
    let files = Files::open(arguments)?;
    let dataset =
        Dataset::open(&dataset::source(&arguments.data, &arguments.reading)).or_bad_input()?;
    let normalization = dataset::normalization(&arguments.reading)?;
    let model = session::open(&arguments.model, normalization, &arguments.runtime)?
        .with_search_precision(arguments.search_precision.into())
        .map_err(session::blame)?;
    let model = match &arguments.model.wrt {
        Some(tensor) => {
            tracing::info!("`{tensor}` is perturbed: ε counts in its units, and it has no bounds");
            model.perturbing(tensor).map_err(session::blame)?
        }
        None => model,
    };
    let dataset = dataset
        .prepared(&dataset::preparation(
            &arguments.reading,
            bounds(arguments),
            &model,
        ))
        .or_bad_input()?;
    for note in dataset.notes() {
        tracing::info!("{note}");
    }
    let gradient = match &arguments.gradient {
        Some(path) => Some(open_gradient(path, &model, &dataset)?),
        None => None,
    };
    let mut epsilons: Vec<Epsilon> = arguments.epsilon.clone();
    epsilons.sort_by(|a, b| a.value().total_cmp(&b.value()));
    let config = Config {
        attacks,
        norm: arguments.norm,
        epsilons: epsilons.iter().map(Epsilon::value).collect(),
        bounds: bounds(arguments),
        keep: match arguments.keep {
            Keep::Any => evaluate::Keep::Any,
            Keep::Last => evaluate::Keep::Last,
        },
        seed: arguments.seed,
        batch_size: match arguments.batch_size {
            BatchSize::Auto => None,
            BatchSize::Fixed(size) => Some(size.get()),
        },
        keep_softmax: arguments.model.keep_softmax,
    };
    let report = perform(
        &model,
        &dataset,
        &config,
        gradient.as_ref(),
        files,
        &Progress::new(verbosity),
    )?;
    say_where(arguments);
    let summary = Summary {
        rows: report.summary,
        epsilons,
    };
    print(&table::render(&summary, stdout_style())).or_bad_input()
}

/// Says what was written.
fn say_where(arguments: &EvaluateArguments) {
    if let Some(folder) = &arguments.out {
        tracing::info!("summary.csv and samples.csv are in {}", folder.display());
    }
    if let Some(file) = &arguments.save_adversarial {
        tracing::info!("the adversarial examples are in {}", file.display());
    }
}

/// Evaluates, writes the files and says what was noticed.
pub(super) fn perform(
    model: &Model,
    dataset: &Dataset,
    config: &Config,
    gradient: Option<&GradientGraph>,
    files: Files,
    progress: &Progress,
) -> Result<Report, Failure> {
    let mut recorder = Recorder::new(files, model)?;
    let mut observer = Watching {
        recorder: &mut recorder,
        progress,
    };
    let report = evaluate::evaluate(model, dataset, config, gradient, &mut observer);
    progress.finish();
    let report = report.map_err(blame)?;
    recorder.finish(&report.summary)?;
    if let Some(warning) = guessing(&report.summary, model.classes()) {
        tracing::warn!("{warning}");
    }
    for note in &report.notes {
        tracing::info!("{note}");
    }
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    let running = (report.seconds - report.setup_seconds).max(f64::MIN_POSITIVE);
    tracing::debug!(
        "{:.2} s to set up, {running:.2} s to run, of which {:.1} % in ONNX Runtime",
        report.setup_seconds,
        100.0 * report.runtime_seconds / running
    );
    Ok(report)
}

/// A model that is right no more often than chance does not get what it was trained on.
fn guessing(rows: &[SummaryRow], classes: Option<usize>) -> Option<String> {
    let (row, classes) = (rows.first()?, classes?);
    #[expect(clippy::cast_precision_loss, reason = "a number of classes")]
    let chance = 1.0 / classes.max(1) as f64;
    (row.clean_accuracy <= chance).then(|| {
        format!(
            "the model is right on {} % of the samples as they are, no better than guessing among {classes} classes: do the labels \
             belong to it, and the samples have the range and layout that it was trained on (--scale, --mean, --std, --layout)?",
            percent(row.clean_accuracy)
        )
    })
}

/// The files that an evaluation writes, opened before it starts.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Goes first, as it may lie in the folder of the others, which goes with the last of them.
    adversarial: Option<OutputFile>,
    samples: Option<OutputFile>,
    summary: Option<OutputFile>,
}

impl Files {
    fn open(arguments: &EvaluateArguments) -> Result<Self, Failure> {
        let mut files = match &arguments.out {
            Some(path) => Files::in_folder(&OutputFolder::open(path).or_bad_input()?)?,
            None => Files::default(),
        };
        if let Some(path) = &arguments.save_adversarial {
            let file = OutputFile::create(path).or_bad_input()?;
            let read = [&arguments.model.model, &arguments.data.samples];
            for input in read.into_iter().chain(&arguments.data.labels) {
                file.spare(input)?;
            }
            files.adversarial = Some(file);
        }
        let all = [&files.adversarial, &files.samples, &files.summary];
        distinct(all.into_iter().flatten())?;
        Ok(files)
    }

    /// `samples.csv` and `summary.csv` in a folder.
    pub(super) fn in_folder(folder: &OutputFolder) -> Result<Self, Failure> {
        Ok(Files {
            samples: Some(folder.file("samples.csv").or_bad_input()?),
            summary: Some(folder.file("summary.csv").or_bad_input()?),
            adversarial: None,
        })
    }
}

/// Writes what an evaluation finds as it comes.
struct Recorder {
    /// Goes first, as in [`Files`].
    adversarial: Option<AdversarialWriter>,
    samples: Option<SamplesWriter<OutputFile>>,
    summary: Option<OutputFile>,
}

impl Recorder {
    fn new(files: Files, model: &Model) -> Result<Self, Failure> {
        let adversarial = files
            .adversarial
            .map(|file| AdversarialWriter::new(file, model.sample_shape()));
        Ok(Recorder {
            samples: files
                .samples
                .map(SamplesWriter::new)
                .transpose()
                .or_bad_input()?,
            summary: files.summary,
            adversarial: adversarial.transpose().or_bad_input()?,
        })
    }

    /// Completes every file and gives it its name.
    fn finish(self, rows: &[SummaryRow]) -> Result<(), Failure> {
        let mut done = Vec::new();
        if let Some(adversarial) = self.adversarial {
            done.push(adversarial.finish().or_bad_input()?);
        }
        if let Some(samples) = self.samples {
            done.push(samples.finish().or_bad_input()?);
        }
        if let Some(file) = self.summary {
            let mut writer = SummaryWriter::new(file).or_bad_input()?;
            for row in rows {
                writer.write(row).or_bad_input()?;
            }
            done.push(writer.finish().or_bad_input()?);
        }
        commit(done).or_bad_input()
    }
}

/// The recorder with a progress bar.
struct Watching<'a> {
    recorder: &'a mut Recorder,
    progress: &'a Progress,
}

impl Observer for Watching<'_> {
    fn outcome(&mut self, outcome: &SampleOutcome) -> Result<(), ObserverError> {
        if let Some(samples) = &mut self.recorder.samples {
            samples.write(outcome)?;
        }
        Ok(())
    }

    fn adversarial(&mut self, adversarial: &Adversarial<'_>) -> Result<(), ObserverError> {
        if let Some(writer) = &mut self.recorder.adversarial {
            writer.write(adversarial)?;
        }
        Ok(())
    }

    fn progress(&mut self, progress: evaluate::Progress) {
        let evaluate::Progress {
            done,
            total,
            broken,
            gradients,
        } = progress;
        self.progress.update(Position {
            done,
            total,
            broken,
            gradients,
        });
    }
}

/// The samples that a gradient graph made elsewhere is checked with.
const CHECKED: usize = 8;

fn open_gradient(path: &Path, model: &Model, dataset: &Dataset) -> Result<GradientGraph, Failure> {
    let mut batch = data::Batch::default();
    dataset
        .samples()
        .and_then(|mut samples| samples.read_batch(CHECKED, &mut batch))
        .or_bad_input()?;
    let samples = slope::Samples {
        points: &batch.pixels,
        data: &[],
        labels: &batch.labels,
    };
    GradientGraph::open(path, model, &samples).map_err(session::blame)
}

/// The bounds of what is perturbed: those of the data say nothing of an inner tensor.
fn bounds(arguments: &EvaluateArguments) -> Bounds {
    match arguments.model.wrt {
        Some(_) => Bounds::NONE,
        None => arguments.bounds,
    }
}

/// Whose fault an error of the evaluation is.
fn blame(error: evaluate::Error) -> Failure {
    match error {
        evaluate::Error::Model(error) => session::blame(error),
        error => Failure::bad_input(error),
    }
}
