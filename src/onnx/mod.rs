//! ONNX files, read and written without loss.
