//! Operators that are refused, with the reason.

use super::{Case, Input, between, varied};

#[test]
fn what_cannot_be_differentiated_is_refused_with_the_reason() {
    let x = varied(&[1, 1, 4, 4]);
    let regions = Input::Constant(
        mohs::tensor::Tensor::new(&[1, 5], vec![0.0f32, 0.0, 0.0, 2.0, 2.0]).unwrap(),
    );
    let case = Case::new("MaxRoiPool", vec![x, regions]).single();
    let message = case.ints("pooled_shape", &[2, 2]).refusal();
    assert!(
        message.contains("MaxRoiPool") && message.contains("RoiAlign"),
        "{message}"
    );
    let message = Case::new("Unique", vec![between(&[6], 0.0, 1.0)]).refusal();
    assert!(message.contains("how many entries"), "{message}");
}
