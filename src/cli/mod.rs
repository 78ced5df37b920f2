//! The command line: arguments in, files and text out, an exit code at the end.
//!
//! The only module that prints, reads arguments and knows exit codes. Results go to files and stdout, messages and progress to
//! stderr. Start at [`arguments`]; each command has a file of its own.

pub mod arguments;
pub mod exit;
pub mod list;
pub mod output;
pub mod progress;
pub mod terminal;
