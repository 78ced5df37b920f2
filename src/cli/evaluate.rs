//! `mohs evaluate`: attacks a model and reports how robust it is.

use super::arguments::{EvaluateArguments, ModelArguments, Verbosity};
use super::dataset;
use super::exit::{Blame, Failure};
use super::github;
use super::minimal::Search;
use super::missing;
use super::output::{OutputFile, commit};
use super::progress::{Position, Progress};
use super::provenance;
use super::recorder::{Files, Recorder, written};
use super::session;
use super::terminal::{print, stdout_style};
use super::threats::{Threats, bounds};
use crate::data::{self, Dataset};
use crate::evaluate::{self, Adversarial, Observer, ObserverError, Report};
use crate::model::{GradientGraph, Model, slope};
use crate::outcome::{Comparison, Norm, SampleOutcome, Sheet, Summary, Verdict};
use crate::report::{Document, table, verdict};
use crate::threat::Epsilon;
use anyhow::anyhow;
use std::collections::BTreeMap;
use std::path::Path;

/// Runs the command.
pub(super) fn run(arguments: &EvaluateArguments, verbosity: Verbosity) -> Result<(), Failure> {
    let mut prepared = Prepared::new(arguments)?;
    let files = std::mem::take(&mut prepared.files);
    let search = Search::open(arguments, files.folder())?;
    let evaluated = if prepared.threats.has_radii() {
        let progress = Progress::new(verbosity);
        Some(perform(&prepared.work(), files, &progress, None)?)
    } else {
        None
    };
    let searched = search.map(|search| search.run(&prepared, verbosity));
    let (found, file) = searched.transpose()?.unwrap_or_default();
    let files: Vec<OutputFile> = file.into_iter().collect();
    let document = match evaluated {
        Some(evaluated) => {
            let remarks = Remarks {
                epsilons: prepared.threats.epsilons(),
                parameters: provenance::asked(arguments),
                files,
                ..Remarks::default()
            };
            Some(evaluated.write(&prepared.work(), remarks)?)
        }
        None => {
            commit(files).or_bad_input()?;
            None
        }
    };
    say_where(arguments);
    let mut text = document.as_ref().map(results).unwrap_or_default();
    if !text.is_empty() && !found.is_empty() {
        text.push('\n');
    }
    print(&(text + &found)).or_bad_input()?;
    match &document {
        Some(document) => github::tell(document).or_bad_input(),
        None => Ok(()),
    }
}

/// The table and what was noticed, for the terminal.
pub(super) fn results(document: &Document) -> String {
    let mut text = table::render(&document.summary, stdout_style());
    if !document.diagnostics.is_empty() {
        text.push('\n');
        text.push_str(&verdict::render_diagnostics(
            &document.diagnostics,
            stdout_style(),
        ));
    }
    text
}

/// Says what was written.
pub(super) fn say_where(arguments: &EvaluateArguments) {
    if let Some(folder) = &arguments.out {
        let names = written(arguments);
        let are = if names.len() == 1 { "is" } else { "are" };
        tracing::info!("{} {are} in {}", names.join(", "), folder.display());
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
    pub(super) threats: Threats,
    pub(super) files: Files,
}

impl Prepared {
    /// Opens everything that the arguments name.
    pub(super) fn new(arguments: &EvaluateArguments) -> Result<Self, Failure> {
        let threats = Threats::new(arguments)?;
        dataset::require(&arguments.data)?;
        if let Some(path) = &arguments.gradient {
            missing::require(path, &[".onnx"])?;
        }
        for attack in threats.common.attacks.attacks() {
            if let Some(transfer) = attack.transfer() {
                missing::require(&transfer.source, &[".onnx"])?;
            }
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
            threats,
            files,
        })
    }

    /// What is to be run.
    pub(super) fn work(&self) -> Work<'_> {
        Work {
            model: &self.model,
            dataset: &self.dataset,
            threats: &self.threats,
            gradient: self.gradient.as_ref(),
        }
    }
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
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) model: &'a Model,
    pub(super) dataset: &'a Dataset,
    pub(super) threats: &'a Threats,
    pub(super) gradient: Option<&'a GradientGraph>,
}

/// An evaluation that is done, its files not complete yet.
pub(super) struct Evaluated {
    pub(super) report: Report,
    recorder: Recorder,
}

/// What is said of an evaluation beside what it measured.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    /// The radii as they were written.
    pub(super) epsilons: Vec<Epsilon>,
    /// What the gate says.
    pub(super) verdict: Option<Verdict>,
    /// The baseline against the model.
    pub(super) comparison: Option<Comparison>,
    /// Effective parameters that only the command line knows.
    pub(super) parameters: BTreeMap<String, String>,
    /// Further files that get their names together with those of the report.
    pub(super) files: Vec<OutputFile>,
}

impl Evaluated {
    /// Completes the files and gives them their names.
    pub(super) fn write(self, work: &Work<'_>, remarks: Remarks) -> Result<Document, Failure> {
        let Evaluated { report, recorder } = self;
        let document = Document {
            summary: Summary {
                rows: report.summary,
                epsilons: remarks.epsilons,
            },
            diagnostics: report.diagnostics,
            notes: report.notes,
            verdict: remarks.verdict,
            comparison: remarks.comparison,
            provenance: provenance::of(
                work,
                remarks.parameters,
                report.sources,
                recorder.is_rendered(),
            )?,
            examples: Vec::new(),
            seconds: report.seconds,
        };
        recorder.finish(document, work, remarks.files)
    }
}

/// Evaluates in each norm, noting outcomes in `sheet` where there is one, and says what was decided on the way.
pub(super) fn perform(
    work: &Work<'_>,
    files: Files,
    progress: &Progress,
    sheet: Option<&mut Sheet>,
) -> Result<Evaluated, Failure> {
    let norms: Vec<Norm> = work.threats.each.iter().map(|config| config.norm).collect();
    let mut recorder = Recorder::new(files, work.model, &norms)?;
    let mut observer = Watching {
        recorder: &mut recorder,
        progress,
        sheet,
    };
    let mut whole: Option<Report> = None;
    for config in &work.threats.each {
        if norms.len() > 1 {
            progress.restart(config.norm.name());
        }
        let (model, dataset) = (work.model, work.dataset);
        let report = evaluate::evaluate(model, dataset, config, work.gradient, &mut observer);
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                progress.finish();
                return Err(cut_off(error, recorder));
            }
        };
        whole = Some(match whole {
            None => report,
            Some(whole) => joined(whole, report),
        });
    }
    progress.finish();
    let mut report = whole.ok_or_else(|| Failure::bad_input(anyhow!("give --norm a norm")))?;
    report.notes.extend_from_slice(&work.threats.notes);
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

/// The failure of an evaluation; where the device is at fault, what was finished is kept.
fn cut_off(error: evaluate::Error, recorder: Recorder) -> Failure {
    let at_fault = matches!(&error, evaluate::Error::Model(error) if error.is_runtime());
    if at_fault {
        match recorder.keep() {
            Ok(Some((count, path))) => tracing::warn!(
                "{count} outcomes that were finished are in {}: attack by attack, in the order of the data; go on with --offset where they end, on \
                 the same device or with --device cpu",
                path.display()
            ),
            Ok(None) => {}
            Err(failure) => tracing::warn!("what was finished could not be kept: {failure}"),
        }
    }
    blame(error)
}

/// One report after another, of the same model in another norm: what was found of the model itself is said once.
fn joined(first: Report, second: Report) -> Report {
    let Report {
        mut summary,
        mut diagnostics,
        mut notes,
        mut sources,
        seconds,
        setup_seconds,
        runtime_seconds,
    } = first;
    summary.extend(second.summary);
    for found in second.diagnostics {
        if !diagnostics.contains(&found) {
            diagnostics.push(found);
        }
    }
    for note in second.notes {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    for source in second.sources {
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    Report {
        summary,
        diagnostics,
        notes,
        sources,
        seconds: seconds + second.seconds,
        setup_seconds: setup_seconds + second.setup_seconds,
        runtime_seconds: runtime_seconds + second.runtime_seconds,
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
        self.recorder.outcome(outcome)?;
        if let Some(sheet) = &mut self.sheet {
            sheet.add(outcome);
        }
        Ok(())
    }

    fn adversarial(&mut self, adversarial: &Adversarial<'_>) -> Result<(), ObserverError> {
        self.recorder.adversarial(adversarial)?;
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

/// Whether ONNX Runtime or the device failed with the source of a transfer attack.
fn fails_at_runtime(error: &evaluate::Error) -> bool {
    match error {
        evaluate::Error::Model(error) => error.is_runtime(),
        evaluate::Error::Source { source, .. } => fails_at_runtime(source),
        _ => false,
    }
}

/// Whose fault an error of the evaluation is.
pub(super) fn blame(error: evaluate::Error) -> Failure {
    match error {
        evaluate::Error::Model(error) => session::blame(error),
        error if fails_at_runtime(&error) => Failure::runtime(error),
        error => Failure::bad_input(error),
    }
}
