//! The precision that a session computes in, where the device has a choice.

use super::device::Device;
use crate::tensor::DType;
use std::fmt;

/// The precision of the arithmetic. Inputs and outputs are what the model says in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Arithmetic {
    /// Single precision throughout: what a verdict is computed in.
    #[default]
    Exact,
    /// Single precision; where the device has matrix units that round factors to 10 bits and accumulate in single precision (TF32), these are used.
    Single,
    /// bfloat16: 8 bits, the range of single precision.
    Brain,
    /// float16: 11 bits, from 6·10⁻⁸ to 65,504.
    Half,
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arithmetic::Exact | Arithmetic::Single => "fp32",
            Arithmetic::Brain => "bf16",
            Arithmetic::Half => "fp16",
        })
    }
}

impl Arithmetic {
    /// Refuses what a device does not compute faster, or not at all.
    ///
    /// # Errors
    /// A sentence that says what the device can do.
    pub fn check(self, device: Device) -> Result<(), String> {
        match (self, device) {
            (Arithmetic::Exact | Arithmetic::Single, _)
            | (Arithmetic::Brain, Device::OpenVino)
            | (Arithmetic::Brain | Arithmetic::Half, Device::Cuda(_) | Device::TensorRt) => Ok(()),
            (Arithmetic::Half, Device::OpenVino) => Err(
                "OpenVINO computes in fp32 or bf16 on the CPU; give --search-precision bf16"
                    .to_owned(),
            ),
            (Arithmetic::Brain | Arithmetic::Half, Device::Cpu | Device::Auto) => Err(format!(
                "ONNX Runtime's own CPU kernels compute in fp32; {self} needs --device {}",
                if self == Arithmetic::Brain {
                    "openvino or cuda"
                } else {
                    "cuda"
                }
            )),
        }
    }

    /// The type that the graph itself has to be written in for the device; none where the provider does it.
    #[must_use]
    pub fn in_graph(self, device: Device) -> Option<DType> {
        match (self, device) {
            (Arithmetic::Brain, Device::Cuda(_)) => Some(DType::BF16),
            (Arithmetic::Half, Device::Cuda(_)) => Some(DType::F16),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_cannot_do_is_refused_with_what_can() {
        let error = Arithmetic::Brain.check(Device::Cpu).expect_err("no bf16");
        assert!(error.contains("--device openvino or cuda"), "{error}");
        let error = Arithmetic::Half
            .check(Device::OpenVino)
            .expect_err("no fp16");
        assert!(error.contains("--search-precision bf16"), "{error}");
        assert_eq!(Arithmetic::Single.check(Device::Cpu), Ok(()));
        assert_eq!(Arithmetic::Half.check(Device::Cuda(0)), Ok(()));
    }

    #[test]
    fn only_where_the_provider_does_not_do_it_the_graph_is_lowered() {
        assert_eq!(Arithmetic::Brain.in_graph(Device::OpenVino), None);
        assert_eq!(Arithmetic::Half.in_graph(Device::Cuda(1)), Some(DType::F16));
        assert_eq!(Arithmetic::Single.in_graph(Device::Cuda(0)), None);
    }
}
