//! The gradient graph with an attack's step behind it: one graph from each slot's point to the next.

use super::Error;
use super::gradient::{GradientGraph, add_input, add_output, class_axis};
use crate::attack::array::{Array, ArrayId, Arrays, Binary, Reduce, Unary};
use crate::attack::{Attack, Context, Extent, Pass};
use crate::graph::{Builder, Dim, Expr, Graph, ValueId, passes};
use crate::tensor::DType;
use crate::threat::{Bounds, Norm};
use std::cell::RefCell;

/// The graph form of [`Arrays`]: every array is a value of the graph, `[n, d]` or `[n, 1]`.
pub(crate) struct GraphArrays<'g> {
    builder: &'g Builder,
    values: RefCell<Vec<Expr<'g>>>,
    width: usize,
    dtype: DType,
}

impl<'g> GraphArrays<'g> {
    /// Arrays of samples of `width` elements of type `dtype`.
    pub(crate) fn new(builder: &'g Builder, width: usize, dtype: DType) -> Self {
        GraphArrays {
            builder,
            values: RefCell::new(Vec::new()),
            width,
            dtype,
        }
    }

    pub(crate) fn push(&self, value: Expr<'g>) -> ArrayId {
        let mut values = self.values.borrow_mut();
        values.push(value);
        ArrayId(values.len() - 1)
    }

    fn get(&self, id: ArrayId) -> Expr<'g> {
        self.values.borrow()[id.0]
    }

    /// Masks are kept as booleans, and become numbers only where arithmetic is done with them.
    pub(crate) fn number(&self, id: ArrayId) -> Expr<'g> {
        self.get(id).cast(self.dtype)
    }
}

impl Arrays for GraphArrays<'_> {
    fn constant(&self, value: f64) -> ArrayId {
        self.push(self.builder.scalar(self.dtype, value))
    }

    fn unary(&self, operation: Unary, a: ArrayId) -> ArrayId {
        let a = self.number(a);
        self.push(a.unary(match operation {
            Unary::Neg => "Neg",
            Unary::Abs => "Abs",
            Unary::Sign => "Sign",
            Unary::Sqrt => "Sqrt",
            Unary::Cos => "Cos",
            Unary::Floor => "Floor",
            Unary::Log => "Log",
            Unary::Tanh => "Tanh",
        }))
    }

    fn binary(&self, operation: Binary, a: ArrayId, b: ArrayId) -> ArrayId {
        let (a, b) = (self.number(a), self.number(b));
        self.push(match operation {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Min => a.min(b),
            Binary::Max => a.max(b),
            Binary::Greater => a.gt(b),
        })
    }

    fn select(&self, mask: ArrayId, a: ArrayId, b: ArrayId) -> ArrayId {
        let mask = self.get(mask);
        let mask = if mask.dtype() == DType::Bool {
            mask
        } else {
            !mask.equal(0.0)
        };
        let (a, b) = (self.number(a), self.number(b));
        self.push(mask.select(a, b, a))
    }

    fn reduce(&self, operation: Reduce, a: ArrayId) -> ArrayId {
        let a = self.number(a);
        self.push(match operation {
            Reduce::Sum => a.sum(&[1]),
            Reduce::Max | Reduce::KthLargest(1) => a.reduce("ReduceMax", &[1], true),
            Reduce::KthLargest(k) => {
                let k = i64::try_from(k).unwrap_or(i64::MAX);
                a.top_k(k, 1).0.slice(1, k - 1, Dim::fixed(k))
            }
        })
    }

    fn at_rank(&self, a: ArrayId, rank: ArrayId) -> ArrayId {
        let a = self.number(a);
        let depth = i64::try_from(self.width).unwrap_or(i64::MAX);
        let batch = a.shape().first().copied().unwrap_or(Dim::BATCH);
        let rank = self.number(rank).max(0.0).min((depth - 1) as f64);
        let rank = rank.expand(&[batch, Dim::ONE]).cast(DType::I64);
        self.push(a.top_k(depth, 1).0.gather_elements(rank, 1))
    }

    fn one_hot_largest(&self, a: ArrayId) -> ArrayId {
        let a = self.number(a);
        let shape = a.shape();
        let depth = i64::try_from(self.width).unwrap_or(i64::MAX);
        self.push(a.arg_max(1).one_hot(depth, self.dtype).reshape(&shape))
    }

    fn width(&self) -> usize {
        self.width
    }
}

/// The name of the input with a state array.
pub(super) fn state_input(name: &str) -> String {
    format!("mohs.state.{name}")
}

/// The attacked value and its gradient.
pub(super) fn attacked(gradient: &GradientGraph) -> Result<(ValueId, ValueId), Error> {
    gradient
        .gradients
        .first()
        .copied()
        .ok_or_else(|| Error::Internal("the gradient graph has no gradient".into()))
}

/// The gradient graph with the attack's step behind it.
pub(super) fn fuse(
    gradient: &GradientGraph,
    attack: &dyn Attack,
    norm: Norm,
    bounds: Bounds,
) -> Result<Graph, Error> {
    let (input, grad) = attacked(gradient)?;
    let mut graph = gradient.graph.clone();
    let fact = graph
        .fact(input)
        .cloned()
        .ok_or_else(|| Error::Internal("the input has no shape".into()))?;
    let batch = fact.shape.first().copied().unwrap_or(Dim::BATCH);
    let width: i64 = fact
        .shape
        .iter()
        .skip(1)
        .filter_map(|dim| dim.extent())
        .product();
    let clean = add_input(&mut graph, "mohs.clean", fact.dtype, &fact.shape);
    let epsilon = add_input(&mut graph, "mohs.epsilon", DType::F32, &[batch, Dim::ONE]);
    let step_size = add_input(&mut graph, "mohs.step_size", DType::F32, &[batch, Dim::ONE]);
    let specs = attack.state();
    let states: Vec<_> = specs
        .iter()
        .map(|spec| {
            let extent = match spec.extent {
                Extent::Element => Dim::fixed(width),
                Extent::Sample => Dim::ONE,
            };
            add_input(
                &mut graph,
                &state_input(spec.name),
                DType::F32,
                &[batch, extent],
            )
        })
        .collect();
    let builder = Builder::new(graph);
    builder.set_scope(format!("attack/{}", attack.name()));
    let expr = |id| {
        builder
            .expr(id)
            .ok_or_else(|| Error::Internal("a value of the program has no shape".into()))
    };
    let flat = [batch, Dim::fixed(width)];
    let arrays = GraphArrays::new(
        &builder,
        usize::try_from(width).unwrap_or_default(),
        DType::F32,
    );
    let array = |value| Array::new(&arrays, arrays.push(value));
    let point = expr(input)?;
    let as_rows = |id| Ok::<_, Error>(array(expr(id)?.cast(DType::F32).reshape(&flat)));
    let context = Context {
        norm,
        clean: as_rows(clean)?,
        low: array(builder.scalar(DType::F32, bounds.low.into())),
        high: array(builder.scalar(DType::F32, bounds.high.into())),
        epsilon: array(expr(epsilon)?),
        step_size: array(expr(step_size)?),
    };
    let output = expr(gradient.output)?;
    let (_, classes) = class_axis(&output.shape())
        .ok_or_else(|| Error::Internal("the output has no classes".into()))?;
    let predictions = output
        .reshape(&[batch, Dim::fixed(classes)])
        .arg_max(1)
        .reshape(&[batch]);
    let labels = expr(gradient.labels)?;
    let loss = expr(gradient.loss)?;
    let gradient_rows = expr(grad)?.cast(DType::F32).reshape(&flat);
    let pass = Pass {
        point: as_rows(input)?,
        gradient: array(gradient_rows),
        loss: array(loss.cast(DType::F32).reshape(&[batch, Dim::ONE])),
        adversarial: array(!predictions.equal(labels).reshape(&[batch, Dim::ONE])),
    };
    let states: Vec<_> = states
        .into_iter()
        .map(|id| expr(id).map(&array))
        .collect::<Result<_, _>>()?;
    let next = attack.step(&context, &pass, &states);
    let magnitudes = gradient_rows.unary("Abs").sum(&[1]).reshape(&[batch]);
    let next_point = arrays
        .number(next.point.id())
        .expand(&flat)
        .reshape(&point.shape())
        .cast(point.dtype());
    let next_states: Vec<_> = next
        .state
        .iter()
        .zip(specs)
        .map(|(state, spec)| {
            let extent = match spec.extent {
                Extent::Element => Dim::fixed(width),
                Extent::Sample => Dim::ONE,
            };
            arrays.number(state.id()).expand(&[batch, extent]).id()
        })
        .collect();
    let outputs = [
        ("mohs.prediction", predictions.id()),
        ("mohs.magnitude", magnitudes.id()),
        ("mohs.next", next_point.id()),
    ];
    drop(arrays);
    let mut graph = builder.into_graph();
    graph.outputs.clear();
    for (name, value) in outputs {
        add_output(&mut graph, name, value);
    }
    for (spec, value) in specs.iter().zip(next_states) {
        add_output(&mut graph, &format!("mohs.next.{}", spec.name), value);
    }
    passes::prune(&mut graph);
    passes::declare_shapes(&mut graph);
    Ok(graph)
}
