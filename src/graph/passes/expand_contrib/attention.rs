//! The operators that attend: of the standard domain, and ONNX Runtime's own.

use super::heads::{Attention, Mask, WithoutKeys, merge, split};
use super::rotary::Angles;
use super::{Fused, fixed, masks};
use crate::graph::{Attributes, Dim, Expr};
use crate::tensor::DType;

type Results<'g> = Result<Vec<Option<Expr<'g>>>, String>;

/// The number added at keys that are masked, where the node does not say.
const FILTER: f32 = -10000.0;

/// The factor of the scores: as given, else 1/√size.
fn scale(n: &Fused<'_>, size: Dim) -> Result<f64, String> {
    let given = n.float("scale").filter(|&scale| scale != 0.0);
    #[expect(clippy::cast_precision_loss, reason = "heads are small")]
    let usual = 1.0 / (fixed(size)?.max(1) as f64).sqrt();
    Ok(given.map_or(usual, f64::from))
}

/// `Attention` of the standard domain.
pub(super) fn standard<'g>(n: &Fused<'g>) -> Results<'g> {
    let merged = n.x(0)?.rank() == 3;
    let heads = |position: usize, count: &str| {
        let x = n.x(position)?;
        if x.rank() == 3 {
            split(x, n.count(count)?)
        } else {
            Ok(x)
        }
    };
    let q = heads(0, "q_num_heads")?;
    let (mut k, mut v) = (heads(1, "kv_num_heads")?, heads(2, "kv_num_heads")?);
    let mut past = 0;
    if let (Some(keys), Some(values)) = (n.optional(4), n.optional(5)) {
        past = fixed(keys.shape()[2])?;
        (k, v) = (Expr::concat(&[keys, k], 2), Expr::concat(&[values, v], 2));
    }
    let (queries, keys) = (q.shape()[2], k.shape()[2]);
    let masks_are_given = n.optional(3).is_some() || n.optional(6).is_some();
    let mut masks = Vec::new();
    if let Some(mask) = n.optional(3) {
        if mask.shape().last() != Some(&keys) {
            return Err("its mask is not as long as the keys".into());
        }
        masks.push(if mask.dtype() == DType::Bool {
            Mask::Kept(mask)
        } else {
            Mask::Added(mask)
        });
    }
    if n.is_set("is_causal") {
        masks.push(masks::causal(n.builder, (queries, keys), past, None)?);
    }
    if let Some(lengths) = n.optional(6) {
        masks.push(Mask::Kept(masks::first(lengths, keys)?));
    }
    let attention = Attention {
        scale: scale(n, q.shape()[3])?,
        softcap: n.float("softcap").unwrap_or(0.0).into(),
        without_keys: if masks_are_given {
            WithoutKeys::Zeros
        } else {
            WithoutKeys::Mean
        },
        masks,
    };
    let attended = attention.apply(q, k, v)?;
    let y = attended.values;
    let stage = n.int("qk_matmul_output_mode").unwrap_or(0);
    let stage = usize::try_from(stage).ok();
    let scores = stage.and_then(|stage| attended.scores.get(stage).copied());
    Ok(vec![
        Some(if merged { merge(y)? } else { y }),
        Some(k),
        Some(v),
        scores,
    ])
}

/// The part [start, end) of the last axis.
fn part(x: Expr<'_>, start: i64, end: i64) -> Expr<'_> {
    x.slice(x.rank() - 1, start, Dim::fixed(end))
}

/// `com.microsoft::Attention`: the projections of one input are part of it.
pub(super) fn packed<'g>(n: &Fused<'g>) -> Results<'g> {
    n.without(&[(4, "past"), (6, "past_sequence_length")])?;
    n.unset(&["do_rotary", "past_present_share_buffer"])?;
    let heads = n.count("num_heads")?;
    let projected = n.x(0)?.matmul(n.x(1)?);
    let projected = n.optional(2).map_or(projected, |bias| projected + bias);
    let shape = projected.shape();
    let [batch, length, width] = shape[..] else {
        return Err("its input has other axes than samples, places and features".into());
    };
    let third = fixed(width)? / 3;
    let sizes = match n.ints("qkv_hidden_sizes") {
        Some([q, k, v]) => [*q, *k, *v],
        _ => [third; 3],
    };
    let q = split(part(projected, 0, sizes[0]), heads)?;
    let k = split(part(projected, sizes[0], sizes[0] + sizes[1]), heads)?;
    let v = split(
        part(projected, sizes[0] + sizes[1], sizes.iter().sum()),
        heads,
    )?;
    let filter = n.float("mask_filter_value").unwrap_or(FILTER).into();
    let mut masks = Vec::new();
    if let Some(mask) = n.optional(3) {
        masks.push(masks::filled(masks::keys(mask, batch, length)?, filter, q));
    }
    masks.extend(n.optional(5).map(Mask::Added));
    if n.is_set("unidirectional") {
        masks.push(masks::causal(n.builder, (length, length), 0, None)?);
    }
    let attention = Attention {
        scale: scale(n, q.shape()[3])?,
        softcap: 0.0,
        masks,
        without_keys: WithoutKeys::Mean,
    };
    let y = merge(attention.apply(q, k, v)?.values)?;
    let present = n
        .gives(1)
        .then(|| Expr::concat(&[k.unsqueeze(&[0]), v.unsqueeze(&[0])], 0));
    Ok(vec![Some(y), present])
}

/// `com.microsoft::MultiHeadAttention`: queries, keys and values are given apart.
pub(super) fn multi_head<'g>(n: &Fused<'g>) -> Results<'g> {
    n.without(&[
        (6, "past_key"),
        (7, "past_value"),
        (8, "past_sequence_length"),
        (9, "cache_indirection"),
    ])?;
    let heads = n.count("num_heads")?;
    // Queries, keys and values packed into one operand are not for the CPU, where every model is run first.
    let [q, k, v] = biased([n.x(0)?, n.x(1)?, n.x(2)?], n.optional(3), heads)?;
    let (batch, queries, keys) = (q.shape()[0], q.shape()[2], k.shape()[2]);
    let filter = n.float("mask_filter_value").unwrap_or(FILTER).into();
    let mut masks = Vec::new();
    if let Some(mask) = n.optional(4) {
        masks.push(masks::filled(masks::keys(mask, batch, keys)?, filter, q));
    }
    masks.extend(n.optional(5).map(Mask::Added));
    if n.is_set("unidirectional") {
        masks.push(masks::causal(n.builder, (queries, keys), 0, None)?);
    }
    let attention = Attention {
        scale: scale(n, q.shape()[3])?,
        softcap: 0.0,
        masks,
        without_keys: WithoutKeys::Mean,
    };
    let y = merge(attention.apply(q, k, v)?.values)?;
    Ok(vec![Some(y), Some(k), Some(v)])
}

/// Queries, keys and values with their parts of a bias added, head by head; keys and values may be in heads already, without a bias then.
fn biased<'g>(
    parts: [Expr<'g>; 3],
    bias: Option<Expr<'g>>,
    heads: i64,
) -> Result<[Expr<'g>; 3], String> {
    let mut start = 0;
    let mut apart = Vec::with_capacity(3);
    for x in parts {
        if x.rank() == 4 {
            apart.push(x);
            continue;
        }
        let width = fixed(*x.shape().last().ok_or("an operand has no axes")?)?;
        let bias = bias.map(|bias| part(bias, start, start + width));
        start += width;
        apart.push(split(bias.map_or(x, |bias| x + bias), heads)?);
    }
    apart.try_into().map_err(|_| "it has no values".into())
}

/// `com.microsoft::GroupQueryAttention` over a whole prompt, without anything in the cache.
pub(super) fn grouped<'g>(n: &Fused<'g>) -> Results<'g> {
    is_whole_prompt(n)?;
    let (heads, groups) = (n.count("num_heads")?, n.count("kv_num_heads")?);
    let query = n.x(0)?;
    let (query, key, value) = match (n.optional(1), n.optional(2)) {
        (Some(key), Some(value)) => (query, key, value),
        _ => {
            let width = fixed(*query.shape().last().ok_or("its query has no axes")?)?;
            let size = width / (heads + 2 * groups);
            let ends = [0, heads * size, (heads + groups) * size, width];
            (
                part(query, ends[0], ends[1]),
                part(query, ends[1], ends[2]),
                part(query, ends[2], ends[3]),
            )
        }
    };
    let (mut q, mut k, v) = (
        split(query, heads)?,
        split(key, groups)?,
        split(value, groups)?,
    );
    let length = q.shape()[2];
    if k.shape()[2] != length {
        return Err("it has other keys than queries".into());
    }
    if n.is_set("do_rotary") {
        let angles = Angles::at((n.x(7)?, n.x(8)?), n.optional(9), length)?;
        let interleaved = n.is_set("rotary_interleaved");
        (q, k) = (
            angles.rotate(q, interleaved)?,
            angles.rotate(k, interleaved)?,
        );
    }
    let mut masks: Vec<_> = n.optional(10).map(Mask::Added).into_iter().collect();
    if n.int("causal").unwrap_or(1) != 0 {
        let window = n.int("local_window_size").filter(|&window| window >= 0);
        masks.push(masks::causal(n.builder, (length, length), 0, window)?);
    } else {
        // The operand counts one less than there are keys.
        let last = n.x(5)?.cast(DType::I64);
        masks.push(Mask::Kept(masks::first(
            last + n.builder.ints(&[1]),
            length,
        )?));
    }
    let attention = Attention {
        scale: scale(n, q.shape()[3])?,
        softcap: n.float("softcap").unwrap_or(0.0).into(),
        masks,
        without_keys: WithoutKeys::Mean,
    };
    let y = merge(attention.apply(q, k, v)?.values)?;
    Ok(vec![Some(y), Some(k), Some(v)])
}

/// Refuses what goes beyond attention over a whole prompt.
fn is_whole_prompt(n: &Fused<'_>) -> Result<(), String> {
    for position in [3, 4] {
        if n.optional(position)
            .is_some_and(|past| past.shape().get(2) != Some(&Dim::fixed(0)))
        {
            return Err("it goes on from a cache; only a whole prompt is covered".into());
        }
    }
    n.without(&[
        (11, "head_sink"),
        (12, "k_scale"),
        (13, "v_scale"),
        (14, "q_norm_weight"),
        (15, "k_norm_weight"),
    ])?;
    n.unset(&["kv_cache_bit_width", "sliding_window_cache", "qk_output"])?;
    if n.int("smooth_softmax").unwrap_or(-1) > 0 {
        return Err("its attribute smooth_softmax is not covered".into());
    }
    Ok(())
}
