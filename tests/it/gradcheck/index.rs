//! The family `index`: linear in all differentiated operands, so the identity holds at any step, to rounding.

use super::{Case, Input, N, array, assert_close, ints, varied};
use mohs::tensor::{DType, Tensor};

/// A linear operator: any step serves, and a large one has no rounding to speak of.
fn linear(op_type: &'static str, inputs: Vec<Input>) -> Case {
    Case {
        step: 0.5,
        tolerance: 1e-12,
        ..Case::new(op_type, inputs)
    }
}

/// Indices, constant and computed: the rule takes another way for each.
fn both(shape: &[usize], indices: &[i64]) -> [Input; 2] {
    let tensor = Tensor::new(shape, indices.to_vec()).unwrap();
    [Input::Constant(tensor.clone()), Input::Fed(tensor)]
}

#[test]
fn gather_adds_up_where_indices_repeat() {
    for indices in both(&[4], &[2, 0, 2, -1]) {
        linear("Gather", vec![varied(&[5, 3]), indices.clone()]).check();
        linear("Gather", vec![varied(&[N, 5, 3]), indices.clone()])
            .int("axis", 1)
            .check();
        linear("Gather", vec![varied(&[N, 2, 4]), indices])
            .int("axis", -1)
            .check();
    }
    for indices in both(&[2, 3], &[0, 1, 1, 3, -4, 2]) {
        linear("Gather", vec![varied(&[4, 2]), indices.clone()]).check();
        linear("Gather", vec![varied(&[N, 4]), indices.clone()])
            .int("axis", 1)
            .check();
        linear("Gather", vec![varied(&[N, 4, 2]), indices])
            .int("axis", -2)
            .check();
    }
}

#[test]
fn gather_of_distinct_indices_puts_them_back() {
    for list in [
        vec![3, 1, 0, 2, 4],
        vec![4, 0, 2],
        vec![1, 2, 3],
        vec![-2, -1],
        vec![0],
    ] {
        for indices in both(&[list.len()], &list) {
            linear("Gather", vec![varied(&[5, 3]), indices.clone()]).check();
            linear("Gather", vec![varied(&[N, 5, 2]), indices])
                .int("axis", 1)
                .check();
        }
    }
}

#[test]
fn gather_of_one_index_drops_the_axis() {
    for index in [0, 2, -1] {
        for indices in both(&[], &[index]) {
            linear("Gather", vec![varied(&[N, 5, 2]), indices.clone()])
                .int("axis", 1)
                .check();
            linear("Gather", vec![varied(&[5, 2]), indices]).check();
        }
    }
}

#[test]
fn gather_takes_indices_of_32_bits() {
    let indices = Input::Fed(Tensor::new(&[3], vec![1i32, 1, 0]).unwrap());
    linear("Gather", vec![varied(&[2, 3]), indices.clone()]).check();
    linear("Gather", vec![varied(&[N, 2]), indices])
        .int("axis", 1)
        .check();
}

#[test]
fn gather_takes_samples_out_of_the_batch() {
    for indices in both(&[3], &[1, 0, 1]) {
        linear("Gather", vec![varied(&[N, 3]), indices]).check();
    }
}

#[test]
fn gather_elements_adds_up_where_indices_repeat() {
    for indices in both(&[2, 3], &[0, 1, 1, -1, 0, 0]) {
        linear("GatherElements", vec![varied(&[4, 3]), indices.clone()]).check();
        linear("GatherElements", vec![varied(&[2, 2]), indices])
            .int("axis", -1)
            .check();
    }
}

#[test]
fn gather_nd_adds_up_where_indices_repeat() {
    for indices in both(&[3, 2], &[0, 1, 2, 0, 0, 1]) {
        linear("GatherND", vec![varied(&[3, 2]), indices.clone()]).check();
        linear("GatherND", vec![varied(&[3, 2, 4]), indices]).check();
    }
    for indices in both(&[2, 2, 1], &[-1, 1, 0, 0]) {
        linear("GatherND", vec![varied(&[3, 4]), indices]).check();
    }
}

#[test]
fn gather_nd_steps_through_shared_axes() {
    for indices in both(&[2, 3, 1], &[1, 1, 0, 2, -1, 0]) {
        linear("GatherND", vec![varied(&[2, 3, 2]), indices])
            .int("batch_dims", 1)
            .check();
    }
    for indices in both(&[2, 1], &[1, 0]) {
        linear("GatherND", vec![varied(&[2, 3, 2]), indices])
            .int("batch_dims", 1)
            .check();
    }
    for indices in both(&[2, 2, 1], &[1, 0, 0, 2]) {
        linear("GatherND", vec![varied(&[2, 2, 3, 4]), indices])
            .int("batch_dims", 2)
            .check();
    }
}

#[test]
fn scatter_elements_empties_what_it_overwrites() {
    for indices in both(&[2, 2], &[2, 0, 0, -1]) {
        let operands = vec![varied(&[3, 2]), indices.clone(), varied(&[2, 2])];
        linear("ScatterElements", operands).check();
        let operands = vec![varied(&[2, 3]), indices, varied(&[2, 2])];
        linear("ScatterElements", operands).int("axis", 1).check();
    }
}

#[test]
fn scatter_elements_adds_where_it_is_told_to() {
    for indices in both(&[2, 2], &[1, 0, 1, 0]) {
        let operands = vec![varied(&[3, 2]), indices.clone(), varied(&[2, 2])];
        linear("ScatterElements", operands)
            .string("reduction", "add")
            .check();
        let operands = vec![varied(&[2, 3]), indices, varied(&[2, 2])];
        linear("ScatterElements", operands)
            .int("axis", -1)
            .string("reduction", "add")
            .check();
    }
}

#[test]
fn scatter_nd_overwrites_or_adds_slices() {
    for indices in both(&[2, 1], &[2, 0]) {
        let operands = vec![varied(&[3, 2]), indices.clone(), varied(&[2, 2])];
        linear("ScatterND", operands.clone()).check();
        linear("ScatterND", operands)
            .string("reduction", "add")
            .check();
    }
    for indices in both(&[3, 2], &[1, 0, 1, 0, 0, 1]) {
        let operands = vec![varied(&[2, 2, 2]), indices, varied(&[3, 2])];
        linear("ScatterND", operands)
            .string("reduction", "add")
            .check();
    }
}

#[test]
fn other_reductions_are_refused_by_name() {
    let indices = ints(&[1, 0]);
    for reduction in ["mul", "max", "min"] {
        let operands = vec![varied(&[3]), indices.clone(), varied(&[2])];
        let refusal = linear("ScatterElements", operands)
            .string("reduction", reduction)
            .refusal();
        assert!(refusal.contains(reduction), "{refusal}");
    }
}

#[test]
fn compress_goes_back_to_the_places_it_took() {
    let condition =
        |values: &[bool]| Input::Constant(Tensor::new(&[values.len()], values.to_vec()).unwrap());
    let mask = condition(&[false, true, true, false, true]);
    linear("Compress", vec![varied(&[5, 2]), mask.clone()])
        .int("axis", 0)
        .check();
    linear("Compress", vec![varied(&[N, 5]), mask.clone()])
        .int("axis", 1)
        .check();
    linear("Compress", vec![varied(&[2, 4]), mask]).check();
    let single = condition(&[true, false]);
    let found = linear("Compress", vec![varied(&[2, 1]), single]).int("axis", 0);
    assert_close(
        &found.gradients(&[array(&[1, 1], &[3.0])], 2).cotangents[0],
        &[3.0, 0.0],
        0.0,
    );
}

/// Entries far enough apart that a small step changes no order.
fn apart(shape: &[usize]) -> Input {
    let count: usize = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|i| (i * 7 % count) as f64).collect();
    Input::Fixed(array(shape, &values))
}

#[test]
fn top_k_goes_back_to_the_places_it_took() {
    let case = |shape: &[usize], k: i64| Case {
        step: 0.1,
        ..linear("TopK", vec![apart(shape), ints(&[k])])
    };
    case(&[3, 5], 2).outputs(2).check();
    case(&[4, 5], 3).int("axis", 0).outputs(2).check();
    case(&[3, 5], 2).int("largest", 0).outputs(2).check();
    case(&[2, 3, 5], 2)
        .int("axis", -2)
        .int("sorted", 0)
        .outputs(2)
        .check();
}

#[test]
fn top_k_gives_a_tie_to_the_entry_it_chose() {
    let tied = Input::Fixed(array(&[1, 3], &[1.0, 2.0, 2.0]));
    let case = linear("TopK", vec![tied, ints(&[1])]).outputs(2);
    let found = case.gradients(&[array(&[1, 1], &[3.0])], 1);
    assert_close(&found.cotangents[0], &[0.0, 3.0, 0.0], 0.0);
}

#[test]
fn half_precision_adds_up_in_single_precision() {
    for (op_type, indices) in [
        ("Gather", both(&[4], &[1, 1, 0, 1])),
        ("GatherND", both(&[4, 1], &[1, 1, 0, 1])),
    ] {
        for indices in indices {
            let case = Case {
                dtype: DType::F16,
                ..linear(op_type, vec![varied(&[2]), indices])
            };
            // 2048 + 1 is no half-precision number, and 2048 + 1 + 1 is.
            let found = case.gradients(&[array(&[4], &[2048.0, 1.0, 5.0, 1.0])], 1);
            assert_close(&found.cotangents[0], &[5.0, 2050.0], 0.0);
        }
    }
}
