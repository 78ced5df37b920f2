//! The command line: arguments in, files and text out, an exit code at the end.
//!
//! The only module that prints, reads arguments and knows exit codes. Results go to files and stdout, messages and progress to
//! stderr. Start at [`arguments`]; each command has a file of its own.

mod adversarial;
mod agreement;
pub mod arguments;
mod compare;
mod completions;
pub mod config;
mod dataset;
mod demo;
mod doctor;
mod evaluate;
pub mod exit;
mod gate;
mod github;
mod gradient;
mod inspect;
pub mod list;
mod live;
mod minimal;
mod missing;
pub mod output;
pub mod progress;
mod provenance;
mod recorder;
mod reports;
mod session;
pub mod terminal;
mod threats;
mod train;

use arguments::{Arguments, Command};
use clap::Parser;
use exit::{Blame, Exit, Failure, conclude};

/// Reads the process's arguments, does what they say and gives the exit code.
#[must_use]
pub fn main() -> Exit {
    let words = match config::expand(std::env::args_os().collect()) {
        Ok(words) => words,
        Err(error) => return conclude(Err(Failure::bad_input(error))),
    };
    if gate::is_init(&words) {
        return conclude(gate::init());
    }
    match Arguments::try_parse_from(words) {
        Ok(arguments) => conclude(run(&arguments)),
        Err(error) => {
            // Help and version are errors to clap, and no failure; they go to stdout.
            if error.use_stderr() {
                exit::refuse_usage(&error)
            } else {
                let _ = error.print();
                Exit::Success
            }
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let verbosity = arguments.verbosity.verbosity();
    session::listen(verbosity);
    // A training finishes its step first.
    if !matches!(arguments.command, Command::Train(_)) {
        live::end_on_interrupt();
    }
    match &arguments.command {
        Command::Evaluate(arguments) => evaluate::run(arguments, verbosity),
        Command::Gate(arguments) => gate::run(arguments, verbosity),
        Command::Compare(arguments) => compare::run(arguments),
        Command::Gradient(arguments) => gradient::run(arguments, verbosity),
        Command::Train(arguments) => train::run(arguments, verbosity),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Demo(arguments) => demo::run(arguments, verbosity),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => completions::man(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::List(arguments) => terminal::print(&list::of(arguments.what)).or_bad_input(),
    }
}
