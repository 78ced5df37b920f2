//! ONNX Runtime: finding it, loading it, running sessions.
