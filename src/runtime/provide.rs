//! Provides ONNX Runtime where there is none: the pinned wheel, fetched by pip, its shared libraries unpacked into mohs's cache.
//!
//! Pip is what reaches a package index from wherever the user is (mirrors, proxies, certificates, local folders), and it checks the
//! hash that is pinned here.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::library::PYTHONS;
use super::place::System;
use super::search::library_in;

/// The version that is downloaded where no ONNX Runtime is found.
pub const PINNED_VERSION: &str = "1.31.1";

/// One wheel of the pinned version. The library in it does not depend on the Python version, so one per platform is enough.
struct Wheel {
    /// As in [`std::env::consts::OS`].
    os: &'static str,
    /// As in [`std::env::consts::ARCH`].
    architecture: &'static str,
    /// The wheel's platform tag.
    platform: &'static str,
    sha256: &'static str,
}

/// The Python version whose wheels [`WHEELS`] are.
const WHEEL_PYTHON: &str = "312";

static WHEELS: &[Wheel] = &[
    Wheel {
        os: "linux",
        architecture: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
    },
    Wheel {
        os: "linux",
        architecture: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
    },
    Wheel {
        os: "macos",
        architecture: "aarch64",
        platform: "macosx_14_0_arm64",
        sha256: "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
    },
    Wheel {
        os: "windows",
        architecture: "x86_64",
        platform: "win_amd64",
        sha256: "ae8a9a351efda685cc59a66226cdefaa37a126c1d66872ca23a2de9425326130",
    },
];

/// The name of the library's folder in the cache.
fn folder_name() -> String {
    format!("onnxruntime-{PINNED_VERSION}")
}

/// The folder that the pinned library has in the cache; none where the system has no cache folder.
pub(super) fn folder() -> Option<PathBuf> {
    dirs::cache_dir().map(|cache| cache.join("mohs").join(folder_name()))
}

/// Downloads the pinned library into `folder` and returns its path.
///
/// Any number of processes may do so at once: one works, the others wait and find its result.
/// The error is a sentence for the user.
pub(super) fn provide(folder: Option<&Path>) -> Result<PathBuf, String> {
    let folder = folder.ok_or("this system has no cache folder (is HOME set?)")?;
    let wheel = wheel_for(std::env::consts::OS, std::env::consts::ARCH)?;
    install(folder, System::HERE, &|into| download(wheel, into))
}

fn wheel_for(os: &str, architecture: &str) -> Result<&'static Wheel, String> {
    let wheel = WHEELS
        .iter()
        .find(|wheel| wheel.os == os && wheel.architecture == architecture);
    // The Linux wheels need glibc.
    match wheel {
        Some(wheel) if !cfg!(target_env = "musl") => Ok(wheel),
        _ => Err(format!(
            "mohs knows no build of ONNX Runtime {PINNED_VERSION} for {os} on {architecture}"
        )),
    }
}

/// Puts the libraries of the wheel that `fetch` gives into `folder`, all or nothing, under a lock beside it.
fn install(
    folder: &Path,
    system: System,
    fetch: &dyn Fn(&Path) -> Result<PathBuf, String>,
) -> Result<PathBuf, String> {
    let cache = folder.parent().ok_or("the cache folder has no parent")?;
    let in_cache = |error: io::Error| format!("{} cannot be written ({error})", cache.display());
    fs::create_dir_all(cache).map_err(in_cache)?;
    let name = folder_name();
    let _lock = lock(&cache.join(format!("{name}.lock"))).map_err(in_cache)?;
    // Another process may have done the work while this one waited.
    if let Some(library) = library_in(system, folder) {
        return Ok(library);
    }
    let prefix = format!(".{name}-");
    remove_left_over(cache, &prefix);
    let work = tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(cache)
        .map_err(in_cache)?;
    let wheel = fetch(work.path())?;
    let unpacked = work.path().join("unpacked");
    fs::create_dir(&unpacked).map_err(in_cache)?;
    unpack(&wheel, &unpacked, system)?;
    if folder.exists() {
        // A folder without a library in it: somebody emptied it.
        fs::remove_dir_all(folder).map_err(in_cache)?;
    }
    fs::rename(&unpacked, folder).map_err(in_cache)?;
    library_in(system, folder)
        .ok_or_else(|| format!("{} disappeared while it was written", folder.display()))
}

/// Waits for the lock file; the lock ends when the file is dropped, or its process dies.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    if file.try_lock().is_err() {
        tracing::info!("waiting for another process that downloads ONNX Runtime");
        file.lock()?;
    }
    Ok(file)
}

/// Removes what processes that died while they held the lock left behind.
fn remove_left_over(cache: &Path, prefix: &str) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            // Where it cannot be removed, it does no harm.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Fetches `wheel` into the folder `into` with the first Python that has pip.
fn download(wheel: &Wheel, into: &Path) -> Result<PathBuf, String> {
    let python = python_with_pip()?;
    let requirements = into.join("requirements.txt");
    fs::write(&requirements, requirement(wheel))
        .map_err(|error| format!("{} cannot be written ({error})", requirements.display()))?;
    let wheels = into.join("wheels");
    tracing::info!(
        "no ONNX Runtime found: downloading version {PINNED_VERSION} with pip into mohs's cache, {}",
        into.parent().unwrap_or(into).display()
    );
    let output = Command::new(python)
        .args(["-m", "pip", "download", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--require-hashes"])
        .args(["--platform", wheel.platform])
        .args(["--python-version", WHEEL_PYTHON])
        .args(["--implementation", "cp"])
        .arg("--abi")
        .arg(format!("cp{WHEEL_PYTHON}"))
        .arg("--dest")
        .arg(&wheels)
        .arg("--requirement")
        .arg(&requirements)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{python} cannot be started ({error})"))?;
    if !output.status.success() {
        return Err(format!(
            "`{python} -m pip download onnxruntime=={PINNED_VERSION}` failed: {}",
            complaint(&output)
        ));
    }
    fs::read_dir(&wheels)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| format!("`{python} -m pip download` left no wheel"))
}

/// The requirements file that pins `wheel`.
fn requirement(wheel: &Wheel) -> String {
    format!(
        "onnxruntime=={PINNED_VERSION} --hash=sha256:{}\n",
        wheel.sha256
    )
}

/// The first Python that has pip; else what is wrong with each.
fn python_with_pip() -> Result<&'static str, String> {
    let mut wrong = Vec::new();
    for python in PYTHONS {
        let output = Command::new(python)
            .args(["-m", "pip", "--version"])
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => return Ok(python),
            Ok(output) => wrong.push(format!("`{python}` has no pip ({})", complaint(&output))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                wrong.push(format!("there is no `{python}` on the PATH"));
            }
            Err(error) => wrong.push(format!("`{python}` cannot be started ({error})")),
        }
    }
    Err(wrong.join(", and "))
}

/// The last error that a program printed, else its last line, else how it ended.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines()
        .rev()
        .find(|line| line.starts_with("ERROR:"))
        .or_else(|| lines().next_back())
        .map_or_else(|| output.status.to_string(), str::to_owned)
}

/// Unpacks ONNX Runtime and the libraries that it loads (not the Python module) from a wheel into `folder`.
fn unpack(wheel: &Path, folder: &Path, system: System) -> Result<(), String> {
    let broken = |error: &dyn std::fmt::Display| {
        format!("the wheel {} cannot be unpacked ({error})", wheel.display())
    };
    let file = File::open(wheel).map_err(|error| broken(&error))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| broken(&error))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| broken(&error))?;
        // Only plain names directly in this folder: no entry can lead out of the target.
        let name = entry
            .name()
            .strip_prefix("onnxruntime/capi/")
            .filter(|name| !name.contains(['/', '\\', ':']) && system.belongs_to_library(name))
            .map(str::to_owned);
        let Some(name) = name else { continue };
        let mut target = File::create(folder.join(name)).map_err(|error| broken(&error))?;
        io::copy(&mut entry, &mut target).map_err(|error| broken(&error))?;
        target.sync_all().map_err(|error| broken(&error))?;
    }
    match library_in(system, folder) {
        Some(_) => Ok(()),
        None => Err(broken(&"there is no ONNX Runtime library in it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn wheel(folder: &Path, entries: &[(&str, &str)]) -> PathBuf {
        let path = folder.join("onnxruntime-0-test.whl");
        let mut archive = zip::ZipWriter::new(File::create(&path).expect("writable"));
        for (name, content) in entries {
            archive
                .start_file(*name, zip::write::SimpleFileOptions::default())
                .expect("entry");
            archive.write_all(content.as_bytes()).expect("writable");
        }
        archive.finish().expect("a zip file");
        path
    }

    const LINUX_WHEEL: &[(&str, &str)] = &[
        ("onnxruntime/__init__.py", "python"),
        ("onnxruntime/capi/libonnxruntime.so.1.31.1", "library"),
        (
            "onnxruntime/capi/libonnxruntime_providers_shared.so",
            "shared",
        ),
        ("onnxruntime/capi/onnxruntime_pybind11_state.so", "module"),
        ("onnxruntime/capi/../../libonnxruntime.so", "outside"),
        ("elsewhere/libonnxruntime.so", "elsewhere"),
    ];

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_platform_is_pinned_by_a_sha_256() {
        for wheel in WHEELS {
            let digits = |text: &str| {
                text.chars()
                    .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
            };
            assert!(wheel.sha256.len() == 64 && digits(wheel.sha256));
            let line = requirement(wheel);
            assert!(line.starts_with("onnxruntime==1.31.1 --hash=sha256:"));
            assert!(std::ptr::eq(
                wheel_for(wheel.os, wheel.architecture).expect("a wheel"),
                wheel
            ));
        }
    }

    #[test]
    fn a_platform_without_a_wheel_is_named() {
        let error = wheel_for("freebsd", "riscv64").err().expect("no wheel");
        assert!(error.contains("freebsd on riscv64"), "{error}");
    }

    #[test]
    fn only_the_shared_libraries_are_unpacked() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let wheel = wheel(folder.path(), LINUX_WHEEL);
        let target = folder.path().join("target");
        fs::create_dir(&target).expect("writable");
        unpack(&wheel, &target, System::Linux).expect("a good wheel");
        assert_eq!(
            names(&target),
            [
                "libonnxruntime.so.1.31.1",
                "libonnxruntime_providers_shared.so"
            ]
        );
        assert!(!folder.path().join("libonnxruntime.so").exists());
    }

    #[test]
    fn a_wheel_without_a_library_or_that_is_no_zip_leaves_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let target = folder.path().join(folder_name());
        let empty = wheel(folder.path(), &[("onnxruntime/__init__.py", "python")]);
        let error =
            install(&target, System::Linux, &|_| Ok(empty.clone())).expect_err("no library");
        assert!(error.contains("no ONNX Runtime library"), "{error}");
        let garbage = folder.path().join("garbage.whl");
        fs::write(&garbage, "garbage").expect("writable");
        install(&target, System::Linux, &|_| Ok(garbage.clone())).expect_err("no zip file");
        assert!(!target.exists());
        assert!(
            names(folder.path())
                .iter()
                .all(|name| !name.starts_with('.'))
        );
    }

    #[test]
    fn many_at_once_download_once() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let target = folder.path().join("cache").join(folder_name());
        let wheel = wheel(folder.path(), LINUX_WHEEL);
        let downloads = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let library = install(&target, System::Linux, &|_| {
                        downloads.fetch_add(1, Ordering::SeqCst);
                        Ok(wheel.clone())
                    })
                    .expect("installed");
                    assert_eq!(fs::read_to_string(library).expect("readable"), "library");
                });
            }
        });
        assert_eq!(downloads.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_emptied_folder_and_what_a_dead_process_left_are_replaced() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let wheel = wheel(folder.path(), LINUX_WHEEL);
        let cache = folder.path().join("cache");
        let target = cache.join(folder_name());
        fs::create_dir_all(target.join("junk")).expect("writable");
        let left = cache.join(format!(".{}-dead", folder_name()));
        fs::create_dir_all(&left).expect("writable");
        install(&target, System::Linux, &|_| Ok(wheel.clone())).expect("installed");
        assert!(!left.exists());
        assert!(!target.join("junk").exists());
    }

    #[test]
    fn pips_last_error_is_what_is_told() {
        let output = |text: &str| Output {
            status: std::process::ExitStatus::default(),
            stdout: Vec::new(),
            stderr: text.as_bytes().to_vec(),
        };
        assert_eq!(
            complaint(&output("ERROR: first\nERROR: no match\nhint\n\n")),
            "ERROR: no match"
        );
        assert_eq!(
            complaint(&output("No module named pip\n")),
            "No module named pip"
        );
    }
}
