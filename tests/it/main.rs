//! The integration tests, in one binary.
#![expect(
    unreachable_pub,
    reason = "in one binary nothing is reached from outside"
)]
#![allow(
    clippy::cast_sign_loss,
    reason = "the numbers are the tests' own, and small"
)]

mod apgd;
mod attack_forms;
mod attacks;
mod autoattack;
mod cli;
mod closed_forms;
mod crew;
mod defects;
mod docs;
mod expand_contrib;
mod files;
mod for_cpu;
mod frameworks;
mod free_batch;
mod gradcheck;
mod inner_tensor;
mod layering;
mod lift;
mod minimum_norm;
mod onnx_nodes;
mod operators;
mod parameters;
mod quantized;
mod queries;
mod references;
mod registry;
mod report;
mod slopes;
mod sources;
mod targets;
mod train;
mod transfer;

/// Loads ONNX Runtime, once for all tests.
fn runtime_ready() {
    mohs::runtime::initialize(&mohs::runtime::LibraryOptions::default())
        .unwrap_or_else(|error| panic!("{error}"));
}
