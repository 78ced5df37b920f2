//! Random streams keyed by seed and sample.
