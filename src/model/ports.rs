//! Which input is attacked and which output is judged.

use super::{Error, Feeds, ModelOptions, gradient};
use crate::graph::{Dim, Graph, ValueId};
use crate::onnx::proto::{Dimension, DimensionValue, TensorType, TypeValue, ValueInfoProto};
use crate::runtime::Value;
use crate::tensor::{DType, Tensor};
use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// An input besides the attacked one.
#[derive(Debug, Clone)]
struct Other {
    name: String,
    dtype: DType,
    /// The declared extents; `None` for one that is dynamic or the batch.
    shape: Vec<Option<usize>>,
}

/// The inputs of a model.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    /// The attacked input.
    pub(super) input: String,
    pub(super) dtype: DType,
    /// The shape of one sample.
    pub(super) sample_shape: Vec<usize>,
    /// The batch size that the model declares, if it declares one.
    pub(super) declared_batch: Option<usize>,
    /// What was decided.
    pub(super) notes: Vec<String>,
    others: Vec<Other>,
}

impl Ports {
    /// Chooses the attacked input.
    pub(super) fn choose(graph: &Graph, options: &ModelOptions) -> Result<Self, Error> {
        let real: Vec<&ValueInfoProto> = graph.real_inputs().map(|(_, info)| info).collect();
        let described = || {
            real.iter()
                .map(|info| format!("\n  {}", describe(info)))
                .collect::<String>()
        };
        let inner = options.integer_input || !options.keep.is_empty();
        let chosen = match &options.input {
            Some(name) => real
                .iter()
                .find(|info| info.name.as_ref() == Some(name))
                .copied()
                .ok_or_else(|| {
                    Error::Unsuitable(format!(
                        "the model has no input `{name}`; its inputs are{}",
                        described()
                    ))
                })?,
            None => {
                let floats: Vec<_> = real
                    .iter()
                    .filter(|info| dtype(info).is_some_and(DType::is_float))
                    .collect();
                match (floats.as_slice(), real.as_slice()) {
                    ([one], _) => **one,
                    // An inner tensor is differentiated: token ids, say, stay as they are.
                    ([], [first, ..]) if inner => first,
                    ([], _) => {
                        return Err(Error::Unsuitable(format!(
                            "the model has no float input, so there is nothing to attack by gradients; its inputs are{}\nname the inner float tensor to perturb (an embedding, say) with --wrt",
                            described()
                        )));
                    }
                    _ => {
                        return Err(Error::Unsuitable(format!(
                            "the model has several float inputs; choose one with --input:{}",
                            described()
                        )));
                    }
                }
            }
        };
        let name = chosen.name.clone().unwrap_or_default();
        let dtype = dtype(chosen).filter(|dtype| inner || dtype.is_float()).ok_or_else(|| {
            Error::Unsuitable(format!("input `{}` is not of a float type, and only floats can be perturbed by gradients", describe(chosen)))
        })?;
        let (declared_batch, sample_shape, notes) =
            sample_shape(chosen, options.input_shape.as_deref())?;
        let others = real
            .iter()
            .filter(|info| info.name.as_ref() != Some(&name))
            .map(|info| Other::of(info))
            .collect::<Result<_, _>>()?;
        Ok(Ports {
            input: name,
            dtype,
            sample_shape,
            declared_batch,
            notes,
            others,
        })
    }

    /// The names of the inputs besides the attacked one.
    pub(super) fn others(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(|other| other.name.as_str())
    }

    /// Writes the sample shape into the declaration of the attacked input.
    pub(super) fn declare(&self, graph: &mut Graph) {
        for (_, info) in &mut graph.inputs {
            if info.name.as_ref() != Some(&self.input) {
                continue;
            }
            if let Some(TypeValue::TensorType(TensorType {
                shape: Some(shape), ..
            })) = info.r#type.as_mut().and_then(|kind| kind.value.as_mut())
            {
                for (dim, &extent) in shape.dim.iter_mut().skip(1).zip(&self.sample_shape) {
                    let extent = i64::try_from(extent).unwrap_or(i64::MAX);
                    *dim = Dimension {
                        value: Some(DimensionValue::DimValue(extent)),
                        denotation: dim.denotation.take(),
                    };
                }
            }
        }
    }

    /// Values for every input at a batch size: the attacked one random in [0, 1], the others all ones.
    ///
    /// Where an inner tensor is attacked, every integer is 0 or 1 at random: token ids, types and masks alike; samples have to differ, or one
    /// that leaks into another would go unnoticed.
    pub(super) fn feeds(&self, batch: usize) -> Result<Feeds, Error> {
        self.feeds_from(0, batch)
    }

    /// As [`Ports::feeds`], for the samples from `first` on.
    pub(super) fn feeds_from(&self, first: usize, batch: usize) -> Result<Feeds, Error> {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let width = self.sample_shape.iter().product::<usize>();
        let count = (first + batch) * width;
        let elements: Vec<f32> = if self.dtype.is_float() {
            let elements = (0..count).map(|_| rng.random_range(0.0..1.0));
            elements.skip(first * width).collect()
        } else {
            bits(0, first, batch, width)
        };
        let mut feeds = vec![(self.input.clone(), self.value(batch, elements)?)];
        for (other, stream) in self.others.iter().zip(1..) {
            let shape: Vec<usize> = other
                .shape
                .iter()
                .map(|extent| extent.unwrap_or(batch))
                .collect();
            let count: usize = shape.iter().product();
            // A sample has the same numbers in whichever batch it is.
            let width = count / batch.max(1);
            let of_tokens = !self.dtype.is_float() && other.dtype == self.dtype && shape.len() > 1;
            let elements = if of_tokens {
                bits(stream, first, batch, width)
            } else {
                vec![1.0; count]
            };
            feeds.push((
                other.name.clone(),
                Value::from_tensor(typed(other.dtype, &shape, elements)?)?,
            ));
        }
        Ok(feeds)
    }

    /// A batch of samples in the input's type.
    pub(super) fn value(&self, batch: usize, elements: Vec<f32>) -> Result<Value, Error> {
        let shape: Vec<usize> = std::iter::once(batch)
            .chain(self.sample_shape.iter().copied())
            .collect();
        Ok(Value::from_tensor(typed(self.dtype, &shape, elements)?)?)
    }
}

impl Other {
    fn of(info: &ValueInfoProto) -> Result<Self, Error> {
        let name = info.name.clone().unwrap_or_default();
        let unsuitable = || {
            Error::Unsuitable(format!(
                "input `{}` is no tensor that mohs can fill",
                describe(info)
            ))
        };
        let dtype = dtype(info).ok_or_else(unsuitable)?;
        let shape = extents(info).ok_or_else(unsuitable)?;
        // The first axis is the batch, which mohs sets.
        let shape = shape
            .iter()
            .enumerate()
            .map(|(axis, extent)| extent.filter(|_| axis > 0))
            .collect();
        Ok(Other { name, dtype, shape })
    }
}

/// Samples of zeros and ones from `first` on, each of another kind than those beside it: how many ones it has goes round, and where they begin is
/// random.
fn bits(seed: u64, first: usize, samples: usize, width: usize) -> Vec<f32> {
    let sample = |index: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ ((index as u64) << 32));
        let ones = ((index % 3 + 1) * width).div_ceil(4);
        let begin = rng.random_range(0..width.max(1));
        (0..width).map(move |place| f32::from(u8::from((place + width - begin) % width < ones)))
    };
    (first..first + samples).flat_map(sample).collect()
}

/// Numbers in a type.
pub(crate) fn typed(dtype: DType, shape: &[usize], elements: Vec<f32>) -> Result<Tensor, Error> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the caller's numbers are small integers there"
    )]
    let tensor = match dtype {
        DType::F32 => Tensor::new(shape, elements),
        DType::F64 => Tensor::new(shape, elements.into_iter().map(f64::from).collect()),
        DType::F16 => Tensor::new(shape, elements.into_iter().map(f16::from_f32).collect()),
        DType::BF16 => Tensor::new(shape, elements.into_iter().map(bf16::from_f32).collect()),
        DType::I64 => Tensor::new(
            shape,
            elements.into_iter().map(|value| value as i64).collect(),
        ),
        DType::I32 => Tensor::new(
            shape,
            elements.into_iter().map(|value| value as i32).collect(),
        ),
        DType::Bool => Tensor::new(
            shape,
            elements.into_iter().map(|value| value != 0.0).collect(),
        ),
        _ => {
            return Err(Error::Unsuitable(format!(
                "inputs of type {dtype} are not supported"
            )));
        }
    };
    tensor.ok_or_else(|| Error::Internal("a batch has the wrong size".into()))
}

/// The batch that an input declares, the shape of a sample, and notes for the log.
type SampleShape = (Option<usize>, Vec<usize>, Vec<String>);

/// What an input takes, as it declares it or as it is `given`.
fn sample_shape(info: &ValueInfoProto, given: Option<&[usize]>) -> Result<SampleShape, Error> {
    let text = describe(info);
    let declared = extents(info);
    let Some(declared) = declared.filter(|shape| shape.len() >= 2) else {
        return Err(Error::Unsuitable(format!(
            "input `{text}` has to be [N, …]: a batch axis and at least one more"
        )));
    };
    let (batch, rest) = (declared[0], &declared[1..]);
    if let Some(given) = given {
        let fits = given.len() == rest.len()
            && rest
                .iter()
                .zip(given)
                .all(|(declared, given)| declared.is_none_or(|extent| extent == *given));
        if !fits || given.contains(&0) {
            return Err(Error::Unsuitable(format!(
                "--input-shape {given:?} does not fit input `{text}`; give the extents of one sample, without the batch"
            )));
        }
        return Ok((
            batch,
            given.to_vec(),
            vec![format!(
                "the samples have shape {given:?}, as given by --input-shape"
            )],
        ));
    }
    match rest.iter().copied().collect::<Option<Vec<usize>>>() {
        Some(shape) if !shape.contains(&0) => Ok((batch, shape, Vec::new())),
        _ => Err(Error::Unsuitable(format!(
            "input `{text}` has a dynamic axis beyond the batch; say how large one sample is with --input-shape, such as --input-shape 3,224,224"
        ))),
    }
}

/// Chooses the output with the class scores, among those that running the model showed to be float `[N, classes]`.
///
/// Where there is none, the label of the predicted class will do, an integer `[N]`.
pub(super) fn choose_output(graph: &Graph, asked: Option<&str>) -> Result<ValueId, Error> {
    let outputs: Vec<ValueId> = graph.outputs.iter().map(|(id, _)| *id).collect();
    let text = |id: &ValueId| match graph.fact(*id) {
        Some(fact) => format!(
            "\n  {}: {} {}",
            graph.name(*id),
            fact.dtype,
            gradient::show(&fact.shape)
        ),
        None => format!(
            "\n  {}: no tensor, or its shape depends on the data",
            graph.name(*id)
        ),
    };
    let all = || outputs.iter().map(text).collect::<String>();
    let scores = |id: &ValueId| {
        graph.fact(*id).is_some_and(|fact| {
            fact.dtype.is_float() && gradient::class_axis(&fact.shape).is_some()
        })
    };
    let labels = |id: &ValueId| {
        graph.fact(*id).is_some_and(|fact| {
            let integer = matches!(fact.dtype, DType::I64 | DType::I32);
            integer && fact.shape.iter().skip(1).all(|dim| *dim == Dim::ONE)
        })
    };
    if let Some(name) = asked {
        let id = outputs
            .iter()
            .find(|id| graph.name(**id) == name)
            .ok_or_else(|| {
                Error::Unsuitable(format!(
                    "the model has no output `{name}`; its outputs are{}",
                    all()
                ))
            })?;
        return if scores(id) || labels(id) {
            Ok(*id)
        } else {
            Err(Error::Unsuitable(format!(
                "output `{name}` has neither class scores, float [N, classes] with at least 2 classes, nor labels, int64 [N]; the outputs are{}",
                all()
            )))
        };
    }
    let mut candidates: Vec<&ValueId> = outputs.iter().filter(|id| scores(id)).collect();
    if candidates.is_empty() {
        candidates = outputs.iter().filter(|id| labels(id)).collect();
    }
    match candidates.as_slice() {
        [one] => Ok(**one),
        [] => Err(Error::Unsuitable(format!(
            "no output has class scores, float [N, classes] with at least 2 classes, or labels, int64 [N]; the outputs are{}",
            all()
        ))),
        _ => Err(Error::Unsuitable(format!(
            "several outputs could be the class scores; choose one with --output:{}",
            all()
        ))),
    }
}

/// The output that has one float for each of a batch of this extent, where it was asked for or where it alone can be the score of a class.
pub(super) fn one_score(graph: &Graph, asked: Option<&str>, batch: Dim) -> Option<ValueId> {
    let fact = |id: &ValueId| graph.fact(*id).filter(|fact| fact.dtype.is_float());
    let outputs = || graph.outputs.iter().map(|(id, _)| *id);
    let several =
        |id: &ValueId| fact(id).is_some_and(|fact| gradient::class_axis(&fact.shape).is_some());
    let one = |id: &ValueId| {
        fact(id)
            .and_then(|fact| fact.shape.split_first())
            .is_some_and(|(first, rest)| *first == batch && rest.iter().all(|dim| *dim == Dim::ONE))
    };
    let mut found = outputs().filter(one);
    match asked {
        Some(name) => found.find(|id| graph.name(*id) == name),
        None if outputs().any(|id| several(&id)) => None,
        None => found.next().filter(|_| found.next().is_none()),
    }
}

fn tensor_type(info: &ValueInfoProto) -> Option<&TensorType> {
    match info.r#type.as_ref()?.value.as_ref()? {
        TypeValue::TensorType(tensor) => Some(tensor),
        _ => None,
    }
}

/// The type that a declaration gives.
pub(crate) fn dtype(info: &ValueInfoProto) -> Option<DType> {
    DType::from_onnx(tensor_type(info)?.elem_type?)
}

/// The declared extents; `None` within for those that are open.
pub(crate) fn extents(info: &ValueInfoProto) -> Option<Vec<Option<usize>>> {
    let shape = tensor_type(info)?.shape.as_ref()?;
    let extent = |dim: &Dimension| match dim.value {
        Some(DimensionValue::DimValue(extent)) => {
            usize::try_from(extent).ok().filter(|&extent| extent > 0)
        }
        _ => None,
    };
    Some(shape.dim.iter().map(extent).collect())
}

/// A declaration for a message: name, type and shape.
pub(crate) fn describe(info: &ValueInfoProto) -> String {
    let name = info.name.as_deref().unwrap_or_default();
    let kind = dtype(info).map_or_else(|| "no tensor".to_owned(), |dtype| dtype.to_string());
    let Some(shape) = tensor_type(info).and_then(|tensor| tensor.shape.as_ref()) else {
        return format!("{name}: {kind}");
    };
    let dim = |dim: &Dimension| match &dim.value {
        Some(DimensionValue::DimValue(extent)) => extent.to_string(),
        Some(DimensionValue::DimParam(name)) => name.clone(),
        None => "?".into(),
    };
    let dims: Vec<String> = shape.dim.iter().map(dim).collect();
    format!("{name}: {kind} [{}]", dims.join(", "))
}
