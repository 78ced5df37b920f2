//! The integration tests, in one binary.

mod free_batch;
mod gradcheck;
mod inner_tensor;
mod lift;
mod references;

/// Loads ONNX Runtime, once for all tests.
fn runtime_ready() {
    mohs::runtime::initialize(&mohs::runtime::LibraryOptions::default())
        .unwrap_or_else(|error| panic!("{error}"));
}
