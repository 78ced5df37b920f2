//! What pip does for mohs.
//!
//! Pip is what reaches a package index from wherever the user is (mirrors, proxies, certificates, local folders), and it checks the
//! hashes that are pinned here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::super::library::PYTHONS;
use super::build::{Build, Wheel};

/// The Python version whose wheels are pinned.
const WHEEL_PYTHON: &str = "312";

/// Fetches the wheels of a build into the folder `into` with the first Python that has pip.
pub(super) fn download(
    build: Build,
    wheels: &[&Wheel],
    into: &Path,
) -> Result<Vec<PathBuf>, String> {
    let python = python_with_pip()?;
    let requirements = into.join("requirements.txt");
    fs::write(&requirements, requirements_of(wheels))
        .map_err(|error| format!("{} cannot be written ({error})", requirements.display()))?;
    let folder = into.join("wheels");
    tracing::info!(
        "downloading {} {} with pip into mohs's cache, {}",
        build.package(),
        build.version(),
        into.parent().unwrap_or(into).display()
    );
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "download", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--require-hashes"])
        .args(["--python-version", WHEEL_PYTHON])
        .args(["--implementation", "cp"])
        .args(["--abi", &format!("cp{WHEEL_PYTHON}"), "--abi", "none"]);
    for platform in platforms(wheels) {
        command.args(["--platform", platform]);
    }
    let output = command
        .arg("--dest")
        .arg(&folder)
        .arg("--requirement")
        .arg(&requirements)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{python} cannot be started ({error})"))?;
    if !output.status.success() {
        return Err(format!(
            "`{python} -m pip download {}=={}` failed: {}",
            build.package(),
            build.version(),
            complaint(&output)
        ));
    }
    let found: Vec<_> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .collect();
    if found.len() < wheels.len() {
        return Err(format!(
            "`{python} -m pip download` left {} of {} wheels",
            found.len(),
            wheels.len()
        ));
    }
    Ok(found)
}

/// Every platform tag, each once.
fn platforms<'a>(wheels: &[&'a Wheel]) -> Vec<&'a str> {
    let mut platforms: Vec<_> = wheels.iter().map(|wheel| wheel.platform).collect();
    platforms.sort_unstable();
    platforms.dedup();
    platforms
}

/// The requirements file that pins the wheels.
fn requirements_of(wheels: &[&Wheel]) -> String {
    let line = |wheel: &&Wheel| format!("{} --hash=sha256:{}\n", wheel.requirement, wheel.sha256);
    wheels.iter().map(line).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_have_a_line_with_a_hash_for_each_wheel() {
        let wheels = Build::Cuda.wheels("linux", "x86_64").expect("wheels");
        let text = requirements_of(&wheels);
        assert_eq!(text.lines().count(), wheels.len());
        assert!(text.starts_with("onnxruntime-gpu==1.31.1 --hash=sha256:"));
        assert!(platforms(&wheels).contains(&"manylinux_2_27_x86_64"));
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
