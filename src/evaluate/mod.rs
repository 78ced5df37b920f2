//! Evaluation of a model's robustness.
