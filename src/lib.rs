//! Mohs, the scratch test for exported models: exact-gradient adversarial robustness of ONNX files.
//!
//! The modules are floors; each may use only those above it in this list (`ARCHITECTURE.md` has the table):
//!
//! - values: [`tensor`], [`rng`], [`threat`], [`loss`], [`outcome`]
//! - edges of the world and pure algorithms: [`onnx`], [`data`], [`attack`], [`report`]
//! - the graph: [`graph`]
//! - derivatives and execution: [`grad`], [`runtime`]
//! - the model under test: [`model`]
//! - the job: [`evaluate`]
//! - the command: [`cli`]

pub mod attack;
pub mod cli;
pub mod data;
pub mod evaluate;
pub mod grad;
pub mod graph;
pub mod loss;
pub mod model;
pub mod onnx;
pub mod outcome;
pub mod report;
pub mod rng;
pub mod runtime;
pub mod tensor;
pub mod threat;
