//! Reverse-mode differentiation by graph rewriting.
//!
//! [`vjp`] extends a graph by the nodes that compute cotangents, in standard operators alone; one [`Rule`] per operator, in [`rules`].
//! Only nodes between the differentiated values and the seeds are visited.
//! Nothing here runs a graph.

mod anchored;
pub mod loss;
mod rule;
pub mod rules;
pub mod straight_through;
mod window;

pub use anchored::anchored;
pub use rule::{Apply, Cotangents, Kind, Rule, Vjp};

use crate::graph::{Builder, Expr, Graph, Node, ValueId, passes};
use std::fmt;

/// Why a graph cannot be differentiated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Operators without a rule, or used in a way that their rule does not cover.
    #[error("{} on the gradient path cannot be differentiated:{}", count(.0.len(), "node"), list(.0))]
    Unsupported(Vec<Obstacle>),
    /// The value to differentiate by does not reach the loss.
    #[error(
        "`{name}` does not reach the loss through differentiable operators: its gradient is zero everywhere{reason}"
    )]
    Unreachable {
        /// The value.
        name: String,
        /// What is in the way, where that is known.
        reason: String,
    },
}

/// A node in the way of the gradient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The operator, with its domain where that is not the standard one.
    pub op_type: String,
    /// The node's name.
    pub node: String,
    /// What is not supported.
    pub reason: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (node `{}`): {}",
            self.op_type, self.node, self.reason
        )
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

fn list(obstacles: &[Obstacle]) -> String {
    obstacles
        .iter()
        .map(|obstacle| format!("\n  {obstacle}"))
        .collect()
}

/// Adds the nodes that compute, for each value of `wrt`, its cotangent: Σ over seeds of (d seed value / d value)ᵀ · seed cotangent.
///
/// Every value needs a fact. `None` stands for a value that does not reach the seeds.
///
/// # Errors
/// [`Error::Unsupported`] with every node in the way; nothing was added then that an output depends on.
pub fn vjp<'g>(
    builder: &'g Builder,
    seeds: &[(ValueId, Expr<'g>)],
    wrt: &[ValueId],
) -> Result<Vec<Option<Expr<'g>>>, Error> {
    vjp_by(builder, seeds, wrt, false)
}

/// [`vjp`] with steps such as `Round` and `Sign` taken for what they approximate (also inside of an `If`).
///
/// # Errors
/// As for [`vjp`].
pub fn vjp_straight_through<'g>(
    builder: &'g Builder,
    seeds: &[(ValueId, Expr<'g>)],
    wrt: &[ValueId],
) -> Result<Vec<Option<Expr<'g>>>, Error> {
    vjp_by(builder, seeds, wrt, true)
}

/// [`vjp`] or [`vjp_straight_through`].
fn vjp_by<'g>(
    builder: &'g Builder,
    seeds: &[(ValueId, Expr<'g>)],
    wrt: &[ValueId],
    straight_through: bool,
) -> Result<Vec<Option<Expr<'g>>>, Error> {
    let path = builder.with_graph(|graph| Path::find(graph, seeds, wrt, straight_through));
    let mut obstacles = path.without_rule;
    let mut cotangents = Accumulator {
        of: vec![Vec::new(); path.varied.len()],
        path: &path.varied,
    };
    for (value, cotangent) in seeds {
        cotangents.add(builder, *value, *cotangent);
    }
    for (node, rule) in path.nodes.into_iter().rev() {
        let incoming: Vec<_> = node
            .outputs
            .iter()
            .map(|output| cotangents.total((*output)?))
            .collect();
        if incoming.iter().all(Option::is_none) {
            continue;
        }
        builder.set_scope(format!("grad/{}", label(&node)));
        let expr = |id: &Option<ValueId>| id.and_then(|id| builder.expr(id));
        let wanted = |id: &Option<ValueId>| id.is_some_and(|id| path.varied[id.index()]);
        let sought = |id: &Option<ValueId>| id.is_some_and(|id| wrt.contains(&id));
        // What its subgraphs take from outside stands behind the operands.
        let captured = builder.with_graph(|graph| graph.captured(&node));
        let mut reads = node.inputs.clone();
        reads.extend(captured.into_iter().map(Some));
        let view = Vjp {
            builder,
            inputs: reads.iter().map(expr).collect(),
            outputs: node.outputs.iter().map(expr).collect(),
            cotangents: incoming,
            wanted: reads.iter().map(wanted).collect(),
            sought: reads.iter().map(sought).collect(),
            straight_through,
            node,
        };
        match rule(&view) {
            Ok(found) => {
                for (position, cotangent) in found {
                    if let Some(input) = reads.get(position).copied().flatten() {
                        cotangents.add(builder, input, cotangent);
                    }
                }
            }
            Err(reason) => obstacles.push(Obstacle::of(&view.node, reason)),
        }
    }
    if obstacles.is_empty() {
        Ok(wrt.iter().map(|&value| cotangents.total(value)).collect())
    } else {
        Err(Error::Unsupported(obstacles))
    }
}

impl Obstacle {
    fn of(node: &Node, reason: String) -> Self {
        let op_type = match node.domain() {
            "" => node.op_type().to_owned(),
            domain => format!("{domain}::{}", node.op_type()),
        };
        Obstacle {
            op_type,
            node: label(node),
            reason,
        }
    }
}

/// A node's name, or that of its first result where it has none.
fn label(node: &Node) -> String {
    match node.proto.name.as_deref() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => node.op_type().to_owned(),
    }
}

/// The cotangents found so far.
struct Accumulator<'a, 'g> {
    of: Vec<Vec<Expr<'g>>>,
    path: &'a [bool],
}

impl<'g> Accumulator<'_, 'g> {
    /// Adds a cotangent, summed to the value's shape and cast to its type; one that nobody asks for is dropped.
    fn add(&mut self, builder: &'g Builder, value: ValueId, cotangent: Expr<'g>) {
        if !self.path.get(value.index()).copied().unwrap_or(false) {
            return;
        }
        if let Some(primal) = builder.expr(value) {
            self.of[value.index()].push(cotangent.unbroadcast(&primal.shape()).cast_like(primal));
        }
    }

    /// The sum of all cotangents of a value.
    fn total(&mut self, value: ValueId) -> Option<Expr<'g>> {
        let parts = self.of.get_mut(value.index())?;
        let total = match parts.as_slice() {
            [] => return None,
            [one] => *one,
            [first, second] => *first + *second,
            [first, ..] => first.builder().node("Sum", parts, &[], first.fact()),
        };
        *parts = vec![total];
        Some(total)
    }
}

/// Why a gradient that goes straight through steps would end at a node unsaid.
///
/// What quantises was put in floats before; where that could not be, its gradient would silently be zero.
fn not_in_floats(node: &Node, rule: Option<&Rule>, reads_whole: bool) -> Option<&'static str> {
    let quantizes = passes::is_quantized(node.domain(), node.op_type());
    if quantizes && !node.is("DynamicQuantizeLinear") {
        return Some("it quantises in a form that is not computed in floats");
    }
    (rule.is_none() && reads_whole)
        .then_some("it works on quantised numbers, and there is no rule for this operator")
}

/// The nodes between the differentiated values and the seeds.
struct Path {
    /// Whether each value depends differentiably on a differentiated one (and is one of float type).
    varied: Vec<bool>,
    /// The nodes to visit, in the graph's order.
    nodes: Vec<(Node, rule::Apply)>,
    without_rule: Vec<Obstacle>,
}

impl Path {
    fn find(
        graph: &Graph,
        seeds: &[(ValueId, Expr<'_>)],
        wrt: &[ValueId],
        straight_through: bool,
    ) -> Self {
        let find_rule = if straight_through {
            straight_through::find
        } else {
            rules::find
        };
        let mut useful = vec![false; graph.value_count()];
        for (value, _) in seeds {
            useful[value.index()] = true;
        }
        for node in graph.nodes.iter().rev() {
            if node
                .outputs
                .iter()
                .flatten()
                .any(|output| useful[output.index()])
            {
                for input in graph.reads(node) {
                    useful[input.index()] = true;
                }
            }
        }
        // Straight through steps, integers that floats became: what makes floats of them again has to be known.
        let mut whole = vec![false; graph.value_count()];
        let mut varied = vec![false; graph.value_count()];
        for value in wrt {
            varied[value.index()] = true;
        }
        let (mut nodes, mut without_rule) = (Vec::new(), Vec::new());
        let is_float = |id: ValueId| graph.fact(id).is_none_or(|fact| fact.dtype.is_float());
        for node in &graph.nodes {
            let reached = node
                .outputs
                .iter()
                .flatten()
                .any(|output| useful[output.index()]);
            let reads = graph.reads(node);
            let reads_whole = reads.iter().any(|input| whole[input.index()]);
            if !reached || !(reads_whole || reads.iter().any(|input| varied[input.index()])) {
                continue;
            }
            let rule = find_rule(node.domain(), node.op_type());
            if straight_through && let Some(reason) = not_in_floats(node, rule, reads_whole) {
                without_rule.push(Obstacle::of(node, reason.into()));
                continue;
            }
            if matches!(
                rule,
                Some(Rule {
                    kind: Kind::Zero(_),
                    ..
                })
            ) {
                continue;
            }
            let mut floats = node
                .outputs
                .iter()
                .flatten()
                .filter(|output| useful[output.index()] && is_float(**output))
                .peekable();
            if floats.peek().is_none() {
                for output in node.outputs.iter().flatten().filter(|_| straight_through) {
                    whole[output.index()] = true;
                }
                continue;
            }
            if !reads.iter().any(|input| varied[input.index()]) {
                continue;
            }
            for output in floats {
                varied[output.index()] = true;
            }
            if let Some(Rule {
                kind: Kind::Refused(reason),
                ..
            }) = rule
            {
                without_rule.push(Obstacle::of(node, (*reason).into()));
                continue;
            }
            let unknown = |id: &&ValueId| graph.fact(**id).is_none();
            if let Some(id) = (node.inputs.iter().chain(&node.outputs).flatten()).find(unknown) {
                let reason = format!("the shape of `{}` depends on the data", graph.name(*id));
                without_rule.push(Obstacle::of(node, reason));
                continue;
            }
            match rule {
                Some(Rule {
                    kind: Kind::Vjp(apply),
                    ..
                }) => nodes.push((node.clone(), *apply)),
                _ => {
                    without_rule.push(Obstacle::of(node, rules::why_missing(node.domain()).into()))
                }
            }
        }
        Path {
            varied,
            nodes,
            without_rule,
        }
    }
}
