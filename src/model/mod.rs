//! The model under test.
