//! Rotary position embeddings.

use super::heads::{merge, split};
use super::{Fused, fixed};
use crate::graph::{Attributes, Dim, Expr};

type Results<'g> = Result<Vec<Option<Expr<'g>>>, String>;

/// Cosines and sines for each position: `[n or 1, 1, length, dimensions / 2]`.
#[derive(Clone, Copy)]
pub(super) struct Angles<'g> {
    cosine: Expr<'g>,
    sine: Expr<'g>,
}

impl<'g> Angles<'g> {
    /// The rows of the caches at positions `[n, length]`, or at 0, 1, … behind the position `[1]`.
    pub(super) fn at(
        (cosine, sine): (Expr<'g>, Expr<'g>),
        positions: Option<Expr<'g>>,
        length: Dim,
    ) -> Result<Self, String> {
        let builder = cosine.builder();
        let steps = || -> Result<Expr<'g>, String> {
            let steps: Vec<i64> = (0..fixed(length)?).collect();
            Ok(builder.ints(&steps))
        };
        let positions = match positions {
            None => steps()?.unsqueeze(&[0]),
            Some(first) if first.rank() < 2 => {
                (first.reshape(&[Dim::ONE]) + steps()?).unsqueeze(&[0])
            }
            Some(positions) => positions,
        };
        let rows = |cache: Expr<'g>| cache.gather(positions, 0).unsqueeze(&[1]);
        Ok(Angles {
            cosine: rows(cosine),
            sine: rows(sine),
        })
    }

    /// Rotates the first entries of each head of `[n, heads, length, size]`; pairs lie side by side, or half the entries apart.
    pub(super) fn rotate(self, x: Expr<'g>, interleaved: bool) -> Result<Expr<'g>, String> {
        let shape = x.shape();
        let half = fixed(self.cosine.shape()[3])?;
        let size = fixed(shape[3])?;
        if 2 * half > size {
            return Err(format!(
                "its angles are for {} entries, and a head has {size}",
                2 * half
            ));
        }
        let turned = x.slice(3, 0, Dim::fixed(2 * half));
        let mut pairs = shape.clone();
        pairs[3] = Dim::fixed(half);
        let (first, second) = if interleaved {
            pairs.push(Dim::fixed(2));
            let pairs = turned.reshape(&pairs);
            let of = |position: i64| {
                pairs
                    .slice(4, position, Dim::fixed(position + 1))
                    .squeeze(&[4])
            };
            (of(0), of(1))
        } else {
            (
                turned.slice(3, 0, Dim::fixed(half)),
                turned.slice(3, half, Dim::fixed(2 * half)),
            )
        };
        let (cosine, sine) = (self.cosine.cast_like(x), self.sine.cast_like(x));
        let rotated = [
            first * cosine - second * sine,
            second * cosine + first * sine,
        ];
        let rotated = if interleaved {
            Expr::concat(&rotated.map(|part| part.unsqueeze(&[4])), 4).reshape(&turned.shape())
        } else {
            Expr::concat(&rotated, 3)
        };
        Ok(if 2 * half == size {
            rotated
        } else {
            Expr::concat(&[rotated, x.slice(3, 2 * half, Dim::fixed(size))], 3)
        })
    }
}

/// Of `[n, heads, length, size]`, or of `[n, length, heads · size]`.
pub(super) fn embedding<'g>(n: &Fused<'g>) -> Results<'g> {
    n.unset(&["is_packed_batching"])?;
    if n.float("scale").is_some_and(|scale| scale != 1.0) {
        return Err("its attribute scale is not covered".into());
    }
    let (x, caches) = (n.x(0)?, (n.x(2)?, n.x(3)?));
    let dimensions = 2 * fixed(caches.0.shape()[1])?;
    let apart = match x.rank() {
        4 => x,
        3 => {
            let heads = match n.int("num_heads") {
                Some(heads) if heads > 0 => heads,
                _ => fixed(x.shape()[2])? / dimensions.max(1),
            };
            split(x, heads.max(1))?
        }
        rank => return Err(format!("its operand has {rank} axes")),
    };
    let angles = Angles::at(caches, n.optional(1), apart.shape()[2])?;
    let y = angles.rotate(apart, n.is_set("interleaved"))?;
    Ok(vec![Some(if x.rank() == 3 { merge(y)? } else { y })])
}
