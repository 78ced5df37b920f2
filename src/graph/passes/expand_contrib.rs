//! Takes fused operators apart into standard ones, which have differentiation rules.
//!
//! ONNX Runtime's own optimiser and the tools around it write operators of the domain `com.microsoft` into files; `Attention` of the
//! standard domain is taken apart as well, and so are the linear operators of classical machine learning (`ai.onnx.ml`).
//! [`EXPANSIONS`] is the table; a function in it sees a node with the shapes of its operands, and adds the nodes that compute the same.
//! Forms that are not covered are left as they are: they matter only if they lie on the gradient path, and are named there.

mod activation;
mod attention;
mod classical;
mod fused;
mod heads;
mod masks;
mod normalization;
mod packed;
mod quantized;
mod quantized_contrib;
mod rotary;

use super::super::{Attributes, Builder, Dim, Expr, Graph, Node, ValueId};
use crate::onnx::proto::{AttributeProto, NodeProto};

/// The domain of ONNX Runtime's own operators.
const CONTRIB: &str = "com.microsoft";

/// The domain of classical machine learning: linear models, scalers, trees.
const CLASSICAL: &str = "ai.onnx.ml";

/// Computes a node's results, by position; `None` for one that is not asked for. An error says what of the node is not covered.
type Expand = for<'g> fn(&Fused<'g>) -> Result<Vec<Option<Expr<'g>>>, String>;

/// Domain, operator, and how it is taken apart.
const EXPANSIONS: &[(&str, &str, Expand)] = &[
    ("", "Attention", attention::standard),
    (
        "",
        "SimplifiedLayerNormalization",
        normalization::simplified,
    ),
    (
        CLASSICAL,
        "ArrayFeatureExtractor",
        classical::feature_extractor,
    ),
    (CLASSICAL, "Imputer", classical::imputer),
    (CLASSICAL, "LinearClassifier", classical::linear_classifier),
    (CLASSICAL, "Normalizer", classical::normalizer),
    (CLASSICAL, "Scaler", classical::scaler),
    (CONTRIB, "Attention", attention::packed),
    (CONTRIB, "BiasGelu", activation::bias_gelu),
    (
        CONTRIB,
        "EmbedLayerNormalization",
        normalization::embeddings,
    ),
    (CONTRIB, "FastGelu", activation::fast_gelu),
    (CONTRIB, "FusedConv", fused::conv),
    (CONTRIB, "FusedGemm", fused::gemm),
    (CONTRIB, "FusedMatMul", fused::matmul),
    (CONTRIB, "Gelu", activation::gelu),
    (CONTRIB, "GroupQueryAttention", attention::grouped),
    (CONTRIB, "LayerNormalization", normalization::layer),
    (CONTRIB, "MatMulNBits", packed::matmul_nbits),
    (CONTRIB, "MultiHeadAttention", attention::multi_head),
    (CONTRIB, "QuickGelu", activation::quick_gelu),
    (CONTRIB, "RotaryEmbedding", rotary::embedding),
    (
        CONTRIB,
        "SimplifiedLayerNormalization",
        normalization::simplified,
    ),
    (CONTRIB, "SkipLayerNormalization", normalization::skip),
    (
        CONTRIB,
        "SkipSimplifiedLayerNormalization",
        normalization::skip_simplified,
    ),
    (CONTRIB, "TransposeMatMul", fused::matmul),
];

/// Quantised operators, and how each is computed in floats.
const QUANTIZED: &[(&str, &str, Expand)] = &[
    ("", "ConvInteger", quantized::conv_integer),
    ("", "DequantizeLinear", quantized::dequantize),
    ("", "DynamicQuantizeLinear", quantized::dynamic),
    ("", "MatMulInteger", quantized::matmul_integer),
    ("", "QLinearConv", quantized::conv),
    ("", "QLinearMatMul", quantized::matmul),
    ("", "QuantizeLinear", quantized::quantize),
    (CONTRIB, "DequantizeLinear", quantized::dequantize),
    (
        CONTRIB,
        "DynamicQuantizeMatMul",
        quantized_contrib::dynamic_matmul,
    ),
    (
        CONTRIB,
        "MatMulIntegerToFloat",
        quantized_contrib::matmul_to_float,
    ),
    (CONTRIB, "QGemm", quantized::gemm),
    (CONTRIB, "QLinearAdd", quantized::add),
    (CONTRIB, "QLinearAveragePool", quantized::average_pool),
    (CONTRIB, "QLinearConcat", quantized_contrib::concat),
    (
        CONTRIB,
        "QLinearGlobalAveragePool",
        quantized::global_average_pool,
    ),
    (CONTRIB, "QLinearLeakyRelu", quantized::leaky_relu),
    (CONTRIB, "QLinearMul", quantized::mul),
    (CONTRIB, "QLinearSigmoid", quantized::sigmoid),
    (CONTRIB, "QLinearSoftmax", quantized_contrib::softmax),
    (CONTRIB, "QLinearWhere", quantized_contrib::choose),
    (CONTRIB, "QuantizeLinear", quantized::quantize),
];

fn find_in(table: &[(&str, &str, Expand)], domain: &str, op_type: &str) -> Option<Expand> {
    let mut table = table.iter();
    table
        .find(|(of, name, _)| *of == domain && *name == op_type)
        .map(|(_, _, expand)| *expand)
}

fn find(domain: &str, op_type: &str) -> Option<Expand> {
    find_in(EXPANSIONS, domain, op_type)
}

/// Whether an operator is taken apart, at least in its common forms.
#[must_use]
pub fn is_fused(domain: &str, op_type: &str) -> bool {
    find(domain, op_type).is_some()
}

/// Whether [`expand_contrib`] has anything to do; it needs facts, which cost a run.
#[must_use]
pub fn has_fused(graph: &Graph) -> bool {
    let mut nodes = graph.nodes.iter();
    nodes.any(|node| is_fused(node.domain(), node.op_type()))
}

/// Takes the fused operators of a graph apart; subgraphs stay as they are.
///
/// Needs the fact of every value.
/// Inputs, outputs and intermediate values keep their names; the facts of what is new are exact.
/// Returns the graph, and a sentence on each node that was left because its form is not covered.
#[must_use]
pub fn expand_contrib(graph: Graph) -> (Graph, Vec<String>) {
    expand(graph, EXPANSIONS, &|_, _| {}, &|_| {})
}

/// Whether an operator quantises, dequantises or computes with what is quantised.
#[must_use]
pub fn is_quantized(domain: &str, op_type: &str) -> bool {
    find_in(QUANTIZED, domain, op_type).is_some()
}

/// Whether [`dequantize`] has anything to do; it needs facts, which cost a run.
#[must_use]
pub fn has_quantized(graph: &Graph) -> bool {
    let mut nodes = graph.nodes.iter();
    nodes.any(|node| is_quantized(node.domain(), node.op_type()))
}

/// Computes what is quantised in floats that are rounded and clipped to the same whole numbers, so that gradients can be passed through.
///
/// Needs and returns what [`expand_contrib`] does; values between quantised operators become floats under their names, and outputs of the
/// graph keep their types. Facts of other values are those from before.
#[must_use]
pub fn dequantize(graph: Graph) -> (Graph, Vec<String>) {
    let declared: Vec<_> = graph
        .value_ids()
        .map(|id| graph.fact(id).map(|fact| fact.dtype))
        .collect();
    let follow = |builder: &Builder, node: &mut Node| quantized::follow(builder, node, &declared);
    let restore = |builder: &Builder| quantized::restore(builder, &declared);
    expand(graph, QUANTIZED, &follow, &restore)
}

/// Takes the operators of a table apart; `adjust` sees every other node, and `finish` the whole graph in the end.
fn expand(
    mut graph: Graph,
    table: &[(&str, &str, Expand)],
    adjust: &dyn Fn(&Builder, &mut Node),
    finish: &dyn Fn(&Builder),
) -> (Graph, Vec<String>) {
    let used = used(&graph);
    let nodes = std::mem::take(&mut graph.nodes);
    let builder = Builder::new(graph);
    let mut left = Vec::new();
    for mut node in nodes {
        let Some(expand) = find_in(table, node.domain(), node.op_type()) else {
            adjust(&builder, &mut node);
            builder.with_graph_mut(|graph| graph.nodes.push(node));
            continue;
        };
        let name = node.proto.name.clone().unwrap_or_default();
        builder.set_scope(format!("expand/{name}"));
        match results(&builder, &asked_for(&node, &used), expand) {
            Ok(results) => {
                for (output, result) in results {
                    let identity = named(&builder, output, result);
                    builder.with_graph_mut(|graph| graph.nodes.push(identity));
                }
            }
            Err(reason) => {
                left.push(format!(
                    "{} (node `{name}`) is left as it is: {reason}",
                    node.op_type()
                ));
                adjust(&builder, &mut node);
                builder.with_graph_mut(|graph| graph.nodes.push(node));
            }
        }
    }
    finish(&builder);
    (builder.into_graph(), left)
}

/// Whether a value is read by a node or is an output.
fn used(graph: &Graph) -> Vec<bool> {
    let mut used = vec![false; graph.value_count()];
    let read = graph.nodes.iter().flat_map(|node| graph.reads(node));
    for id in read.chain(graph.outputs.iter().map(|(id, _)| *id)) {
        used[id.index()] = true;
    }
    used
}

/// A node without the results that nobody reads: what they would take need not be covered.
fn asked_for(node: &Node, used: &[bool]) -> Node {
    let mut node = node.clone();
    for output in &mut node.outputs {
        // What was made since is read by what it was made for.
        *output = output.filter(|id| used.get(id.index()).copied().unwrap_or(true));
    }
    node
}

/// The results that have a name, each with what computes it.
fn results<'g>(
    builder: &'g Builder,
    node: &Node,
    expand: Expand,
) -> Result<Vec<(ValueId, Expr<'g>)>, String> {
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for input in &node.inputs {
        inputs.push(match input {
            None => None,
            Some(id) => Some(
                builder
                    .expr(*id)
                    .ok_or("the shape of an operand depends on the data")?,
            ),
        });
    }
    let fused = Fused {
        builder,
        node: node.clone(),
        inputs,
    };
    let found = expand(&fused)?;
    let mut results = Vec::new();
    for (position, output) in node.outputs.iter().enumerate() {
        let Some(output) = output else { continue };
        let result = found.get(position).copied().flatten();
        results.push((
            *output,
            result.ok_or_else(|| format!("its result {position} has no counterpart"))?,
        ));
    }
    Ok(results)
}

/// Gives a computed value the name and the type that the file has for it; loading the graph removes the node.
fn named(builder: &Builder, output: ValueId, result: Expr<'_>) -> Node {
    let fact = result.fact();
    let name = builder.with_graph_mut(|graph| {
        graph.value_mut(output).fact = Some(fact);
        graph.fresh_name("expand/Identity")
    });
    Node {
        proto: NodeProto {
            name: Some(name),
            op_type: Some("Identity".into()),
            ..Default::default()
        },
        inputs: vec![Some(result.id())],
        outputs: vec![Some(output)],
    }
}

/// A fused node with its operands.
struct Fused<'g> {
    builder: &'g Builder,
    node: Node,
    inputs: Vec<Option<Expr<'g>>>,
}

impl<'g> Fused<'g> {
    /// The operand at a position, where there is one.
    fn optional(&self, position: usize) -> Option<Expr<'g>> {
        self.inputs.get(position).copied().flatten()
    }

    /// The operand at a position.
    ///
    /// # Errors
    /// Where it is left out.
    fn x(&self, position: usize) -> Result<Expr<'g>, String> {
        self.optional(position)
            .ok_or_else(|| format!("its operand {position} is left out"))
    }

    /// Whether a result is in use.
    fn gives(&self, position: usize) -> bool {
        self.node.output(position).is_some()
    }

    /// Whether an integer attribute is there and not 0.
    fn is_set(&self, name: &str) -> bool {
        self.int(name).unwrap_or(0) != 0
    }

    /// Refuses the node where one of these operands is given.
    fn without(&self, operands: &[(usize, &str)]) -> Result<(), String> {
        let given = operands
            .iter()
            .find(|(position, _)| self.optional(*position).is_some());
        given.map_or(Ok(()), |(_, what)| {
            Err(format!("its operand {what} is not covered"))
        })
    }

    /// Refuses the node where one of these attributes is set.
    fn unset(&self, attributes: &[&str]) -> Result<(), String> {
        let set = attributes.iter().find(|name| self.is_set(name));
        set.map_or(Ok(()), |name| {
            Err(format!("its attribute {name} is not covered"))
        })
    }

    /// An attribute that has to be a positive number.
    fn count(&self, name: &str) -> Result<i64, String> {
        self.int(name)
            .filter(|&count| count > 0)
            .ok_or_else(|| format!("its attribute {name} is not a positive number"))
    }
}

impl Attributes for Fused<'_> {
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute(name)
    }
}

/// The extent of an axis that must not follow the batch.
fn fixed(dim: Dim) -> Result<i64, String> {
    dim.extent()
        .ok_or_else(|| format!("an extent of {dim} follows the batch"))
}
