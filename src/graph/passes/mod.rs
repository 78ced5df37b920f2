//! Rewrites of whole graphs, one per file.
