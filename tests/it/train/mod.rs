//! Training: against PyTorch, and whole runs.

mod behaviour;
mod given;
mod methods;
mod runs;

/// A training of `model.onnx` on `data.npz`, whose options follow.
const TRAIN: [&str; 6] = [
    "train",
    "model.onnx",
    "--data",
    "data.npz",
    "-o",
    "out.onnx",
];
