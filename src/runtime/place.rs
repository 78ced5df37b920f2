//! Places where ONNX Runtime may lie: the rules that lead there, how its files are called, and what was found.

use std::fmt;
use std::path::PathBuf;

/// The rule that led to a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// `--onnxruntime PATH`.
    Explicit,
    /// The environment variable of this name.
    Variable(&'static str),
    /// The cache of mohs.
    Cache,
    /// The Python environment of the variable (`VIRTUAL_ENV`, `CONDA_PREFIX`) of this name.
    PythonEnvironment(&'static str),
    /// The Python on the `PATH`.
    PythonOnPath,
    /// The loader path of the system.
    System,
    /// Downloaded into the cache by this process.
    Provided,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Explicit => f.write_str("--onnxruntime"),
            Origin::Variable(name) => f.write_str(name),
            Origin::Cache => f.write_str("cache of mohs"),
            Origin::PythonEnvironment(name) => write!(f, "Python environment ({name})"),
            Origin::PythonOnPath => f.write_str("Python on the PATH"),
            Origin::System => f.write_str("loader path of the system"),
            Origin::Provided => f.write_str("downloaded into the cache of mohs"),
        }
    }
}

/// Why a library that is there cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The system's loader refuses the file.
    #[error("it does not load ({0})")]
    DoesNotLoad(String),
    /// The file loads but is another library.
    #[error("it is not ONNX Runtime (there is no `OrtGetApiBase` in it)")]
    NotOnnxRuntime,
    /// The version cannot be told.
    #[error("its version cannot be read from `{0}`")]
    UnknownVersion(String),
    /// The library was built without the provider of the device that was asked for.
    #[error("it has no {0} beside it")]
    NoProvider(String),
    /// The library lacks functions that mohs calls.
    #[error("it is version {version}, and mohs needs 1.{minimum} or newer")]
    TooOld {
        /// The library's version.
        version: String,
        /// The lowest minor version that will do.
        minimum: u32,
    },
}

/// What was found in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The library that is in use.
    Chosen,
    /// The variable or flag is not given, or there is no such environment.
    NotSet,
    /// There is no library there.
    Nothing,
    /// There is one, but it cannot be used.
    Rejected(Rejection),
}

/// One place that was looked at, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Searched {
    /// The rule that led there.
    pub origin: Origin,
    /// The library or folder; none where the rule names none.
    pub path: Option<PathBuf>,
    /// What came of it.
    pub finding: Finding,
}

impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(path) = &self.path {
            write!(f, "{}, ", path.display())?;
        }
        match &self.finding {
            Finding::Chosen => f.write_str("chosen"),
            Finding::NotSet => f.write_str("not set"),
            Finding::Nothing => f.write_str("no library there"),
            Finding::Rejected(reason) => write!(f, "skipped, {reason}"),
        }
    }
}

/// How an operating system names libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    Linux,
    MacOs,
    Windows,
}

impl System {
    /// The system that mohs was built for. Other Unixes name libraries as Linux does.
    pub(super) const HERE: System = if cfg!(windows) {
        System::Windows
    } else if cfg!(target_vendor = "apple") {
        System::MacOs
    } else {
        System::Linux
    };

    /// Whether a file of this name is ONNX Runtime itself (not one of its providers).
    pub(super) fn is_library(self, name: &str) -> bool {
        match self {
            System::Linux => name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so."),
            System::MacOs => name.starts_with("libonnxruntime.") && name.ends_with(".dylib"),
            System::Windows => name.eq_ignore_ascii_case("onnxruntime.dll"),
        }
    }

    /// Whether a file of this name is ONNX Runtime or a library that it loads from its own folder.
    pub(super) fn belongs_to_library(self, name: &str) -> bool {
        match self {
            System::Linux => name.starts_with("lib") && name.contains(".so"),
            System::MacOs => name.starts_with("lib") && name.ends_with(".dylib"),
            System::Windows => name.to_ascii_lowercase().ends_with(".dll"),
        }
    }

    /// The file that holds a provider, beside the library; `name` as in `cuda`.
    pub(super) fn provider_file(self, name: &str) -> String {
        match self {
            System::Linux => format!("libonnxruntime_providers_{name}.so"),
            System::MacOs => format!("libonnxruntime_providers_{name}.dylib"),
            System::Windows => format!("onnxruntime_providers_{name}.dll"),
        }
    }

    /// The names under which the system's loader may know ONNX Runtime.
    pub(super) fn loader_names(self) -> &'static [&'static str] {
        match self {
            System::Linux => &["libonnxruntime.so.1", "libonnxruntime.so"],
            System::MacOs => &["libonnxruntime.dylib"],
            System::Windows => &["onnxruntime.dll"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_known_by_the_names_of_each_system() {
        assert!(System::Linux.is_library("libonnxruntime.so.1.31.1"));
        assert!(!System::Linux.is_library("libonnxruntime_providers_cuda.so"));
        assert!(System::MacOs.is_library("libonnxruntime.1.31.1.dylib"));
        assert!(!System::MacOs.is_library("libonnxruntime_providers_shared.dylib"));
        assert!(System::Windows.is_library("OnnxRuntime.dll"));
        assert!(!System::Windows.is_library("onnxruntime_providers_shared.dll"));
        assert!(System::Linux.belongs_to_library("libonnxruntime_providers_cuda.so"));
        assert!(System::Linux.belongs_to_library("libopenvino.so.2541"));
        assert!(!System::Linux.belongs_to_library("onnxruntime_pybind11_state.so"));
        assert!(!System::Windows.belongs_to_library("onnxruntime_pybind11_state.pyd"));
    }
}
