//! Data sets, read sample by sample.
