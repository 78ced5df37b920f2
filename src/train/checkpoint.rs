//! Checkpoints: everything that a training needs to go on as if it had never stopped.
//!
//! A folder holds `checkpoint.toml` and the files that it names: weights and optimizer state, and the weights kept as the best so far.
//! New files are written beside the old ones, and `checkpoint.toml` is renamed into place last: whatever happens, it names files that are whole.

use super::engine::State;
use super::weights::Snapshot;
use super::{Epoch, Error};
use crate::model::training::Trainable;
use crate::onnx::proto::TensorProto;
use crate::onnx::{from_tensor, to_tensor};
use crate::runtime::Value;
use crate::tensor::{DType, Tensor};
use safetensors::tensor::{SafeTensors, View, serialize_to_file};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const INDEX: &str = "checkpoint.toml";
const VERSION: u32 = 1;

/// Where a training stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Position {
    /// The epoch that the next batch belongs to, from 0.
    pub(super) epoch: u64,
    /// The next batch in it, from 0.
    pub(super) batch: usize,
    /// The weight steps done.
    pub(super) step: u64,
    /// The passes forward and backward done.
    pub(super) passes: u64,
    /// Seconds of training so far.
    pub(super) seconds: f64,
    /// The sum of the losses of the samples of this epoch.
    pub(super) loss: f64,
    /// The samples of this epoch.
    pub(super) samples: u64,
    /// Robust accuracy after the last epoch, where it is watched.
    pub(super) last_robust: Option<f64>,
    /// Whether robust accuracy has collapsed, so that the last weights are none to go on with.
    pub(super) collapsed: bool,
}

/// Weights that were kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// The epoch after which they were, from 1.
    pub(super) epoch: u64,
    /// What they were kept for.
    pub(super) accuracy: f64,
    pub(super) weights: Snapshot,
}

/// A checkpoint, read.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) position: Position,
    pub(super) epochs: Vec<Epoch>,
    pub(super) kept: Option<Kept>,
    tensors: BTreeMap<String, Tensor>,
}

/// What `checkpoint.toml` says.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    version: u32,
    /// The file with weights and optimizer state.
    weights: String,
    position: Position,
    kept: Option<KeptIndex>,
    /// What the training was asked to be; it goes on only as the same.
    asked: BTreeMap<String, String>,
    #[serde(default)]
    epochs: Vec<EpochIndex>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptIndex {
    file: String,
    epoch: u64,
    accuracy: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct EpochIndex {
    epoch: u64,
    steps: u64,
    learning_rate: f64,
    loss: f64,
    clean_accuracy: Option<f64>,
    robust_accuracy: Option<f64>,
    passes: u64,
    seconds: f64,
}

/// The folder that a training's checkpoints go to.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// What the training was asked to be.
    asked: BTreeMap<String, String>,
    /// The epoch of the kept weights that are in the folder.
    kept: Option<u64>,
}

impl Folder {
    /// Makes the folder; refuses one with a checkpoint that is not to be gone on from.
    pub(super) fn open(
        path: &Path,
        asked: BTreeMap<String, String>,
        resume: bool,
    ) -> Result<Self, Error> {
        let folder = Folder {
            path: path.to_owned(),
            asked,
            kept: None,
        };
        let index = path.join(INDEX);
        match (resume, index.exists()) {
            (true, false) => Err(folder.refuse(
                "there is no checkpoint to resume from; leave --resume out to begin a new training".into(),
            )),
            (false, true) => Err(folder.refuse(
                "there is a checkpoint already; go on from it with --resume, or give another folder".into(),
            )),
            (true, true) => Ok(folder),
            (false, false) => {
                std::fs::create_dir_all(path).map_err(file_error(path))?;
                Ok(folder)
            }
        }
    }

    fn refuse(&self, reason: String) -> Error {
        Error::Checkpoint {
            path: self.path.join(INDEX),
            reason,
        }
    }

    /// Reads the checkpoint.
    pub(super) fn read(&mut self, trainable: &Trainable) -> Result<Checkpoint, Error> {
        let path = self.path.join(INDEX);
        let text = std::fs::read_to_string(&path).map_err(file_error(&path))?;
        let index: Index = toml::from_str(&text)
            .map_err(|error| self.refuse(format!("this is no checkpoint: {}", error.message())))?;
        if index.version != VERSION {
            return Err(self.refuse(format!(
                "its version is {}, and this mohs reads {VERSION}",
                index.version
            )));
        }
        for (what, asked) in &self.asked {
            let Some(found) = index.asked.get(what) else {
                return Err(self.refuse(format!(
                    "the checkpoint was written by another version of mohs: it does not say its {what}; begin a new training in another folder"
                )));
            };
            if found != asked {
                return Err(self.refuse(format!(
                    "the checkpoint belongs to another training: its {what} is {found}, and asked for is {asked}"
                )));
            }
        }
        let tensors = self.tensors(&index.weights)?;
        let kept = match &index.kept {
            Some(kept) => {
                let tensors = self.tensors(&kept.file)?;
                Some(Kept {
                    epoch: kept.epoch,
                    accuracy: kept.accuracy,
                    weights: Snapshot {
                        parameters: self.take(&tensors, parameter_names(trainable))?,
                        statistics: self.take(&tensors, statistic_names(trainable))?,
                    },
                })
            }
            None => None,
        };
        self.kept = index.kept.as_ref().map(|kept| kept.epoch);
        Ok(Checkpoint {
            position: index.position,
            epochs: index.epochs.into_iter().map(Epoch::from).collect(),
            kept,
            tensors,
        })
    }

    /// Tensors of these names.
    fn take(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        names: impl Iterator<Item = String>,
    ) -> Result<Vec<Tensor>, Error> {
        names
            .map(|name| {
                let tensor = tensors.get(&name).cloned();
                tensor.ok_or_else(|| self.refuse(format!("it has no tensor `{name}`")))
            })
            .collect()
    }

    /// Puts the checkpoint's weights and state into place.
    pub(super) fn restore(
        &self,
        checkpoint: &Checkpoint,
        trainable: &Trainable,
        state_names: &[&str],
        state: &mut State,
    ) -> Result<(), Error> {
        let tensors = &checkpoint.tensors;
        let values = |names: Vec<String>, old: &[Value]| -> Result<Vec<Value>, Error> {
            let found = self.take(tensors, names.into_iter())?;
            found
                .into_iter()
                .zip(old)
                .map(|(tensor, old)| {
                    if tensor.shape() != old.shape() || Some(tensor.dtype()) != old.dtype() {
                        return Err(self
                            .refuse("a tensor has another shape or type than the model's".into()));
                    }
                    Ok(Value::from_tensor(tensor)?)
                })
                .collect()
        };
        state.parameters = values(parameter_names(trainable).collect(), &state.parameters)?;
        state.statistics = values(statistic_names(trainable).collect(), &state.statistics)?;
        for (parameter, own) in trainable.parameters.iter().zip(&mut state.optimizer) {
            let names = state_names
                .iter()
                .map(|name| state_name(name, &parameter.name));
            *own = values(names.collect(), own)?;
        }
        if let Some(carried) = tensors.get(CARRIED) {
            state.carried = Some(Value::from_tensor(carried.clone())?);
        }
        state.step = checkpoint.position.step;
        state.passes = checkpoint.position.passes;
        Ok(())
    }

    /// Writes a checkpoint.
    pub(super) fn write(
        &mut self,
        trainable: &Trainable,
        state_names: &[&str],
        state: &State,
        position: &Position,
        epochs: &[Epoch],
        kept: Option<&Kept>,
    ) -> Result<(), Error> {
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        let mut add = |name: String, value: &Value| -> Result<(), Error> {
            tensors.push((name, value.to_tensor()?));
            Ok(())
        };
        for (name, value) in parameter_names(trainable).zip(&state.parameters) {
            add(name, value)?;
        }
        for (name, value) in statistic_names(trainable).zip(&state.statistics) {
            add(name, value)?;
        }
        for (parameter, own) in trainable.parameters.iter().zip(&state.optimizer) {
            for (name, value) in state_names.iter().zip(own) {
                add(state_name(name, &parameter.name), value)?;
            }
        }
        if let Some(carried) = &state.carried {
            add(CARRIED.to_owned(), carried)?;
        }
        let weights = format!("weights-{:08}.safetensors", position.step);
        self.write_tensors(&weights, &tensors)?;
        let kept_index = kept.map(|kept| KeptIndex {
            file: format!("kept-{:04}.safetensors", kept.epoch),
            epoch: kept.epoch,
            accuracy: kept.accuracy,
        });
        if let (Some(kept), Some(index)) = (kept, &kept_index)
            && self.kept != Some(kept.epoch)
        {
            let names = parameter_names(trainable).chain(statistic_names(trainable));
            let own = kept
                .weights
                .parameters
                .iter()
                .chain(&kept.weights.statistics);
            let own: Vec<(String, Tensor)> = names.zip(own.cloned()).collect();
            self.write_tensors(&index.file, &own)?;
        }
        self.kept = kept.map(|kept| kept.epoch);
        let named: Vec<String> = kept_index
            .iter()
            .map(|kept| kept.file.clone())
            .chain([weights.clone()])
            .collect();
        let index = Index {
            version: VERSION,
            weights,
            position: position.clone(),
            kept: kept_index,
            asked: self.asked.clone(),
            epochs: epochs.iter().map(EpochIndex::from).collect(),
        };
        let text = toml::to_string(&index)
            .map_err(|error| self.refuse(format!("it cannot be written: {error}")))?;
        let path = self.path.join(INDEX);
        self.rename_into(&path, |file| file.write_all(text.as_bytes()))?;
        self.sweep(&named);
        Ok(())
    }

    fn tensors(&self, file: &str) -> Result<BTreeMap<String, Tensor>, Error> {
        // A name from a file stays within its folder.
        let name = Path::new(file).file_name().unwrap_or_default();
        let path = self.path.join(name);
        let bytes = std::fs::read(&path).map_err(file_error(&path))?;
        let refuse = |reason: String| Error::Checkpoint {
            path: path.clone(),
            reason,
        };
        let file = SafeTensors::deserialize(&bytes).map_err(|error| refuse(error.to_string()))?;
        file.tensors()
            .into_iter()
            .map(|(name, view)| {
                let dtype = dtype_of(view.dtype())
                    .ok_or_else(|| refuse(format!("tensor `{name}` has an unknown type")))?;
                let proto = TensorProto {
                    name: Some(name.clone()),
                    dims: view.shape().iter().map(|&extent| extent as i64).collect(),
                    data_type: Some(dtype.to_onnx()),
                    raw_data: Some(view.data().to_vec().into()),
                    ..TensorProto::default()
                };
                let tensor = to_tensor(&proto).map_err(|error| refuse(error.to_string()))?;
                Ok((name, tensor))
            })
            .collect()
    }

    fn write_tensors(&self, name: &str, tensors: &[(String, Tensor)]) -> Result<(), Error> {
        let path = self.path.join(name);
        let views: Vec<(&str, Stored)> = tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), Stored::of(tensor)))
            .collect();
        let temporary = tempfile::NamedTempFile::new_in(&self.path).map_err(file_error(&path))?;
        serialize_to_file(views, None, temporary.path()).map_err(|error| Error::Checkpoint {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        finish(temporary, &path)
    }

    /// Writes a file that appears whole or not at all.
    fn rename_into(
        &self,
        path: &Path,
        write: impl FnOnce(&mut std::fs::File) -> io::Result<()>,
    ) -> Result<(), Error> {
        let mut temporary =
            tempfile::NamedTempFile::new_in(&self.path).map_err(file_error(path))?;
        write(temporary.as_file_mut()).map_err(file_error(path))?;
        finish(temporary, path)
    }

    /// Takes away what earlier checkpoints have left. What cannot be taken away does no harm.
    fn sweep(&self, named: &[String]) {
        let Ok(entries) = std::fs::read_dir(&self.path) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = (name.starts_with("weights-") || name.starts_with("kept-"))
                && name.ends_with(".safetensors");
            if ours && !named.contains(&name) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// The name of the perturbation that goes from batch to batch.
const CARRIED: &str = "mohs.carried";

fn parameter_names(trainable: &Trainable) -> impl Iterator<Item = String> + '_ {
    trainable.parameters.iter().map(|known| known.name.clone())
}

fn statistic_names(trainable: &Trainable) -> impl Iterator<Item = String> + '_ {
    trainable.statistics.iter().map(|known| known.name.clone())
}

fn state_name(state: &str, parameter: &str) -> String {
    format!("mohs.{state}.{parameter}")
}

fn finish(temporary: tempfile::NamedTempFile, path: &Path) -> Result<(), Error> {
    temporary.as_file().sync_all().map_err(file_error(path))?;
    temporary
        .persist(path)
        .map(|_| ())
        .map_err(|error| file_error(path)(error.error))
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    |source| Error::File {
        path: path.to_owned(),
        source,
    }
}

/// A tensor as the file holds it.
struct Stored {
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    bytes: bytes::Bytes,
}

impl Stored {
    fn of(tensor: &Tensor) -> Self {
        Stored {
            dtype: stored_dtype(tensor.dtype()),
            shape: tensor.shape().to_vec(),
            bytes: from_tensor("", tensor).raw_data.unwrap_or_default(),
        }
    }
}

impl View for Stored {
    fn dtype(&self) -> safetensors::Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The types that both know.
const TYPES: &[(DType, safetensors::Dtype)] = &[
    (DType::F32, safetensors::Dtype::F32),
    (DType::F64, safetensors::Dtype::F64),
    (DType::F16, safetensors::Dtype::F16),
    (DType::BF16, safetensors::Dtype::BF16),
    (DType::I8, safetensors::Dtype::I8),
    (DType::I16, safetensors::Dtype::I16),
    (DType::I32, safetensors::Dtype::I32),
    (DType::I64, safetensors::Dtype::I64),
    (DType::U8, safetensors::Dtype::U8),
    (DType::U16, safetensors::Dtype::U16),
    (DType::U32, safetensors::Dtype::U32),
    (DType::U64, safetensors::Dtype::U64),
    (DType::Bool, safetensors::Dtype::BOOL),
];

fn stored_dtype(dtype: DType) -> safetensors::Dtype {
    let found = TYPES.iter().find(|(known, _)| *known == dtype);
    found.map_or(safetensors::Dtype::F32, |(_, stored)| *stored)
}

fn dtype_of(stored: safetensors::Dtype) -> Option<DType> {
    let found = TYPES.iter().find(|(_, known)| *known == stored);
    found.map(|(dtype, _)| *dtype)
}

impl From<EpochIndex> for Epoch {
    fn from(index: EpochIndex) -> Self {
        Epoch {
            epoch: index.epoch,
            steps: index.steps,
            learning_rate: index.learning_rate,
            loss: index.loss,
            clean_accuracy: index.clean_accuracy,
            robust_accuracy: index.robust_accuracy,
            passes: index.passes,
            seconds: index.seconds,
        }
    }
}

impl From<&Epoch> for EpochIndex {
    fn from(epoch: &Epoch) -> Self {
        EpochIndex {
            epoch: epoch.epoch,
            steps: epoch.steps,
            learning_rate: epoch.learning_rate,
            loss: epoch.loss,
            clean_accuracy: epoch.clean_accuracy,
            robust_accuracy: epoch.robust_accuracy,
            passes: epoch.passes,
            seconds: epoch.seconds,
        }
    }
}
