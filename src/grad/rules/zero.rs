//! Operators whose gradient is zero wherever it exists, declared so with the reason.
//!
//! Operators with an operand that does count (`OneHot`, `Range`, `Unique`, `CastLike`) are not among them.

use crate::grad::rule::Rule;

const STEPS: &str = "its result is constant between jumps";
const QUANTIZED: &str = "it works on rounded numbers, which are constant between jumps";
const INDICES: &str = "its results are indices";
const BOOLEANS: &str = "its results are booleans";
const INTEGERS: &str = "it works on integers";
const EXTENTS: &str = "its result depends on the shape alone";
const DRAWS: &str = "its result is a random draw that does not move with its operands";

pub(super) const RULES: &[Rule] = &[
    Rule::zero("Round", STEPS),
    Rule::zero("Sign", STEPS),
    Rule::zero("Floor", STEPS),
    Rule::zero("Ceil", STEPS),
    Rule::zero("ConvInteger", QUANTIZED),
    Rule::zero("MatMulInteger", QUANTIZED),
    Rule::zero("QLinearConv", QUANTIZED),
    Rule::zero("QLinearMatMul", QUANTIZED),
    Rule::zero("QuantizeLinear", QUANTIZED),
    Rule::zero("ArgMax", INDICES),
    Rule::zero("ArgMin", INDICES),
    Rule::zero("NonZero", INDICES),
    Rule::zero("NonMaxSuppression", INDICES),
    Rule::zero("Equal", BOOLEANS),
    Rule::zero("Greater", BOOLEANS),
    Rule::zero("GreaterOrEqual", BOOLEANS),
    Rule::zero("Less", BOOLEANS),
    Rule::zero("LessOrEqual", BOOLEANS),
    Rule::zero("And", BOOLEANS),
    Rule::zero("Or", BOOLEANS),
    Rule::zero("Xor", BOOLEANS),
    Rule::zero("Not", BOOLEANS),
    Rule::zero("IsInf", BOOLEANS),
    Rule::zero("IsNaN", BOOLEANS),
    Rule::zero("BitShift", INTEGERS),
    Rule::zero("BitwiseAnd", INTEGERS),
    Rule::zero("BitwiseOr", INTEGERS),
    Rule::zero("BitwiseXor", INTEGERS),
    Rule::zero("BitwiseNot", INTEGERS),
    Rule::zero("Shape", EXTENTS),
    Rule::zero("Size", EXTENTS),
    Rule::zero("EyeLike", EXTENTS),
    Rule::zero("ConstantOfShape", EXTENTS),
    Rule::zero("RandomUniformLike", DRAWS),
    Rule::zero("RandomNormalLike", DRAWS),
    Rule::zero("RandomUniform", DRAWS),
    Rule::zero("RandomNormal", DRAWS),
    Rule::zero("Bernoulli", DRAWS),
    Rule::zero("Multinomial", DRAWS),
];
