//! The frame that recurrent layers share: their operands step by step, and the cotangents of their weights.
//!
//! Inside a rule every sequence has the shape `[directions, steps, batch, width]`, its steps in the order in which its direction takes them.
//! Samples that are shorter than the sequence (`sequence_lens`) keep their state in the steps outside: these come last in the forward
//! direction and first in the backward one.

use crate::grad::rule::{Cotangents, Vjp};
use crate::grad::rules::matmul::product;
use crate::graph::{Attributes, Dim, Expr, Fact};
use crate::tensor::{DType, Tensor};

/// Positions of the operands.
const W: usize = 1;
const R: usize = 2;
const B: usize = 3;
const LENGTHS: usize = 4;
pub(super) const INITIAL_H: usize = 5;
pub(super) const INITIAL_C: usize = 6;
pub(super) const P: usize = 7;

/// A recurrent layer with its extents.
pub(super) struct Layer<'a, 'g> {
    n: &'a Vjp<'g>,
    /// Whether each direction takes the steps from the last to the first.
    backward: Vec<bool>,
    steps: i64,
    batch: Dim,
    hidden: i64,
    /// Where a sample still runs: booleans `[directions, steps, batch, 1]`; `None` where all do.
    running: Option<Expr<'g>>,
    /// Which samples have any step at all: booleans `[1, batch, 1]`.
    any: Option<Expr<'g>>,
    /// The bound that gates are clipped to before their function.
    pub(super) clip: Option<f64>,
}

impl<'a, 'g> Layer<'a, 'g> {
    /// Reads the layer of a node.
    ///
    /// # Errors
    /// Where its layout is another than ONNX Runtime runs, or its number of steps follows the batch.
    pub(super) fn of(n: &'a Vjp<'g>) -> Result<Self, String> {
        if n.int("layout").unwrap_or_default() != 0 {
            return Err("its attribute `layout` is 1, which ONNX Runtime does not run; export it with layout 0 and transposes around it".into());
        }
        let backward = match n.string("direction").unwrap_or("forward") {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(format!("its direction `{other}` is not known")),
        };
        let (x, r) = (n.x(0).shape(), n.x(R).shape());
        let steps = n.fixed(x[0])?;
        let mut layer = Layer {
            n,
            backward,
            steps,
            batch: x[1],
            hidden: n.fixed(r[2])?,
            running: None,
            any: None,
            clip: n.float("clip").map(f64::from),
        };
        layer.read_lengths();
        Ok(layer)
    }

    fn read_lengths(&mut self) {
        let Some(lengths) = self.n.optional_x(LENGTHS) else {
            return;
        };
        let known = self.n.constant_ints(LENGTHS).ok().flatten();
        if known.is_some_and(|known| known.iter().all(|&length| length == self.steps)) {
            return;
        }
        let last = self.steps - 1;
        let positions = self.backward.iter().flat_map(|&backward| {
            (0..=last).map(move |step| if backward { last - step } else { step })
        });
        let positions: Vec<i32> = positions
            .map(|position| i32::try_from(position).unwrap_or(i32::MAX))
            .collect();
        let shape = [
            self.backward.len(),
            positions.len() / self.backward.len(),
            1,
            1,
        ];
        let Some(positions) = Tensor::new(&shape, positions) else {
            return;
        };
        let builder = self.n.builder();
        let lengths = lengths
            .cast(DType::I32)
            .reshape(&[Dim::ONE, self.batch, Dim::ONE]);
        self.running = Some(builder.constant(&positions).lt(lengths));
        self.any = Some(builder.scalar(DType::I32, 0.0).lt(lengths));
    }

    /// The number of directions.
    pub(super) fn directions(&self) -> usize {
        self.backward.len()
    }

    /// As many as the directions.
    fn per_direction(&self) -> Dim {
        Dim::fixed(self.times_directions(1))
    }

    fn times_directions(&self, number: i64) -> i64 {
        number * if self.directions() == 2 { 2 } else { 1 }
    }

    /// The width of a state.
    pub(super) fn hidden(&self) -> i64 {
        self.hidden
    }

    /// The extent of all steps of all samples laid into one axis.
    fn rows(&self) -> Dim {
        self.batch.times(self.steps)
    }

    /// Turns the steps of the backward direction around; twice is as never.
    fn turn(&self, value: Expr<'g>) -> Expr<'g> {
        match self.backward.as_slice() {
            [true] => value.reverse(&[1]),
            [false, true] => {
                let half = |start: i64| value.slice(0, start, Dim::fixed(start + 1));
                Expr::concat(&[half(0), half(1).reverse(&[1])], 0)
            }
            _ => value,
        }
    }

    /// A sequence of the operator, `[steps, directions, batch, width]`, in the inner form.
    fn ordered(&self, value: Expr<'g>) -> Expr<'g> {
        let [steps, directions, batch, width] = [0, 1, 2, 3].map(|axis| value.shape()[axis]);
        if self.directions() == 1 {
            return self.turn(value.reshape(&[directions, steps, batch, width]));
        }
        self.turn(value.transpose(&[1, 0, 2, 3]))
    }

    /// A sequence in the inner form as a matrix: a row per step and sample, in the operator's order, the directions side by side.
    fn side_by_side(&self, value: Expr<'g>) -> Expr<'g> {
        let width = value.shape()[3].times(self.times_directions(1));
        let turned = self.turn(value);
        let turned = if self.directions() == 1 {
            turned
        } else {
            turned.transpose(&[1, 2, 0, 3])
        };
        turned.reshape(&[self.rows(), width])
    }

    /// Numbers `[directions, count · hidden]`, as biases and peepholes are given, in `count` parts `[directions, 1, 1, hidden]`.
    pub(super) fn vectors(&self, value: Expr<'g>, count: i64) -> Vec<Expr<'g>> {
        let width = Dim::fixed(count * self.hidden);
        let value = value.reshape(&[self.per_direction(), Dim::ONE, Dim::ONE, width]);
        split(value, 3, count, self.hidden)
    }

    /// The gates of a sequence `[…, count · hidden]`.
    pub(super) fn gates(&self, value: Expr<'g>, count: i64) -> Vec<Expr<'g>> {
        split(value, 3, count, self.hidden)
    }

    /// The initial state at a position of the operands, `[directions, batch, hidden]`.
    pub(super) fn initial(&self, position: usize) -> Option<Expr<'g>> {
        self.n.optional_x(position)
    }

    /// A state of zeros `[directions, batch, hidden]`.
    pub(super) fn zeros(&self) -> Expr<'g> {
        let shape = [self.per_direction(), self.batch, Dim::fixed(self.hidden)];
        self.n.builder().full(self.n.x(0).dtype(), &shape, 0.0)
    }

    /// The cotangent of the states after the last step that comes in through the result at a position.
    ///
    /// A sample without any step has zeros for its last states, whatever the initial ones.
    pub(super) fn last(&self, position: usize) -> Expr<'g> {
        let Some(cotangent) = self.n.optional_dy(position) else {
            return self.zeros();
        };
        self.any.map_or(cotangent, |any| cotangent.where_(any))
    }

    /// The cotangents of the states after each step that come in through Y.
    pub(super) fn cotangents_of_states(&self) -> Option<Expr<'g>> {
        let cotangent = self.n.optional_dy(0)?;
        Some(self.while_running(self.ordered(cotangent)))
    }

    /// The value in the steps in which a sample runs, else 0.
    pub(super) fn while_running(&self, value: Expr<'g>) -> Expr<'g> {
        self.running.map_or(value, |running| value.where_(running))
    }

    /// The value in the steps in which a sample runs, else 1.
    pub(super) fn else_one(&self, value: Expr<'g>) -> Expr<'g> {
        self.running
            .map_or(value, |running| running.select(value, 1.0, value))
    }

    /// Where a sample still runs, as booleans; `None` where all always do.
    pub(super) fn running(&self) -> Option<Expr<'g>> {
        self.running
    }

    /// 1 in the steps in which a sample keeps its state, 0 in those in which it runs; `None` where all always run.
    pub(super) fn kept(&self) -> Option<Expr<'g>> {
        Some((!self.running?).cast_like(self.n.x(0)))
    }

    /// A sequence one step later: entry t is that of step t − 1, the first one is `initial`.
    pub(super) fn delayed(&self, value: Expr<'g>, initial: Expr<'g>) -> Expr<'g> {
        let but_the_last = value.slice(1, 0, Dim::fixed(self.steps - 1));
        Expr::concat(&[initial.unsqueeze(&[1]), but_the_last], 1)
    }

    /// The states before each step.
    pub(super) fn states_before(&self) -> Expr<'g> {
        let states = self.ordered(self.states());
        let Some(initial) = self.initial(INITIAL_H) else {
            // Y is 0 wherever a sample does not run, and so is its initial state.
            return self.delayed(states, self.zeros());
        };
        // Where the backward direction comes to the last step of a shorter sample, the step before has nothing but a 0 in Y.
        let states = match self.running {
            Some(running) => running.select(states, initial.unsqueeze(&[1]), states),
            None => states,
        };
        self.delayed(states, initial)
    }

    /// Y; where the node does not hand it out, it is made to.
    fn states(&self) -> Expr<'g> {
        if let Some(states) = self.n.optional_y(0) {
            return states;
        }
        let shape = vec![
            Dim::fixed(self.steps),
            self.per_direction(),
            self.batch,
            Dim::fixed(self.hidden),
        ];
        self.n.hand_out(0, Fact::new(self.n.x(0).dtype(), shape))
    }

    /// X Wᵀ of every direction and step: `[directions, steps, batch, gates · hidden]`.
    pub(super) fn input_products(&self) -> Expr<'g> {
        let (x, w) = (self.n.x(0), self.n.x(W));
        let (inputs, gates) = (x.shape()[2], w.shape()[1]);
        let x = x.reshape(&[self.rows(), inputs]);
        let directions = self.per_direction();
        let w = w.reshape(&[gates.times(self.times_directions(1)), inputs]);
        let products = product(1.0, (x, false), (w, true));
        let steps = Dim::fixed(self.steps);
        if self.directions() == 1 {
            return self.turn(products.reshape(&[directions, steps, self.batch, gates]));
        }
        let products = products.reshape(&[steps, self.batch, directions, gates]);
        self.turn(products.transpose(&[2, 0, 1, 3]))
    }

    /// A sequence times matrices `[directions, to, from]`, one per direction: `[directions, steps, batch, to]`.
    pub(super) fn products(&self, value: Expr<'g>, matrices: Expr<'g>) -> Expr<'g> {
        let [directions, steps, batch, from] = [0, 1, 2, 3].map(|axis| value.shape()[axis]);
        let to = matrices.shape()[1];
        let products = if self.directions() == 1 {
            let value = value.reshape(&[self.rows(), from]);
            product(1.0, (value, false), (matrices.reshape(&[to, from]), true))
        } else {
            let value = value.reshape(&[directions, self.rows(), from]);
            value.matmul(matrices.transpose(&[0, 2, 1]))
        };
        products.reshape(&[directions, steps, batch, to])
    }

    /// The recurrence weights `[directions, gates · hidden, hidden]`.
    pub(super) fn recurrence(&self) -> Expr<'g> {
        self.n.x(R)
    }

    /// The biases of the input side and of the recurrent side, each `[directions, 1, 1, gates · hidden]`.
    pub(super) fn biases(&self) -> Option<[Expr<'g>; 2]> {
        let both = self.n.optional_x(B)?;
        let width = both.shape()[1];
        let both = both.reshape(&[self.per_direction(), Dim::ONE, Dim::ONE, width]);
        let half = self.n.x(R).shape()[1].extent()?;
        let part = |start: i64| both.slice(3, start, Dim::fixed(start + half));
        Some([part(0), part(half)])
    }

    /// The cotangents of X, W and the initial states, from those of the gates before their functions and of the states before the first step.
    pub(super) fn of_inputs(
        &self,
        gates: Expr<'g>,
        initial: &[(usize, Expr<'g>)],
    ) -> Cotangents<'g> {
        let (x, w) = (self.n.x(0), self.n.x(W));
        let (inputs, width) = (x.shape()[2], w.shape()[1]);
        let side_by_side = width.times(self.times_directions(1));
        let mut cotangents = Vec::new();
        if self.n.wants(0) {
            let w = w.reshape(&[side_by_side, inputs]);
            let product = product(1.0, (self.side_by_side(gates), false), (w, false));
            cotangents.push((0, product.reshape_like(x)));
        }
        if self.n.wants(W) {
            let x = x.reshape(&[self.rows(), inputs]);
            let product = product(1.0, (self.side_by_side(gates), true), (x, false));
            cotangents.push((W, product.reshape_like(w)));
        }
        for &(position, cotangent) in initial {
            if self.n.wants(position) {
                cotangents.push((position, cotangent));
            }
        }
        cotangents
    }

    /// The cotangent of R, from parts: those of some gates before their functions, with the sequence that R was multiplied with for them.
    pub(super) fn of_recurrence(&self, parts: &[(Expr<'g>, Expr<'g>)]) -> Cotangents<'g> {
        if !self.n.wants(R) {
            return Vec::new();
        }
        let part = |&(gates, states): &(Expr<'g>, Expr<'g>)| {
            let flat = |value: Expr<'g>| {
                let [directions, width] = [0, 3].map(|axis| value.shape()[axis]);
                value.reshape(&[directions, self.rows(), width])
            };
            flat(gates).transpose(&[0, 2, 1]).matmul(flat(states))
        };
        let parts: Vec<_> = parts.iter().map(part).collect();
        vec![(R, Expr::concat(&parts, 1))]
    }

    /// The cotangent of B, from those of the input side and of the recurrent side of the gates before their functions.
    pub(super) fn of_biases(&self, inputs: Expr<'g>, states: Expr<'g>) -> Cotangents<'g> {
        if !self.n.wants(B) {
            return Vec::new();
        }
        vec![(B, summed(&[inputs, states]))]
    }
}

/// The cotangent of numbers `[directions, n · hidden]`, from what their n parts gave in all steps of all samples.
pub(super) fn summed<'g>(parts: &[Expr<'g>]) -> Expr<'g> {
    let summed = parts
        .iter()
        .map(|part| part.reduce("ReduceSum", &[1, 2], false));
    Expr::concat(&summed.collect::<Vec<_>>(), 1)
}

/// Appends a sequence, where there is one; returns its position then.
pub(super) fn append<'g>(sequences: &mut Vec<Expr<'g>>, more: Option<Expr<'g>>) -> Option<usize> {
    sequences.push(more?);
    Some(sequences.len() - 1)
}

/// A value in `count` parts of one extent along an axis.
fn split(value: Expr<'_>, axis: usize, count: i64, extent: i64) -> Vec<Expr<'_>> {
    if count == 1 {
        return vec![value];
    }
    let mut shape = value.shape();
    shape[axis] = Dim::fixed(extent);
    let count = usize::try_from(count).unwrap_or_default();
    let builder = value.builder();
    let attributes = [(
        "axis",
        crate::graph::Attribute::Int(i64::try_from(axis).unwrap_or_default()),
    )];
    let extents = builder.ints(&vec![extent; count]);
    let fact = Fact::new(value.dtype(), shape);
    builder.node_with(
        "Split",
        &[Some(value), Some(extents)],
        &attributes,
        vec![fact; count],
    )
}
