//! ONNX Runtime's own log, as events of `tracing`.

use std::sync::Arc;

use ort::logging::{LogLevel, LoggerFunction};
use tracing::level_filters::LevelFilter;

/// Hands ONNX Runtime's messages to `tracing`, under the target `onnxruntime`.
///
/// What ONNX Runtime logs as an error it also returns as one, and mohs reports that or has an answer to it (a trial run may fail).
/// So that nothing is said twice, only fatal messages are errors here.
pub(super) fn logger() -> LoggerFunction {
    Arc::new(|level, _category, id, location, message| match level {
        LogLevel::Fatal => {
            tracing::error!(target: "onnxruntime", id, location, "{message}");
        }
        LogLevel::Error | LogLevel::Warning => {
            tracing::debug!(target: "onnxruntime", id, location, "{message}");
        }
        LogLevel::Info | LogLevel::Verbose => {
            tracing::trace!(target: "onnxruntime", id, location, "{message}");
        }
    })
}

/// How much ONNX Runtime has to say at all: no more than somebody reads, since each message costs it time.
pub(super) fn level() -> LogLevel {
    match LevelFilter::current() {
        LevelFilter::TRACE => LogLevel::Info,
        LevelFilter::DEBUG => LogLevel::Warning,
        _ => LogLevel::Error,
    }
}
