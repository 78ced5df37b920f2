//! What `mohs doctor` tells: which ONNX Runtime runs, why, and on which devices.

use std::fmt;

use super::device::{self, Device};
use super::error::{Error, chain};
use super::library::{Library, LibraryOptions, initialize};
use super::place::{Finding, Searched};

/// The state of the runtime on this machine.
#[derive(Debug)]
#[non_exhaustive]
pub struct Examination {
    /// The library and why it was chosen, or why there is none.
    pub library: Result<Library, Error>,
    /// The providers that the library was built with, best first.
    pub providers: Vec<String>,
    /// The devices whose provider the library has, and whether they answer.
    pub devices: Vec<Answer>,
    /// The threads that this process may run at once; a session uses one per physical core unless told otherwise.
    pub threads: usize,
}

/// Whether a device answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The device.
    pub device: Device,
    /// Why it does not answer, if it does not.
    pub trouble: Option<String>,
}

/// Looks for the library as a run would (downloads included, unless they are forbidden) and tries its devices out.
#[must_use]
pub fn examine(options: &LibraryOptions) -> Examination {
    let library = initialize(options).cloned();
    let providers = match &library {
        Ok(_) => device::providers().unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let devices = match &library {
        Ok(_) => [
            Device::Cpu,
            Device::Cuda(0),
            Device::TensorRt,
            Device::OpenVino,
        ]
        .into_iter()
        .filter(|device| providers.iter().any(|name| name == device.provider()))
        .map(|device| Answer {
            device,
            trouble: device::try_out(device).err().map(|error| chain(&error)),
        })
        .collect(),
        Err(_) => Vec::new(),
    };
    Examination {
        library,
        providers,
        devices,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The width of the text.
const WIDTH: usize = 80;
/// The column at which values begin.
const COLUMN: usize = 14;

impl fmt::Display for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.library {
            Ok(library) => {
                row(f, "ONNX Runtime", &library.version)?;
                row(f, "library", &library.path.display().to_string())?;
                row(f, "found through", &library.origin.to_string())?;
                row(f, "providers", &self.providers.join(", "))?;
                for (index, answer) in self.devices.iter().enumerate() {
                    let label = if index == 0 { "devices" } else { "" };
                    let state = match &answer.trouble {
                        None => format!("{} answers", answer.device),
                        Some(trouble) => trouble.clone(),
                    };
                    row(f, label, &state)?;
                }
                row(f, "threads", &self.threads.to_string())?;
                searched(f, &library.searched)
            }
            Err(Error::NoLibrary {
                provision,
                searched: places,
            }) => {
                row(f, "ONNX Runtime", "not found")?;
                row(f, "download", provision)?;
                row(f, "threads", &self.threads.to_string())?;
                searched(f, places)?;
                row(
                    f,
                    "ways out",
                    "name the library or its folder with --onnxruntime PATH or MOHS_ONNXRUNTIME=PATH, \
                     or run `pip install -U onnxruntime` in the active Python environment",
                )
            }
            Err(error) => {
                row(f, "ONNX Runtime", "not usable")?;
                row(f, "reason", &chain(error))?;
                row(f, "threads", &self.threads.to_string())
            }
        }
    }
}

fn searched(f: &mut fmt::Formatter<'_>, places: &[Searched]) -> fmt::Result {
    writeln!(f, "looked at, in this order")?;
    for place in places {
        let mark = match place.finding {
            Finding::Chosen => "✓",
            _ => "·",
        };
        paragraph(f, &format!("  {mark} "), 6, &place.to_string())?;
    }
    Ok(())
}

fn row(f: &mut fmt::Formatter<'_>, label: &str, value: &str) -> fmt::Result {
    paragraph(f, &format!("{label:<COLUMN$}"), COLUMN, value)
}

/// Writes words after `first`, broken at [`WIDTH`] and indented; a word (a path, say) that is longer has a line to itself.
fn paragraph(f: &mut fmt::Formatter<'_>, first: &str, indent: usize, text: &str) -> fmt::Result {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        let width = line.chars().count() + usize::from(!empty) + word.chars().count();
        if width > WIDTH && !empty {
            writeln!(f, "{line}")?;
            line = " ".repeat(indent);
        } else if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    writeln!(f, "{}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Origin;

    #[test]
    fn the_machine_that_runs_the_tests_is_fit() {
        let examination = examine(&LibraryOptions::default());
        let library = examination.library.as_ref().expect("a library");
        let cpu = examination.devices.first().expect("a device");
        assert_eq!((cpu.device, &cpu.trouble), (Device::Cpu, &None));
        let text = examination.to_string();
        assert!(text.contains(&library.version), "{text}");
        assert!(text.contains("cpu answers"), "{text}");
        assert!(text.contains("✓"), "{text}");
    }

    #[test]
    fn a_missing_library_is_told_within_80_columns_with_the_ways_out() {
        let examination = Examination {
            library: Err(Error::NoLibrary {
                provision:
                    "there is no `python3` on the PATH, and there is no `python` on the PATH".into(),
                searched: vec![
                    Searched {
                        origin: Origin::Explicit,
                        path: None,
                        finding: Finding::NotSet,
                    },
                    Searched {
                        origin: Origin::Cache,
                        path: Some("/home/somebody/.cache/mohs/onnxruntime-1.31.1".into()),
                        finding: Finding::Nothing,
                    },
                ],
            }),
            providers: Vec::new(),
            devices: Vec::new(),
            threads: 2,
        };
        insta::assert_snapshot!(examination.to_string(), @r"
        ONNX Runtime  not found
        download      there is no `python3` on the PATH, and there is no `python` on the
                      PATH
        threads       2
        looked at, in this order
          · --onnxruntime: not set
          · cache of mohs: /home/somebody/.cache/mohs/onnxruntime-1.31.1, no library
              there
        ways out      name the library or its folder with --onnxruntime PATH or
                      MOHS_ONNXRUNTIME=PATH, or run `pip install -U onnxruntime` in the
                      active Python environment
        ");
        assert!(
            examination
                .to_string()
                .lines()
                .all(|line| line.chars().count() <= WIDTH)
        );
    }
}
