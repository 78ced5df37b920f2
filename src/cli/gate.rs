//! `mohs gate`: an evaluation that is held against thresholds.

use super::arguments::{EvaluateArguments, GateArguments, ModelArguments, Verbosity};
use super::compare::ComparisonFiles;
use super::config::{ConfigError, FILE, template};
use super::dataset;
use super::evaluate::{self, Prepared, Remarks, Work, perform, results, say_where};
use super::exit::{Blame, Failure};
use super::github;
use super::minimal::Search;
use super::output::{OutputFile, commit};
use super::progress::Progress;
use super::provenance;
use super::recorder::Files;
use super::terminal::{print, stdout_style};
use super::threats::Threats;
use super::{missing, reports};
use crate::data::Dataset;
use crate::gate::Measured;
use crate::outcome::{Comparison, Sheet, Summary, Verdict};
use crate::report::{comparison, verdict};
use anyhow::anyhow;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

/// What the model under test is called beside its baseline.
const NEW: &str = "this model";

/// Runs the command.
pub(super) fn run(arguments: &GateArguments, verbosity: Verbosity) -> Result<(), Failure> {
    let thresholds = arguments.gate.thresholds();
    let baseline = arguments.gate.baseline.as_deref();
    // Everything that can be refused is, before anything runs.
    let threats = Threats::new(&arguments.evaluate)?;
    if !threats.has_radii() {
        return Err(Failure::bad_input(anyhow!(
            "a gate needs radii to attack at: give --epsilon"
        )));
    }
    thresholds
        .check(&threats.radii, baseline.is_some())
        .or_bad_input()?;
    let earlier = baseline.map(read_baseline).transpose()?.flatten();
    let mut prepared = Prepared::new(&arguments.evaluate)?;
    let comparison_files = match (baseline, prepared.files.folder()) {
        (Some(_), Some(folder)) => Some(ComparisonFiles::in_folder(folder)?),
        _ => None,
    };
    let before = match (baseline, earlier) {
        (None, _) => None,
        (Some(path), Some(sheet)) => {
            let first = arguments.evaluate.reading.offset;
            let samples = first..first + prepared.dataset.len();
            let name = path.display().to_string();
            sheet
                .require(&name, &prepared.threats.cells(), samples)
                .or_bad_input()?;
            Some((name, sheet))
        }
        (Some(path), None) => {
            let sheet = evaluate_baseline(path, &arguments.evaluate, &prepared.threats, verbosity)?;
            Some((path.display().to_string(), sheet))
        }
    };
    let mut now = Sheet::new();
    let noted = before.is_some().then_some(&mut now);
    let files = std::mem::take(&mut prepared.files);
    let search = Search::open(&arguments.evaluate, files.folder())?;
    let progress = Progress::new(verbosity);
    let mut evaluated = perform(&prepared.work(), files, &progress, noted)?;
    let compared = before
        .map(|(name, sheet)| Comparison::new((&name, sheet), (NEW, now)))
        .transpose()
        .or_bad_input()?;
    let verdict = thresholds.judge(Measured {
        rows: &evaluated.report.summary,
        seconds: evaluated.report.seconds,
        comparison: compared.as_ref(),
    });
    let unclear = thresholds.diagnose(&verdict);
    evaluated.report.diagnostics.extend(unclear);
    let mut further = match (comparison_files, &compared) {
        (Some(files), Some(compared)) => files.write(compared)?,
        _ => Vec::new(),
    };
    let searched = search.map(|search| search.run(&prepared, verbosity));
    let (found, file) = searched.transpose()?.unwrap_or_default();
    further.extend(file);
    let remarks = Remarks {
        epsilons: prepared.threats.epsilons(),
        verdict: Some(verdict),
        comparison: compared,
        parameters: provenance::asked(&arguments.evaluate),
        files: further,
    };
    let document = evaluated.write(&prepared.work(), remarks)?;
    say_where(&arguments.evaluate);
    let mut text = results(&document);
    if !found.is_empty() {
        text.push('\n');
        text.push_str(&found);
    }
    if let Some(compared) = &document.comparison {
        text.push('\n');
        text.push_str(&comparison::render(compared, stdout_style()));
        text.push_str(&comparison::render_broken(compared, &document.summary));
    }
    let Some(verdict) = &document.verdict else {
        return Ok(());
    };
    text.push('\n');
    text.push_str(&verdict::render(verdict, &document.summary, stdout_style()));
    print(&text).or_bad_input()?;
    github::tell(&document).or_bad_input()?;
    conclude(verdict, &document.summary)
}

/// The outcome as an exit code.
fn conclude(verdict: &Verdict, summary: &Summary) -> Result<(), Failure> {
    if verdict.passed() {
        return Ok(());
    }
    let missed: Vec<String> = verdict
        .failures()
        .map(|check| verdict::subject(check, summary))
        .collect();
    Err(Failure::gate(anyhow!(
        "the gate failed: {}",
        missed.join("; ")
    )))
}

/// A baseline that is a report; none where it is a model, which only has to be there.
fn read_baseline(path: &Path) -> Result<Option<Sheet>, Failure> {
    if reports::is_model(path) {
        missing::require(path, &[".onnx"])?;
        Ok(None)
    } else {
        reports::sheet(path).map(Some)
    }
}

/// The baseline model under the same attacks on the same samples, its own gradient derived.
fn evaluate_baseline(
    path: &Path,
    arguments: &EvaluateArguments,
    threats: &Threats,
    verbosity: Verbosity,
) -> Result<Sheet, Failure> {
    let model = ModelArguments {
        model: path.into(),
        ..arguments.model.clone()
    };
    let model = evaluate::open_model(&model, arguments)?;
    let dataset =
        Dataset::open(&dataset::source(&arguments.data, &arguments.reading)).or_bad_input()?;
    let dataset = evaluate::fitted(dataset, arguments, &model)?;
    let work = Work {
        model: &model,
        dataset: &dataset,
        threats,
        gradient: None,
    };
    let mut sheet = Sheet::new();
    let progress = Progress::new(verbosity).labelled("baseline");
    let evaluated = perform(&work, Files::default(), &progress, Some(&mut sheet))?;
    for found in &evaluated.report.diagnostics {
        tracing::warn!("the baseline: {found}");
    }
    Ok(sheet)
}

/// Whether the command line asks for a fresh file of settings, which needs no other argument.
pub(super) fn is_init(words: &[OsString]) -> bool {
    words.iter().any(|word| word == "gate") && words.iter().any(|word| word == "--init") && {
        let others = words.iter().skip(1).filter(|word| {
            !["gate", "--init", "-q", "--quiet", "-v", "--verbose"]
                .iter()
                .any(|known| *word == known)
        });
        others.count() == 0
    }
}

/// Writes a fresh file of settings into the current folder.
pub(super) fn init() -> Result<(), Failure> {
    let path = Path::new(FILE);
    if path.exists() {
        return Err(Failure::bad_input(ConfigError::Exists {
            path: path.into(),
        }));
    }
    let mut file = OutputFile::create(path)?;
    file.write_all(template().as_bytes()).or_bad_input()?;
    commit(vec![file])?;
    print("mohs.toml is there: set the model, the data and the thresholds, then run `mohs gate`\n")
        .or_bad_input()
}
