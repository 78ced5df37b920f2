//! The computation graph of a model.
