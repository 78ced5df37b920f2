//! `mohs evaluate`: attacks a model and reports how robust it is.

use super::adversarial::AdversarialWriter;
use super::arguments::{BatchSize, EvaluateArguments, Keep, ModelArguments, Verbosity};
use super::dataset;
use super::exit::{Blame, Failure};
use super::minimal::Search;
use super::missing;
use super::output::{OutputFile, OutputFolder, commit, distinct};
use super::progress::{Position, Progress};
use super::session;
use super::terminal::{print, stdout_style};
use crate::attack::AttackPlan;
use crate::data::{self, Dataset};
use crate::evaluate::{self, Adversarial, Config, Observer, ObserverError, Report};
use crate::model::{GradientGraph, Model, slope};
use crate::outcome::{SampleOutcome, Sheet, Summary, SummaryRow};
use crate::report::csv::{SamplesWriter, SummaryWriter};
use crate::report::{table, verdict};
use crate::threat::{Bounds, Epsilon};
use std::path::Path;

/// Runs the command.
pub(super) fn run(arguments: &EvaluateArguments, verbosity: Verbosity) -> Result<(), Failure> {
    let mut prepared = Prepared::new(arguments)?;
    let files = std::mem::take(&mut prepared.files);
    let search = Search::open(arguments, files.folder())?;
    let evaluated = if prepared.epsilons.is_empty() {
        None
    } else {
        let progress = Progress::new(verbosity);
        Some(perform(&prepared.work(), files, &progress, None)?)
    };
    let searched = search.map(|search| search.run(&prepared, verbosity));
    let (found, file) = searched.transpose()?.unwrap_or_default();
    let others: Vec<OutputFile> = file.into_iter().collect();
    let mut text = String::new();
    match evaluated {
        Some(evaluated) => {
            let report = evaluated.write_with(others)?;
            text.push_str(&results(report, prepared.epsilons));
        }
        None => commit(others).or_bad_input()?,
    }
    say_where(arguments);
    if !text.is_empty() && !found.is_empty() {
        text.push('\n');
    }
    print(&(text + &found)).or_bad_input()
}

/// The table and what was noticed, for the terminal.
pub(super) fn results(report: Report, epsilons: Vec<Epsilon>) -> String {
    let summary = Summary {
        rows: report.summary,
        epsilons,
    };
    let mut text = table::render(&summary, stdout_style());
    if !report.diagnostics.is_empty() {
        text.push('\n');
        text.push_str(&verdict::render_diagnostics(
            &report.diagnostics,
            stdout_style(),
        ));
    }
    text
}

/// Says what was written.
pub(super) fn say_where(arguments: &EvaluateArguments) {
    if let Some(folder) = &arguments.out {
        let mut names = Vec::new();
        if !arguments.epsilon.is_empty() {
            names.extend(["summary.csv", "samples.csv"]);
        }
        if arguments.minimal_epsilon.is_some() {
            names.push("minimal_epsilon.csv");
        }
        let are = if names.len() == 1 { "is" } else { "are" };
        tracing::info!("{} {are} in {}", names.join(" and "), folder.display());
    }
    if let Some(file) = &arguments.save_adversarial {
        tracing::info!("the adversarial examples are in {}", file.display());
    }
}

/// An evaluation that is ready to run.
pub(super) struct Prepared {
    pub(super) model: Model,
    pub(super) dataset: Dataset,
    pub(super) gradient: Option<GradientGraph>,
    pub(super) config: Config,
    pub(super) epsilons: Vec<Epsilon>,
    pub(super) files: Files,
}

impl Prepared {
    /// Opens everything that the arguments name.
    pub(super) fn new(arguments: &EvaluateArguments) -> Result<Self, Failure> {
        let config = config(arguments)?;
        dataset::require(&arguments.data)?;
        if let Some(path) = &arguments.gradient {
            missing::require(path, &[".onnx"])?;
        }
        let files = Files::open(arguments)?;
        let unfitted =
            Dataset::open(&dataset::source(&arguments.data, &arguments.reading)).or_bad_input()?;
        let model = open_model(&arguments.model, arguments)?;
        let dataset = fitted(unfitted, arguments, &model)?;
        let gradient = match &arguments.gradient {
            Some(path) => Some(open_gradient(path, &model, &dataset)?),
            None => None,
        };
        Ok(Prepared {
            model,
            dataset,
            gradient,
            config,
            epsilons: radii(arguments),
            files,
        })
    }

    /// What is to be run.
    pub(super) fn work(&self) -> Work<'_> {
        Work {
            model: &self.model,
            dataset: &self.dataset,
            config: &self.config,
            gradient: self.gradient.as_ref(),
        }
    }
}

/// The radii as they were written, ascending.
pub(super) fn radii(arguments: &EvaluateArguments) -> Vec<Epsilon> {
    let mut epsilons = arguments.epsilon.clone();
    epsilons.sort_by(|a, b| a.value().total_cmp(&b.value()));
    epsilons
}

/// What is asked of the evaluation; opens nothing.
pub(super) fn config(arguments: &EvaluateArguments) -> Result<Config, Failure> {
    arguments.check().or_bad_input()?;
    let attacks = AttackPlan::parse(&arguments.attack.join(",")).or_bad_input()?;
    attacks.check_norm(arguments.norm).or_bad_input()?;
    Ok(Config {
        attacks,
        norm: arguments.norm,
        epsilons: radii(arguments).iter().map(Epsilon::value).collect(),
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
    })
}

/// The model, to be attacked where the arguments say.
pub(super) fn open_model(
    model: &ModelArguments,
    arguments: &EvaluateArguments,
) -> Result<Model, Failure> {
    let normalization = dataset::normalization(&arguments.reading)?;
    let opened = session::open(model, normalization, &arguments.runtime)?
        .with_search_precision(arguments.search_precision.into())
        .map_err(session::blame)?;
    match &model.wrt {
        Some(tensor) => {
            tracing::info!("`{tensor}` is perturbed: ε counts in its units, and it has no bounds");
            opened.perturbing(tensor).map_err(session::blame)
        }
        None => Ok(opened),
    }
}

/// The data set that the arguments name, fitted to a model.
pub(super) fn fitted(
    dataset: Dataset,
    arguments: &EvaluateArguments,
    model: &Model,
) -> Result<Dataset, Failure> {
    let dataset = dataset
        .prepared(&dataset::preparation(
            &arguments.reading,
            bounds(arguments),
            model,
        ))
        .or_bad_input()?;
    for note in dataset.notes() {
        tracing::info!("{note}");
    }
    Ok(dataset)
}

/// What an evaluation runs on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) model: &'a Model,
    pub(super) dataset: &'a Dataset,
    pub(super) config: &'a Config,
    pub(super) gradient: Option<&'a GradientGraph>,
}

/// An evaluation that is done, its files filled but not there yet.
pub(super) struct Evaluated {
    pub(super) report: Report,
    recorder: Recorder,
}

impl Evaluated {
    /// Completes the files and gives them their names.
    pub(super) fn write(self) -> Result<Report, Failure> {
        self.write_with(Vec::new())
    }

    /// Completes the files and gives them their names, together with others.
    pub(super) fn write_with(self, others: Vec<OutputFile>) -> Result<Report, Failure> {
        self.recorder.finish(&self.report.summary, others)?;
        Ok(self.report)
    }
}

/// Evaluates, noting outcomes in `sheet` where there is one, and says what was decided on the way.
pub(super) fn perform(
    work: &Work<'_>,
    files: Files,
    progress: &Progress,
    sheet: Option<&mut Sheet>,
) -> Result<Evaluated, Failure> {
    let mut recorder = Recorder::new(files, work.model)?;
    let mut observer = Watching {
        recorder: &mut recorder,
        progress,
        sheet,
    };
    let Work {
        model,
        dataset,
        config,
        gradient,
    } = *work;
    let report = evaluate::evaluate(model, dataset, config, gradient, &mut observer);
    progress.finish();
    let report = report.map_err(blame)?;
    for note in &report.notes {
        tracing::info!("{note}");
    }
    let running = (report.seconds - report.setup_seconds).max(f64::MIN_POSITIVE);
    tracing::debug!(
        "{:.2} s to set up, {running:.2} s to run, of which {:.1} % in ONNX Runtime",
        report.setup_seconds,
        100.0 * report.runtime_seconds / running
    );
    Ok(Evaluated { report, recorder })
}

/// The files that an evaluation writes, opened before it starts.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The folder of the results, where there is one: it stays reserved for this run as long as any of its files is open.
    folder: Option<OutputFolder>,
    /// Goes first, as it may lie in the folder of the others, which goes with the last of them.
    adversarial: Option<OutputFile>,
    samples: Option<OutputFile>,
    summary: Option<OutputFile>,
}

impl Files {
    fn open(arguments: &EvaluateArguments) -> Result<Self, Failure> {
        let mut files = match &arguments.out {
            Some(path) => {
                let folder = OutputFolder::open(path).or_bad_input()?;
                if arguments.epsilon.is_empty() {
                    Files {
                        folder: Some(folder),
                        ..Files::default()
                    }
                } else {
                    Files::in_folder(&folder)?
                }
            }
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
            folder: Some(folder.clone()),
            samples: Some(folder.file("samples.csv").or_bad_input()?),
            summary: Some(folder.file("summary.csv").or_bad_input()?),
            adversarial: None,
        })
    }

    /// The folder of the results, for further files.
    pub(super) fn folder(&self) -> Option<&OutputFolder> {
        self.folder.as_ref()
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

    /// Completes every file and gives it its name, `others` together with them.
    fn finish(self, rows: &[SummaryRow], others: Vec<OutputFile>) -> Result<(), Failure> {
        let mut done = others;
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
    sheet: Option<&'a mut Sheet>,
}

impl Observer for Watching<'_> {
    fn outcome(&mut self, outcome: &SampleOutcome) -> Result<(), ObserverError> {
        if let Some(samples) = &mut self.recorder.samples {
            samples.write(outcome)?;
        }
        if let Some(sheet) = &mut self.sheet {
            sheet.add(outcome);
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
        Showing(self.progress).progress(progress);
    }
}

/// Progress alone.
pub(super) struct Showing<'a>(pub(super) &'a Progress);

impl Observer for Showing<'_> {
    fn outcome(&mut self, _: &SampleOutcome) -> Result<(), ObserverError> {
        Ok(())
    }

    fn progress(&mut self, progress: evaluate::Progress) {
        let evaluate::Progress {
            done,
            total,
            broken,
            gradients,
        } = progress;
        self.0.update(Position {
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
pub(super) fn blame(error: evaluate::Error) -> Failure {
    match error {
        evaluate::Error::Model(error) => session::blame(error),
        error => Failure::bad_input(error),
    }
}
