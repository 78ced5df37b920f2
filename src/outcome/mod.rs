//! The records that an evaluation produces.
