//! Values: what goes into a session and comes out of it.

use std::fmt;

use half::{bf16, f16};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, ValueType};

use super::error::Error;
use super::library;
use crate::tensor::{DType, Element, Tensor};
use crate::with_array;

/// A number type whose elements can be read from and written to a [`Value`]: every [`Element`] is one.
pub trait ValueElement: Element + PrimitiveTensorElementType + fmt::Debug {}

impl<T: Element + PrimitiveTensorElementType + fmt::Debug> ValueElement for T {}

/// Runs `$body` with the type alias `$T` bound to the number type of `$dtype`.
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::F16 => {
                type $T = f16;
                $body
            }
            DType::BF16 => {
                type $T = bf16;
                $body
            }
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            DType::I8 => {
                type $T = i8;
                $body
            }
            DType::I16 => {
                type $T = i16;
                $body
            }
            DType::I32 => {
                type $T = i32;
                $body
            }
            DType::I64 => {
                type $T = i64;
                $body
            }
            DType::U8 => {
                type $T = u8;
                $body
            }
            DType::U16 => {
                type $T = u16;
                $body
            }
            DType::U32 => {
                type $T = u32;
                $body
            }
            DType::U64 => {
                type $T = u64;
                $body
            }
            DType::Bool => {
                type $T = bool;
                $body
            }
        }
    };
}

/// A value of ONNX Runtime, owned: an input for a run, or an output of one.
///
/// An output can be fed back as an input without a copy, and single rows of it can be overwritten before that.
pub struct Value {
    inner: DynValue,
    dtype: Option<DType>,
    shape: Vec<usize>,
}

impl Value {
    /// Takes over a host tensor; its elements are not copied where they lie in row-major order.
    ///
    /// # Errors
    /// If there is no library, or if ONNX Runtime refuses the tensor.
    pub fn from_tensor(tensor: Tensor) -> Result<Self, Error> {
        // Whatever comes first in a process, a value or a session, starts the library.
        library::environment()?;
        let dtype = tensor.dtype();
        let shape = tensor.shape().to_vec();
        let made = with_array!(tensor, array => {
            ort::value::Tensor::from_array(array).map(ort::value::Value::into_dyn)
        });
        match made {
            Ok(inner) => Ok(Value {
                inner,
                dtype: Some(dtype),
                shape,
            }),
            Err(source) => Err(Error::Value {
                dtype,
                shape,
                source: Box::new(source),
            }),
        }
    }

    pub(super) fn new(inner: DynValue) -> Self {
        let (dtype, shape) = match inner.dtype() {
            ValueType::Tensor { ty, shape, .. } => (
                dtype(*ty),
                // A value's axes are never negative; only those of declarations are.
                shape
                    .iter()
                    .map(|&axis| usize::try_from(axis).unwrap_or(0))
                    .collect(),
            ),
            _ => (None, Vec::new()),
        };
        Value {
            inner,
            dtype,
            shape,
        }
    }

    pub(super) fn inner(&self) -> &DynValue {
        &self.inner
    }

    /// The element type; none where the value is no tensor, or a tensor of a type that mohs does not know (strings, say).
    #[must_use]
    pub fn dtype(&self) -> Option<DType> {
        self.dtype
    }

    /// The extent of each axis; empty for a scalar, and where the value is no tensor.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    /// If the value does not hold `T`.
    pub fn as_slice<T: ValueElement>(&self) -> Result<&[T], Error> {
        match self.inner.try_extract_tensor::<T>() {
            Ok((_, elements)) => Ok(elements),
            Err(_) => Err(self.mismatch::<T>()),
        }
    }

    /// The elements in row-major order, to be overwritten.
    ///
    /// # Errors
    /// If the value does not hold `T`.
    pub fn as_mut_slice<T: ValueElement>(&mut self) -> Result<&mut [T], Error> {
        let mismatch = self.mismatch::<T>();
        match self.inner.try_extract_tensor_mut::<T>() {
            Ok((_, elements)) => Ok(elements),
            Err(_) => Err(mismatch),
        }
    }

    fn mismatch<T: ValueElement>(&self) -> Error {
        Error::ValueType {
            held: self.dtype,
            asked: T::DTYPE,
        }
    }

    /// A copy as a host tensor.
    ///
    /// # Errors
    /// If the value is no tensor of a type that mohs knows.
    pub fn to_tensor(&self) -> Result<Tensor, Error> {
        let Some(dtype) = self.dtype else {
            return Err(Error::NoTensor {
                held: self.inner.dtype().to_string(),
            });
        };
        with_element!(dtype, T => match self.inner.try_extract_array::<T>() {
            Ok(array) => Ok(array.to_owned().into()),
            Err(_) => Err(self.mismatch::<T>()),
        })
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("dtype", &self.dtype)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

/// The element type in mohs's terms, if it has one.
pub(super) fn dtype(element: TensorElementType) -> Option<DType> {
    Some(match element {
        TensorElementType::Float16 => DType::F16,
        TensorElementType::Bfloat16 => DType::BF16,
        TensorElementType::Float32 => DType::F32,
        TensorElementType::Float64 => DType::F64,
        TensorElementType::Int8 => DType::I8,
        TensorElementType::Int16 => DType::I16,
        TensorElementType::Int32 => DType::I32,
        TensorElementType::Int64 => DType::I64,
        TensorElementType::Uint8 => DType::U8,
        TensorElementType::Uint16 => DType::U16,
        TensorElementType::Uint32 => DType::U32,
        TensorElementType::Uint64 => DType::U64,
        TensorElementType::Bool => DType::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{ArrayD, Axis};

    #[test]
    fn every_element_type_goes_in_and_comes_out_unchanged() {
        let shape = [2, 2];
        let tensors = [
            Tensor::new(&shape, [0.5, -1.0, 2.0, 0.0].map(f16::from_f32).to_vec()),
            Tensor::new(&shape, [0.5, -1.0, 2.0, 0.0].map(bf16::from_f32).to_vec()),
            Tensor::new(&shape, vec![0.1_f32, -1.0, 2.0, f32::MIN_POSITIVE]),
            Tensor::new(&shape, vec![0.1_f64, -1.0, 2.0, f64::MIN_POSITIVE]),
            Tensor::new(&shape, vec![i8::MIN, -1, 0, i8::MAX]),
            Tensor::new(&shape, vec![i16::MIN, -1, 0, i16::MAX]),
            Tensor::new(&shape, vec![i32::MIN, -1, 0, i32::MAX]),
            Tensor::new(&shape, vec![i64::MIN, -1, 0, i64::MAX]),
            Tensor::new(&shape, vec![0_u8, 1, 2, u8::MAX]),
            Tensor::new(&shape, vec![0_u16, 1, 2, u16::MAX]),
            Tensor::new(&shape, vec![0_u32, 1, 2, u32::MAX]),
            Tensor::new(&shape, vec![0_u64, 1, 2, u64::MAX]),
            Tensor::new(&shape, vec![true, false, false, true]),
        ];
        for tensor in tensors {
            let tensor = tensor.expect("four elements");
            let value = Value::from_tensor(tensor.clone()).expect("a value");
            assert_eq!(value.dtype(), Some(tensor.dtype()));
            assert_eq!(value.shape(), shape);
            assert_eq!(value.to_tensor().expect("a tensor"), tensor);
        }
    }

    #[test]
    fn scalars_and_empty_tensors_keep_their_shape() {
        for shape in [&[][..], &[0], &[2, 0, 3]] {
            let count = shape.iter().product();
            let tensor = Tensor::new(shape, vec![1.0_f32; count]).expect("fits");
            let value = Value::from_tensor(tensor.clone()).expect("a value");
            assert_eq!(value.to_tensor().expect("a tensor"), tensor);
            assert_eq!(value.as_slice::<f32>().expect("floats").len(), count);
        }
    }

    #[test]
    fn a_transposed_array_arrives_in_row_major_order() {
        let array = ArrayD::from_shape_vec(vec![2, 3], vec![1_i32, 2, 3, 4, 5, 6]).expect("fits");
        let value = Value::from_tensor(array.reversed_axes().into()).expect("a value");
        assert_eq!(value.shape(), [3, 2]);
        assert_eq!(
            value.as_slice::<i32>().expect("integers"),
            [1, 4, 2, 5, 3, 6]
        );
    }

    #[test]
    fn a_part_of_a_larger_array_arrives_as_that_part() {
        let array = ArrayD::from_shape_vec(vec![2, 3], vec![1_i32, 2, 3, 4, 5, 6]).expect("fits");
        let row = array.index_axis_move(Axis(0), 1);
        let value = Value::from_tensor(row.into()).expect("a value");
        assert_eq!(value.as_slice::<i32>().expect("integers"), [4, 5, 6]);
    }

    #[test]
    fn rows_can_be_overwritten_and_other_types_are_refused() {
        let tensor = Tensor::new(&[2, 2], vec![1.0_f32, 2.0, 3.0, 4.0]).expect("fits");
        let mut value = Value::from_tensor(tensor).expect("a value");
        let elements = value.as_mut_slice::<f32>().expect("floats");
        elements
            .get_mut(2..4)
            .expect("a row")
            .copy_from_slice(&[7.0, 8.0]);
        assert_eq!(
            value.as_slice::<f32>().expect("floats"),
            [1.0, 2.0, 7.0, 8.0]
        );
        let error = value.as_slice::<f64>().expect_err("not doubles");
        assert_eq!(error.to_string(), "a value of float32 was read as float64");
    }
}
