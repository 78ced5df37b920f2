//! Operators that take floats and cannot be differentiated here, each with the reason that a user is told.

use crate::grad::rule::Rule;

const SEQUENCE: &str = "its values are sequences of tensors, whose shapes are not fixed; export the model with tensors in their place";
const OPTIONAL: &str =
    "its values may be absent; export the model with the value there, or without it";

const TREES: &str = "trees are constant between their thresholds, so there is no gradient to follow; attack the model with one that asks for scores \
     or labels alone (`mohs list attacks` says which need no gradient)";
const KERNELS: &str = "kernel machines are not taken apart; attack the model with one that asks for scores or labels alone (`mohs list attacks` says which \
     need no gradient)";
const CLASSICAL: &str = "ai.onnx.ml";

pub(super) const RULES: &[Rule] = &[
    Rule::refused("ConcatFromSequence", SEQUENCE),
    Rule::refused("SequenceAt", SEQUENCE),
    Rule::refused("SequenceConstruct", SEQUENCE),
    Rule::refused("SequenceErase", SEQUENCE),
    Rule::refused("SequenceInsert", SEQUENCE),
    Rule::refused("SequenceLength", SEQUENCE),
    Rule::refused("SequenceMap", SEQUENCE),
    Rule::refused("SplitToSequence", SEQUENCE),
    Rule::refused("Optional", OPTIONAL),
    Rule::refused("OptionalGetElement", OPTIONAL),
    Rule::refused("OptionalHasElement", OPTIONAL),
    Rule::refused(
        "DynamicQuantizeLinear",
        "its scale moves with the data, and what it rounds jumps; --straight-through passes gradients through quantisation",
    ),
    Rule::refused(
        "MelWeightMatrix",
        "it rounds its edges to bins, so its result jumps; give the edges as constants",
    ),
    Rule::refused(
        "Unique",
        "how many entries its result has depends on the data",
    ),
    Rule::refused_in(CLASSICAL, "TreeEnsemble", TREES),
    Rule::refused_in(CLASSICAL, "TreeEnsembleClassifier", TREES),
    Rule::refused_in(CLASSICAL, "TreeEnsembleRegressor", TREES),
    Rule::refused_in(CLASSICAL, "SVMClassifier", KERNELS),
    Rule::refused_in(CLASSICAL, "SVMRegressor", KERNELS),
];
