//! Products of matrices.

use super::*;
use proptest::prelude::*;

#[test]
fn gemm_with_every_transposition_and_scale() {
    for (flip_a, flip_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for (alpha, beta) in [(1.0, 1.0), (0.5, -2.0)] {
            let a = if flip_a == 1 { [3, N] } else { [N, 3] };
            let b = if flip_b == 1 { [4, 3] } else { [3, 4] };
            Case::new("Gemm", vec![varied(&a), varied(&b), varied(&[4])])
                .int("transA", flip_a)
                .int("transB", flip_b)
                .float("alpha", alpha)
                .float("beta", beta)
                .check();
        }
    }
}

#[test]
fn gemm_with_every_form_of_c() {
    let with = |c: Input| Case::new("Gemm", vec![varied(&[N, 3]), varied(&[3, 4]), c]);
    for c in [
        vec![],
        vec![1],
        vec![4],
        vec![1, 4],
        vec![N, 1],
        vec![N, 4],
        vec![1, 1],
    ] {
        with(varied(&c)).float("beta", 0.25).check();
    }
    with(Input::Absent).check();
    Case::new("Gemm", vec![varied(&[N, 3]), varied(&[3, 4])]).check();
}

#[test]
fn gemm_with_a_batch_that_is_summed_over() {
    Case::new(
        "Gemm",
        vec![varied(&[3, N]), varied(&[N, 4]), varied(&[3, 1])],
    )
    .check();
}

#[test]
fn matmul_of_all_ranks() {
    let shapes: &[(&[usize], &[usize])] = &[
        (&[5], &[5]),
        (&[5], &[5, 3]),
        (&[N, 5], &[5]),
        (&[N, 5], &[5, 3]),
        (&[2, N, 5], &[5, 3]),
        (&[N, 4, 2, 5], &[5, 3]),
        (&[4, 5], &[N, 5, 3]),
        (&[N, 4, 5], &[N, 5, 3]),
        (&[N, 1, 4, 5], &[3, 5, 2]),
        (&[1, 3, 4, 5], &[N, 1, 5, 2]),
        (&[N, 3, 4, 5], &[5]),
        (&[5], &[N, 3, 5, 4]),
        (&[N, 1, 1], &[1, 1]),
    ];
    for (a, b) in shapes {
        Case::new("MatMul", vec![varied(a), varied(b)]).check();
    }
}

#[test]
fn matmul_by_a_constant() {
    let case = Case::new("MatMul", vec![]);
    let constant = |shape: &[usize]| {
        Input::Constant(case.typed(&ArrayD::from_shape_fn(shape, |at| {
            at.slice().iter().sum::<usize>() as f64 - 1.5
        })))
    };
    Case::new("MatMul", vec![varied(&[N, 4, 5]), constant(&[5, 3])]).check();
    Case::new("MatMul", vec![constant(&[4, 5]), varied(&[N, 5, 3])]).check();
}

/// An extent of 1 or the full one.
fn stretch(full: usize) -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), Just(full)]
}

proptest! {
    #![proptest_config(proptest_config(48))]

    #[test]
    fn matmul_with_any_broadcasting(
        lead in proptest::collection::vec((stretch(2), stretch(2)), 0..3),
        left_rank in 0_usize..3,
        right_rank in 0_usize..3,
        (rows, inner, columns) in (1_usize..4, 1_usize..4, 1_usize..4),
        seed: u64,
    ) {
        let (mut a, mut b): (Vec<usize>, Vec<usize>) = lead.iter().copied().unzip();
        a.drain(..left_rank.min(a.len()));
        b.drain(..right_rank.min(b.len()));
        a.extend([rows, inner]);
        b.extend([inner, columns]);
        Case::new("MatMul", vec![varied(&a), varied(&b)]).seed(seed).check();
    }
}

#[test]
fn determinants_of_any_size() {
    for shape in [
        &[N, 1, 1][..],
        &[N, 2, 2],
        &[N, 2, 3, 3],
        &[4, 4],
        &[1, 5, 5],
    ] {
        Case::new("Det", vec![varied(shape)]).single().check();
    }
}

#[test]
fn a_singular_matrix_has_its_cofactors() {
    let x = Input::Fixed(array(&[2, 2], &[1.0, 2.0, 2.0, 4.0]));
    let found = Case::new("Det", vec![x])
        .single()
        .gradients(&[array(&[], &[1.0])], 1);
    assert_close(&found.cotangents[0], &[4.0, -2.0, -2.0, 1.0], 1e-6);
}
