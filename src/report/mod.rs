//! Renderers of results: records in, bytes or text out.
//!
//! They open no files, measure nothing and know nothing of the engine: a writer or a string is all they see.
//! Start at [`FORMATS`] and [`csv`] for the files, at [`table`], [`chart`], [`verdict`] and [`comparison`] for the terminal.

pub mod chart;
pub mod comparison;
pub mod csv;
mod document;
mod format;
mod html;
mod json;
mod junit;
pub mod markdown;
pub mod minimal;
pub mod number;
mod sarif;
mod style;
pub mod table;
pub mod verdict;

pub use document::{Document, Example, ImageLayout};
pub use format::{FORMATS, Format};
pub use json::SCHEMA_VERSION;
pub use style::Style;
