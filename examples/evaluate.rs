//! What `mohs evaluate` does, as a Rust program.
//!
//! `cargo run --example evaluate -- model.onnx test.npz 8/255` attacks the model with FGSM and PGD in ℓ∞; without arguments, the
//! classifier of digits that comes with mohs.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program says what it found"
)]

use mohs::attack::AttackPlan;
use mohs::data::{Dataset, Options, Source};
use mohs::evaluate::{Config, Observer, ObserverError, Progress, evaluate};
use mohs::model::{Model, ModelOptions};
use mohs::outcome::{SampleOutcome, Summary};
use mohs::report::{Style, table};
use mohs::runtime::{LibraryOptions, initialize};
use mohs::threat::Epsilon;
use std::error::Error;
use std::path::Path;

/// Keeps what this program wants to know of each sample.
#[derive(Default)]
struct Broken {
    /// The positions of samples that the model gets right clean and wrong under attack; one for each attack that does it.
    samples: Vec<u64>,
}

impl Observer for Broken {
    fn outcome(&mut self, outcome: &SampleOutcome) -> Result<(), ObserverError> {
        if !outcome.robust && outcome.clean_prediction == outcome.label {
            self.samples.push(outcome.index);
        }
        Ok(())
    }

    fn progress(&mut self, progress: Progress) {
        if progress.done == progress.total {
            eprintln!("{} gradients evaluated", progress.gradients);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let file = next("models/digits-standard.onnx");
    let samples = next("models/digits-test.npz");
    let epsilon: Epsilon = next("8/255").parse()?;

    // Finds ONNX Runtime, or fetches it.
    let library = initialize(&LibraryOptions::default())?;
    eprintln!("ONNX Runtime {}", library.version);

    // Reads the model, and runs it to learn every shape.
    let model = Model::open(Path::new(&file), &ModelOptions::default())?;
    let attacks = AttackPlan::parse("fgsm,pgd:steps=20,restarts=2")?;
    let config = Config::new(attacks, vec![epsilon.value()]);

    // Opens the data set and fits it to the model.
    let options = Options {
        bounds: (config.bounds.low, config.bounds.high),
        input_shape: Some(model.sample_shape().to_vec()),
        ..Options::default()
    };
    let data = Dataset::open(&Source::new(&samples))?.prepared(&options)?;

    let mut broken = Broken::default();
    let report = evaluate(&model, &data, &config, None, &mut broken)?;
    for found in &report.diagnostics {
        eprintln!("{found}");
    }
    let summary = Summary {
        rows: report.summary,
        epsilons: vec![epsilon],
    };
    print!("{}", table::render(&summary, Style::Plain));
    println!("{} times a sample was broken", broken.samples.len());
    Ok(())
}
