//! The CUDA libraries that Python packages bring.

use std::path::{Path, PathBuf};
use std::sync::Once;

use super::library;
use super::place::System;

/// Loads the CUDA libraries that Python packages bring (`nvidia-cublas`, `nvidia-cudnn`, …), if the library lies beside them.
///
/// They are in no folder that the system's loader looks into; the Python package does the same before it needs them.
/// What does not load is left to the provider, which tells what it misses.
pub(super) fn preload() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Some(library) = library::started() {
            preload_for(&library.path);
        }
    });
}

fn preload_for(library: &Path) {
    if !library
        .with_file_name(System::HERE.provider_file("cuda"))
        .is_file()
    {
        return;
    }
    // …/site-packages/onnxruntime/capi/libonnxruntime.so.1.31.1, or the folder of a build in mohs's cache.
    let folders = [1, 3].map(|level| library.ancestors().nth(level));
    let mut libraries: Vec<_> = folders
        .into_iter()
        .flatten()
        .flat_map(|folder| cuda_libraries(&folder.join("nvidia")))
        .collect();
    // In an order in which each finds what it needs; whatever was too early is tried again.
    for _ in 0..2 {
        libraries.retain(|path| ort::util::preload_dylib(path.as_path()).is_err());
    }
    for path in libraries {
        tracing::debug!("{} does not load", path.display());
    }
}

/// The libraries that the CUDA provider needs, in the packages' folder `nvidia`: `nvidia/NAME/lib/lib….so.N`, or `bin/….dll`.
fn cuda_libraries(nvidia: &Path) -> Vec<PathBuf> {
    const NEEDED: &[&str] = &[
        "cudart",
        "nvrtc",
        "nvJitLink",
        "cublasLt",
        "cublas",
        "cufft",
        "curand",
        "cudnn",
    ];
    let entries = |folder: &Path| {
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        paths
    };
    let mut libraries: Vec<_> = entries(nvidia)
        .iter()
        .flat_map(|package| ["lib", "bin"].map(|folder| package.join(folder)))
        .flat_map(|folder| entries(&folder))
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let stem = name.strip_prefix("lib").unwrap_or(name);
            let rank = NEEDED.iter().position(|needed| stem.starts_with(needed))?;
            let shared = name.contains(".so") || name.ends_with(".dll");
            shared.then_some((rank, path))
        })
        .collect();
    libraries.sort();
    libraries.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_libraries_of_python_packages_are_found_in_the_order_of_their_needs() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for path in [
            "cudnn/lib/libcudnn.so.9",
            "cu13/lib/libcublas.so.13",
            "cu13/lib/libcublasLt.so.13",
            "cu13/lib/libcudart.so.13",
            "cu13/lib/libother.so.1",
            "cu13/lib/readme.txt",
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            std::fs::write(path, "").expect("writable");
        }
        let names: Vec<_> = cuda_libraries(folder.path())
            .iter()
            .map(|path| path.file_name().expect("a name").to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "libcudart.so.13",
                "libcublasLt.so.13",
                "libcublas.so.13",
                "libcudnn.so.9"
            ]
        );
    }
}
