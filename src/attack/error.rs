use crate::threat::Norm;

/// What is wrong with the attacks that a user asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list names no attack at all.
    #[error("no attack is named; the attacks are {known}")]
    Empty {
        /// Every attack's name.
        known: String,
    },
    /// A name that is in no table.
    #[error("there is no attack `{name}`{hint}; the attacks are {known}")]
    UnknownAttack {
        /// The name as written.
        name: String,
        /// Empty, or a question after the name that was probably meant.
        hint: String,
        /// Every attack's name.
        known: String,
    },
    /// A parameter that the attack does not have.
    #[error("attack `{attack}` has no parameter `{parameter}`{hint}; it has {known}")]
    UnknownParameter {
        /// The attack's name.
        attack: &'static str,
        /// The parameter as written.
        parameter: String,
        /// Empty, or a question after the parameter that was probably meant.
        hint: String,
        /// The attack's parameters.
        known: String,
    },
    /// A parameter before any attack.
    #[error(
        "`{item}` is a parameter, but no attack stands before it; write the attack first, as in pgd:steps=40"
    )]
    NoAttackBefore {
        /// The item as written.
        item: String,
    },
    /// Something after a colon that is no `key=value`.
    #[error("attack `{attack}`: `{item}` is no parameter; write key=value, as in pgd:steps=40")]
    Malformed {
        /// The attack as written.
        attack: String,
        /// The item as written.
        item: String,
    },
    /// One parameter given twice.
    #[error("attack `{attack}`: `{parameter}` is given twice")]
    Repeated {
        /// The attack as written.
        attack: String,
        /// The parameter's name.
        parameter: String,
    },
    /// A value that a parameter cannot have.
    #[error("attack `{attack}`: {reason}")]
    Value {
        /// The attack's name.
        attack: &'static str,
        /// Which parameter, what is wrong, and what would be right.
        reason: String,
    },
    /// The same attack with the same parameters, twice.
    #[error(
        "attack `{label}` is listed twice; list it once, or give the second one other parameters"
    )]
    Duplicate {
        /// The label that both have.
        label: String,
    },
    /// A norm that the attack is not made for.
    #[error("attack `{attack}` is not made for the norm {norm}; {remedy}")]
    Norm {
        /// The attack's name.
        attack: &'static str,
        /// The norm that was asked for.
        norm: Norm,
        /// What to use instead.
        remedy: &'static str,
    },
}
