//! The job: make this model more robust by training it on perturbed samples.

pub mod choice;
pub mod optim;
pub mod schedule;
