//! Stdout: text that may be styled, for a reader that may go away.

use crate::report::Style;
use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};

/// Why stdout did not take a text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrintError {
    /// The reader of a pipe went away, which is its right.
    #[error("the reader of standard output went away")]
    BrokenPipe,
    /// Anything else, such as a full disk.
    #[error("standard output cannot be written")]
    Unwritable(#[source] io::Error),
}

/// Writes a text to stdout, never panicking as `println!` does where the reader has gone.
///
/// # Errors
///
/// Where stdout does not take the text; [`super::exit::conclude`] passes over a broken pipe in silence.
pub fn print(text: &str) -> Result<(), PrintError> {
    print_to(&mut io::stdout().lock(), text)
}

fn print_to(stdout: &mut dyn Write, text: &str) -> Result<(), PrintError> {
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => PrintError::BrokenPipe,
            _ => PrintError::Unwritable(error),
        })
}

/// Whether an error came from a reader of stdout that went away, not from any other pipe.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(PrintError::BrokenPipe))
}

/// How text on stdout should look: with escapes on a terminal alone, and not where `NO_COLOR` is set.
#[must_use]
pub fn stdout_style() -> Style {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    style(
        io::stdout().is_terminal(),
        &variable("NO_COLOR"),
        &variable("TERM"),
    )
}

/// `NO_COLOR` counts where it is set and not empty (no-color.org).
fn style(is_terminal: bool, no_color: &OsStr, term: &OsStr) -> Style {
    if is_terminal && no_color.is_empty() && term != "dumb" {
        Style::Ansi
    } else {
        Style::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_terminal_without_no_color_gets_escapes() {
        let style = |is_terminal, no_color: &str, term: &str| {
            style(is_terminal, OsStr::new(no_color), OsStr::new(term))
        };
        assert_eq!(style(true, "", "xterm"), Style::Ansi);
        assert_eq!(style(false, "", "xterm"), Style::Plain);
        assert_eq!(style(true, "1", "xterm"), Style::Plain);
        assert_eq!(style(true, "", "dumb"), Style::Plain);
    }

    #[test]
    fn a_reader_that_went_away_is_told_from_a_full_disk() {
        let print = |kind| print_to(&mut Broken(kind), "text").unwrap_err();
        assert!(matches!(
            print(io::ErrorKind::BrokenPipe),
            PrintError::BrokenPipe
        ));
        assert!(matches!(
            print(io::ErrorKind::StorageFull),
            PrintError::Unwritable(_)
        ));
    }
}
