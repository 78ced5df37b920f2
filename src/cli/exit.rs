//! Exit codes, and the one place where errors are printed.

use super::arguments::CheckError;
use super::output::OutputError;
use super::terminal::{PrintError, is_broken_pipe};
use std::fmt;
use std::process::ExitCode;

/// How a command ended. The numbers are a contract with scripts and CI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Fine.
    Success = 0,
    /// The command ran, and the model fell short of a threshold.
    GateFailed = 1,
    /// Bad usage or bad input: the user can mend it. Clap exits with the same number.
    BadInput = 2,
    /// ONNX Runtime or the device failed.
    Runtime = 3,
    /// Ctrl-C: as a shell tells of a program that a signal has ended.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not end well: an error, and whose fault it is.
///
/// There is no general conversion from other errors on purpose: [`Blame`] makes each place say which kind it is. Only what can have
/// a single cause, such as a path that cannot be written, converts by itself.
#[derive(Debug)]
pub struct Failure {
    /// The exit code; never [`Exit::Success`].
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// Bad usage or bad input (exit code 2).
    pub fn bad_input(error: impl Into<anyhow::Error>) -> Self {
        Failure {
            exit: Exit::BadInput,
            error: error.into(),
        }
    }

    /// The runtime or the device failed (exit code 3).
    pub fn runtime(error: impl Into<anyhow::Error>) -> Self {
        Failure {
            exit: Exit::Runtime,
            error: error.into(),
        }
    }

    /// The user stopped the run (exit code 130); the error says what is left.
    pub fn interrupted(error: impl Into<anyhow::Error>) -> Self {
        Failure {
            exit: Exit::Interrupted,
            error: error.into(),
        }
    }

    /// The model fell short of a threshold (exit code 1); the error says of which.
    pub fn gate(error: impl Into<anyhow::Error>) -> Self {
        Failure {
            exit: Exit::GateFailed,
            error: error.into(),
        }
    }

    /// The exit code that this failure asks for.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Failure::bad_input(error)
    }
}

impl From<PrintError> for Failure {
    fn from(error: PrintError) -> Self {
        Failure::bad_input(error)
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        Failure::bad_input(error)
    }
}

impl fmt::Display for Failure {
    /// The error with all its causes, one behind the other; a cause that an error has in its own text already is not told again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = String::new();
        for cause in self.error.chain() {
            let text = cause.to_string();
            if told.contains(&text) {
                continue;
            }
            if !told.is_empty() {
                told.push_str(": ");
            }
            told.push_str(&text);
        }
        f.write_str(&told)
    }
}

/// Turns an error into a [`Failure`] by saying whose fault it is.
pub trait Blame<T> {
    /// Bad usage or bad input (exit code 2).
    ///
    /// # Errors
    ///
    /// The error itself, so marked.
    fn or_bad_input(self) -> Result<T, Failure>;

    /// The runtime or the device failed (exit code 3).
    ///
    /// # Errors
    ///
    /// The error itself, so marked.
    fn or_runtime(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> Blame<T> for Result<T, E> {
    fn or_bad_input(self) -> Result<T, Failure> {
        self.map_err(Failure::bad_input)
    }

    fn or_runtime(self) -> Result<T, Failure> {
        self.map_err(Failure::runtime)
    }
}

/// The end of a command: prints what went wrong, once, on stderr.
///
/// A reader of stdout that went away (`mohs … | head`) has seen what it wanted: silence, and success.
#[must_use]
pub fn conclude(result: Result<(), Failure>) -> Exit {
    conclude_on(result, &mut std::io::stderr().lock())
}

fn conclude_on(result: Result<(), Failure>, stderr: &mut dyn std::io::Write) -> Exit {
    match result {
        Ok(()) => Exit::Success,
        Err(failure) if is_broken_pipe(&failure.error) => Exit::Success,
        Err(failure) => {
            // Where even stderr is gone there is no one left to tell; the exit code still tells.
            let _ = writeln!(stderr, "mohs: error: {failure}");
            failure.exit
        }
    }
}

/// Arguments that clap refuses, in the words of clap and the form of every other error.
pub(super) fn refuse_usage(error: &clap::Error) -> Exit {
    let known = <super::arguments::Arguments as clap::CommandFactory>::command();
    let asked = std::env::args_os()
        .skip(1)
        .find_map(|argument| known.find_subcommand(argument).map(clap::Command::get_name));
    let text = usage_message(&error.render().to_string(), asked);
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
    Exit::BadInput
}

/// Clap's message under mohs's name, with the help of the very command.
fn usage_message(text: &str, command: Option<&str>) -> String {
    let Some(message) = text.strip_prefix("error: ") else {
        // The help that stands in for a missing command.
        return text.to_owned();
    };
    let help = match command {
        Some(command) => format!("mohs {command} --help"),
        None => "mohs --help".to_owned(),
    };
    let message = message
        .trim_end()
        .trim_end_matches("For more information, try '--help'.")
        .trim_end();
    format!("mohs: error: {message}\n\n`{help}` shows every argument, with examples\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::io;

    fn conclude_text(result: Result<(), Failure>) -> (u8, String) {
        let mut stderr = Vec::new();
        let exit = conclude_on(result, &mut stderr);
        (exit as u8, String::from_utf8(stderr).unwrap())
    }

    #[test]
    fn each_failure_has_its_code_and_one_line_with_all_causes() {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such file");
        assert_eq!(conclude_text(Ok(())), (0, String::new()));
        assert_eq!(
            conclude_text(
                Err(missing())
                    .context("model.onnx: cannot be opened")
                    .or_bad_input()
            ),
            (
                2,
                "mohs: error: model.onnx: cannot be opened: no such file\n".to_owned()
            )
        );
        assert_eq!(
            conclude_text(Err(missing()).or_runtime()),
            (3, "mohs: error: no such file\n".to_owned())
        );
        let gate = Failure::gate(anyhow::anyhow!("robust accuracy 0.4 is below 0.5"));
        assert_eq!(
            conclude_text(Err(gate)),
            (
                1,
                "mohs: error: robust accuracy 0.4 is below 0.5\n".to_owned()
            )
        );
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read model.onnx: {0}")]
        struct Read(#[source] io::Error);
        let error = Read(io::Error::other("the disk is on fire"));
        assert_eq!(
            Failure::bad_input(error).to_string(),
            "cannot read model.onnx: the disk is on fire"
        );
    }

    #[test]
    fn usage_errors_look_like_every_other_error() {
        let clap = "error: unexpected argument '--x' found\n\nUsage: mohs list\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_message(clap, Some("list")),
            "mohs: error: unexpected argument '--x' found\n\nUsage: mohs list\n\n`mohs list --help` shows every argument, with examples\n"
        );
        assert_eq!(
            usage_message("The scratch test\n", None),
            "The scratch test\n"
        );
    }

    #[test]
    fn a_reader_of_stdout_that_went_away_ends_in_silence() {
        let gone = Err(PrintError::BrokenPipe.into());
        assert_eq!(conclude_text(gone), (0, String::new()));
        // A broken pipe elsewhere, such as a file of results that is a pipe, is an error.
        let elsewhere = Err(io::Error::from(io::ErrorKind::BrokenPipe)).or_bad_input();
        assert_eq!(conclude_text(elsewhere).0, 2);
    }
}
