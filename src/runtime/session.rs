//! Sessions: a model loaded by ONNX Runtime, ready to run on a device.

use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, SessionOutputs};
use ort::value::{Outlet, ValueType};

use super::arithmetic::Arithmetic;
use super::device::{self, Device};
use super::error::Error;
use super::value::{self, Value};
use super::{library, logging};
use crate::tensor::DType;

/// How much ONNX Runtime rewrites a graph before it runs it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Optimization {
    /// Nothing.
    None,
    /// Constants are folded, functions inlined, batch normalizations merged into convolutions: still standard operators, so the
    /// saved graph is a model like any other.
    Basic,
    /// Everything, operators and layouts of this machine included.
    #[default]
    All,
}

/// How a session is made.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// What errors call the model; by default its path.
    pub name: Option<String>,
    /// Where it runs.
    pub device: Device,
    /// Further devices that take their share where work is divided: a session itself runs on the first.
    pub others: Vec<Device>,
    /// The threads within an operator; by default ONNX Runtime's choice, one per physical core.
    pub threads: Option<usize>,
    /// Whether other sessions run between its runs: its threads then give up their cores as soon as a run is over, instead of waiting for the next one.
    pub takes_turns: bool,
    /// What it computes in.
    pub arithmetic: Arithmetic,
    /// How far the graph is rewritten.
    pub optimization: Optimization,
    /// A file that the rewritten graph is written to. Weights that lie in external data stay there and are named relative to the
    /// model's folder: write beside the model, or set [`save_weights`](Self::save_weights).
    pub save_optimized: Option<PathBuf>,
    /// The name of a file beside [`save_optimized`](Self::save_optimized) that takes the large weights, since a model file alone is
    /// limited to 2 GB.
    pub save_weights: Option<String>,
}

/// A declared input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type; none where it is no tensor, or one of a type that mohs does not know.
    pub dtype: Option<DType>,
    /// The extent of each axis, none for a dynamic one. Empty for a scalar, and where the model does not declare the rank.
    pub shape: Vec<Option<usize>>,
}

/// A model that can be run.
pub struct Session {
    inner: ort::session::Session,
    name: String,
    device: Device,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// The last choice of outputs, kept because the loops that choose always choose the same ones.
    choice: Option<Choice>,
}

struct Choice {
    outputs: Vec<String>,
    options: RunOptions<HasSelectedOutputs>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("name", &self.name)
            .field("device", &self.device)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Loads a model from the bytes of a file. External data are looked for in the working directory: for those, use
    /// [`Session::from_file`].
    ///
    /// # Errors
    /// If there is no library, the device cannot be had, or ONNX Runtime refuses the model.
    pub fn from_bytes(model: &[u8], options: &SessionOptions) -> Result<Self, Error> {
        let name = options.name.clone();
        let name = name.unwrap_or_else(|| "a model in memory".to_owned());
        let device = device::resolve(options.device)?;
        Self::build(name, device, options, |builder| {
            builder.commit_from_memory(model)
        })
    }

    /// Loads a model file; external data may lie beside it, and the whole may have more than 2 GB.
    ///
    /// # Errors
    /// If there is no library, the device cannot be had, or ONNX Runtime refuses the model.
    pub fn from_file(model: &Path, options: &SessionOptions) -> Result<Self, Error> {
        let name = options.name.clone();
        let name = name.unwrap_or_else(|| model.display().to_string());
        let device = device::resolve(options.device)?;
        Self::build(name, device, options, |builder| {
            builder.commit_from_file(model)
        })
    }

    /// Loads a model that must run on the device of the options as a whole. The device is taken as it is, not tried out.
    pub(super) fn on_device_alone(model: &[u8], options: &SessionOptions) -> Result<Self, Error> {
        let name = options.name.clone().unwrap_or_default();
        Self::build(name, options.device, options, |builder| {
            if options.device == Device::Cpu {
                return builder.commit_from_memory(model);
            }
            builder
                .clone()
                .with_disable_cpu_fallback()?
                .commit_from_memory(model)
        })
    }

    fn build(
        name: String,
        device: Device,
        options: &SessionOptions,
        commit: impl Fn(&mut SessionBuilder) -> Result<ort::session::Session, ort::Error>,
    ) -> Result<Self, Error> {
        let environment = library::environment()?;
        let configured = || configured(environment, device, options);
        let mut committed = configured().and_then(|mut builder| commit(&mut builder));
        if let Err(error) = &committed
            && error.to_string().contains(FUSED_TWICE)
        {
            let builder = configured().and_then(|builder| {
                Ok(builder.with_config_entry(DISABLED_OPTIMIZERS, "MatMulAddFusion")?)
            });
            committed = builder.and_then(|mut builder| commit(&mut builder));
        }
        let inner = match committed {
            Ok(inner) => inner,
            Err(source) => {
                return Err(Error::Load {
                    model: name,
                    source: Box::new(source),
                });
            }
        };
        let inputs: Vec<_> = inner.inputs().iter().map(port).collect();
        let outputs: Vec<_> = inner.outputs().iter().map(port).collect();
        tracing::debug!(model = name, %device, "session is ready");
        Ok(Session {
            inner,
            name,
            device,
            inputs,
            outputs,
            choice: None,
        })
    }

    /// What errors call the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it runs; never [`Device::Auto`].
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The inputs, in the model's order.
    #[must_use]
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs, in the model's order.
    #[must_use]
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Runs the model on named inputs and returns its outputs, in the order of [`Session::outputs`].
    ///
    /// # Errors
    /// If ONNX Runtime refuses the inputs or fails.
    pub fn run(&mut self, inputs: &[(&str, &Value)]) -> Result<Vec<Value>, Error> {
        match self.inner.run(feed(inputs)) {
            Ok(outputs) => collect(outputs, inputs),
            Err(source) => Err(Error::Run {
                model: self.name.clone(),
                source: Box::new(source),
            }),
        }
    }

    /// Runs the model for some of its outputs only, and returns them in the order of `outputs`. What the others alone need is not
    /// computed.
    ///
    /// # Errors
    /// If the model has no such output, or if ONNX Runtime refuses the inputs or fails.
    pub fn run_for(
        &mut self,
        outputs: &[&str],
        inputs: &[(&str, &Value)],
    ) -> Result<Vec<Value>, Error> {
        // Without a name, ONNX Runtime would refuse the run.
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |source| Error::Run {
            model: self.name.clone(),
            source: Box::new(source),
        };
        let choice = match self.choice.take() {
            Some(choice) if choice.outputs == outputs => choice,
            _ => Choice {
                options: RunOptions::new()
                    .map_err(failed)?
                    .with_outputs(self.select(outputs)?),
                outputs: outputs.iter().map(|&name| name.to_owned()).collect(),
            },
        };
        let choice = self.choice.insert(choice);
        match self.inner.run_with_options(feed(inputs), &choice.options) {
            Ok(outputs) => collect(outputs, inputs),
            Err(source) => Err(Error::Run {
                model: self.name.clone(),
                source: Box::new(source),
            }),
        }
    }

    fn select(&self, outputs: &[&str]) -> Result<OutputSelector, Error> {
        let mut selector = OutputSelector::no_default();
        for &output in outputs {
            if !self.outputs.iter().any(|port| port.name == output) {
                return Err(Error::UnknownOutput {
                    model: self.name.clone(),
                    output: output.to_owned(),
                    outputs: self.outputs.iter().map(|port| port.name.clone()).collect(),
                });
            }
            selector = selector.with(output);
        }
        Ok(selector)
    }
}

/// What ONNX Runtime says where its fusion of a matrix product with a sum gives two constants one name, as it does for some graphs of fixed shapes.
const FUSED_TWICE: &str = "Attempt to replace the existing tensor";

/// The entry with the names of optimisers to leave out.
const DISABLED_OPTIMIZERS: &str = "optimization.disable_specified_optimizers";

fn configured(
    environment: &Environment,
    device: Device,
    options: &SessionOptions,
) -> Result<SessionBuilder, ort::Error> {
    let mut builder =
        SessionBuilder::new(environment)?.with_optimization_level(match options.optimization {
            Optimization::None => GraphOptimizationLevel::Disable,
            Optimization::Basic => GraphOptimizationLevel::Level1,
            Optimization::All => GraphOptimizationLevel::All,
        })?;
    if options.optimization != Optimization::All {
        // Such sessions run a few times at most: arranging the weights for speed would take longer.
        builder = builder.with_prepacking(false)?;
    }
    if let Some(threads) = options.threads {
        builder = builder.with_intra_threads(threads)?;
    }
    if options.takes_turns {
        builder = builder.with_config_entry("session.force_spinning_stop", "1")?;
    }
    if device != Device::Cpu && logging::tells_placement() {
        builder = builder.with_log_level(LogLevel::Verbose)?;
    }
    if let Some(path) = &options.save_optimized {
        builder = builder.with_optimized_model_path(path)?;
        if let Some(weights) = &options.save_weights {
            builder = builder.with_config_entry(
                "session.optimized_model_external_initializers_file_name",
                weights,
            )?;
        }
    }
    device::configure(builder, environment, device, options)
}

fn port(outlet: &Outlet) -> Port {
    let (dtype, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => (
            value::dtype(*ty),
            // A dynamic axis is −1.
            shape
                .iter()
                .map(|&axis| usize::try_from(axis).ok())
                .collect(),
        ),
        _ => (None, Vec::new()),
    };
    Port {
        name: outlet.name().to_owned(),
        dtype,
        shape,
    }
}

type Feed<'a> = Vec<(
    std::borrow::Cow<'a, str>,
    ort::session::SessionInputValue<'a>,
)>;

fn feed<'a>(inputs: &[(&'a str, &'a Value)]) -> Feed<'a> {
    inputs
        .iter()
        .map(|&(name, value)| (name.into(), value.inner().into()))
        .collect()
}

/// The outputs of a run, each with elements of its own.
///
/// Where an output is an input of the graph, or is asked for twice, ONNX Runtime hands out the same memory again. A [`Value`] owns its
/// elements (they can be overwritten, and freed), so such an output is copied.
fn collect(outputs: SessionOutputs<'_>, inputs: &[(&str, &Value)]) -> Result<Vec<Value>, Error> {
    let shared: Vec<bool> = outputs
        .keys()
        .enumerate()
        .map(|(index, name)| {
            inputs.iter().any(|&(input, _)| input == name)
                || outputs.keys().take(index).any(|earlier| earlier == name)
        })
        .collect();
    outputs
        .into_iter()
        .zip(shared)
        .map(|((_, value), shared)| {
            let value = Value::new(value);
            match shared && value.dtype().is_some() {
                true => value.to_tensor().and_then(Value::from_tensor),
                false => Ok(value),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::error::chain;
    use crate::runtime::tiny::{self, Axis, FLOAT};
    use crate::tensor::Tensor;

    const ROWS: &[Axis] = &[Axis::Named("N"), Axis::Fixed(2)];

    /// sum = a + b, product = a · b, over [N, 2].
    fn arithmetic() -> Vec<u8> {
        tiny::model(
            &[("a", FLOAT, ROWS), ("b", FLOAT, ROWS)],
            &[
                ("Add", &["a", "b"], &["sum"]),
                ("Mul", &["a", "b"], &["product"]),
            ],
            &[("sum", FLOAT, ROWS), ("product", FLOAT, ROWS)],
        )
    }

    fn options() -> SessionOptions {
        SessionOptions {
            name: Some("arithmetic".into()),
            device: Device::Cpu,
            threads: Some(1),
            ..SessionOptions::default()
        }
    }

    fn rows(elements: &[f32]) -> Value {
        let tensor = Tensor::new(&[elements.len() / 2, 2], elements.to_vec()).expect("fits");
        Value::from_tensor(tensor).expect("a value")
    }

    fn floats(value: &Value) -> &[f32] {
        value.as_slice::<f32>().expect("floats")
    }

    #[test]
    fn inputs_and_outputs_are_told_with_their_dynamic_axes() {
        let session = Session::from_bytes(&arithmetic(), &options()).expect("a session");
        let port = |name: &str| Port {
            name: name.into(),
            dtype: Some(DType::F32),
            shape: vec![None, Some(2)],
        };
        assert_eq!(session.inputs(), [port("a"), port("b")]);
        assert_eq!(session.outputs(), [port("sum"), port("product")]);
        assert_eq!(
            (session.name(), session.device()),
            ("arithmetic", Device::Cpu)
        );
    }

    #[test]
    fn a_run_gives_all_outputs_in_order_at_any_batch_size() {
        for optimization in [Optimization::None, Optimization::Basic, Optimization::All] {
            let options = SessionOptions {
                optimization,
                ..options()
            };
            let mut session = Session::from_bytes(&arithmetic(), &options).expect("a session");
            for batch in [1, 3] {
                let (a, b) = (rows(&vec![2.0; 2 * batch]), rows(&vec![3.0; 2 * batch]));
                // Names decide, not the order.
                let outputs = session.run(&[("b", &b), ("a", &a)]).expect("a run");
                let [sum, product] = &outputs[..] else {
                    panic!("two outputs, not {}", outputs.len());
                };
                assert_eq!(sum.shape(), [batch, 2]);
                assert_eq!(floats(sum), vec![5.0; 2 * batch]);
                assert_eq!(floats(product), vec![6.0; 2 * batch]);
            }
        }
    }

    #[test]
    fn chosen_outputs_come_in_the_order_of_the_choice() {
        let mut session = Session::from_bytes(&arithmetic(), &options()).expect("a session");
        let (a, b) = (rows(&[2.0, 2.0]), rows(&[3.0, 3.0]));
        let inputs = [("a", &a), ("b", &b)];
        for _ in 0..2 {
            let outputs = session
                .run_for(&["product", "sum"], &inputs)
                .expect("a run");
            let firsts: Vec<_> = outputs.iter().map(|value| floats(value)[0]).collect();
            assert_eq!(firsts, [6.0, 5.0]);
            let outputs = session.run_for(&["product"], &inputs).expect("a run");
            assert_eq!(outputs.len(), 1);
        }
        assert!(session.run_for(&[], &inputs).expect("no run").is_empty());
        let error = session
            .run_for(&["difference"], &inputs)
            .expect_err("no such output");
        assert_eq!(
            error.to_string(),
            "arithmetic has no output `difference`, only `sum`, `product`"
        );
    }

    #[test]
    fn an_output_is_fed_back_and_its_rows_can_be_overwritten() {
        let mut session = Session::from_bytes(&arithmetic(), &options()).expect("a session");
        let one = rows(&[1.0, 1.0, 1.0, 1.0]);
        let mut state = rows(&[0.0, 0.0, 0.0, 0.0]);
        for step in 0..4 {
            let mut outputs = session
                .run_for(&["sum"], &[("a", &state), ("b", &one)])
                .expect("a run");
            state = outputs.remove(0);
            if step == 1 {
                state.as_mut_slice::<f32>().expect("floats")[..2].fill(10.0);
            }
        }
        assert_eq!(floats(&state), [12.0, 12.0, 4.0, 4.0]);
        assert_eq!(floats(&one), [1.0; 4]);
    }

    #[test]
    fn outputs_outlive_their_session() {
        let mut session = Session::from_bytes(&arithmetic(), &options()).expect("a session");
        let outputs = session
            .run(&[("a", &rows(&[2.0, 2.0])), ("b", &rows(&[3.0, 3.0]))])
            .expect("a run");
        drop(session);
        assert_eq!(floats(&outputs[0]), [5.0, 5.0]);
    }

    #[test]
    fn an_output_that_is_an_input_or_another_output_has_its_own_elements() {
        let model = tiny::model(
            &[("a", FLOAT, ROWS), ("b", FLOAT, ROWS)],
            &[("Add", &["a", "b"], &["sum"])],
            &[("a", FLOAT, ROWS), ("sum", FLOAT, ROWS)],
        );
        let mut session = Session::from_bytes(&model, &options()).expect("a session");
        let (a, b) = (rows(&[2.0, 2.0]), rows(&[3.0, 3.0]));
        let inputs = [("a", &a), ("b", &b)];
        let mut outputs = session
            .run_for(&["a", "sum", "sum"], &inputs)
            .expect("a run");
        outputs[0].as_mut_slice::<f32>().expect("floats").fill(9.0);
        outputs[1].as_mut_slice::<f32>().expect("floats").fill(8.0);
        assert_eq!(floats(&a), [2.0, 2.0]);
        assert_eq!(floats(&outputs[2]), [5.0, 5.0]);
    }

    #[test]
    fn a_failed_run_names_the_model_and_keeps_the_reason() {
        let mut session = Session::from_bytes(&arithmetic(), &options()).expect("a session");
        let a = rows(&[2.0, 2.0]);
        let error = session.run(&[("a", &a)]).expect_err("b is missing");
        let text = chain(&error);
        assert!(text.starts_with("running arithmetic failed: "), "{text}");
        assert!(text.contains('b'), "{text}");
        let wide = Tensor::new(&[1, 3], vec![0.0_f32; 3]).expect("fits");
        let wide = Value::from_tensor(wide).expect("a value");
        let error = session
            .run(&[("a", &a), ("b", &wide)])
            .expect_err("wrong shape");
        assert!(chain(&error).contains('3'), "{error}");
        session
            .run(&[("a", &a), ("b", &a)])
            .expect("the session still runs");
    }

    #[test]
    fn a_file_that_is_no_model_or_is_not_there_is_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("garbage.onnx");
        let error = Session::from_file(&path, &options_without_name()).expect_err("no file");
        assert!(error.to_string().contains("garbage.onnx"), "{error}");
        std::fs::write(&path, b"garbage").expect("writable");
        let error = Session::from_file(&path, &options_without_name()).expect_err("no model");
        assert!(matches!(error, Error::Load { .. }));
        assert!(chain(&error).contains("garbage.onnx: "), "{error}");
        Session::from_bytes(b"garbage", &options()).expect_err("no model");
    }

    fn options_without_name() -> SessionOptions {
        SessionOptions {
            name: None,
            ..options()
        }
    }

    #[test]
    fn the_optimized_graph_is_saved_and_is_a_model() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("optimized.onnx");
        let saving = SessionOptions {
            optimization: Optimization::Basic,
            save_optimized: Some(path.clone()),
            ..options()
        };
        Session::from_bytes(&arithmetic(), &saving).expect("a session");
        let session = Session::from_file(&path, &options_without_name()).expect("the saved model");
        assert_eq!(session.outputs().len(), 2);
    }
}
