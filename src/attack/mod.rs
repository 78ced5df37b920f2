//! Attacks, as pure functions over arrays.
