//! `mohs doctor`: which ONNX Runtime is used and why.

use super::arguments::DoctorArguments;
use super::exit::{Blame, Failure};
use super::session;
use super::terminal::print;
use crate::runtime::doctor;

/// Runs the command.
pub(super) fn run(arguments: &DoctorArguments) -> Result<(), Failure> {
    let examination = doctor::examine(&session::library(&arguments.runtime));
    print(&format!("{examination}\n")).or_bad_input()?;
    session::start(&arguments.runtime).map(drop)
}
