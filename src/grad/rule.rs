//! What a differentiation rule is, and what it sees.

use crate::graph::{Attributes, Builder, Dim, Dims, Expr, Fact, Node};
use crate::onnx::proto::AttributeProto;
use crate::tensor::Tensor;

/// The cotangents of a node's inputs, by position; positions left out have none.
pub type Cotangents<'g> = Vec<(usize, Expr<'g>)>;

/// Computes the cotangents of a node's inputs; an error says what of the node is not supported.
pub type Apply = for<'g> fn(&Vjp<'g>) -> Result<Cotangents<'g>, String>;

/// How an operator is differentiated.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// By this function.
    Vjp(Apply),
    /// Not at all: its gradient is zero wherever it exists, for the reason given.
    Zero(&'static str),
    /// It cannot be, for the reason given; a graph with it on the gradient path is refused.
    Refused(&'static str),
}

/// The differentiation rule of one operator.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The operator's name.
    pub op_type: &'static str,
    /// Its domain; empty for the standard one.
    pub domain: &'static str,
    /// How it is differentiated.
    pub kind: Kind,
}

impl Rule {
    /// A rule for a standard operator.
    pub(super) const fn new(op_type: &'static str, apply: Apply) -> Self {
        Rule {
            op_type,
            domain: "",
            kind: Kind::Vjp(apply),
        }
    }

    /// A standard operator whose gradient is zero.
    pub(super) const fn zero(op_type: &'static str, reason: &'static str) -> Self {
        Rule {
            op_type,
            domain: "",
            kind: Kind::Zero(reason),
        }
    }

    /// A standard operator that cannot be differentiated.
    pub(super) const fn refused(op_type: &'static str, reason: &'static str) -> Self {
        Rule::refused_in("", op_type, reason)
    }

    /// An operator of a domain that cannot be differentiated.
    pub(super) const fn refused_in(
        domain: &'static str,
        op_type: &'static str,
        reason: &'static str,
    ) -> Self {
        Rule {
            op_type,
            domain,
            kind: Kind::Refused(reason),
        }
    }
}

/// A node seen from its results: what a rule works with.
///
/// Inputs are called `x`, outputs `y`, the cotangents that come in `dy`.
/// The values that a node's subgraphs take from outside count as further inputs behind its operands.
/// Rules need not undo broadcasting or cast: the driver sums every cotangent to the shape of its input and casts it to its type.
#[derive(Debug)]
pub struct Vjp<'g> {
    pub(super) builder: &'g Builder,
    pub(super) node: Node,
    pub(super) inputs: Vec<Option<Expr<'g>>>,
    pub(super) outputs: Vec<Option<Expr<'g>>>,
    pub(super) cotangents: Vec<Option<Expr<'g>>>,
    pub(super) wanted: Vec<bool>,
    /// Whether an operand is itself a value that is differentiated by.
    pub(super) sought: Vec<bool>,
    /// Whether gradients pass straight through steps.
    pub(super) straight_through: bool,
}

impl<'g> Vjp<'g> {
    /// The builder, for constants and nodes that [`Expr`] has no method for.
    #[must_use]
    pub fn builder(&self) -> &'g Builder {
        self.builder
    }

    /// The node itself.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Whether gradients pass straight through steps, also in the node's subgraphs.
    #[must_use]
    pub fn straight_through(&self) -> bool {
        self.straight_through
    }

    /// The operand at a position.
    ///
    /// # Panics
    /// Where it is left out; ONNX Runtime has run the node, so an operand that the operator requires is there.
    #[must_use]
    pub fn x(&self, position: usize) -> Expr<'g> {
        self.optional_x(position)
            .expect("the operator requires this operand")
    }

    /// The operand at a position, where there is one.
    #[must_use]
    pub fn optional_x(&self, position: usize) -> Option<Expr<'g>> {
        self.inputs.get(position).copied().flatten()
    }

    /// The number of operands, those left out included, and of values that subgraphs take from outside.
    #[must_use]
    pub fn arity(&self) -> usize {
        self.inputs.len()
    }

    /// The result at a position.
    ///
    /// # Panics
    /// Where it is left out.
    #[must_use]
    pub fn y(&self, position: usize) -> Expr<'g> {
        self.outputs
            .get(position)
            .copied()
            .flatten()
            .expect("the result is in use")
    }

    /// The result at a position, where the node hands it out.
    #[must_use]
    pub fn optional_y(&self, position: usize) -> Option<Expr<'g>> {
        self.outputs.get(position).copied().flatten()
    }

    /// Makes the node hand out a result that it left out: what it computes does not change.
    ///
    /// # Panics
    /// Where the node is not in the graph.
    #[must_use]
    pub fn hand_out(&self, position: usize, fact: Fact) -> Expr<'g> {
        let id = self.builder.with_graph_mut(|graph| {
            let this = |node: &&mut Node| {
                node.inputs == self.node.inputs && node.outputs == self.node.outputs
            };
            let id = graph.fresh(&format!("{}:{position}", self.node.op_type()));
            graph.value_mut(id).fact = Some(fact);
            let node = graph.nodes.iter_mut().find(this);
            let outputs = &mut node.expect("rules see nodes of the graph").outputs;
            outputs.resize(outputs.len().max(position + 1), None);
            outputs[position] = Some(id);
            id
        });
        self.builder.expr(id).expect("the value was given a fact")
    }

    /// The cotangent of the first result.
    ///
    /// # Panics
    /// Where the first result has none; for operators with several results ask [`Vjp::optional_dy`].
    #[must_use]
    pub fn dy(&self) -> Expr<'g> {
        self.optional_dy(0)
            .expect("a node with one result is visited only if that has a cotangent")
    }

    /// The cotangent of a result; `None` stands for zero.
    #[must_use]
    pub fn optional_dy(&self, position: usize) -> Option<Expr<'g>> {
        self.cotangents.get(position).copied().flatten()
    }

    /// The number of results, those left out included.
    #[must_use]
    pub fn results(&self) -> usize {
        self.outputs.len()
    }

    /// Whether the cotangent of an operand is asked for.
    #[must_use]
    pub fn wants(&self, position: usize) -> bool {
        self.wanted.get(position).copied().unwrap_or(false)
    }

    /// Whether an operand is nothing but a step on the way: the rule may then hand its cotangent on to what it was made from.
    #[must_use]
    pub fn passes_through(&self, position: usize) -> bool {
        self.wants(position) && !self.sought.get(position).copied().unwrap_or(true)
    }

    /// The cotangent of the first operand, which is the only one.
    ///
    /// # Errors
    /// Never; it is what every rule returns.
    pub fn only(&self, cotangent: Expr<'g>) -> Result<Cotangents<'g>, String> {
        Ok(vec![(0, cotangent)])
    }

    /// The cotangents of the first operands, each computed only where it is asked for.
    ///
    /// # Errors
    /// Never; it is what every rule returns.
    pub fn each(&self, cotangents: &[&dyn Fn() -> Expr<'g>]) -> Result<Cotangents<'g>, String> {
        let wanted = cotangents
            .iter()
            .enumerate()
            .filter(|(position, _)| self.wants(*position));
        Ok(wanted
            .map(|(position, cotangent)| (position, cotangent()))
            .collect())
    }

    /// The elements of an operand that is the same in every run.
    #[must_use]
    pub fn constant(&self, position: usize) -> Option<Tensor> {
        let id = self.node.input(position)?;
        self.builder.with_graph(|graph| graph.constant(id))
    }

    /// The integers of an operand that is the same in every run; `None` where it is left out.
    ///
    /// # Errors
    /// Where it is there, but computed from the data.
    pub fn constant_ints(&self, position: usize) -> Result<Option<Vec<i64>>, String> {
        if self.node.input(position).is_none() {
            return Ok(None);
        }
        let constant = self.constant(position).and_then(|tensor| tensor.to_i64());
        constant.map(Some).ok_or_else(|| {
            format!("its input {position} is computed from the data, and has to be constant here")
        })
    }

    /// An axis as a position from the front.
    ///
    /// # Errors
    /// Where it is outside the rank.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, String> {
        let wrapped = if axis < 0 {
            usize::try_from(-axis)
                .ok()
                .and_then(|back| rank.checked_sub(back))
        } else {
            usize::try_from(axis).ok()
        };
        wrapped
            .filter(|&axis| axis < rank.max(1))
            .ok_or_else(|| format!("axis {axis} is outside its rank {rank}"))
    }

    /// The shape of the first operand.
    #[must_use]
    pub fn shape(&self) -> Dims {
        self.x(0).shape()
    }

    /// The extent of an axis of the first operand.
    ///
    /// # Errors
    /// Where it follows the batch.
    pub fn fixed(&self, dim: Dim) -> Result<i64, String> {
        dim.extent()
            .ok_or_else(|| format!("its extent {dim} follows the batch, and has to be fixed here"))
    }
}

impl Attributes for Vjp<'_> {
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute(name)
    }
}
