//! ONNX Runtime's own log, as events of `tracing`.

use std::cell::Cell;
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
        LogLevel::Verbose => match placement(message) {
            Some(told) => tracing::debug!("{told}"),
            None => tracing::trace!(target: "onnxruntime", id, location, "{message}"),
        },
        LogLevel::Info => {
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

/// Whether a session is to say where its nodes run.
pub(super) fn tells_placement() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
}

thread_local! {
    /// Whether the nodes that ONNX Runtime lists next are those that a device left to the CPU.
    static LISTS_CPU: Cell<bool> = const { Cell::new(false) };
}

/// What is to be said of a line with which ONNX Runtime tells where the nodes of a graph run: how many run on each provider, and which of them
/// were left to the CPU. Where it lists nodes, it is one line for each, behind the line of their provider.
fn placement(line: &str) -> Option<String> {
    if line.contains("odes placed on [") || line.contains("ode(s) placed on [") {
        let on_cpu = line.contains("ode(s) placed on [CPUExecutionProvider]");
        LISTS_CPU.set(on_cpu);
        return Some(line.trim().to_owned());
    }
    if !line.starts_with("  ") {
        LISTS_CPU.set(false);
    }
    LISTS_CPU
        .get()
        .then(|| format!("left to the CPU: {}", line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_that_a_device_left_to_the_cpu_are_named_and_no_others() {
        let lines = [
            "Node placements",
            " Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 1",
            "  Conv (first)",
            " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2",
            "  Col2Im (fold)",
            "  NonZero (which)",
            "SaveMLValueNameIndexMapping",
            "  something else",
        ];
        let told: Vec<String> = lines.into_iter().filter_map(placement).collect();
        assert_eq!(
            told,
            [
                "Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 1",
                "Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2",
                "left to the CPU: Col2Im (fold)",
                "left to the CPU: NonZero (which)",
            ]
        );
    }
}
