//! Sums of products over labelled axes.
//!
//! The cotangent of an operand is again such a sum: of the result's cotangent and the other operands, with the operand's labels as the result.
//! Three things are undone around it: a label that occurs in the operand alone (summed out: its cotangent is the same all along),
//! one that occurs in it twice (a diagonal: the cotangent is zero beside it), and an extent of 1 that was stretched.

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attributes, Dim, Dims, Expr, Fact, Node};
use crate::onnx::proto::{AttributeProto, AttributeType, NodeProto};
use bytes::Bytes;

pub(super) const RULES: &[Rule] = &[
    // y = Σ Π xₖ over the labels that the result has not ⇒ x̄ₖ = Σ ȳ Π over the others, over the labels that xₖ has not
    Rule::new("Einsum", einsum),
];

/// The labels of one operand's axes.
type Labels = Vec<char>;

/// An operand or a cotangent with its labels.
type Term<'g> = (Expr<'g>, Labels);

fn einsum<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let equation = n.string("equation").unwrap_or_default();
    let operands: Vec<Expr<'g>> = (0..n.arity()).map(|position| n.x(position)).collect();
    let ranks: Vec<usize> = operands.iter().map(|operand| operand.rank()).collect();
    let Equation { inputs, output } = Equation::parse(equation, &ranks, n.y(0).rank())?;
    let terms: Vec<Term<'g>> = operands.into_iter().zip(inputs).collect();
    let mut cotangents = Vec::new();
    for (position, (operand, labels)) in terms.iter().enumerate() {
        if !n.wants(position) {
            continue;
        }
        let others = terms.iter().enumerate();
        let others = others.filter(|(other, _)| *other != position);
        let mut factors = vec![(n.dy(), output.clone())];
        factors.extend(others.map(|(_, term)| term.clone()));
        cotangents.push((position, cotangent(*operand, labels, factors)));
    }
    Ok(cotangents)
}

/// The cotangent of an operand: the sum of products of the factors, brought to the operand's shape.
fn cotangent<'g>(operand: Expr<'g>, labels: &Labels, factors: Vec<Term<'g>>) -> Expr<'g> {
    let shape = operand.shape();
    let unique = distinct(labels);
    let own = |label: char| {
        let axis = labels.iter().position(|&other| other == label);
        axis.map_or(Dim::ONE, |axis| shape[axis])
    };
    let extent = |label: char| {
        let extents = factors.iter().filter_map(|(factor, labels)| {
            let axis = labels.iter().position(|&other| other == label)?;
            Some(factor.shape()[axis])
        });
        extents.reduce(|a, b| if a == Dim::ONE { b } else { a })
    };
    // A label that no factor has is summed out in this operand alone; one of extent 1 was stretched, and is summed over.
    let present = |label: &char| extent(*label).is_some_and(|extent| extent == own(*label));
    let result: Labels = unique.iter().copied().filter(present).collect();
    let extents: Dims = result.iter().map(|&label| own(label)).collect();
    let sum = sum_of_products(factors, &result, extents);
    // Axes for the labels that are missing, in the order of the operand.
    let missing: Vec<usize> = (0..unique.len())
        .filter(|&axis| !result.contains(&unique[axis]))
        .collect();
    let sum = if missing.is_empty() {
        sum
    } else {
        sum.unsqueeze(&missing)
    };
    let whole: Dims = unique.iter().map(|&label| own(label)).collect();
    let sum = sum.expand(&whole);
    if unique.len() == labels.len() {
        sum
    } else {
        on_diagonals(sum, labels, &shape)
    }
}

fn distinct(labels: &[char]) -> Labels {
    let mut distinct = Labels::new();
    for &label in labels {
        if !distinct.contains(&label) {
            distinct.push(label);
        }
    }
    distinct
}

/// The entries back on the diagonals that repeated labels took them from, zeros beside them.
fn on_diagonals<'g>(entries: Expr<'g>, labels: &Labels, shape: &Dims) -> Expr<'g> {
    let repeated: Vec<usize> = (0..labels.len())
        .filter(|&axis| labels[..axis].contains(&labels[axis]))
        .collect();
    let builder = entries.builder();
    let mut result = entries.unsqueeze(&repeated);
    for axis in repeated {
        let first = labels.iter().position(|&label| label == labels[axis]);
        let first = first.unwrap_or(axis);
        let square = [shape[axis], shape[axis]];
        let zeros = builder.full(entries.dtype(), &square, 0.0);
        let fact = Fact::new(entries.dtype(), square.to_vec());
        let identity = builder.node("EyeLike", &[zeros], &[], fact);
        let mut stretched = vec![Dim::ONE; labels.len()];
        (stretched[first], stretched[axis]) = (shape[axis], shape[axis]);
        result = result * identity.reshape(&stretched);
    }
    result
}

/// Σ Π of the factors, with these labels; factors without axes are multiplied by, since an empty term is not allowed everywhere.
fn sum_of_products<'g>(factors: Vec<Term<'g>>, result: &Labels, shape: Dims) -> Expr<'g> {
    let (scalars, mut tensors): (Vec<_>, Vec<_>) = factors
        .into_iter()
        .partition(|(_, labels)| labels.is_empty());
    let scalars = scalars.into_iter().map(|(scalar, _)| scalar);
    let scale = scalars.reduce(|a, b| a * b);
    let sum = match tensors.as_slice() {
        [] => None,
        [(only, labels)] if labels == result => Some(*only),
        _ => {
            let terms: Vec<String> = tensors
                .iter()
                .map(|(_, labels)| labels.iter().collect())
                .collect();
            let equation = format!("{}->{}", terms.join(","), result.iter().collect::<String>());
            let operands: Vec<_> = tensors.drain(..).map(|(factor, _)| Some(factor)).collect();
            let first = operands.first().copied().flatten();
            first.map(|first| {
                let fact = Fact::new(first.dtype(), shape);
                first
                    .builder()
                    .repeat(&node(equation), &operands, vec![fact])[0]
            })
        }
    };
    match (sum, scale) {
        (Some(sum), Some(scale)) => sum * scale,
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => unreachable!("the cotangent of the result is a factor"),
    }
}

fn node(equation: String) -> Node {
    let equation = AttributeProto {
        name: Some("equation".into()),
        s: Some(Bytes::from(equation.into_bytes())),
        r#type: Some(AttributeType::String as i32),
        ..AttributeProto::default()
    };
    let proto = NodeProto {
        op_type: Some("Einsum".into()),
        attribute: vec![equation],
        ..NodeProto::default()
    };
    Node {
        proto,
        inputs: Vec::new(),
        outputs: Vec::new(),
    }
}

/// An equation, with a label for each axis that an ellipsis stands for.
#[derive(Debug, PartialEq)]
struct Equation {
    inputs: Vec<Labels>,
    output: Labels,
}

impl Equation {
    /// Reads an equation for operands and a result of these ranks.
    fn parse(equation: &str, ranks: &[usize], rank: usize) -> Result<Self, String> {
        let wrong = || format!("its equation `{equation}` does not fit its operands");
        let plain: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (inputs, output) = match plain.split_once("->") {
            Some((inputs, output)) => (inputs, Some(output)),
            None => (plain.as_str(), None),
        };
        let terms: Vec<&str> = inputs.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(wrong());
        }
        let letters = |term: &str| term.chars().filter(|c| *c != '.').collect::<Labels>();
        let covered = terms.iter().zip(ranks).map(|(term, rank)| {
            if term.contains("...") {
                rank.checked_sub(letters(term).len())
            } else {
                Some(0)
            }
        });
        let widest = covered.collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        let widest = widest.into_iter().max().unwrap_or(0);
        let named = letters(&plain.replace(',', "").replace("->", ""));
        let spare = ('A'..='Z')
            .chain('a'..='z')
            .filter(|letter| !named.contains(letter));
        let ellipsis: Labels = spare.take(widest).collect();
        if ellipsis.len() < widest {
            return Err(format!(
                "its equation `{equation}` leaves too few letters for the axes of its ellipsis"
            ));
        }
        // The axes of an ellipsis are aligned at the last one.
        let expand = |term: &str, rank: usize| -> Option<Labels> {
            let Some((before, after)) = term.split_once("...") else {
                let labels = letters(term);
                return (labels.len() == rank).then_some(labels);
            };
            let (before, after) = (letters(before), letters(after));
            let axes = rank.checked_sub(before.len() + after.len())?;
            let hidden = ellipsis.get(ellipsis.len().checked_sub(axes)?..)?;
            Some([&before[..], hidden, &after[..]].concat())
        };
        let inputs = terms
            .iter()
            .zip(ranks)
            .map(|(term, &rank)| expand(term, rank));
        let inputs: Vec<Labels> = inputs.collect::<Option<_>>().ok_or_else(wrong)?;
        let output = match output {
            Some(output) => expand(output, rank).ok_or_else(wrong)?,
            None => {
                // The labels that occur once, in alphabetical order, behind the ellipsis.
                let all = letters(&plain.replace(',', ""));
                let once = |label: &&char| all.iter().filter(|other| other == label).count() == 1;
                let mut once: Labels = all.iter().filter(once).copied().collect();
                once.sort_unstable();
                [&ellipsis[..], &once[..]].concat()
            }
        };
        Ok(Equation { inputs, output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(equation: &str, ranks: &[usize], rank: usize) -> (Vec<String>, String) {
        let Equation { inputs, output } = Equation::parse(equation, ranks, rank).unwrap();
        let text = |labels: &Labels| labels.iter().collect::<String>();
        (inputs.iter().map(text).collect(), text(&output))
    }

    #[test]
    fn an_ellipsis_is_aligned_at_its_last_axis() {
        let (inputs, output) = parsed("...ij,j...->i...", &[4, 2], 3);
        assert_eq!(
            (inputs, output),
            (vec!["ABij".into(), "jB".into()], "iAB".into())
        );
    }

    #[test]
    fn without_an_arrow_the_labels_that_occur_once_are_the_result() {
        assert_eq!(parsed("ba, ca", &[2, 2], 2).1, "bc");
        assert_eq!(parsed("b...a", &[3], 3), (vec!["bAa".into()], "Aab".into()));
        assert_eq!(parsed("ii", &[2], 0).1, "");
    }

    #[test]
    fn an_equation_that_does_not_fit_is_refused() {
        let message = Equation::parse("ij,jk->ik", &[2], 2).unwrap_err();
        assert!(message.contains("ij,jk->ik"), "{message}");
        assert!(Equation::parse("ijk->i", &[2], 1).is_err());
    }
}
