//! Host tensors: an element type, a concrete shape and the elements.
//!
//! Knows nothing of models, files or ONNX Runtime.
//! Start at [`Tensor`]; [`Element`] connects it with Rust's number types.

mod dtype;

pub use dtype::DType;
use half::{bf16, f16};
use ndarray::{ArrayD, ArrayViewD, IxDyn};

/// A dense tensor in host memory, in row-major order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant is the element type it names")]
pub enum Tensor {
    F16(ArrayD<f16>),
    BF16(ArrayD<bf16>),
    F32(ArrayD<f32>),
    F64(ArrayD<f64>),
    I8(ArrayD<i8>),
    I16(ArrayD<i16>),
    I32(ArrayD<i32>),
    I64(ArrayD<i64>),
    U8(ArrayD<u8>),
    U16(ArrayD<u16>),
    U32(ArrayD<u32>),
    U64(ArrayD<u64>),
    Bool(ArrayD<bool>),
}

/// Runs `$body` with `$array` bound to the typed array inside a [`Tensor`], whatever its element type.
#[macro_export]
macro_rules! with_array {
    ($tensor:expr, $array:ident => $body:expr) => {
        match $tensor {
            $crate::tensor::Tensor::F16($array) => $body,
            $crate::tensor::Tensor::BF16($array) => $body,
            $crate::tensor::Tensor::F32($array) => $body,
            $crate::tensor::Tensor::F64($array) => $body,
            $crate::tensor::Tensor::I8($array) => $body,
            $crate::tensor::Tensor::I16($array) => $body,
            $crate::tensor::Tensor::I32($array) => $body,
            $crate::tensor::Tensor::I64($array) => $body,
            $crate::tensor::Tensor::U8($array) => $body,
            $crate::tensor::Tensor::U16($array) => $body,
            $crate::tensor::Tensor::U32($array) => $body,
            $crate::tensor::Tensor::U64($array) => $body,
            $crate::tensor::Tensor::Bool($array) => $body,
        }
    };
}

/// A number type that a [`Tensor`] can hold.
pub trait Element: Copy + Sized + 'static {
    /// The element type's name in a tensor.
    const DTYPE: DType;
    /// Wraps an array.
    fn wrap(array: ArrayD<Self>) -> Tensor;
    /// The array inside, if the tensor holds this type.
    fn unwrap(tensor: &Tensor) -> Option<&ArrayD<Self>>;
}

macro_rules! elements {
    ($($rust:ty => $variant:ident),* $(,)?) => {
        $(impl Element for $rust {
            const DTYPE: DType = DType::$variant;
            fn wrap(array: ArrayD<Self>) -> Tensor {
                Tensor::$variant(array)
            }
            fn unwrap(tensor: &Tensor) -> Option<&ArrayD<Self>> {
                match tensor {
                    Tensor::$variant(array) => Some(array),
                    _ => None,
                }
            }
        })*

        impl Tensor {
            /// The type of the elements.
            #[must_use]
            pub fn dtype(&self) -> DType {
                match self {
                    $(Tensor::$variant(_) => DType::$variant,)*
                }
            }
        }
    };
}

elements! {
    f16 => F16, bf16 => BF16, f32 => F32, f64 => F64,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
    bool => Bool,
}

impl<T: Element> From<ArrayD<T>> for Tensor {
    fn from(array: ArrayD<T>) -> Self {
        T::wrap(array)
    }
}

impl Tensor {
    /// A tensor of the given shape, or `None` where `data` does not have as many elements as `shape` asks for.
    #[must_use]
    pub fn new<T: Element>(shape: &[usize], data: Vec<T>) -> Option<Self> {
        ArrayD::from_shape_vec(IxDyn(shape), data).ok().map(T::wrap)
    }

    /// The extent of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        with_array!(self, array => array.shape())
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        with_array!(self, array => array.len())
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as an array of `T`, if the tensor holds that type.
    #[must_use]
    pub fn view<T: Element>(&self) -> Option<ArrayViewD<'_, T>> {
        T::unwrap(self).map(|array| array.view())
    }

    /// The elements in row-major order, if the tensor holds `T`.
    #[must_use]
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        T::unwrap(self).and_then(|array| array.as_slice())
    }

    /// The elements as 64-bit integers, if the type is an integer or boolean one.
    #[must_use]
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        Some(match self {
            Tensor::I8(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::I16(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::I32(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::I64(a) => a.iter().copied().collect(),
            Tensor::U8(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::U16(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::U32(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::U64(a) => return a.iter().map(|&v| v.try_into().ok()).collect(),
            Tensor::Bool(a) => a.iter().map(|&v| v.into()).collect(),
            _ => return None,
        })
    }

    /// The elements as 64-bit floats, whatever the type (integers beyond 2⁵³ are rounded).
    #[must_use]
    pub fn to_f64(&self) -> Vec<f64> {
        #[expect(clippy::cast_precision_loss, reason = "documented")]
        match self {
            Tensor::F16(a) => a.iter().map(|v| v.to_f64()).collect(),
            Tensor::BF16(a) => a.iter().map(|v| v.to_f64()).collect(),
            Tensor::F32(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::F64(a) => a.iter().copied().collect(),
            Tensor::I8(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::I16(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::I32(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::I64(a) => a.iter().map(|&v| v as f64).collect(),
            Tensor::U8(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::U16(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::U32(a) => a.iter().map(|&v| v.into()).collect(),
            Tensor::U64(a) => a.iter().map(|&v| v as f64).collect(),
            Tensor::Bool(a) => a.iter().map(|&v| f64::from(u8::from(v))).collect(),
        }
    }
}
