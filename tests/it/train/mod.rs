//! Training: against PyTorch, and whole runs.

mod given;
mod methods;
mod runs;
