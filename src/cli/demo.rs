//! `mohs demo`: two small models, one of them trained adversarially, side by side.

use super::arguments::{DemoArguments, ModelArguments, Verbosity};
use super::evaluate::{Remarks, Work, perform};
use super::exit::{Blame, Failure};
use super::output::OutputFolder;
use super::progress::Progress;
use super::recorder::{Files, default_formats};
use super::session;
use super::terminal::{print, stdout_style};
use super::threats::Threats;
use crate::attack::AttackPlan;
use crate::data::{self, Dataset, Source};
use crate::evaluate::Config;
use crate::model::Model;
use crate::outcome::{Summary, WORST_CASE};
use crate::report::chart;
use crate::report::number::percent;
use crate::threat::{Epsilon, Norm};
use anyhow::Context;
use std::path::{Path, PathBuf};

/// The models, carried in the program so that the demo runs anywhere.
const MODELS: [(&str, &[u8]); 2] = [
    (
        "standard",
        include_bytes!("../../models/digits-standard.onnx"),
    ),
    (
        "adversarial",
        include_bytes!("../../models/digits-adversarial.onnx"),
    ),
];

/// The test set.
const DIGITS: &[u8] = include_bytes!("../../models/digits-test.npz");

/// What is tried: attacks and radii by norm.
const TRIALS: [(Norm, &str, &[&str]); 2] = [
    (
        Norm::Linf,
        "fgsm,pgd",
        &["8/255", "16/255", "0.1", "0.2", "0.3"],
    ),
    (Norm::L2, "fgm,pgd", &["0.25", "0.5", "1", "1.5"]),
];

/// Runs the command.
pub(super) fn run(arguments: &DemoArguments, verbosity: Verbosity) -> Result<(), Failure> {
    let folder = tempfile::tempdir()
        .context("cannot make a temporary folder; set TMPDIR to one with room")
        .or_runtime()?;
    let digits = write(folder.path(), "digits-test.npz", DIGITS)?;
    let mut summaries = Vec::new();
    for (name, bytes) in MODELS {
        let file = write(folder.path(), &format!("digits-{name}.onnx"), bytes)?;
        let model = ModelArguments {
            model: file,
            input: None,
            output: None,
            wrt: None,
            input_shape: None,
            keep_softmax: false,
            straight_through: false,
        };
        let model = session::open(&model, None, &arguments.runtime)?;
        let mut summary = Summary::default();
        for (norm, attacks, radii) in TRIALS {
            let out =
                OutputFolder::open_with_parents(&arguments.out.join(format!("{name}-{norm}")))
                    .or_bad_input()?;
            let part = attack(
                &model,
                &digits,
                norm,
                attacks,
                radii,
                Files::in_folder(&out, &default_formats())?,
                verbosity,
            )?;
            summary.rows.extend(part.rows);
            summary.epsilons.extend(part.epsilons);
        }
        summaries.push((name, summary));
    }
    for (_, summary) in &mut summaries {
        // Of two attacks the worst case is all but the stronger one: it is in the files, and would only lengthen the chart.
        summary.rows.retain(|row| row.attack != WORST_CASE);
    }
    let series: Vec<_> = summaries
        .iter()
        .map(|(name, summary)| chart::Series { name, summary })
        .collect();
    print(&format!(
        "{}\n{}\n",
        chart::render(&series, stdout_style()),
        moral(&summaries)
    ))
    .or_bad_input()?;
    tracing::info!("the reports are in {}", arguments.out.display());
    Ok(())
}

/// What the chart says, in words.
fn moral(summaries: &[(&str, Summary)]) -> String {
    const EPSILON: f64 = 0.1;
    let shares: Vec<String> = summaries
        .iter()
        .filter_map(|(name, summary)| {
            let row = summary.rows.iter().find(|row| {
                (row.attack.as_str(), row.norm) == ("pgd", Norm::Linf)
                    && (row.epsilon - EPSILON).abs() < 1e-9
            })?;
            Some(format!("{name} {} %", percent(row.robust_accuracy)))
        })
        .collect();
    format!(
        "Under pgd, with every pixel changed by at most a tenth of its range, the models\nstill recognise: {}.",
        shares.join(", ")
    )
}

/// One model in one norm.
fn attack(
    model: &Model,
    digits: &Path,
    norm: Norm,
    attacks: &str,
    radii: &[&str],
    files: Files,
    verbosity: Verbosity,
) -> Result<Summary, Failure> {
    let epsilons: Vec<Epsilon> = radii
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()
        .or_bad_input()?;
    let attacks = AttackPlan::parse(attacks).or_bad_input()?;
    let config = Config {
        norm,
        ..Config::new(attacks, epsilons.iter().map(Epsilon::value).collect())
    };
    let preparation = data::Options {
        input_shape: Some(model.sample_shape().to_vec()),
        ..data::Options::default()
    };
    let dataset = Dataset::open(&Source::new(digits))
        .and_then(|dataset| dataset.prepared(&preparation))
        .or_bad_input()?;
    let name = model.path().file_stem().unwrap_or_default();
    let progress = Progress::new(verbosity).labelled(&format!("{} {norm}", name.to_string_lossy()));
    let threats = Threats::single(config, epsilons.clone());
    let work = Work {
        model,
        dataset: &dataset,
        threats: &threats,
        gradient: None,
    };
    let remarks = Remarks {
        epsilons,
        ..Remarks::default()
    };
    let document = perform(&work, files, &progress, None)?.write(&work, remarks)?;
    for found in &document.diagnostics {
        tracing::warn!("{found}");
    }
    Ok(document.summary)
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    std::fs::write(&path, bytes)
        .with_context(|| {
            format!(
                "cannot write {}; set TMPDIR to a folder with room",
                path.display()
            )
        })
        .or_runtime()?;
    Ok(path)
}
