//! Rewrites of whole graphs, one per file.

mod declare;
mod expand_contrib;
mod for_cpu;
mod free_batch;
mod lift;
mod lower_precision;
mod normalize;
mod prune;
mod sequences;
mod two_classes;
mod unroll;
mod unwrap_maps;
mod widen;

pub use declare::declare_shapes;
pub use expand_contrib::{
    dequantize, expand_contrib, has_fused, has_quantized, is_fused, is_quantized,
};
pub use for_cpu::for_cpu;
pub use free_batch::{FreeBatchError, Freed, free_batch};
pub use lift::{LIFTED_OPSET, LiftError, OLDEST_OPSET, lift};
pub use lower_precision::lower_precision;
pub use normalize::{Normalization, normalize};
pub use prune::prune;
pub use sequences::resolve_sequences;
pub use two_classes::two_classes;
pub use unroll::{count_iterations, decides_by_data, obstacle, unroll};
pub use unwrap_maps::unwrap_maps;
pub use widen::widen;
