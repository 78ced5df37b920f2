//! The few operations that attack steps are written in.
//!
//! A step is written once, over [`Array`] handles.
//! What the handles stand for is decided by the [`Arrays`] they belong to: numbers in host memory ([`super::host::HostArrays`], the
//! reference that tests compare with) or nodes of a graph (`model::program`, what runs).
//! Every array is two-dimensional: `[n, d]` (one row of `d` elements for each of `n` samples) or `[n, 1]` (one number per sample);
//! in an operation with two arrays, `[n, 1]` stretches over the row and constants stretch over everything, as in ONNX and NumPy.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// An operation on each element of one array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    /// −a
    Neg,
    /// |a|
    Abs,
    /// −1, 0 or 1; 0 at 0 (and at NaN on the host, as PyTorch).
    Sign,
    /// √a
    Sqrt,
    /// cos a
    Cos,
    /// ⌊a⌋
    Floor,
    /// log a
    Log,
    /// tanh a
    Tanh,
}

/// An operation on each pair of elements of two arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// min(a, b)
    Min,
    /// max(a, b)
    Max,
    /// 1 where a > b, else 0
    Greater,
}

/// A reduction over the elements of each sample, giving `[n, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reduce {
    /// Σ a
    Sum,
    /// max a
    Max,
    /// The k-th largest element; k is at least 1 and at most d.
    KthLargest(usize),
}

/// Names an array within its [`Arrays`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArrayId(pub usize);

/// A place where arrays live and are computed.
pub trait Arrays {
    /// A constant that stretches over everything.
    fn constant(&self, value: f64) -> ArrayId;
    /// `operation` on each element of `a`.
    fn unary(&self, operation: Unary, a: ArrayId) -> ArrayId;
    /// `operation` on each pair of elements.
    fn binary(&self, operation: Binary, a: ArrayId, b: ArrayId) -> ArrayId;
    /// `a` where `mask` is not 0, else `b`. What is not chosen never matters, NaN included.
    fn select(&self, mask: ArrayId, a: ArrayId, b: ArrayId) -> ArrayId;
    /// `operation` over the elements of each sample: `[n, d]` to `[n, 1]`.
    fn reduce(&self, operation: Reduce, a: ArrayId) -> ArrayId;
    /// The element of each sample that so many others are before in descending order (`rank`, `[n, 1]`, its fraction dropped, brought into
    /// 0 to d − 1): `[n, d]` to `[n, 1]`.
    fn at_rank(&self, a: ArrayId, rank: ArrayId) -> ArrayId;
    /// 1 at the first largest element of each sample, 0 elsewhere: `[n, d]` to `[n, d]`.
    fn one_hot_largest(&self, a: ArrayId) -> ArrayId;
    /// The number of elements of a sample, d.
    fn width(&self) -> usize;
}

/// A handle on an array; arithmetic on handles makes new arrays.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    arrays: &'a dyn Arrays,
    id: ArrayId,
}

impl std::fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.id.fmt(f)
    }
}

impl<'a> Array<'a> {
    /// The handle for `id` in `arrays`.
    #[must_use]
    pub fn new(arrays: &'a dyn Arrays, id: ArrayId) -> Self {
        Array { arrays, id }
    }

    /// The array's name within its [`Arrays`].
    #[must_use]
    pub fn id(self) -> ArrayId {
        self.id
    }

    /// The number of elements of a sample.
    #[must_use]
    pub fn width(self) -> usize {
        self.arrays.width()
    }

    /// A constant in the same place as `self`.
    #[must_use]
    pub fn constant(self, value: f64) -> Self {
        self.with(self.arrays.constant(value))
    }

    fn with(self, id: ArrayId) -> Self {
        Array {
            arrays: self.arrays,
            id,
        }
    }

    fn unary(self, operation: Unary) -> Self {
        self.with(self.arrays.unary(operation, self.id))
    }

    fn binary(self, operation: Binary, other: Self) -> Self {
        self.with(self.arrays.binary(operation, self.id, other.id))
    }

    /// |a|
    #[must_use]
    pub fn abs(self) -> Self {
        self.unary(Unary::Abs)
    }

    /// −1, 0 or 1; 0 at 0.
    #[must_use]
    pub fn sign(self) -> Self {
        self.unary(Unary::Sign)
    }

    /// √a
    #[must_use]
    pub fn sqrt(self) -> Self {
        self.unary(Unary::Sqrt)
    }

    /// cos a
    #[must_use]
    pub fn cos(self) -> Self {
        self.unary(Unary::Cos)
    }

    /// ⌊a⌋
    #[must_use]
    pub fn floor(self) -> Self {
        self.unary(Unary::Floor)
    }

    /// log a
    #[must_use]
    pub fn log(self) -> Self {
        self.unary(Unary::Log)
    }

    /// tanh a
    #[must_use]
    pub fn tanh(self) -> Self {
        self.unary(Unary::Tanh)
    }

    /// The smaller of each pair.
    #[must_use]
    pub fn min(self, other: impl Operand<'a>) -> Self {
        self.binary(Binary::Min, other.array(self))
    }

    /// The larger of each pair.
    #[must_use]
    pub fn max(self, other: impl Operand<'a>) -> Self {
        self.binary(Binary::Max, other.array(self))
    }

    /// 1 where self > other, else 0.
    #[must_use]
    pub fn gt(self, other: impl Operand<'a>) -> Self {
        self.binary(Binary::Greater, other.array(self))
    }

    /// 1 where self < other, else 0.
    #[must_use]
    pub fn lt(self, other: impl Operand<'a>) -> Self {
        other.array(self).binary(Binary::Greater, self)
    }

    /// `self` limited to [low, high].
    #[must_use]
    pub fn clamp(self, low: impl Operand<'a>, high: impl Operand<'a>) -> Self {
        self.max(low).min(high)
    }

    /// `yes` where `self` is not 0, else `no`.
    #[must_use]
    pub fn select(self, yes: impl Operand<'a>, no: impl Operand<'a>) -> Self {
        self.with(
            self.arrays
                .select(self.id, yes.array(self).id, no.array(self).id),
        )
    }

    /// The sum of each sample's elements: `[n, 1]`.
    #[must_use]
    pub fn sum(self) -> Self {
        self.with(self.arrays.reduce(Reduce::Sum, self.id))
    }

    /// Each sample's largest element: `[n, 1]`.
    #[must_use]
    pub fn largest(self) -> Self {
        self.with(self.arrays.reduce(Reduce::Max, self.id))
    }

    /// Each sample's k-th largest element: `[n, 1]`.
    #[must_use]
    pub fn kth_largest(self, k: usize) -> Self {
        self.with(self.arrays.reduce(Reduce::KthLargest(k), self.id))
    }

    /// Each sample's element of a rank of its own, 0 being the largest: `[n, 1]`.
    #[must_use]
    pub fn at_rank(self, rank: Array<'a>) -> Self {
        self.with(self.arrays.at_rank(self.id, rank.id))
    }

    /// 1 at each sample's first largest element, 0 elsewhere.
    #[must_use]
    pub fn one_hot_largest(self) -> Self {
        self.with(self.arrays.one_hot_largest(self.id))
    }
}

/// What can stand beside an [`Array`] in an operation: another array or a number.
pub trait Operand<'a> {
    /// The operand as an array in the same place as `beside`.
    fn array(self, beside: Array<'a>) -> Array<'a>;
}

impl<'a> Operand<'a> for Array<'a> {
    fn array(self, _: Array<'a>) -> Array<'a> {
        self
    }
}

impl<'a> Operand<'a> for f64 {
    fn array(self, beside: Array<'a>) -> Array<'a> {
        beside.constant(self)
    }
}

impl Neg for Array<'_> {
    type Output = Self;
    fn neg(self) -> Self {
        self.unary(Unary::Neg)
    }
}

macro_rules! operators {
    ($($operator:ident $method:ident $binary:ident),*) => {$(
        impl<'a, T: Operand<'a>> $operator<T> for Array<'a> {
            type Output = Array<'a>;
            fn $method(self, other: T) -> Array<'a> {
                self.binary(Binary::$binary, other.array(self))
            }
        }
        impl<'a> $operator<Array<'a>> for f64 {
            type Output = Array<'a>;
            fn $method(self, other: Array<'a>) -> Array<'a> {
                self.array(other).binary(Binary::$binary, other)
            }
        }
    )*};
}

operators!(Add add Add, Sub sub Sub, Mul mul Mul, Div div Div);
