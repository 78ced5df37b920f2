//! Devices: their names, whether they can be had, and how a session is put on them.
//!
//! ONNX Runtime falls back to the CPU without a word where a provider is missing, cannot load, or takes no node. So a device counts
//! as there only after a tiny model, with that fall-back forbidden, has given the right numbers on it.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider};
use ort::session::builder::SessionBuilder;

use super::arithmetic::Arithmetic;
use super::cuda;
use super::error::{Error, chain};
use super::library;
use super::provide::{Build, PINNED_VERSION};
use super::session::{Optimization, Session, SessionOptions};
use super::tiny::{self, Axis};
use super::value::Value;
use crate::tensor::Tensor;

/// Where a session runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// CUDA where the provider loads and a device answers, else the CPU.
    #[default]
    Auto,
    /// The CPU, with ONNX Runtime's own kernels.
    Cpu,
    /// The NVIDIA GPU of this index, with CUDA.
    Cuda(u32),
    /// What OpenVINO runs on the CPU.
    OpenVino,
    /// The first NVIDIA GPU, with TensorRT (and CUDA for what TensorRT cannot run).
    TensorRt,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(0) => f.write_str("cuda"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::OpenVino => f.write_str("openvino"),
            Device::TensorRt => f.write_str("tensorrt"),
        }
    }
}

/// A device's name was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device: use auto, cpu, cuda, cuda:N (N = 0, 1, …), openvino or tensorrt")]
pub struct ParseDeviceError(String);

impl FromStr for Device {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseDeviceError(text.to_owned());
        Ok(match text {
            "auto" => Device::Auto,
            "cpu" => Device::Cpu,
            "cuda" => Device::Cuda(0),
            "openvino" => Device::OpenVino,
            "tensorrt" => Device::TensorRt,
            _ => {
                let index = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                // `u32` would take a sign; an index has none. ONNX Runtime's type for it is a signed 32-bit integer.
                let digits = index.bytes().all(|byte| byte.is_ascii_digit());
                let index = index.parse::<u32>().ok();
                match index.filter(|&index| digits && i32::try_from(index).is_ok()) {
                    Some(index) => Device::Cuda(index),
                    None => return Err(unknown()),
                }
            }
        })
    }
}

impl Device {
    /// ONNX Runtime's name for the provider.
    pub(super) fn provider(self) -> &'static str {
        match self {
            Device::Auto | Device::Cpu => ep::CPU::NAME,
            Device::Cuda(_) => ep::CUDA::NAME,
            Device::OpenVino => ep::OpenVINO::NAME,
            Device::TensorRt => ep::TensorRT::NAME,
        }
    }

    /// The build that has the provider.
    fn build(self) -> Build {
        Build::for_device(self).unwrap_or(Build::Cpu)
    }
}

/// The device that `device` stands for, tried out: never [`Device::Auto`].
///
/// # Errors
/// If there is no library, or if a device that was named cannot be had.
pub fn resolve(device: Device) -> Result<Device, Error> {
    match device {
        Device::Cpu => {
            library::environment()?;
            Ok(Device::Cpu)
        }
        Device::Auto => {
            let cuda = Device::Cuda(0);
            if !providers()?.iter().any(|name| name == cuda.provider()) {
                return Ok(Device::Cpu);
            }
            match answers(cuda) {
                Ok(()) => Ok(cuda),
                Err(reason) => {
                    // This library was chosen for its GPU provider, so running on the CPU is worth a word.
                    tracing::warn!("running on the CPU: {reason}");
                    Ok(Device::Cpu)
                }
            }
        }
        Device::Cuda(_) | Device::OpenVino | Device::TensorRt => answers(device).map(|()| device),
    }
}

/// Devices that answered in this process.
static ANSWERED: Mutex<Vec<Device>> = Mutex::new(Vec::new());

/// Tries out `device`, once per process if it answers.
fn answers(device: Device) -> Result<(), Error> {
    if ANSWERED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .contains(&device)
    {
        return Ok(());
    }
    try_out(device)?;
    ANSWERED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(device);
    Ok(())
}

/// Runs a tiny model on `device`, with the fall-back to the CPU forbidden, and looks at the numbers.
pub(super) fn try_out(device: Device) -> Result<(), Error> {
    let failed = |reason: String| Error::Device { device, reason };
    let available = providers()?;
    if !available.iter().any(|name| name == device.provider()) {
        return Err(failed(missing(device, &available)));
    }
    let told = |error: Error| failed(format!("{}{}", chain(&error), advice(device)));
    // A convolution and a matrix product: with CUDA, they need cuDNN and cuBLAS, which are the libraries that tend to be missing.
    let square = [1, 1, 2, 2].map(Axis::Fixed);
    let one = [1, 1, 1, 1].map(Axis::Fixed);
    let bytes = tiny::model(
        &[("x", tiny::FLOAT, &square)],
        &[
            ("Conv", &["x", "x"], &["dot"]),
            ("MatMul", &["x", "x"], &["product"]),
        ],
        &[
            ("dot", tiny::FLOAT, &one),
            ("product", tiny::FLOAT, &square),
        ],
    );
    let options = SessionOptions {
        device,
        name: Some(format!("the trial model on `{device}`")),
        optimization: Optimization::Basic,
        ..SessionOptions::default()
    };
    let mut session = Session::on_device_alone(&bytes, &options).map_err(told)?;
    let x = Tensor::new(&[1, 1, 2, 2], vec![1.0_f32, 2.0, 3.0, 4.0])
        .expect("four elements fill the shape");
    let x = Value::from_tensor(x)?;
    let outputs = session.run(&[("x", &x)]).map_err(told)?;
    let expected: [&[f32]; 2] = [&[30.0], &[7.0, 10.0, 15.0, 22.0]];
    for (output, expected) in outputs.iter().zip(expected) {
        let got = output.as_slice::<f32>()?;
        if got != expected {
            return Err(failed(format!(
                "the trial model gave {got:?} instead of {expected:?}"
            )));
        }
    }
    Ok(())
}

/// What to say where the library was built without the provider.
fn missing(device: Device, available: &[String]) -> String {
    let here = library::started().map_or_else(String::new, |library| {
        format!(" at {}", library.path.display())
    });
    let build = device.build();
    format!(
        "the ONNX Runtime{here} has no {} (only {}); `mohs doctor --install {build}` provides one that has it, as does \
         `pip install {}=={}` in the active Python environment",
        device.provider(),
        available.join(", "),
        build.package(),
        build.version()
    )
}

/// What to do where the provider is there and does not work.
fn advice(device: Device) -> String {
    match device {
        Device::Cuda(_) => format!(
            "; check the driver with `nvidia-smi`; CUDA and cuDNN come with `mohs doctor --install cuda` and with `pip install onnxruntime-gpu[cuda,cudnn]=={PINNED_VERSION}`"
        ),
        Device::TensorRt => {
            "; check the driver with `nvidia-smi`, and that TensorRT's libraries are on the loader's path".to_owned()
        }
        Device::Auto | Device::Cpu | Device::OpenVino => String::new(),
    }
}

/// The names of the providers that the library was built with, best first. That one is here does not mean that it loads.
///
/// # Errors
/// If there is no library, or if ONNX Runtime does not answer.
#[expect(unsafe_code, reason = "the crate ort has no safe form of this")]
pub fn providers() -> Result<Vec<String>, Error> {
    let library = library::initialized()?;
    let api = ort::api();
    let mut names: *mut *mut c_char = std::ptr::null_mut();
    let mut count = 0;
    // SAFETY: the function writes an array and its length to where the arguments point.
    let status = unsafe { (api.GetAvailableProviders)(&raw mut names, &raw mut count) };
    // SAFETY: the status comes from ONNX Runtime and is used nowhere else.
    unsafe { ort::Error::result_from_status(status) }.map_err(|source| Error::Start {
        path: library.path.clone(),
        source: Box::new(source),
    })?;
    let providers = (0..usize::try_from(count).unwrap_or(0))
        // SAFETY: the array has `count` strings that end in a zero byte, and lives until it is released below.
        .map(|index| unsafe { CStr::from_ptr(*names.add(index)) })
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    // SAFETY: this is the array from above, which nothing points into any more. It cannot fail.
    let _ = unsafe { (api.ReleaseAvailableProviders)(names, count) };
    Ok(providers)
}

/// Puts the sessions of `builder` on `device`, which is not [`Device::Auto`].
pub(super) fn configure(
    builder: SessionBuilder,
    environment: &Environment,
    device: Device,
    options: &SessionOptions,
) -> Result<SessionBuilder, ort::Error> {
    // TF32 and bfloat16, which these providers would take by default where the hardware has them, cost mantissa bits: they have to be asked for.
    let arithmetic = options.arithmetic;
    let cuda_provider = |index: u32| {
        ep::CUDA::default()
            .with_device_id(i32::try_from(index).unwrap_or(i32::MAX))
            .with_tf32(arithmetic != Arithmetic::Exact)
            .build()
            .error_on_failure()
    };
    if matches!(device, Device::Cuda(_) | Device::TensorRt) {
        cuda::preload();
    }
    let builder = match device {
        Device::Auto | Device::Cpu => {
            // Without a device, the crate ort lets ONNX Runtime choose one by the power it draws.
            let cpu: Vec<_> = environment
                .devices()
                .filter(|device| device.ep().is_ok_and(|name| name == ep::CPU::NAME))
                .take(1)
                .collect();
            if cpu.is_empty() {
                return Ok(builder);
            }
            builder.with_devices(cpu, None)?
        }
        Device::Cuda(index) => builder.with_execution_providers([cuda_provider(index)])?,
        Device::TensorRt => builder.with_execution_providers([
            ep::TensorRT::default()
                .with_device_id(0)
                .with_fp16(arithmetic == Arithmetic::Half)
                .with_bf16(arithmetic == Arithmetic::Brain)
                .build()
                .error_on_failure(),
            cuda_provider(0),
        ])?,
        Device::OpenVino => {
            let provider = ep::OpenVINO::default().with_device_type("CPU");
            let provider = match options.threads {
                Some(threads) => provider.with_num_threads(threads),
                None => provider,
            };
            let provider = match arithmetic {
                Arithmetic::Brain => provider.with_arbitrary_config(
                    "load_config",
                    r#"{"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}"#,
                ),
                _ => provider.with_precision("FP32"),
            };
            builder.with_execution_providers([provider.build().error_on_failure()])?
        }
    };
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_read_as_they_are_written() {
        let devices = [
            ("auto", Device::Auto),
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(0)),
            ("cuda:3", Device::Cuda(3)),
            ("openvino", Device::OpenVino),
            ("tensorrt", Device::TensorRt),
        ];
        for (name, device) in devices {
            assert_eq!(name.parse(), Ok(device));
            assert_eq!(device.to_string(), name);
        }
        assert_eq!("cuda:0".parse(), Ok(Device::Cuda(0)));
    }

    #[test]
    fn other_names_are_refused_with_the_list_of_devices() {
        for name in [
            "",
            "CPU",
            "gpu",
            "cuda:",
            "cuda:+1",
            "cuda:-1",
            "cuda:x",
            "cuda:4294967296",
            "cuda:4294967295",
        ] {
            let error = name.parse::<Device>().expect_err(name);
            assert!(error.to_string().contains("cpu, cuda, cuda:N"), "{error}");
        }
    }

    #[test]
    fn the_cpu_can_always_be_had_and_gives_the_trial_models_numbers() {
        assert_eq!(resolve(Device::Cpu).expect("a CPU"), Device::Cpu);
        try_out(Device::Cpu).expect("right numbers");
    }

    #[test]
    fn auto_becomes_a_device() {
        assert_ne!(resolve(Device::Auto).expect("a device"), Device::Auto);
    }

    #[test]
    fn a_device_without_its_provider_is_an_error_that_names_the_package() {
        let available = providers().expect("providers");
        assert!(available.iter().any(|name| name == "CPUExecutionProvider"));
        for device in [Device::Cuda(0), Device::OpenVino, Device::TensorRt] {
            if available.iter().any(|name| name == device.provider()) {
                continue;
            }
            let error = resolve(device).expect_err("no such provider").to_string();
            assert!(error.contains(&device.to_string()), "{error}");
            assert!(error.contains(device.build().package()), "{error}");
        }
    }
}
