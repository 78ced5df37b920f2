//! Execution on ONNX Runtime: the library, devices, sessions and their values.
//!
//! The only module that knows the crate `ort` (and, beside it, the loader of shared libraries).
//! It runs models and knows nothing of gradients or attacks.
//! Start at [`initialize`], which finds the library or provides it, then at [`Session`]; [`doctor`] tells a user what was found.

mod arithmetic;
mod cuda;
mod device;
pub mod doctor;
mod end;
mod error;
mod library;
mod logging;
mod place;
mod provide;
mod search;
mod session;
mod tiny;
mod value;

pub use arithmetic::Arithmetic;
pub use device::{Device, ParseDeviceError, providers, resolve};
pub use end::end_process;
pub use error::Error;
pub use library::{Library, LibraryOptions, initialize, version};
pub use place::{Finding, Origin, Rejection, Searched};
pub use provide::{Build, PINNED_VERSION, ParseBuildError, provide};
pub use session::{Optimization, Port, Session, SessionOptions};
pub use value::{Value, ValueElement};
