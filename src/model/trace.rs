//! Types and shapes by running: what every value of a graph is, and which of its axes follow the batch.

use super::Error;
use super::gradient::declare;
use crate::graph::{Attributes, Dim, Fact, Graph, ValueId, names_from_outside};
use crate::onnx::from_tensor;
use crate::onnx::proto::{GraphProto, ModelProto, ValueInfoProto};
use crate::runtime::{Optimization, SessionOptions, Value};
use crate::tensor::{DType, Tensor};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

/// The batch sizes at which a graph with a dynamic batch is run: two sizes tell which extents follow the batch, and how.
pub const BATCHES: [usize; 2] = [2, 3];

/// Known values are kept up to this many elements: shape arithmetic, not data.
const KNOWN_ELEMENTS: usize = 4096;

/// The values that one run gave, by name.
pub type Run = HashMap<String, Tensor>;

/// Runs the graph at each batch size and records the fact of every value.
///
/// `feed` gives the values of the inputs at a batch size. With one batch size every extent is fixed.
/// Returns what each run gave for the graph's outputs.
/// Values whose extents depend on the data, and values that are no tensors, get no fact.
///
/// # Errors
/// Where ONNX Runtime cannot load or run the graph.
pub fn trace(
    graph: &mut Graph,
    feed: &dyn Fn(usize) -> Result<Vec<(String, Value)>, Error>,
    batches: &[usize],
    session: &SessionOptions,
) -> Result<Vec<Run>, Error> {
    let runs = run_all(graph, feed, batches, session)?;
    let on_data = graph.depends_on_data();
    let initializers: Vec<ValueId> = graph.initializers.clone();
    for id in initializers {
        if let Some(proto) = &graph.value(id).initializer
            && let Some(dtype) = proto.data_type.and_then(DType::from_onnx)
        {
            let shape = proto
                .dims
                .iter()
                .map(|&extent| Dim::fixed(extent))
                .collect();
            graph.value_mut(id).fact = Some(Fact::new(dtype, shape));
        }
    }
    for id in graph.value_ids() {
        let seen: Option<Vec<&Seen>> = runs.iter().map(|run| run.get(graph.name(id))).collect();
        if let Some(seen) = seen.filter(|seen| !seen.is_empty()) {
            graph.value_mut(id).fact = fact_of(&seen, batches, on_data[id.index()]);
        }
    }
    trace_branches(graph, &runs, batches, session);
    let outputs: HashSet<&str> = (graph.outputs.iter())
        .map(|(id, _)| graph.name(*id))
        .collect();
    let outputs_of = |run: HashMap<String, Seen>| {
        let kept = run
            .into_iter()
            .filter(|(name, _)| outputs.contains(name.as_str()));
        kept.filter_map(|(name, seen)| Some((name, seen.elements?)))
            .collect()
    };
    Ok(runs.into_iter().map(outputs_of).collect())
}

/// How often other samples are looked at: counts of a few elements are often the same.
const OTHERS: usize = 8;

/// Takes back what is known of values that have other extents with other samples of the same number: their shapes depend on the data.
///
/// `feed` gives the values of the inputs for each turn, at a batch size. It costs runs, and only where an operator can make such a shape.
pub fn forget_what_moves(
    graph: &mut Graph,
    feed: &dyn Fn(usize, usize) -> Result<Vec<(String, Value)>, Error>,
    batch: usize,
    session: &SessionOptions,
) {
    if !may_shape_by_data(graph) {
        return;
    }
    let turn = Cell::new(0);
    let feed = |batch| feed(turn.replace(turn.get() + 1), batch);
    // Where other samples do not run, there is nothing to compare with.
    let Ok(runs) = run_all(graph, &feed, &[batch; OTHERS], session) else {
        return;
    };
    let size = i64::try_from(batch).unwrap_or(i64::MAX);
    for id in graph.value_ids() {
        let Some(fact) = graph.fact(id) else {
            continue;
        };
        let expected: Vec<_> = fact.shape.iter().map(|dim| dim.at(size)).collect();
        let as_expected = |seen: &Seen| {
            let extents = seen.shape.iter().map(|&extent| i64::try_from(extent));
            extents.eq(expected.iter().map(|&extent| Ok(extent)))
        };
        let mut seen = runs.iter().filter_map(|run| run.get(graph.name(id)));
        if !seen.all(as_expected) {
            graph.value_mut(id).fact = None;
        }
    }
}

/// Operators that give as many entries as they find.
const FINDING: [&str; 4] = ["Compress", "NonMaxSuppression", "NonZero", "Unique"];

/// Operators whose shape follows numbers that they are given, and where these come first.
const SHAPED: [(&str, usize); 12] = [
    ("ConstantOfShape", 0),
    ("Expand", 1),
    ("OneHot", 1),
    ("Pad", 1),
    ("Range", 0),
    ("Reshape", 1),
    ("Resize", 2),
    ("Slice", 1),
    ("Split", 1),
    ("Tile", 1),
    ("TopK", 1),
    ("Upsample", 1),
];

/// Whether an operator may make a shape of what the data are, not only of how many.
fn may_shape_by_data(graph: &Graph) -> bool {
    let on_data = graph.depends_on_data();
    graph.nodes.iter().any(|node| {
        let reads = |from: usize| {
            let mut operands = node.inputs.iter().skip(from).flatten();
            operands.any(|id| on_data[id.index()])
        };
        let mut shaped = SHAPED.iter();
        (FINDING.contains(&node.op_type()) && reads(0))
            || shaped.any(|(op_type, from)| node.is(op_type) && reads(*from))
    })
}

/// What a run showed of a value.
struct Seen {
    dtype: DType,
    shape: Vec<usize>,
    /// The elements, of outputs, of what branches take and of what is small.
    elements: Option<Tensor>,
}

impl Seen {
    fn of(value: &Value, whole: bool) -> Result<Option<Self>, Error> {
        let Some(dtype) = value.dtype() else {
            return Ok(None);
        };
        let shape = value.shape().to_vec();
        let small = !dtype.is_float() && shape.iter().product::<usize>() <= KNOWN_ELEMENTS;
        let elements = (small || whole).then(|| value.to_tensor()).transpose()?;
        Ok(Some(Seen {
            dtype,
            shape,
            elements,
        }))
    }
}

/// Traces the branches of every `If` on their own, also those that were not taken.
///
/// A branch that cannot be run (it is not meant for the values that it was given) stays away; the gradient through it is refused then.
fn trace_branches(
    graph: &mut Graph,
    runs: &[HashMap<String, Seen>],
    batches: &[usize],
    session: &SessionOptions,
) {
    let mut found = HashMap::new();
    for node in graph.nodes.iter().filter(|node| node.is("If")) {
        let Some(first) = node.outputs.iter().flatten().next() else {
            continue;
        };
        let branches = ["then_branch", "else_branch"].map(|name| {
            let mut branch = alone(graph, node.graph(name)?)?;
            let outside: Vec<String> = branch
                .real_inputs()
                .map(|(id, _)| branch.name(*id).to_owned())
                .collect();
            let feed = |batch: usize| {
                let at = batches.iter().position(|&size| size == batch);
                let run = at.and_then(|at| runs.get(at));
                let feeds = outside.iter().map(|name| {
                    let seen = run.and_then(|run| run.get(name));
                    let tensor = seen.and_then(|seen| seen.elements.clone());
                    let tensor =
                        tensor.ok_or_else(|| Error::Internal(format!("`{name}` was not seen")))?;
                    Ok((name.clone(), Value::from_tensor(tensor)?))
                });
                feeds.collect()
            };
            trace(&mut branch, &feed, batches, session).ok()?;
            Some(branch)
        });
        if let [Some(yes), Some(no)] = branches {
            found.insert(*first, vec![yes, no]);
        }
    }
    graph.branches = found;
}

/// A subgraph as a graph of its own: what it takes from outside is its input, or an initializer where it is the same in every run.
///
/// `None` where it takes something that has no fact.
fn alone(graph: &Graph, body: &GraphProto) -> Option<Graph> {
    let mut proto = body.clone();
    for name in names_from_outside(body) {
        let id = graph.find(&name)?;
        if let Some(tensor) = graph.constant(id) {
            proto.initializer.push(from_tensor(&name, &tensor));
        } else {
            let fact = graph.fact(id)?;
            proto.input.push(declare(&name, fact.dtype, &fact.shape));
        }
    }
    // Outputs are told by running.
    for output in &mut proto.output {
        output.r#type = None;
    }
    Some(Graph::from_model(ModelProto {
        graph: Some(proto),
        ..graph.model.clone()
    }))
}

/// The fact that one value's tensors at the batch sizes show.
fn fact_of(seen: &[&Seen], batches: &[usize], on_data: bool) -> Option<Fact> {
    let first = seen.first()?;
    let shape = match (seen, batches) {
        ([one], _) => {
            let extents = one.shape.iter();
            extents
                .map(|&extent| i64::try_from(extent).ok().map(Dim::fixed))
                .collect()
        }
        ([a, b, ..], &[at_a, at_b, ..]) if a.shape.len() == b.shape.len() => {
            let pairs = a.shape.iter().zip(&b.shape);
            pairs
                .map(|(&a, &b)| line_through(at_a, a, at_b, b))
                .collect()
        }
        _ => None,
    };
    let mut fact = Fact::new(first.dtype, shape?);
    let same = seen.iter().all(|seen| seen.elements == first.elements);
    if same && !on_data && !first.dtype.is_float() {
        fact.known.clone_from(&first.elements);
    }
    Some(fact)
}

/// The extent as a function of the batch size, from two measurements; `None` where no whole multiple fits.
fn line_through(at_a: usize, a: usize, at_b: usize, b: usize) -> Option<Dim> {
    let signed = |number: usize| i64::try_from(number).ok();
    let (at_a, a, at_b, b) = (signed(at_a)?, signed(a)?, signed(at_b)?, signed(b)?);
    let (rise, run) = (b - a, at_b - at_a);
    (run != 0 && rise % run == 0).then(|| {
        let per_sample = rise / run;
        Dim {
            per_sample,
            fixed: a - per_sample * at_a,
        }
    })
}

/// Runs the graph with every value fetched.
fn run_all(
    graph: &Graph,
    feed: &dyn Fn(usize) -> Result<Vec<(String, Value)>, Error>,
    batches: &[usize],
    session: &SessionOptions,
) -> Result<Vec<HashMap<String, Seen>>, Error> {
    let declared: HashSet<&str> = (graph.outputs.iter())
        .map(|(id, _)| graph.name(*id))
        .collect();
    // What the branches take from outside, to run them with.
    let branching = graph.nodes.iter().filter(|node| node.is("If"));
    let captured: HashSet<ValueId> = branching.flat_map(|node| graph.captured(node)).collect();
    let captured: HashSet<&str> = captured.into_iter().map(|id| graph.name(id)).collect();
    let mut model = graph.to_model();
    if let Some(proto) = &mut model.graph {
        let inner = graph
            .nodes
            .iter()
            .flat_map(|node| node.outputs.iter().flatten());
        let inner = inner
            .map(|id| graph.name(*id))
            .filter(|name| !declared.contains(name));
        let infos = inner.map(|name| ValueInfoProto {
            name: Some(name.into()),
            ..ValueInfoProto::default()
        });
        proto.output.extend(infos.collect::<Vec<_>>());
    }
    let options = SessionOptions {
        optimization: Optimization::None,
        save_optimized: None,
        ..session.clone()
    };
    let mut session = super::load(&model, &options)?;
    let tensors: Vec<String> = session
        .outputs()
        .iter()
        .filter(|port| port.dtype.is_some())
        .map(|port| port.name.clone())
        .collect();
    let mut runs = Vec::new();
    for &batch in batches {
        let feeds = feed(batch)?;
        let inputs: Vec<(&str, &Value)> = feeds
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        let names: Vec<&str> = tensors.iter().map(String::as_str).collect();
        let outputs = session.run_for(&names, &inputs)?;
        let mut seen: HashMap<String, Seen> = HashMap::new();
        for (name, value) in tensors
            .iter()
            .zip(&outputs)
            .chain(feeds.iter().map(|(name, value)| (name, value)))
        {
            let name = name.as_str();
            let whole = declared.contains(name) || captured.contains(name);
            let found = Seen::of(value, whole)?;
            seen.extend(found.map(|found| (name.to_owned(), found)));
        }
        runs.push(seen);
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_tell_how_an_extent_follows_the_batch() {
        assert_eq!(
            line_through(2, 8, 3, 12),
            Some(Dim {
                per_sample: 4,
                fixed: 0
            })
        );
        assert_eq!(
            line_through(2, 3, 3, 4),
            Some(Dim {
                per_sample: 1,
                fixed: 1
            })
        );
        assert_eq!(line_through(2, 7, 3, 7), Some(Dim::fixed(7)));
    }
}
