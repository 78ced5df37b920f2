//! From a file to a model that is understood: lifted, simplified, run, and checked against the file.

use super::ports::{self, Ports};
use super::trace::{self, Run};
use super::{
    Answers, Batch, Error, Model, ModelOptions, check, foreign, gradient, load, temporary,
};
use crate::graph::{Dim, Graph, ValueId, passes};
use crate::onnx;
use crate::runtime::{self, Arithmetic, Device, Optimization, SessionOptions};
use sha2::{Digest, Sha256};
use std::path::Path;

impl Model {
    /// Reads a model and runs it, so that every shape is known.
    ///
    /// # Errors
    /// Where the file is no model, where its inputs and outputs leave a choice that was not made, or where ONNX Runtime cannot run it.
    pub fn open(path: &Path, options: &ModelOptions) -> Result<Self, Error> {
        let mut proto = onnx::read(path)?;
        // ONNX Runtime has kernels of bfloat16 for NVIDIA GPUs alone.
        let on_gpu = matches!(options.session.device, Device::Cuda(_) | Device::TensorRt);
        let widened = !on_gpu && passes::widen(&mut proto)?;
        let sha256 = digest(path)?;
        let mut original = Graph::from_model(proto);
        let unwrapped = passes::unwrap_maps(&mut original);
        let ports = Ports::choose(&original, options)?;
        ports.declare(&mut original);
        let mut notes = ports.notes.clone();
        notes.extend(unwrapped);
        if widened {
            notes.push(
                "the model computes in bfloat16, which this device has no kernels for: it is run in float32, with the same weights".into(),
            );
        }
        let read = notes.len();
        let (mut understood, mut file) = both(&original, &ports, options, &mut notes)?;
        let asked = options.output.as_deref();
        // A batch that the model only seems to have is none.
        let rows = match understood.batch {
            Batch::Dynamic => Some(Dim::BATCH),
            Batch::Fixed(size) => (ports.declared_batch == Some(size))
                .then(|| Dim::fixed(i64::try_from(size).unwrap_or(i64::MAX))),
        };
        let one = rows.and_then(|rows| ports::one_score(&understood.graph, asked, rows));
        if let Some(one) = one {
            let name = understood.graph.name(one).to_owned();
            let dtype = understood.graph.fact(one).map(|fact| fact.dtype);
            if let (Some(id), Some(dtype)) = (original.find(&name), dtype) {
                let said = passes::two_classes(&mut original, id, dtype);
                let said = said.map_err(Error::Unsuitable)?;
                notes.truncate(read);
                (understood, file) = both(&original, &ports, options, &mut notes)?;
                notes.push(said);
            }
        }
        let Understood {
            shipped,
            graph,
            batch,
            runs,
        } = understood;
        if !options.straight_through {
            notes.extend(gradient::steps(&graph));
        }
        let output = ports::choose_output(&graph, asked)?;
        let answers = answers(&graph, output, &runs)?;
        let input = graph
            .find(&ports.input)
            .ok_or_else(|| Error::Internal("the input was lost".into()))?;
        check::agrees(path, &file?, &graph, graph.name(output), &runs, options)?;
        Ok(Model {
            path: path.to_owned(),
            sha256,
            input,
            output,
            sample_shape: ports.sample_shape.clone(),
            answers,
            options: options.clone(),
            batch,
            notes,
            others: ports.others().map(str::to_owned).collect(),
            ports,
            cut: None,
            straight_through: options.straight_through,
            session: options.session.clone(),
            search: Arithmetic::Single,
            shipped,
            graph,
        })
    }
}

/// What is made of a file, and what the file itself gives: one has nothing to do with the other, and both go on at once.
fn both(
    original: &Graph,
    ports: &Ports,
    options: &ModelOptions,
    notes: &mut Vec<String>,
) -> Result<(Understood, Result<Run, Error>), Error> {
    let (understood, file) = rayon::join(
        || understand(original, ports, options, notes),
        || {
            // Normalisation is no part of the file.
            let file = normalized(original.clone(), ports, options)?;
            check::run_file(&file, ports, options)
        },
    );
    match understood {
        Ok(understood) => Ok((understood, file)),
        Err(error) => Err(foreign::explain(original, error)),
    }
}

impl Model {
    /// Opens another model for the same samples, on the same device and with the same settings; its inputs and outputs are its own.
    ///
    /// `normalize`: whether the normalisation in front of this model stands in front of the other one too.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_beside(&self, path: &Path, normalize: bool) -> Result<Self, Error> {
        let normalization = self.options.normalization.clone();
        let options = ModelOptions {
            input: None,
            output: None,
            input_shape: None,
            keep: Vec::new(),
            normalization: normalization.filter(|_| normalize),
            ..self.options.clone()
        };
        let open = |options: &ModelOptions| Model::open(path, options);
        let opened = open(&options).or_else(|error| match error {
            // Where it leaves axes open, they are those of the samples.
            Error::Unsuitable(_) => open(&ModelOptions {
                input_shape: Some(self.sample_shape.clone()),
                ..options
            })
            .map_err(|_| error),
            error => Err(error),
        })?;
        opened.with_search_precision(self.search)
    }
}

/// What the chosen output says, by its shape and by what running the model gave.
fn answers(graph: &Graph, output: ValueId, runs: &[Run]) -> Result<Answers, Error> {
    let fact = graph
        .fact(output)
        .ok_or_else(|| Error::Internal("the chosen output has no shape".into()))?;
    let Some((_, classes)) = gradient::class_axis(&fact.shape).filter(|_| fact.dtype.is_float())
    else {
        return Ok(Answers::Labels);
    };
    let classes = usize::try_from(classes).unwrap_or_default();
    let name = graph.name(output);
    let distributions = runs
        .iter()
        .filter_map(|run| run.get(name))
        .all(|tensor| tensor.to_f64().chunks(classes.max(1)).all(is_distribution));
    // Trees give probabilities without a softmax.
    Ok(
        if distributions || gradient::ends_in_softmax(graph, output) {
            Answers::Probabilities { classes }
        } else {
            Answers::Logits { classes }
        },
    )
}

/// Whether a row of scores is a probability for each class, as far as rounding goes.
fn is_distribution(row: &[f64]) -> bool {
    let whole = (row.iter().sum::<f64>() - 1.0).abs() < 1e-3;
    whole && row.iter().all(|score| (0.0..=1.001).contains(score))
}

/// A model whose shapes are known.
struct Understood {
    /// The model as shipped, but for a batch that was freed and the normalisation.
    shipped: Graph,
    /// The same, lifted, simplified and traced.
    graph: Graph,
    batch: Batch,
    /// What running it gave.
    runs: Vec<Run>,
}

/// Makes the batch dynamic where that is possible; the graph is then run at several sizes, and each sample has to come out alike at all of them.
fn understand(
    original: &Graph,
    ports: &Ports,
    options: &ModelOptions,
    notes: &mut Vec<String>,
) -> Result<Understood, Error> {
    let mut freed = original.clone();
    if let Some(size) = ports.declared_batch {
        // With shapes known, the batch is found on every axis that it moves to. Where the model does not run, that shows below.
        let feed = |batch| ports.feeds(batch);
        let _ = trace::trace(&mut freed, &feed, &[size], &options.session);
    }
    let inputs: Vec<ValueId> = original.real_inputs().map(|(id, _)| *id).collect();
    let attempt = passes::free_batch(&mut freed, &inputs).map_err(|error| error.to_string());
    let attempt = attempt.and_then(|changes| {
        let mut remarks = Vec::new();
        let understood = run(freed, Batch::Dynamic, ports, options, &mut remarks);
        let understood = understood.map_err(|error| check::first_line(&error))?;
        check::independent_of_the_batch(&understood.graph, &understood.runs)?;
        normalized(original.clone(), ports, options)
            .and_then(|file| check::samples_agree(&file, &understood.runs, ports, options))
            .map_err(|error| check::first_line(&error))?;
        if let Some(node) = passes::decides_by_data(&understood.graph) {
            // Samples that happen to agree do not show it.
            return Err(format!(
                "{node} decides by the data or the batch size, for a whole batch at once"
            ));
        }
        Ok((understood, changes, remarks))
    });
    match attempt {
        Ok((understood, changes, remarks)) => {
            if let Some(size) = changes.pinned {
                let nodes = match changes.nodes.as_slice() {
                    [] => String::new(),
                    nodes => format!(", also in node {}", nodes.join(", ")),
                };
                notes.push(format!(
                    "the model pins the batch to {size}: made dynamic{nodes}"
                ));
            }
            notes.extend(remarks);
            Ok(understood)
        }
        Err(reason) => {
            let size = ports.declared_batch.unwrap_or(1);
            // What is wrong with any batch is the model's own error, not one of its batch.
            let understood = run(original.clone(), Batch::Fixed(size), ports, options, notes)?;
            notes.push(format!(
                "the model runs only with batches of {size} ({reason}); this is slower"
            ));
            Ok(understood)
        }
    }
}

/// The batch sizes that are tried first where the model has a dynamic batch.
const SMALL_BATCHES: [usize; 2] = [1, 2];

/// Runs the graph, at two sizes where the batch is dynamic; where shapes may depend on the data, with other samples too.
fn trace_at(
    graph: &mut Graph,
    batch: Batch,
    ports: &Ports,
    options: &ModelOptions,
) -> Result<Vec<Run>, Error> {
    let runs = trace_sizes(graph, batch, ports, options)?;
    let size = match batch {
        Batch::Fixed(size) => size,
        Batch::Dynamic => trace::BATCHES[0],
    };
    let others = |turn, size| ports.feeds_from((turn + 1) * size, size);
    trace::forget_what_moves(graph, &others, size, &options.session);
    Ok(runs)
}

/// Runs the graph at one size or at several.
fn trace_sizes(
    graph: &mut Graph,
    batch: Batch,
    ports: &Ports,
    options: &ModelOptions,
) -> Result<Vec<Run>, Error> {
    let feed = |batch| ports.feeds(batch);
    let trace =
        |graph: &mut Graph, sizes: &[usize]| trace::trace(graph, &feed, sizes, &options.session);
    if let Batch::Fixed(size) = batch {
        return trace(graph, &[size]);
    }
    // A batch that was pinned is looked at with more samples.
    if ports.declared_batch.is_some() {
        return trace(graph, &trace::BATCHES);
    }
    // The small sizes are cheaper, but at 1 some models lose the batch axis (`Squeeze` of all that is 1) or have no second sample to take.
    let attempt = trace(graph, &SMALL_BATCHES);
    let results = graph
        .nodes
        .iter()
        .flat_map(|node| node.outputs.iter().flatten());
    match attempt {
        Ok(runs) if results.into_iter().all(|id| graph.fact(*id).is_some()) => Ok(runs),
        _ => trace(graph, &trace::BATCHES),
    }
}

/// The graph with the normalisation that was asked for in front.
fn normalized(mut shipped: Graph, ports: &Ports, options: &ModelOptions) -> Result<Graph, Error> {
    if let Some(normalization) = &options.normalization {
        let input = shipped
            .find(&ports.input)
            .ok_or_else(|| Error::Internal("the input was lost".into()))?;
        passes::normalize(&mut shipped, input, &ports.sample_shape, normalization)
            .map_err(Error::Unsuitable)?;
    }
    Ok(shipped)
}

/// Lifts, simplifies and runs a graph.
fn run(
    shipped: Graph,
    batch: Batch,
    ports: &Ports,
    options: &ModelOptions,
    notes: &mut Vec<String>,
) -> Result<Understood, Error> {
    let shipped = normalized(shipped, ports, options)?;
    let (graph, runs) = work_out(shipped.clone(), batch, ports, options, notes, |_| Ok(()))?;
    Ok(Understood {
        shipped,
        graph,
        batch,
        runs,
    })
}

/// Lifts, simplifies and runs a graph that is normalised; `prepare` changes it before it is simplified.
pub(super) fn work_out(
    mut graph: Graph,
    batch: Batch,
    ports: &Ports,
    options: &ModelOptions,
    notes: &mut Vec<String>,
    prepare: impl FnOnce(&mut Graph) -> Result<(), Error>,
) -> Result<(Graph, Vec<Run>), Error> {
    passes::lift(&mut graph)?;
    if options.straight_through && passes::has_quantized(&graph) {
        trace_at(&mut graph, batch, ports, options)?;
        let (floats, left) = passes::dequantize(graph);
        graph = floats;
        notes.extend(left);
    }
    if passes::has_fused(&graph) {
        trace_at(&mut graph, batch, ports, options)?;
        let (expanded, left) = passes::expand_contrib(graph);
        graph = expanded;
        notes.extend(left);
    }
    prepare(&mut graph)?;
    let mut graph = simplify(&graph, options, notes)?;
    passes::count_iterations(&mut graph);
    let mut runs = trace_at(&mut graph, batch, ports, options)?;
    // A body that was inside another one is unrolled in the next turn, and what an unrolled body computes is known then.
    while passes::unroll(&mut graph) | passes::resolve_sequences(&mut graph) {
        passes::count_iterations(&mut graph);
        runs = trace_at(&mut graph, batch, ports, options)?;
    }
    Ok((graph, runs))
}

/// Lets ONNX Runtime fold constants, inline functions and fuse batch normalisation, in standard operators.
fn simplify(
    graph: &Graph,
    options: &ModelOptions,
    notes: &mut Vec<String>,
) -> Result<Graph, Error> {
    let mut model = graph.to_model();
    if onnx::encoded_len(&model) > onnx::WEIGHTS_IN_FILE {
        notes.push(
            "the model has more than 2 GB: it is differentiated without being simplified first"
                .into(),
        );
        return Ok(graph.clone());
    }
    let declared = model.graph.as_ref().map_or(0, |graph| graph.output.len());
    if let Some(proto) = &mut model.graph {
        for name in &options.keep {
            let known = graph.find(name).is_some()
                && !proto
                    .output
                    .iter()
                    .any(|info| info.name.as_ref() == Some(name));
            let outer = proto
                .input
                .iter()
                .chain(&proto.output)
                .any(|info| info.name.as_ref() == Some(name));
            if known && !outer {
                proto.output.push(onnx::proto::ValueInfoProto {
                    name: Some(name.clone()),
                    ..Default::default()
                });
            }
        }
    }
    let folder = temporary()?;
    let file = folder.path().join("simplified.onnx");
    let session = SessionOptions {
        device: runtime::Device::Cpu,
        optimization: Optimization::Basic,
        save_optimized: Some(file.clone()),
        ..options.session.clone()
    };
    drop(load(&model, &session)?);
    let mut simplified = onnx::read(&file)?;
    if let Some(proto) = &mut simplified.graph {
        proto.output.truncate(declared);
    }
    Ok(Graph::from_model(simplified))
}

fn digest(path: &Path) -> Result<String, Error> {
    let bytes = onnx::map(path).map_err(|source| onnx::Error::Read {
        path: path.into(),
        source,
    })?;
    Ok(format!("{:x}", Sha256::digest(&bytes)))
}
