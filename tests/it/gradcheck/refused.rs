//! Operators that are refused, with the reason.

use super::{Case, between};

#[test]
fn what_cannot_be_differentiated_is_refused_with_the_reason() {
    let message = Case::new("Unique", vec![between(&[6], 0.0, 1.0)]).refusal();
    assert!(message.contains("how many entries"), "{message}");
}
