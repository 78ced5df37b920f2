//! Renderers of results: records in, bytes or text out.
//!
//! They open no files, measure nothing and know nothing of the engine: a writer or a string is all they see.
//! Start at [`csv`] for the files, at [`table`], [`chart`], [`verdict`] and [`comparison`] for the terminal.

pub mod chart;
pub mod comparison;
pub mod csv;
pub mod minimal;
pub mod number;
mod style;
pub mod table;
pub mod verdict;

pub use style::Style;
