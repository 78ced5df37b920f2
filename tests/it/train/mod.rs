//! Training: against PyTorch, and whole runs.

mod behaviour;
mod given;
mod methods;
mod runs;
