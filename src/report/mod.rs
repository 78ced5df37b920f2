//! Renderers of results; they do no I/O.
