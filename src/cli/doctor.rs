//! `mohs doctor`: which ONNX Runtime is used and why.

use super::arguments::DoctorArguments;
use super::exit::{Blame, Failure};
use super::session;
use super::terminal::print;
use crate::runtime::{self, Device, doctor};

/// Runs the command.
pub(super) fn run(arguments: &DoctorArguments) -> Result<(), Failure> {
    let mut runtime = arguments.runtime.clone();
    if let Some(build) = arguments.install {
        let library = runtime::provide(build).map_err(|reason| {
            Failure::runtime(anyhow::anyhow!("{build} was not installed: {reason}"))
        })?;
        tracing::info!(
            "the {build} build of ONNX Runtime is at {}",
            library.display()
        );
        if runtime.device == Device::Auto.to_string() {
            runtime.device = build.device().to_string();
        }
    }
    let examination = doctor::examine(&session::library(&runtime));
    print(&format!("{examination}\n")).or_bad_input()?;
    session::start(&runtime).map(drop)
}
