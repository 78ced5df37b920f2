//! Handles on values, with the operators that rules, losses and attack steps are written in.

use super::{Attribute, Builder, Dim, Dims, Fact, ValueId, broadcast};
use crate::tensor::DType;
use std::ops::{Add, Div, Mul, Neg, Not, Sub};

/// A value of a graph that is being built; arithmetic on handles adds nodes.
///
/// Every handle knows its value's type and shape, so a rule can ask for them.
#[derive(Clone, Copy)]
pub struct Expr<'g> {
    builder: &'g Builder,
    id: ValueId,
}

impl std::fmt::Debug for Expr<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self
            .builder
            .with_graph(|graph| graph.name(self.id).to_owned());
        write!(f, "{name}: {} {:?}", self.dtype(), self.shape())
    }
}

/// What can stand beside an [`Expr`] in arithmetic: another one, or a number of its type.
pub trait Operand<'g> {
    /// The operand as an expression; a number takes the type of `beside`.
    fn expr(self, beside: Expr<'g>) -> Expr<'g>;
}

impl<'g> Operand<'g> for Expr<'g> {
    fn expr(self, _: Expr<'g>) -> Expr<'g> {
        self
    }
}

impl<'g> Operand<'g> for f64 {
    fn expr(self, beside: Expr<'g>) -> Expr<'g> {
        beside.builder.scalar(beside.dtype(), self)
    }
}

impl<'g> Expr<'g> {
    /// The handle for a value that has a fact.
    pub(super) fn new(builder: &'g Builder, id: ValueId) -> Self {
        Expr { builder, id }
    }

    /// The value.
    #[must_use]
    pub fn id(self) -> ValueId {
        self.id
    }

    /// The builder that the handle belongs to.
    #[must_use]
    pub fn builder(self) -> &'g Builder {
        self.builder
    }

    /// What is known of the value.
    #[must_use]
    pub fn fact(self) -> Fact {
        self.builder.fact(self.id)
    }

    /// The type of the elements.
    #[must_use]
    pub fn dtype(self) -> DType {
        self.fact().dtype
    }

    /// The extents of the axes.
    #[must_use]
    pub fn shape(self) -> Dims {
        self.fact().shape
    }

    /// The number of axes.
    #[must_use]
    pub fn rank(self) -> usize {
        self.shape().len()
    }

    fn node(
        self,
        op_type: &str,
        more: &[Expr<'g>],
        attributes: &[(&str, Attribute)],
        fact: Fact,
    ) -> Expr<'g> {
        let inputs: Vec<_> = std::iter::once(self).chain(more.iter().copied()).collect();
        self.builder.node(op_type, &inputs, attributes, fact)
    }

    /// An operator that works element by element and keeps the type, such as `Exp`.
    #[must_use]
    pub fn unary(self, op_type: &str) -> Self {
        self.node(op_type, &[], &[], Fact::new(self.dtype(), self.shape()))
    }

    /// An operator that works on pairs of elements and keeps the type, such as `Max`.
    ///
    /// # Panics
    /// Where the shapes do not broadcast: a rule that lets that happen is wrong.
    #[must_use]
    pub fn binary(self, op_type: &str, other: impl Operand<'g>) -> Self {
        self.pairwise(op_type, other, self.dtype())
    }

    fn pairwise(self, op_type: &str, other: impl Operand<'g>, dtype: DType) -> Self {
        let other = other.expr(self);
        let shape = broadcast(&self.shape(), &other.shape());
        let shape =
            shape.unwrap_or_else(|| panic!("{op_type}: {self:?} and {other:?} do not broadcast"));
        // The operator stretches by itself: one pass over memory less.
        let first = self.narrowed(&other.shape(), &shape);
        let other = other.narrowed(&first.shape(), &shape);
        first.node(op_type, &[other], &[], Fact::new(dtype, shape))
    }

    /// What this was stretched from, if together with the other operand it still gives the shape.
    fn narrowed(self, other: &[Dim], shape: &[Dim]) -> Self {
        let narrow = self.builder.before_stretching(self);
        narrow
            .filter(|narrow| broadcast(&narrow.shape(), other).is_some_and(|both| both == shape))
            .unwrap_or(self)
    }

    /// The larger of each pair.
    #[must_use]
    pub fn max(self, other: impl Operand<'g>) -> Self {
        self.binary("Max", other)
    }

    /// The smaller of each pair.
    #[must_use]
    pub fn min(self, other: impl Operand<'g>) -> Self {
        self.binary("Min", other)
    }

    /// self > other, as booleans.
    #[must_use]
    pub fn gt(self, other: impl Operand<'g>) -> Self {
        self.pairwise("Greater", other, DType::Bool)
    }

    /// self ≥ other, as booleans.
    #[must_use]
    pub fn ge(self, other: impl Operand<'g>) -> Self {
        self.pairwise("GreaterOrEqual", other, DType::Bool)
    }

    /// self < other, as booleans.
    #[must_use]
    pub fn lt(self, other: impl Operand<'g>) -> Self {
        self.pairwise("Less", other, DType::Bool)
    }

    /// self ≤ other, as booleans.
    #[must_use]
    pub fn le(self, other: impl Operand<'g>) -> Self {
        self.pairwise("LessOrEqual", other, DType::Bool)
    }

    /// self = other, as booleans.
    #[must_use]
    pub fn equal(self, other: impl Operand<'g>) -> Self {
        self.pairwise("Equal", other, DType::Bool)
    }

    /// Both of two booleans.
    #[must_use]
    pub fn and(self, other: Expr<'g>) -> Self {
        self.binary("And", other)
    }

    /// Either of two booleans.
    #[must_use]
    pub fn or(self, other: Expr<'g>) -> Self {
        self.binary("Or", other)
    }

    /// `yes` where `self` (booleans) holds, else `no`; a number takes the type of `typed`.
    ///
    /// # Panics
    /// Where the shapes do not broadcast.
    #[must_use]
    pub fn select(self, yes: impl Operand<'g>, no: impl Operand<'g>, typed: Expr<'g>) -> Self {
        let (yes, no) = (yes.expr(typed), no.expr(typed));
        let shape =
            broadcast(&yes.shape(), &no.shape()).and_then(|shape| broadcast(&self.shape(), &shape));
        let shape =
            shape.unwrap_or_else(|| panic!("Where: {self:?}, {yes:?} and {no:?} do not broadcast"));
        self.node("Where", &[yes, no], &[], Fact::new(yes.dtype(), shape))
    }

    /// The value where `mask` (booleans) holds, else 0.
    #[must_use]
    pub fn where_(self, mask: Expr<'g>) -> Self {
        mask.select(self, 0.0, self)
    }

    /// The same numbers in another type.
    #[must_use]
    pub fn cast(self, dtype: DType) -> Self {
        if self.dtype() == dtype {
            return self;
        }
        let to = [("to", Attribute::Int(dtype.to_onnx().into()))];
        self.node("Cast", &[], &to, Fact::new(dtype, self.shape()))
    }

    /// The same numbers in the type of `other`.
    #[must_use]
    pub fn cast_like(self, other: Expr<'g>) -> Self {
        self.cast(other.dtype())
    }

    /// A reduction such as `ReduceSum` over the given axes; none given: nothing is reduced.
    #[must_use]
    pub fn reduce(self, op_type: &str, axes: &[usize], keep: bool) -> Self {
        if axes.is_empty() {
            return self;
        }
        let shape = self.shape();
        let kept = shape.iter().enumerate().filter_map(|(axis, &dim)| {
            match (axes.contains(&axis), keep) {
                (false, _) => Some(dim),
                (true, true) => Some(Dim::ONE),
                (true, false) => None,
            }
        });
        let fact = Fact::new(self.dtype(), kept.collect());
        let list = self.builder.ints(&as_i64(axes));
        self.node(
            op_type,
            &[list],
            &[("keepdims", Attribute::Int(i64::from(keep)))],
            fact,
        )
    }

    /// The sum over the given axes, each kept with extent 1.
    #[must_use]
    pub fn sum(self, axes: &[usize]) -> Self {
        self.reduce("ReduceSum", axes, true)
    }

    /// Sums what broadcasting had stretched, so that the result has the shape `to`.
    #[must_use]
    pub fn unbroadcast(self, to: &[Dim]) -> Self {
        let shape = self.shape();
        if shape == to {
            return self;
        }
        let extra = shape.len().saturating_sub(to.len());
        let stretched: Vec<usize> = (0..shape.len())
            .filter(|&axis| {
                axis < extra || (to[axis - extra] == Dim::ONE && shape[axis] != Dim::ONE)
            })
            .collect();
        self.sum(&stretched).reshape(to)
    }

    /// The elements in another shape.
    #[must_use]
    pub fn reshape(self, shape: &[Dim]) -> Self {
        if self.shape() == shape {
            return self;
        }
        let following = shape.iter().filter(|dim| dim.extent().is_none()).count();
        let target = if following <= 1 {
            let extents: Vec<i64> = shape.iter().map(|dim| dim.extent().unwrap_or(-1)).collect();
            self.builder.ints(&extents)
        } else {
            self.builder.extents(shape)
        };
        let allow_zero = shape.iter().any(|dim| dim.extent() == Some(0)) && following == 0;
        let attributes = [("allowzero", Attribute::Int(1))];
        let attributes = if allow_zero { &attributes[..] } else { &[] };
        self.node(
            "Reshape",
            &[target],
            attributes,
            Fact::new(self.dtype(), shape.to_vec()),
        )
    }

    /// The elements in the shape of `other`.
    #[must_use]
    pub fn reshape_like(self, other: Expr<'g>) -> Self {
        self.reshape(&other.shape())
    }

    /// New axes of extent 1, at these positions of the result.
    #[must_use]
    pub fn unsqueeze(self, axes: &[usize]) -> Self {
        let mut dims = self.shape().into_iter();
        let rank = self.rank() + axes.len();
        let shape: Dims = (0..rank)
            .map(|axis| {
                if axes.contains(&axis) {
                    Dim::ONE
                } else {
                    dims.next().unwrap_or(Dim::ONE)
                }
            })
            .collect();
        let list = self.builder.ints(&as_i64(axes));
        self.node("Unsqueeze", &[list], &[], Fact::new(self.dtype(), shape))
    }

    /// Without the axes at these positions, which have extent 1.
    #[must_use]
    pub fn squeeze(self, axes: &[usize]) -> Self {
        let shape = self
            .shape()
            .into_iter()
            .enumerate()
            .filter(|(axis, _)| !axes.contains(axis))
            .map(|(_, dim)| dim);
        let fact = Fact::new(self.dtype(), shape.collect());
        let list = self.builder.ints(&as_i64(axes));
        self.node("Squeeze", &[list], &[], fact)
    }

    /// The axes in another order: axis i of the result is axis `order[i]` of this.
    #[must_use]
    pub fn transpose(self, order: &[usize]) -> Self {
        if order.iter().enumerate().all(|(axis, &from)| axis == from) {
            return self;
        }
        let shape = self.shape();
        let fact = Fact::new(
            self.dtype(),
            order.iter().map(|&axis| shape[axis]).collect(),
        );
        self.node(
            "Transpose",
            &[],
            &[("perm", Attribute::Ints(as_i64(order)))],
            fact,
        )
    }

    /// The last two axes exchanged.
    #[must_use]
    pub fn transpose_last(self) -> Self {
        let mut order: Vec<usize> = (0..self.rank()).collect();
        let last = order.len().saturating_sub(1);
        order.swap(last, last.saturating_sub(1));
        self.transpose(&order)
    }

    /// Stretched to a shape.
    #[must_use]
    pub fn expand(self, shape: &[Dim]) -> Self {
        if self.shape() == shape {
            return self;
        }
        let extents = self.builder.extents(shape);
        let fact = Fact::new(self.dtype(), shape.to_vec());
        let wide = self.node("Expand", &[extents], &[], fact);
        self.builder.note_stretched(wide, self);
        wide
    }

    /// The range [start, end) of an axis.
    #[must_use]
    pub fn slice(self, axis: usize, start: i64, end: Dim) -> Self {
        let mut shape = self.shape();
        if start == 0 && end == shape[axis] {
            return self;
        }
        shape[axis] = end.plus(Dim::fixed(-start));
        let ints = |values: &[i64]| self.builder.ints(values);
        let axis = as_i64(&[axis]);
        self.node(
            "Slice",
            &[ints(&[start]), self.builder.extents(&[end]), ints(&axis)],
            &[],
            Fact::new(self.dtype(), shape),
        )
    }

    /// An axis in reverse order.
    #[must_use]
    pub fn reverse(self, axes: &[usize]) -> Self {
        let ints = |values: Vec<i64>| self.builder.ints(&values);
        let all = |value: i64| ints(vec![value; axes.len()]);
        let operands = [all(-1), all(i64::MIN + 1), ints(as_i64(axes)), all(-1)];
        self.node(
            "Slice",
            &operands,
            &[],
            Fact::new(self.dtype(), self.shape()),
        )
    }

    /// Zeros around: `before[i]` in front of and `after[i]` behind axis i; negative numbers cut off.
    #[must_use]
    pub fn pad(self, before: &[i64], after: &[i64]) -> Self {
        if before.iter().chain(after).all(|&count| count == 0) {
            return self;
        }
        let extents = self.shape().into_iter().zip(before.iter().zip(after));
        let shape = extents
            .map(|(dim, (before, after))| dim.plus(Dim::fixed(before + after)))
            .collect();
        let pads: Vec<i64> = before.iter().chain(after).copied().collect();
        let pads = self.builder.ints(&pads);
        self.node("Pad", &[pads], &[], Fact::new(self.dtype(), shape))
    }

    /// Several values one behind the other along an axis.
    ///
    /// # Panics
    /// Where there are none.
    #[must_use]
    pub fn concat(parts: &[Expr<'g>], axis: usize) -> Self {
        let first = parts.first().expect("there is something to concatenate");
        if parts.len() == 1 {
            return *first;
        }
        let mut shape = first.shape();
        for part in &parts[1..] {
            shape[axis] = shape[axis].plus(part.shape()[axis]);
        }
        let attributes = [("axis", Attribute::Int(as_i64(&[axis])[0]))];
        first.builder.node(
            "Concat",
            parts,
            &attributes,
            Fact::new(first.dtype(), shape),
        )
    }

    /// The matrix product, as NumPy's `matmul`, of two operands of rank 2 or more.
    ///
    /// # Panics
    /// Where the leading axes do not broadcast.
    #[must_use]
    pub fn matmul(self, other: Expr<'g>) -> Self {
        let (a, b) = (self.shape(), other.shape());
        let (lead_a, lead_b) = (&a[..a.len() - 2], &b[..b.len() - 2]);
        let mut shape =
            broadcast(lead_a, lead_b).unwrap_or_else(|| panic!("MatMul: {self:?} and {other:?}"));
        shape.extend([a[a.len() - 2], b[b.len() - 1]]);
        self.node("MatMul", &[other], &[], Fact::new(self.dtype(), shape))
    }

    /// The entries at `indices` along an axis (`Gather`).
    #[must_use]
    pub fn gather(self, indices: Expr<'g>, axis: usize) -> Self {
        let mut shape = self.shape();
        shape.splice(axis..=axis, indices.shape());
        let attributes = [("axis", Attribute::Int(as_i64(&[axis])[0]))];
        self.node(
            "Gather",
            &[indices],
            &attributes,
            Fact::new(self.dtype(), shape),
        )
    }

    /// The entry at each index along an axis (`GatherElements`).
    #[must_use]
    pub fn gather_elements(self, indices: Expr<'g>, axis: usize) -> Self {
        let attributes = [("axis", Attribute::Int(as_i64(&[axis])[0]))];
        self.node(
            "GatherElements",
            &[indices],
            &attributes,
            Fact::new(self.dtype(), indices.shape()),
        )
    }

    /// `updates` added at `indices` along an axis (`ScatterElements`); half precision is added in single precision, for which every
    /// device has the kernel.
    #[must_use]
    pub fn scatter_add(self, indices: Expr<'g>, updates: Expr<'g>, axis: usize) -> Self {
        let dtype = self.dtype();
        if matches!(dtype, DType::F16 | DType::BF16) {
            return self
                .cast(DType::F32)
                .scatter_add(indices, updates.cast(DType::F32), axis)
                .cast(dtype);
        }
        let attributes = [
            ("axis", Attribute::Int(as_i64(&[axis])[0])),
            ("reduction", Attribute::String("add")),
        ];
        self.node(
            "ScatterElements",
            &[indices, updates],
            &attributes,
            Fact::new(dtype, self.shape()),
        )
    }

    /// Softmax over one axis.
    #[must_use]
    pub fn softmax(self, axis: usize) -> Self {
        self.over_axis("Softmax", axis)
    }

    /// The logarithm of the softmax over one axis.
    #[must_use]
    pub fn log_softmax(self, axis: usize) -> Self {
        self.over_axis("LogSoftmax", axis)
    }

    fn over_axis(self, op_type: &str, axis: usize) -> Self {
        let attributes = [("axis", Attribute::Int(as_i64(&[axis])[0]))];
        self.node(
            op_type,
            &[],
            &attributes,
            Fact::new(self.dtype(), self.shape()),
        )
    }

    /// The k largest entries along an axis, and their indices, largest first.
    #[must_use]
    pub fn top_k(self, k: i64, axis: usize) -> (Self, Self) {
        let mut shape = self.shape();
        shape[axis] = Dim::fixed(k);
        let facts = vec![
            Fact::new(self.dtype(), shape.clone()),
            Fact::new(DType::I64, shape),
        ];
        let attributes = [("axis", Attribute::Int(as_i64(&[axis])[0]))];
        let inputs = [Some(self), Some(self.builder.ints(&[k]))];
        let outputs = self.builder.node_with("TopK", &inputs, &attributes, facts);
        (outputs[0], outputs[1])
    }

    /// The index of the first largest entry along an axis, which is kept with extent 1.
    #[must_use]
    pub fn arg_max(self, axis: usize) -> Self {
        let mut shape = self.shape();
        shape[axis] = Dim::ONE;
        let attributes = [("axis", Attribute::Int(as_i64(&[axis])[0]))];
        self.node("ArgMax", &[], &attributes, Fact::new(DType::I64, shape))
    }

    /// 1 at the index along a new last axis of `depth` entries, 0 elsewhere.
    #[must_use]
    pub fn one_hot(self, depth: i64, dtype: DType) -> Self {
        let mut shape = self.shape();
        shape.push(Dim::fixed(depth));
        let values = [0.0, 1.0].map(|value| self.builder.scalar(dtype, value).unsqueeze(&[0]));
        let operands = [self.builder.ints(&[depth]), Expr::concat(&values, 0)];
        self.node(
            "OneHot",
            &operands,
            &[("axis", Attribute::Int(-1))],
            Fact::new(dtype, shape),
        )
    }

    /// Zeros of the same type and shape.
    #[must_use]
    pub fn zeros_like(self) -> Self {
        self.builder.full(self.dtype(), &self.shape(), 0.0)
    }

    /// factor · self + offset, for integers.
    pub(super) fn scaled(self, factor: i64, offset: i64) -> Self {
        let product = if factor == 1 {
            self
        } else {
            self * self.builder.ints(&[factor])
        };
        if offset == 0 {
            product
        } else {
            product + self.builder.ints(&[offset])
        }
    }
}

/// Axes as the format writes them.
#[expect(clippy::cast_possible_wrap, reason = "axes are small")]
fn as_i64(axes: &[usize]) -> Vec<i64> {
    axes.iter().map(|&axis| axis as i64).collect()
}

/// Not, of booleans.
impl Not for Expr<'_> {
    type Output = Self;
    fn not(self) -> Self {
        self.unary("Not")
    }
}

impl Neg for Expr<'_> {
    type Output = Self;
    fn neg(self) -> Self {
        self.unary("Neg")
    }
}

macro_rules! operators {
    ($($operator:ident $method:ident),*) => {$(
        impl<'g, T: Operand<'g>> $operator<T> for Expr<'g> {
            type Output = Expr<'g>;
            fn $method(self, other: T) -> Expr<'g> {
                self.binary(stringify!($operator), other)
            }
        }
        impl<'g> $operator<Expr<'g>> for f64 {
            type Output = Expr<'g>;
            fn $method(self, other: Expr<'g>) -> Expr<'g> {
                self.expr(other).binary(stringify!($operator), other)
            }
        }
    )*};
}

operators!(Add add, Sub sub, Mul mul, Div div);
