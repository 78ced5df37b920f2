//! Rules in half precision: the graph that they build has one type throughout, and loses no more than that type does.

use super::{Case, Input, array, ints};
use mohs::tensor::DType;
use ndarray::ArrayD;

const POINTS: [f64; 6] = [-2.5, -1.25, -0.25, 0.5, 1.5, 3.5];

/// The cotangents in half and in single precision, with 1 for the cotangent of the result.
fn both(case: &Case, result: &[usize]) -> [Vec<ArrayD<f64>>; 2] {
    [DType::F16, DType::F32].map(|dtype| {
        let typed = Case {
            dtype,
            ..case.clone()
        };
        typed.gradients(&[ArrayD::ones(result)], 1).cotangents
    })
}

fn assert_alike(case: &Case, result: &[usize]) {
    let [halves, singles] = both(case, result);
    for (half, single) in halves.iter().flatten().zip(singles.iter().flatten()) {
        let bound = 0.02 * single.abs() + 2e-3;
        assert!(
            (half - single).abs() <= bound,
            "{case:?}: {half}, in single precision {single}"
        );
    }
}

#[test]
fn functions_of_one_operand_agree_with_single_precision() {
    for op_type in [
        "Relu",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Tanh",
        "Softplus",
        "Softsign",
        "Mish",
        "ThresholdedRelu",
        "Shrink",
        "Erf",
        "Exp",
        "Abs",
        "Neg",
        "Sin",
        "Cos",
        "Reciprocal",
        "Softmax",
        "LogSoftmax",
    ] {
        let case = Case::new(op_type, vec![Input::Fixed(array(&[2, 3], &POINTS))]);
        assert_alike(&case, &[2, 3]);
    }
    for approximate in ["none", "tanh"] {
        let case = Case::new("Gelu", vec![Input::Fixed(array(&[2, 3], &POINTS))]);
        assert_alike(&case.opset(20).string("approximate", approximate), &[2, 3]);
    }
    for op_type in ["Sqrt", "Log"] {
        let case = Case::new(
            op_type,
            vec![Input::Fixed(array(&[2, 3], &POINTS.map(f64::abs)))],
        );
        assert_alike(&case, &[2, 3]);
    }
}

#[test]
fn functions_of_two_operands_agree_with_single_precision() {
    for op_type in ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu"] {
        let first = if op_type == "Pow" {
            POINTS.map(f64::abs)
        } else {
            POINTS
        };
        let inputs = [array(&[2, 3], &first), array(&[3], &[0.75, -0.25, 1.25])];
        let case = Case::new(op_type, inputs.map(Input::Fixed).to_vec());
        assert_alike(&case, &[2, 3]);
    }
}

#[test]
fn reductions_agree_with_single_precision() {
    for op_type in [
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
        "ReduceProd",
    ] {
        let inputs = vec![Input::Fixed(array(&[2, 3], &POINTS)), ints(&[1])];
        assert_alike(&Case::new(op_type, inputs), &[2, 1]);
    }
}

#[test]
fn slopes_survive_where_half_precision_overflows() {
    // x² is beyond half precision here.
    let points = Input::Fixed(array(&[2], &[-300.0, 300.0]));
    let case = Case::new("Gelu", vec![points])
        .opset(20)
        .string("approximate", "tanh");
    let [halves, _] = both(&case, &[2]);
    super::assert_close(&halves[0], &[0.0, 1.0], 0.0);
    // So is the number of elements here.
    let elements = 70_000;
    let case = Case::new(
        "ReduceMean",
        vec![
            Input::Fixed(ArrayD::ones(ndarray::IxDyn(&[elements]))),
            ints(&[0]),
        ],
    );
    let [halves, singles] = both(&case, &[1]);
    assert!(
        (halves[0][0] - singles[0][0]).abs() < 6e-8,
        "{}",
        halves[0][0]
    );
    let case = Case {
        op_type: "ReduceMax",
        ..case
    };
    let [halves, singles] = both(&case, &[1]);
    assert!(
        (halves[0][0] - singles[0][0]).abs() < 6e-8,
        "{}",
        halves[0][0]
    );
}

#[test]
fn resampling_and_sums_of_products_agree_with_single_precision() {
    let image = || Input::Fixed(array(&[1, 1, 2, 3], &POINTS));
    let sizes = || vec![image(), Input::Absent, Input::Absent, ints(&[1, 1, 4, 5])];
    for mode in ["nearest", "linear", "cubic"] {
        let case = Case::new("Resize", sizes()).string("mode", mode);
        assert_alike(&case, &[1, 1, 4, 5]);
    }
    let square = || Input::Fixed(array(&[2, 2], &POINTS[..4]));
    let wide = || Input::Fixed(array(&[2, 3], &POINTS));
    for (equation, operands, result) in [
        ("ii->i", vec![square()], &[2][..]),
        ("ij,jk->ik", vec![square(), wide()], &[2, 3]),
        ("ij->", vec![wide()], &[]),
    ] {
        let case = Case::new("Einsum", operands).string("equation", equation);
        assert_alike(&case, result);
    }
    let grid = Input::Fixed(array(&[1, 1, 2, 2], &[-0.25, 0.5, 0.75, -1.5]));
    for padding in ["zeros", "border", "reflection"] {
        let case = Case::new("GridSample", vec![image(), grid.clone()]).opset(20);
        assert_alike(&case.string("padding_mode", padding), &[1, 1, 1, 2]);
    }
    let scale = Input::Fixed(array(&[3], &POINTS[..3]));
    let case = Case::new("RMSNormalization", vec![wide(), scale]).opset(23);
    assert_alike(&case, &[2, 3]);
    assert_alike(&Case::new("LpNormalization", vec![wide()]), &[2, 3]);
}
