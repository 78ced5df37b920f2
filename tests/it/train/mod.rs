//! Training: against PyTorch, and whole runs.

mod methods;
mod runs;
