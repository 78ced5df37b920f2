//! The builds of ONNX Runtime that mohs can provide, with everything that is pinned about them.

use std::fmt;
use std::str::FromStr;

use super::super::device::Device;

/// The version of ONNX Runtime that is downloaded where none is found.
pub const PINNED_VERSION: &str = "1.31.1";

/// A build of ONNX Runtime, each with a folder of its own in mohs's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// For the CPU.
    Cpu,
    /// For NVIDIA GPUs, with CUDA's own libraries.
    Cuda,
    /// With OpenVINO, on the CPU.
    OpenVino,
}

/// A build's name was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be installed: use cpu, cuda or openvino")]
pub struct ParseBuildError(String);

impl FromStr for Build {
    type Err = ParseBuildError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Build::ALL.into_iter().find(|build| build.name() == text);
        known.ok_or_else(|| ParseBuildError(text.to_owned()))
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Build {
    /// Every build.
    pub const ALL: [Build; 3] = [Build::Cpu, Build::Cuda, Build::OpenVino];

    /// The name after `mohs doctor --install`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Build::Cpu => "cpu",
            Build::Cuda => "cuda",
            Build::OpenVino => "openvino",
        }
    }

    /// The build that has the device's provider; none where the fastest that is there will do.
    #[must_use]
    pub fn for_device(device: Device) -> Option<Self> {
        match device {
            Device::Auto => None,
            Device::Cpu => Some(Build::Cpu),
            Device::Cuda(_) | Device::TensorRt => Some(Build::Cuda),
            Device::OpenVino => Some(Build::OpenVino),
        }
    }

    /// The device that is to work where the build is installed.
    #[must_use]
    pub fn device(self) -> Device {
        match self {
            Build::Cpu => Device::Cpu,
            Build::Cuda => Device::Cuda(0),
            Build::OpenVino => Device::OpenVino,
        }
    }

    /// The Python package that holds it.
    pub(in crate::runtime) fn package(self) -> &'static str {
        match self {
            Build::Cpu => "onnxruntime",
            Build::Cuda => "onnxruntime-gpu",
            Build::OpenVino => "onnxruntime-openvino",
        }
    }

    /// The version of the package. OpenVINO's is behind the others.
    pub(in crate::runtime) fn version(self) -> &'static str {
        match self {
            Build::Cpu | Build::Cuda => PINNED_VERSION,
            Build::OpenVino => "1.24.1",
        }
    }

    /// The name of its folder in the cache.
    pub(super) fn folder_name(self) -> String {
        format!("{}-{}", self.package(), self.version())
    }

    /// The wheels that it is made of on this platform, or what is missing.
    pub(super) fn wheels(
        self,
        os: &str,
        architecture: &str,
    ) -> Result<Vec<&'static Wheel>, String> {
        let wheels: Vec<_> = WHEELS
            .iter()
            .filter(|wheel| {
                wheel.build == self && wheel.os == os && wheel.architecture == architecture
            })
            .collect();
        // The Linux wheels need glibc.
        if wheels.is_empty() || cfg!(target_env = "musl") {
            return Err(format!(
                "mohs knows no build of {} {} for {os} on {architecture}",
                self.package(),
                self.version()
            ));
        }
        Ok(wheels)
    }
}

/// One pinned wheel. The libraries in it do not depend on the Python version, so one per platform is enough.
pub(super) struct Wheel {
    pub(super) build: Build,
    /// As in [`std::env::consts::OS`].
    pub(super) os: &'static str,
    /// As in [`std::env::consts::ARCH`].
    pub(super) architecture: &'static str,
    /// The package and its version, as a requirement.
    pub(super) requirement: &'static str,
    /// The wheel's platform tag.
    pub(super) platform: &'static str,
    pub(super) sha256: &'static str,
}

const X86: &str = "x86_64";
const ARM: &str = "aarch64";

/// CUDA's own libraries are those that the package `onnxruntime-gpu[cuda,cudnn]` asks for, and what they need.
pub(super) static WHEELS: &[Wheel] = &[
    wheel(
        Build::Cpu,
        ("linux", X86, "manylinux_2_28_x86_64"),
        "onnxruntime==1.31.1",
        "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
    ),
    wheel(
        Build::Cpu,
        ("linux", ARM, "manylinux_2_28_aarch64"),
        "onnxruntime==1.31.1",
        "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
    ),
    wheel(
        Build::Cpu,
        ("macos", ARM, "macosx_14_0_arm64"),
        "onnxruntime==1.31.1",
        "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
    ),
    wheel(
        Build::Cpu,
        ("windows", X86, "win_amd64"),
        "onnxruntime==1.31.1",
        "ae8a9a351efda685cc59a66226cdefaa37a126c1d66872ca23a2de9425326130",
    ),
    wheel(
        Build::OpenVino,
        ("linux", X86, "manylinux_2_28_x86_64"),
        "onnxruntime-openvino==1.24.1",
        "d617fac2f59a6ab5ea59a788c3e1592240a129642519aaeaa774761dfe35150e",
    ),
    wheel(
        Build::OpenVino,
        ("windows", X86, "win_amd64"),
        "onnxruntime-openvino==1.24.1",
        "f186335a9c9b255633275290da7521d3d4d14c7773fee3127bfa040234d3fa5a",
    ),
    cuda(
        "onnxruntime-gpu==1.31.1",
        "manylinux_2_28_x86_64",
        "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
    ),
    cuda(
        "nvidia-cublas==13.10.0.20",
        "manylinux1_x86_64",
        "dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84",
    ),
    cuda(
        "nvidia-cuda-nvrtc==13.5.37",
        "manylinux2010_x86_64",
        "86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc",
    ),
    cuda(
        "nvidia-cuda-runtime==13.5.37",
        "manylinux2014_x86_64",
        "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d",
    ),
    cuda(
        "nvidia-cudnn-cu13==9.28.1.4",
        "manylinux_2_27_x86_64",
        "a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec",
    ),
    cuda(
        "nvidia-cufft==12.5.0.14",
        "manylinux2014_x86_64",
        "b8be26837a5abad2b5b74f3e92dd29f622a42934b355be0961a48712cbba23ad",
    ),
    cuda(
        "nvidia-curand==10.4.5.25",
        "manylinux_2_27_x86_64",
        "22bb226a857e5888fe6b54ae465fc4371296bcff13a35f79e19691bcf454f529",
    ),
    cuda(
        "nvidia-nvjitlink==13.5.37",
        "manylinux2010_x86_64",
        "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb",
    ),
];

const fn wheel(
    build: Build,
    (os, architecture, platform): (&'static str, &'static str, &'static str),
    requirement: &'static str,
    sha256: &'static str,
) -> Wheel {
    Wheel {
        build,
        os,
        architecture,
        requirement,
        platform,
        sha256,
    }
}

const fn cuda(requirement: &'static str, platform: &'static str, sha256: &'static str) -> Wheel {
    wheel(Build::Cuda, ("linux", X86, platform), requirement, sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wheel_is_pinned_by_version_and_sha_256() {
        for wheel in WHEELS {
            let digits = |text: &str| {
                text.chars()
                    .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
            };
            assert!(wheel.sha256.len() == 64 && digits(wheel.sha256));
            assert!(wheel.requirement.contains("=="), "{}", wheel.requirement);
        }
    }

    #[test]
    fn the_first_wheel_of_a_build_is_onnx_runtime_itself() {
        for build in Build::ALL {
            let wheels = build.wheels("linux", X86).expect("wheels");
            let own = format!("{}=={}", build.package(), build.version());
            assert_eq!(wheels.first().expect("one").requirement, own);
        }
    }

    #[test]
    fn a_platform_without_a_wheel_is_named() {
        let error = Build::Cpu.wheels("freebsd", "riscv64").err();
        let error = error.expect("no wheel");
        assert!(error.contains("freebsd on riscv64"), "{error}");
        assert!(Build::Cuda.wheels("macos", ARM).is_err());
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for build in Build::ALL {
            assert_eq!(build.name().parse(), Ok(build));
            assert_eq!(Build::for_device(build.device()), Some(build));
        }
        let error = "gpu".parse::<Build>().expect_err("no build").to_string();
        assert!(error.contains("cpu, cuda or openvino"), "{error}");
    }
}
