//! Differentiation rules against the inner-product identity ⟨u, J v⟩ = ⟨Jᵀ u, v⟩.
//!
//! The right side comes from the rule, the left one from central differences of the operator itself, run in ONNX Runtime in double precision
//! where it has that kernel.
//! The identity holds for every u and v, so one random pair sees every entry of J.

mod activation;
mod arithmetic;
mod attention;
mod control;
mod conv;
mod einsum;
mod half_precision;
mod index;
mod matmul;
mod norm;
mod pool;
mod recurrent;
mod reduce;
mod refused;
mod resize;
mod sample;
mod shape;
mod signal;
mod softmax;

use mohs::grad::vjp;
use mohs::graph::passes::{LIFTED_OPSET, expand_contrib, has_fused, lift};
use mohs::graph::{Attribute, Builder, Dim, Fact, Graph, ValueId};
use mohs::model::trace::{BATCHES, trace};
use mohs::onnx::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use mohs::onnx::{encode, from_tensor};
use mohs::runtime::{Optimization, Session, SessionOptions, Value};
use mohs::tensor::{DType, Tensor};
use ndarray::{ArrayD, Dimension as _, IxDyn};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The batch axis in an operand's shape.
pub const N: usize = usize::MAX;

/// An operand of the operator under test.
#[derive(Debug, Clone)]
pub enum Input {
    /// Differentiated; random elements in a range. [`N`] in the shape stands for the batch.
    Varied {
        shape: Vec<usize>,
        low: f64,
        high: f64,
    },
    /// Differentiated; these elements (the shape has no batch).
    Fixed(ArrayD<f64>),
    /// Not differentiated: an initializer.
    Constant(Tensor),
    /// Not differentiated: an input of the graph, the same at every batch size.
    Fed(Tensor),
    /// Left out.
    Absent,
}

/// A differentiated operand with elements in [−1, 1].
pub fn varied(shape: &[usize]) -> Input {
    between(shape, -1.0, 1.0)
}

/// A differentiated operand with elements in [low, high].
pub fn between(shape: &[usize], low: f64, high: f64) -> Input {
    Input::Varied {
        shape: shape.to_vec(),
        low,
        high,
    }
}

/// A constant list of integers.
pub fn ints(values: &[i64]) -> Input {
    Input::Constant(Tensor::new(&[values.len()], values.to_vec()).unwrap())
}

/// A constant tensor of the case's float type is made by [`Case::float`].
#[derive(Debug, Clone)]
pub struct Case {
    pub op_type: &'static str,
    pub domain: &'static str,
    pub opset: i64,
    pub dtype: DType,
    pub inputs: Vec<Input>,
    pub attributes: Vec<AttributeProto>,
    /// The number of results.
    pub outputs: usize,
    /// The positions of results that the node does not hand out.
    pub left_out: Vec<usize>,
    /// So many inputs, the last ones, are no operands: bodies of the node take them from outside.
    pub outside: usize,
    pub step: f64,
    pub tolerance: f64,
    pub seed: u64,
}

/// What one evaluation of the rule gives.
pub struct Gradients {
    /// The cotangent of each differentiated operand, in order; zeros where it has none.
    pub cotangents: Vec<ArrayD<f64>>,
}

impl Case {
    /// An operator in double precision at opset 18.
    pub fn new(op_type: &'static str, inputs: Vec<Input>) -> Self {
        Case {
            op_type,
            domain: "",
            opset: 18,
            dtype: DType::F64,
            inputs,
            attributes: Vec::new(),
            outputs: 1,
            left_out: Vec::new(),
            outside: 0,
            step: 1e-5,
            tolerance: 1e-6,
            seed: 0,
        }
    }

    /// In single precision, with a larger step and tolerance: for operators without a double-precision kernel.
    pub fn single(self) -> Self {
        Case {
            dtype: DType::F32,
            step: 1e-2,
            tolerance: 2e-3,
            ..self
        }
    }

    /// With an attribute.
    pub fn with(mut self, name: &str, attribute: Attribute) -> Self {
        self.attributes.push(attribute.to_proto(name));
        self
    }

    /// With an integer attribute.
    pub fn int(self, name: &str, value: i64) -> Self {
        self.with(name, Attribute::Int(value))
    }

    /// With a list of integers as an attribute.
    pub fn ints(self, name: &str, values: &[i64]) -> Self {
        self.with(name, Attribute::Ints(values.to_vec()))
    }

    /// With a float attribute.
    pub fn float(self, name: &str, value: f32) -> Self {
        self.with(name, Attribute::Float(value))
    }

    /// With a string attribute.
    pub fn string(self, name: &str, value: &'static str) -> Self {
        self.with(name, Attribute::String(value))
    }

    pub fn opset(self, opset: i64) -> Self {
        Case { opset, ..self }
    }

    pub fn outputs(self, outputs: usize) -> Self {
        Case { outputs, ..self }
    }

    pub fn seed(self, seed: u64) -> Self {
        Case { seed, ..self }
    }

    /// The positions of the results that the node hands out.
    fn results(&self) -> impl Iterator<Item = usize> {
        (0..self.outputs).filter(|position| !self.left_out.contains(position))
    }

    pub fn is_batched(&self) -> bool {
        self.inputs
            .iter()
            .any(|input| matches!(input, Input::Varied { shape, .. } if shape.contains(&N)))
    }

    /// The model with the operator as its only node.
    pub fn model(&self) -> ModelProto {
        let mut graph = GraphProto {
            name: Some("case".into()),
            ..GraphProto::default()
        };
        let mut names = Vec::new();
        for (position, input) in self.inputs.iter().enumerate() {
            let name = format!("x{position}");
            let (dtype, shape): (DType, Vec<Option<usize>>) = match input {
                Input::Absent => {
                    names.push(String::new());
                    continue;
                }
                Input::Constant(tensor) => {
                    graph.initializer.push(from_tensor(&name, tensor));
                    names.push(name);
                    continue;
                }
                Input::Fed(tensor) => (
                    tensor.dtype(),
                    tensor.shape().iter().copied().map(Some).collect(),
                ),
                Input::Varied { shape, .. } => (
                    self.dtype,
                    shape
                        .iter()
                        .map(|&extent| (extent != N).then_some(extent))
                        .collect(),
                ),
                Input::Fixed(array) => (
                    self.dtype,
                    array.shape().iter().copied().map(Some).collect(),
                ),
            };
            graph.input.push(info(&name, dtype, &shape));
            names.push(name);
        }
        let outputs: Vec<String> = (0..self.outputs)
            .map(|position| match self.left_out.contains(&position) {
                true => String::new(),
                false => format!("y{position}"),
            })
            .collect();
        graph.output = outputs
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| ValueInfoProto {
                name: Some(name.clone()),
                ..Default::default()
            })
            .collect();
        names.truncate(self.inputs.len() - self.outside);
        graph.node.push(NodeProto {
            op_type: Some(self.op_type.into()),
            domain: (!self.domain.is_empty()).then(|| self.domain.into()),
            name: Some("node".into()),
            input: names,
            output: outputs,
            attribute: self.attributes.clone(),
            ..NodeProto::default()
        });
        let import = |domain: &str, version| OperatorSetIdProto {
            domain: Some(domain.into()),
            version: Some(version),
        };
        let mut opset_import = vec![import("", self.opset)];
        if !self.domain.is_empty() {
            opset_import.push(import(self.domain, 1));
        }
        ModelProto {
            ir_version: Some(8),
            opset_import,
            graph: Some(graph),
            ..ModelProto::default()
        }
    }

    /// The operands at a batch size, by name.
    pub fn feeds(&self, batch: usize) -> Vec<(String, Tensor)> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut feeds = Vec::new();
        for (position, input) in self.inputs.iter().enumerate() {
            let tensor = match input {
                Input::Varied { shape, low, high } => {
                    let shape: Vec<usize> = shape
                        .iter()
                        .map(|&extent| if extent == N { batch } else { extent })
                        .collect();
                    let array = ArrayD::from_shape_simple_fn(IxDyn(&shape), || {
                        rng.random_range(*low..=*high)
                    });
                    self.typed(&array)
                }
                Input::Fixed(array) => self.typed(array),
                Input::Fed(tensor) => tensor.clone(),
                Input::Constant(_) | Input::Absent => continue,
            };
            feeds.push((format!("x{position}"), tensor));
        }
        feeds
    }

    /// An array in the case's type.
    pub fn typed(&self, array: &ArrayD<f64>) -> Tensor {
        match self.dtype {
            DType::F16 => array.mapv(half::f16::from_f64).into(),
            DType::F32 => array.mapv(|value| value as f32).into(),
            _ => array.clone().into(),
        }
    }

    fn differentiated(&self) -> Vec<String> {
        let inputs = self.inputs.iter().enumerate();
        let varied =
            inputs.filter(|(_, input)| matches!(input, Input::Varied { .. } | Input::Fixed(_)));
        varied.map(|(position, _)| format!("x{position}")).collect()
    }

    /// The gradient graph: inputs `u0`, `u1`, … are the cotangents of the results, outputs `d0`, … those of the operands.
    fn gradient_graph(&self) -> Result<(Graph, Vec<Option<String>>), mohs::grad::Error> {
        let options = session_options();
        let mut graph = Graph::from_model(if INLINED.contains(&self.op_type) {
            inlined(&self.model())
        } else {
            self.model()
        });
        if self.opset < LIFTED_OPSET {
            lift(&mut graph).unwrap();
        }
        let batches = if self.is_batched() {
            &BATCHES[..]
        } else {
            &BATCHES[..1]
        };
        let feed = |batch: usize| {
            Ok(self
                .feeds(batch)
                .into_iter()
                .map(|(name, tensor)| (name, value(tensor)))
                .collect())
        };
        trace(&mut graph, &feed, batches, &options).unwrap();
        if has_fused(&graph) {
            graph = expand_contrib(graph).0;
        }
        let outputs: Vec<(usize, ValueId)> = self
            .results()
            .map(|position| (position, graph.find(&format!("y{position}")).unwrap()))
            .collect();
        let wrt: Vec<ValueId> = self
            .differentiated()
            .iter()
            .map(|name| graph.find(name).unwrap())
            .collect();
        let mut seeds = Vec::new();
        for (position, output) in outputs {
            let fact = graph.fact(output).cloned().expect("results have facts");
            if !fact.dtype.is_float() {
                continue;
            }
            let name = format!("u{position}");
            let id = graph.fresh(&name);
            let shape: Vec<Option<usize>> = fact
                .shape
                .iter()
                .map(|dim| dim.extent().map(|extent| extent as usize))
                .collect();
            graph.inputs.push((id, info(&name, fact.dtype, &shape)));
            graph.value_mut(id).fact = Some(Fact::new(fact.dtype, fact.shape));
            seeds.push((output, id));
        }
        let builder = Builder::new(graph);
        let seeds: Vec<_> = seeds
            .into_iter()
            .map(|(output, id)| (output, builder.expr(id).unwrap()))
            .collect();
        let cotangents: Vec<Option<ValueId>> = vjp(&builder, &seeds, &wrt)?
            .into_iter()
            .map(|found| found.map(|expr| expr.id()))
            .collect();
        drop(seeds);
        let mut graph = builder.into_graph();
        let mut names = Vec::new();
        for found in cotangents {
            names.push(found.map(|id| graph.name(id).to_owned()));
            if let Some(id) = found
                && !graph.outputs.iter().any(|(output, _)| *output == id)
            {
                let declared = ValueInfoProto {
                    name: Some(graph.name(id).into()),
                    ..Default::default()
                };
                graph.outputs.push((id, declared));
            }
        }
        Ok((graph, names))
    }

    /// Evaluates the rule with these cotangents of the float results (by position of the result).
    pub fn gradients(&self, cotangents: &[ArrayD<f64>], batch: usize) -> Gradients {
        let (graph, names) = self
            .gradient_graph()
            .unwrap_or_else(|error| panic!("{self:?}: {error}"));
        let mut feeds = self.feeds(batch);
        for (position, cotangent) in self.results().zip(cotangents) {
            let name = format!("u{position}");
            if graph.inputs.iter().any(|(id, _)| graph.name(*id) == name) {
                feeds.push((name, self.typed(cotangent)));
            }
        }
        let results = run(&graph.to_model(), &feeds);
        let find = |name: &str| {
            results
                .iter()
                .find(|(found, _)| found == name)
                .map(|(_, tensor)| tensor.clone())
        };
        let operands = self.feeds(batch);
        let differentiated = self.differentiated();
        let cotangents = differentiated.iter().zip(names).map(|(operand, name)| {
            let shape = operands
                .iter()
                .find(|(found, _)| found == operand)
                .unwrap()
                .1
                .shape()
                .to_vec();
            match name.as_deref().and_then(find) {
                Some(tensor) => {
                    assert_eq!(
                        tensor.shape(),
                        shape,
                        "{self:?}: the cotangent of {operand} has another shape"
                    );
                    ArrayD::from_shape_vec(IxDyn(&shape), tensor.to_f64()).unwrap()
                }
                None => ArrayD::zeros(IxDyn(&shape)),
            }
        });
        Gradients {
            cotangents: cotangents.collect(),
        }
    }

    /// The operators of the gradient graph.
    pub fn gradient_operators(&self) -> Vec<String> {
        let (graph, _) = self
            .gradient_graph()
            .unwrap_or_else(|error| panic!("{self:?}: {error}"));
        let operators = graph.nodes.iter().map(|node| node.op_type().to_owned());
        operators.collect()
    }

    /// The reason why the rule refuses the case.
    pub fn refusal(&self) -> String {
        match self.gradient_graph() {
            Ok(_) => panic!("{self:?} is not refused"),
            Err(error) => error.to_string(),
        }
    }

    /// Checks ⟨u, J v⟩ = ⟨Jᵀ u, v⟩ at random u, v.
    pub fn check(&self) {
        let batch = 2;
        let model = self.model();
        let feeds = self.feeds(batch);
        let base = run(&model, &feeds);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ 0x5eed);
        let mut random = |shape: &[usize]| {
            ArrayD::from_shape_simple_fn(IxDyn(shape), || rng.random_range(-1.0..=1.0))
        };
        let cotangents: Vec<ArrayD<f64>> = base
            .iter()
            .map(|(_, tensor)| random(tensor.shape()))
            .collect();
        let found = self.gradients(&cotangents, batch);
        let names = self.differentiated();
        assert!(!names.is_empty(), "{self:?} differentiates nothing");
        for (name, gradient) in names.iter().zip(&found.cotangents) {
            assert!(
                gradient.iter().all(|value| value.is_finite()),
                "{self:?}: a cotangent of {name} is not finite"
            );
            let direction = random(gradient.shape());
            let moved = |sign: f64| {
                let feeds = feeds.iter().map(|(operand, tensor)| {
                    if operand == name {
                        let at =
                            ArrayD::from_shape_vec(IxDyn(tensor.shape()), tensor.to_f64()).unwrap();
                        (
                            operand.clone(),
                            self.typed(&(at + sign * self.step * &direction)),
                        )
                    } else {
                        (operand.clone(), tensor.clone())
                    }
                });
                run(&model, &feeds.collect::<Vec<_>>())
            };
            let (ahead, behind) = (moved(1.0), moved(-1.0));
            let (mut left, mut scale) = (0.0, 0.0);
            for (((_, ahead), (_, behind)), u) in ahead.iter().zip(&behind).zip(&cotangents) {
                if !ahead.dtype().is_float() {
                    continue;
                }
                for ((a, b), u) in ahead.to_f64().iter().zip(behind.to_f64()).zip(u) {
                    let term = u * (a - b) / (2.0 * self.step);
                    left += term;
                    scale += term.abs();
                }
            }
            let right: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
            let size: f64 = gradient
                .iter()
                .zip(&direction)
                .map(|(g, v)| (g * v).abs())
                .sum();
            let bound = self.tolerance * (scale.max(size) + 1e-3);
            assert!(
                (left - right).abs() <= bound,
                "{self:?}\n{name}: ⟨u, Jv⟩ = {left}, ⟨Jᵀu, v⟩ = {right}, allowed {bound}"
            );
        }
    }
}

/// The declaration of an input; `None` for an extent that is dynamic.
pub fn info(name: &str, dtype: DType, shape: &[Option<usize>]) -> ValueInfoProto {
    let dim = |extent: &Option<usize>| Dimension {
        value: Some(match extent {
            Some(extent) => DimensionValue::DimValue(*extent as i64),
            None => DimensionValue::DimParam("N".into()),
        }),
        denotation: None,
    };
    let shape = TensorShapeProto {
        dim: shape.iter().map(dim).collect(),
    };
    let tensor = TensorType {
        elem_type: Some(dtype.to_onnx()),
        shape: Some(shape),
    };
    let r#type = TypeProto {
        value: Some(TypeValue::TensorType(tensor)),
        denotation: None,
    };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(r#type),
        ..Default::default()
    }
}

/// Operators that ONNX Runtime replaces by their definition in others when a model is opened; they have no rule of their own.
const INLINED: [&str; 3] = [
    "CenterCropPad",
    "NegativeLogLikelihoodLoss",
    "SoftmaxCrossEntropyLoss",
];

/// The model as ONNX Runtime writes it after inlining.
fn inlined(model: &ModelProto) -> ModelProto {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("inlined.onnx");
    let options = SessionOptions {
        optimization: Optimization::Basic,
        save_optimized: Some(file.clone()),
        ..session_options()
    };
    drop(Session::from_bytes(&encode(model), &options).unwrap_or_else(|error| panic!("{error:?}")));
    mohs::onnx::read(&file).unwrap()
}

fn session_options() -> SessionOptions {
    crate::runtime_ready();
    SessionOptions {
        threads: Some(1),
        ..SessionOptions::default()
    }
}

fn value(tensor: Tensor) -> Value {
    Value::from_tensor(tensor).unwrap()
}

/// Runs a model on operands and gives every output with its name.
pub fn run(model: &ModelProto, feeds: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    let mut session = Session::from_bytes(&encode(model), &session_options())
        .unwrap_or_else(|error| panic!("{error:?}"));
    let values: Vec<(String, Value)> = feeds
        .iter()
        .map(|(name, tensor)| (name.clone(), value(tensor.clone())))
        .collect();
    let inputs: Vec<(&str, &Value)> = values
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let names: Vec<String> = session
        .outputs()
        .iter()
        .map(|port| port.name.clone())
        .collect();
    let outputs = session
        .run(&inputs)
        .unwrap_or_else(|error| panic!("{error:?}"));
    names
        .into_iter()
        .zip(outputs.iter().map(|value| value.to_tensor().unwrap()))
        .collect()
}

/// With a step that suits an operator which is linear in each of its operands: differences are exact but for rounding.
pub fn linear(case: Case) -> Case {
    Case {
        step: 0.5,
        tolerance: 3e-5,
        ..case
    }
}

/// The settings of property tests: so many draws, the same ones in every run.
pub fn proptest_config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0),
        ..ProptestConfig::default()
    }
}

/// An array of doubles.
pub fn array(shape: &[usize], values: &[f64]) -> ArrayD<f64> {
    ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap()
}

/// Asserts that two arrays agree to a tolerance.
pub fn assert_close(found: &ArrayD<f64>, expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance,
            "at {position}: {found}, expected {expected}"
        );
    }
}

#[test]
fn every_rule_has_a_case() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/gradcheck");
    let mut cases = String::new();
    for file in std::fs::read_dir(folder).unwrap() {
        cases += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    let rules = mohs::grad::rules::FAMILIES
        .iter()
        .flat_map(|(_, rules)| rules.iter());
    let differentiated = rules.filter(|rule| matches!(rule.kind, mohs::grad::Kind::Vjp(_)));
    let missing: Vec<_> = differentiated
        .map(|rule| rule.op_type)
        .filter(|name| !cases.contains(&format!("\"{name}\"")))
        .collect();
    assert!(missing.is_empty(), "no gradient check names {missing:?}");
}

#[test]
fn extents_that_follow_the_batch_are_found() {
    let case = Case::new("Relu", vec![varied(&[N, 3])]);
    let (graph, _) = case.gradient_graph().unwrap();
    let fact = graph.fact(graph.find("y0").unwrap()).unwrap();
    assert_eq!(fact.shape, [Dim::BATCH, Dim::fixed(3)]);
}
