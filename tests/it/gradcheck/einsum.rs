//! Sums of products over labelled axes.

use super::{Case, Input, N, linear, proptest_config, varied};
use proptest::prelude::*;

fn case(equation: &'static str, shapes: &[&[usize]]) -> Case {
    let inputs = shapes.iter().map(|shape| varied(shape)).collect();
    linear(Case::new("Einsum", inputs).string("equation", equation))
}

#[test]
fn equations_of_one_operand() {
    let square: &[&[usize]] = &[&[3, 3]];
    for equation in [
        "ii->i",
        "ii->",
        "ii",
        "ij->ji",
        "ij->i",
        "ij->j",
        "ij->",
        "ij",
        "ji",
        "...->...",
        "... i -> i ...",
    ] {
        case(equation, square).check();
    }
    for equation in ["iji->j", "iji->ij", "iji->ji", "iji->", "ijk->kj"] {
        case(equation, &[&[3, 2, 3]]).check();
    }
    case("iii->i", &[&[3, 3, 3]]).check();
    case("iijj->ij", &[&[2, 2, 3, 3]]).check();
    case("ijij->", &[&[2, 3, 2, 3]]).check();
    case("b...->...b", &[&[N, 2, 3]]).check();
    case("bii->bi", &[&[N, 3, 3]]).check();
}

#[test]
fn equations_of_two_operands() {
    for (equation, a, b) in [
        ("ij,jk->ik", &[2, 3][..], &[3, 4][..]),
        ("ij,jk", &[2, 3], &[3, 4]),
        ("bij,bjk->bik", &[N, 2, 3], &[N, 3, 4]),
        ("bhqd,bhkd->bhqk", &[N, 2, 3, 4], &[N, 2, 5, 4]),
        ("bnd,bne->bde", &[N, 3, 2], &[N, 3, 4]),
        ("bnd,bd->bn", &[N, 3, 2], &[N, 2]),
        ("i,i->", &[3], &[3]),
        ("i,j->ij", &[3], &[2]),
        ("i,j->", &[3], &[2]),
        ("ii,i->i", &[3, 3], &[3]),
        ("ii,ij->j", &[3, 3], &[3, 2]),
        ("ij,ij->ij", &[2, 3], &[2, 3]),
        ("ijk,jl->il", &[2, 3, 4], &[3, 2]),
        ("...ij,jk->...ik", &[N, 2, 2, 3], &[3, 4]),
        ("...ij,...jk", &[2, 2, 3], &[2, 3, 4]),
        ("...i,i->...", &[N, 4, 3], &[3]),
        ("...i,...i->...", &[N, 4, 3], &[N, 4, 3]),
        ("i...,i...->...", &[3, 2], &[3, 2]),
    ] {
        case(equation, &[a, b]).check();
    }
}

#[test]
fn extents_of_one_stretch() {
    // Only under a name: ONNX Runtime refuses an ellipsis whose extents differ.
    case("bij,bjk->bik", &[&[1, 2, 3], &[4, 3, 2]]).check();
    case("ij,ij->i", &[&[2, 1], &[2, 3]]).check();
    case("ij,ij->ij", &[&[2, 1], &[1, 3]]).check();
}

#[test]
fn equations_of_several_operands() {
    case("bi,kij,bj->bk", &[&[N, 2], &[4, 2, 3], &[N, 3]]).check();
    case("i,i,i->i", &[&[3], &[3], &[3]]).check();
    case("ij,jk,kl,lm->im", &[&[2, 3], &[3, 2], &[2, 4], &[4, 2]]).check();
    case("ii,ij,j->", &[&[2, 2], &[2, 3], &[3]]).check();
}

#[test]
fn the_same_operand_twice_has_both_cotangents() {
    // One value at both positions cannot be said with this harness; equal values at two positions can.
    let found = Case::new(
        "Einsum",
        vec![
            Input::Fixed(super::array(&[2], &[2.0, 3.0])),
            Input::Fixed(super::array(&[2], &[5.0, 7.0])),
        ],
    )
    .string("equation", "i,i->")
    .gradients(&[super::array(&[], &[1.0])], 1);
    super::assert_close(&found.cotangents[0], &[5.0, 7.0], 1e-12);
    super::assert_close(&found.cotangents[1], &[2.0, 3.0], 1e-12);
}

proptest! {
    #![proptest_config(proptest_config(24))]

    #[test]
    fn any_two_sets_of_labels_meet_the_identity(
        a in prop::collection::vec(0usize..4, 1..4),
        b in prop::collection::vec(0usize..4, 1..4),
        kept in prop::collection::vec(any::<bool>(), 4),
    ) {
        let extents = [2, 3, 4, 1];
        let letters = ['i', 'j', 'k', 'l'];
        let text = |labels: &[usize]| labels.iter().map(|&label| letters[label]).collect::<String>();
        let shape = |labels: &[usize]| labels.iter().map(|&label| extents[label]).collect::<Vec<_>>();
        let output: Vec<usize> = (0..4)
            .filter(|label| kept[*label] && (a.contains(label) || b.contains(label)))
            .collect();
        let equation = format!("{},{}->{}", text(&a), text(&b), text(&output));
        let inputs = vec![varied(&shape(&a)), varied(&shape(&b))];
        let mut case = linear(Case::new("Einsum", inputs));
        case.attributes.push(mohs::graph::Attribute::String(equation.leak()).to_proto("equation"));
        case.check();
    }
}
