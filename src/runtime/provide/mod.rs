//! Provides ONNX Runtime where there is none: pinned wheels, fetched by pip, their shared libraries unpacked into mohs's cache.

mod build;
mod pip;

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

pub use build::{Build, PINNED_VERSION, ParseBuildError};

use super::place::System;
use super::search::library_in;

/// The folder that a build has in the cache; none where the system has no cache folder.
pub(super) fn folder(build: Build) -> Option<PathBuf> {
    dirs::cache_dir().map(|cache| cache.join("mohs").join(build.folder_name()))
}

/// Downloads a build into its folder in the cache and returns the library's path; what is there already is left as it is.
///
/// Any number of processes may do so at once: one works, the others wait and find its result.
///
/// # Errors
/// A sentence for the user: no cache folder, no wheel for this platform, no pip, no network, no space.
pub fn provide(build: Build) -> Result<PathBuf, String> {
    let folder = folder(build).ok_or("this system has no cache folder (is HOME set?)")?;
    let wheels = build.wheels(std::env::consts::OS, std::env::consts::ARCH)?;
    install(&folder, System::HERE, &|into| {
        pip::download(build, &wheels, into)
    })
}

/// Puts the libraries of the wheels that `fetch` gives into `folder`, all or nothing, under a lock beside it.
fn install(
    folder: &Path,
    system: System,
    fetch: &dyn Fn(&Path) -> Result<Vec<PathBuf>, String>,
) -> Result<PathBuf, String> {
    let cache = folder.parent().ok_or("the cache folder has no parent")?;
    let in_cache = |error: io::Error| format!("{} cannot be written ({error})", cache.display());
    fs::create_dir_all(cache).map_err(in_cache)?;
    let name = folder.file_name().ok_or("the cache folder has no name")?;
    let name = name.to_string_lossy();
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
    let wheels = fetch(work.path())?;
    let unpacked = work.path().join("unpacked");
    fs::create_dir(&unpacked).map_err(in_cache)?;
    for wheel in &wheels {
        unpack(wheel, &unpacked, system)?;
        // CUDA's are large: each goes when it is unpacked.
        fs::remove_file(wheel).map_err(in_cache)?;
    }
    if library_in(system, &unpacked).is_none() {
        return Err("there is no ONNX Runtime library in what pip downloaded".to_owned());
    }
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

/// Unpacks the shared libraries of a wheel into `folder`: ONNX Runtime and what it loads, and NVIDIA's (not the Python modules).
fn unpack(wheel: &Path, folder: &Path, system: System) -> Result<(), String> {
    let broken = |error: &dyn std::fmt::Display| {
        format!("the wheel {} cannot be unpacked ({error})", wheel.display())
    };
    let file = File::open(wheel).map_err(|error| broken(&error))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| broken(&error))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| broken(&error))?;
        let Some(target) = target(entry.name(), system) else {
            continue;
        };
        let target = folder.join(target);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|error| broken(&error))?;
        }
        let mut target = File::create(target).map_err(|error| broken(&error))?;
        io::copy(&mut entry, &mut target).map_err(|error| broken(&error))?;
        target.sync_all().map_err(|error| broken(&error))?;
    }
    Ok(())
}

/// Where an entry of a wheel goes; none for what is not needed, and for names that would lead out of the folder.
fn target(entry: &str, system: System) -> Option<PathBuf> {
    let path = Path::new(entry);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !plain || entry.contains(['\\', ':']) {
        return None;
    }
    if let Some(name) = entry.strip_prefix("onnxruntime/capi/") {
        let wanted = !name.contains('/') && system.belongs_to_library(name);
        return wanted.then(|| PathBuf::from(name));
    }
    // nvidia/cudnn/lib/libcudnn.so.9
    let shared = path.file_name()?.to_str()?.contains(".so");
    (entry.starts_with("nvidia/") && shared).then(|| path.to_owned())
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

    /// A wheel that may be removed once it is unpacked.
    fn copy(wheel: &Path, into: &Path) -> Result<Vec<PathBuf>, String> {
        let copy = into.join("copy.whl");
        fs::copy(wheel, &copy).expect("writable");
        Ok(vec![copy])
    }

    const NAME: &str = "onnxruntime-0";

    const LINUX_WHEEL: &[(&str, &str)] = &[
        ("onnxruntime/__init__.py", "python"),
        ("onnxruntime/capi/libonnxruntime.so.1.31.1", "library"),
        (
            "onnxruntime/capi/libonnxruntime_providers_shared.so",
            "shared",
        ),
        ("onnxruntime/capi/onnxruntime_pybind11_state.so", "module"),
        ("onnxruntime/capi/../../libonnxruntime.so", "outside"),
        ("nvidia/cudnn/lib/libcudnn.so.9", "cudnn"),
        ("nvidia/cudnn/include/cudnn.h", "header"),
        ("nvidia/../../libcudnn.so.9", "outside"),
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
                "libonnxruntime_providers_shared.so",
                "nvidia"
            ]
        );
        assert!(target.join("nvidia/cudnn/lib/libcudnn.so.9").is_file());
        assert!(!target.join("nvidia/cudnn/include").exists());
        assert!(!folder.path().join("libonnxruntime.so").exists());
        assert!(!folder.path().join("libcudnn.so.9").exists());
    }

    #[test]
    fn a_wheel_without_a_library_or_that_is_no_zip_leaves_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let target = folder.path().join(NAME);
        let empty = wheel(folder.path(), &[("onnxruntime/__init__.py", "python")]);
        let error =
            install(&target, System::Linux, &|_| Ok(vec![empty.clone()])).expect_err("no library");
        assert!(error.contains("no ONNX Runtime library"), "{error}");
        let garbage = folder.path().join("garbage.whl");
        fs::write(&garbage, "garbage").expect("writable");
        install(&target, System::Linux, &|_| Ok(vec![garbage.clone()])).expect_err("no zip file");
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
        let target = folder.path().join("cache").join(NAME);
        let wheel = wheel(folder.path(), LINUX_WHEEL);
        let downloads = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let library = install(&target, System::Linux, &|into| {
                        downloads.fetch_add(1, Ordering::SeqCst);
                        copy(&wheel, into)
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
        let target = cache.join(NAME);
        fs::create_dir_all(target.join("junk")).expect("writable");
        let left = cache.join(format!(".{NAME}-dead"));
        fs::create_dir_all(&left).expect("writable");
        install(&target, System::Linux, &|into| copy(&wheel, into)).expect("installed");
        assert!(!left.exists());
        assert!(!target.join("junk").exists());
    }
}
