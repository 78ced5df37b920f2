//! Reverse-mode differentiation by graph rewriting.
