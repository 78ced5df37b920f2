//! `mohs gradient`: derives the gradient graph of a model and writes it.

use super::arguments::GradientArguments;
use super::exit::{Blame, Failure};
use super::output::OutputFile;
use super::session;
use crate::model::GradientOptions;
use crate::onnx;

/// Runs the command.
pub(super) fn run(arguments: &GradientArguments) -> Result<(), Failure> {
    // The file is made before the model is read, so that a path that cannot be written fails at once.
    OutputFile::create(&arguments.out)
        .and_then(|file| file.spare(&arguments.model.model))
        .or_bad_input()?;
    let model = session::open(&arguments.model, None, &arguments.runtime)?;
    let options = GradientOptions {
        scale_seed: false,
        targeted: false,
        loss: arguments.loss,
        wrt: arguments.model.wrt.iter().cloned().collect(),
        keep_softmax: arguments.model.keep_softmax,
    };
    let gradient = model.gradient(&options).map_err(session::blame)?;
    if gradient.softmax_removed {
        tracing::info!(
            "the model ends in Softmax: the loss is taken on the logits below it (--keep-softmax keeps it)"
        );
    }
    onnx::write(&gradient.graph.to_model(), &arguments.out).or_bad_input()?;
    tracing::info!(
        "{}: {} nodes, {} of them the model's",
        arguments.out.display(),
        gradient.graph.nodes.len(),
        model.graph().nodes.len()
    );
    Ok(())
}
