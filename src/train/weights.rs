//! Weights outside of ONNX Runtime: copies of them, new ones by chance, and the model that they are put into.

use super::Error;
use super::engine::State;
use crate::model::training::{self, ParameterKind, Trainable};
use crate::model::typed;
use crate::onnx::proto::ModelProto;
use crate::rng::{Key, Purpose, stream};
use crate::runtime::Value;
use crate::tensor::{DType, Tensor};
use rand::Rng;

/// Parameters and running statistics at one moment.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) parameters: Vec<Tensor>,
    pub(super) statistics: Vec<Tensor>,
}

impl Snapshot {
    /// A copy of the weights as they are.
    pub(super) fn take(state: &State) -> Result<Self, Error> {
        let copy = |values: &[Value]| -> Result<Vec<Tensor>, Error> {
            values.iter().map(|value| Ok(value.to_tensor()?)).collect()
        };
        Ok(Snapshot {
            parameters: copy(&state.parameters)?,
            statistics: copy(&state.statistics)?,
        })
    }

    /// The first parameter with a number that is none.
    pub(super) fn not_finite<'a>(&self, trainable: &'a Trainable) -> Option<&'a str> {
        let bad = |tensor: &Tensor| tensor.to_f64().iter().any(|value| !value.is_finite());
        let parameters = self.parameters.iter().zip(&trainable.parameters);
        let mut bad_parameters = parameters.filter(|(tensor, _)| bad(tensor));
        bad_parameters
            .next()
            .map(|(_, parameter)| parameter.name.as_str())
    }

    /// The model with these weights, and otherwise as it is.
    pub(super) fn export(
        &self,
        model: &ModelProto,
        trainable: &Trainable,
    ) -> Result<ModelProto, Error> {
        let parameters = trainable.parameters.iter().map(|known| &known.name);
        let statistics = trainable.statistics.iter().map(|known| &known.name);
        let tensors = self.parameters.iter().chain(&self.statistics).cloned();
        let named: Vec<(String, Tensor)> =
            parameters.chain(statistics).cloned().zip(tensors).collect();
        Ok(training::export(model, &named)?)
    }
}

/// Draws all parameters anew: weights uniformly between ±1/√fan-in, as PyTorch's layers begin, and embeddings normally; scales are 1, biases, shifts and
/// running means 0, running variances 1.
pub(super) fn reinitialize(trainable: &mut Trainable, seed: u64) -> Result<(), Error> {
    for (position, parameter) in trainable.parameters.iter_mut().enumerate() {
        let mut random = stream(Key {
            seed,
            sample: position as u64,
            restart: 0,
            purpose: Purpose::Weights,
        });
        let count = parameter.shape.iter().product();
        let drawn: Vec<f32> = match parameter.kind {
            ParameterKind::Weight => {
                // √6 times as much would keep the size of activations behind rectifiers (He et al. 2015); the first scores are then so large that
                // adversarial training takes many epochs to undo them.
                let limit = 1.0 / (parameter.fan_in.max(1) as f64).sqrt();
                draw(count, || limit * random.random_range(-1.0..1.0))
            }
            ParameterKind::Embedding => {
                // The sum of twelve uniform numbers has the variance 1; its tails are short, as those of first weights should be.
                draw(count, || {
                    (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
                })
            }
            ParameterKind::Scale => vec![1.0; count],
            _ => vec![0.0; count],
        };
        parameter.initial = typed(parameter.dtype, &parameter.shape, drawn)?;
    }
    for statistic in &mut trainable.statistics {
        let value = if statistic.is_variance { 1.0 } else { 0.0 };
        let shape = statistic.initial.shape().to_vec();
        let values = vec![value; shape.iter().product()];
        statistic.initial = typed(statistic.dtype, &shape, values)?;
    }
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "weights are single precision"
)]
fn draw(count: usize, mut next: impl FnMut() -> f64) -> Vec<f32> {
    (0..count).map(|_| next() as f32).collect()
}

/// Refuses weights that are too coarse to be trained.
pub(super) fn check_types(trainable: &Trainable) -> Result<(), Error> {
    let mut parameters = trainable.parameters.iter();
    match parameters.find(|known| !matches!(known.dtype, DType::F32 | DType::F64)) {
        Some(parameter) => Err(Error::Config(format!(
            "parameter `{}` is {}: small steps would be lost in it; train the float32 model and convert it afterwards, or leave it as it is with --freeze",
            parameter.name, parameter.dtype
        ))),
        None => Ok(()),
    }
}
