//! Between a file's tensors and host tensors.

use super::Error;
use super::proto::TensorProto;
use crate::tensor::{DType, Element, Tensor};
use bytes::Bytes;
use half::{bf16, f16};

/// The elements of a tensor, from whichever field holds them.
///
/// # Errors
/// Where the number of elements does not fit the shape, or the type is none that mohs computes with (strings, complex numbers, 8-bit floats and
/// smaller).
pub fn to_tensor(proto: &TensorProto) -> Result<Tensor, Error> {
    let fail = |reason: String| Error::Tensor {
        name: proto.name.clone().unwrap_or_default(),
        reason,
    };
    let number = proto.data_type.unwrap_or_default();
    let dtype = DType::from_onnx(number).ok_or_else(|| {
        fail(format!(
            "elements of ONNX type {number} are not supported here"
        ))
    })?;
    let shape = proto.dims.iter().map(|&extent| usize::try_from(extent));
    let shape: Vec<usize> = shape
        .collect::<Result<_, _>>()
        .map_err(|_| fail("it has a negative extent".into()))?;
    macro_rules! read {
        ($type:ty, $field:ident, $convert:expr) => {
            match &proto.raw_data {
                Some(raw) => build(&shape, from_bytes::<$type>(raw)),
                None => build::<$type>(&shape, Some(proto.$field.iter().map($convert).collect())),
            }
        };
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the format keeps small types in wide fields"
    )]
    let tensor = match dtype {
        DType::F32 => read!(f32, float_data, |&v| v),
        DType::F64 => read!(f64, double_data, |&v| v),
        DType::I64 => read!(i64, int64_data, |&v| v),
        DType::U64 => read!(u64, uint64_data, |&v| v),
        DType::U32 => read!(u32, uint64_data, |&v| v as u32),
        DType::I32 => read!(i32, int32_data, |&v| v),
        DType::I16 => read!(i16, int32_data, |&v| v as i16),
        DType::I8 => read!(i8, int32_data, |&v| v as i8),
        DType::U16 => read!(u16, int32_data, |&v| v as u16),
        DType::U8 => read!(u8, int32_data, |&v| v as u8),
        DType::F16 => read!(f16, int32_data, |&v| f16::from_bits(v as u16)),
        DType::BF16 => read!(bf16, int32_data, |&v| bf16::from_bits(v as u16)),
        DType::Bool => match &proto.raw_data {
            Some(raw) => build(&shape, Some(raw.iter().map(|&byte| byte != 0).collect())),
            None => build::<bool>(
                &shape,
                Some(proto.int32_data.iter().map(|&v| v != 0).collect()),
            ),
        },
    };
    tensor.ok_or_else(|| {
        fail(format!(
            "the number of its elements does not fit its shape {shape:?}"
        ))
    })
}

/// The tensor as a file holds it, with the elements as raw bytes.
#[must_use]
pub fn from_tensor(name: &str, tensor: &Tensor) -> TensorProto {
    macro_rules! bytes {
        ($array:expr, $element:ident => $convert:expr) => {{
            let mut bytes = Vec::with_capacity($array.len() * tensor.dtype().size());
            for $element in $array {
                bytes.extend_from_slice(&$convert);
            }
            bytes
        }};
    }
    let raw: Vec<u8> = match tensor {
        Tensor::F16(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::BF16(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::F32(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::F64(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::I8(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::I16(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::I32(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::I64(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::U8(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::U16(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::U32(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::U64(a) => bytes!(a, v => v.to_le_bytes()),
        Tensor::Bool(a) => bytes!(a, v => [u8::from(*v)]),
    };
    #[expect(
        clippy::cast_possible_wrap,
        reason = "no tensor in memory has 2⁶³ elements"
    )]
    TensorProto {
        dims: tensor.shape().iter().map(|&extent| extent as i64).collect(),
        data_type: Some(tensor.dtype().to_onnx()),
        name: Some(name.into()),
        raw_data: Some(Bytes::from(raw)),
        ..TensorProto::default()
    }
}

fn build<T: Element>(shape: &[usize], elements: Option<Vec<T>>) -> Option<Tensor> {
    Tensor::new(shape, elements?)
}

/// Little-endian elements; `None` where the bytes are no whole number of them.
fn from_bytes<T: FromBytes>(raw: &[u8]) -> Option<Vec<T>> {
    raw.len().is_multiple_of(size_of::<T>()).then(|| {
        raw.chunks_exact(size_of::<T>())
            .map(T::from_bytes)
            .collect()
    })
}

trait FromBytes: Sized {
    /// Reads one element; `bytes` has just as many as the element.
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! from_bytes {
    ($($type:ty),*) => {$(
        impl FromBytes for $type {
            fn from_bytes(bytes: &[u8]) -> Self {
                bytes.try_into().map_or_else(|_| Default::default(), <$type>::from_le_bytes)
            }
        }
    )*};
}

from_bytes!(f16, bf16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_come_back_from_their_bytes() {
        let tensor = Tensor::new(&[2, 2], vec![1.5f32, -0.0, f32::MAX, 3e-40]).unwrap();
        assert_eq!(to_tensor(&from_tensor("t", &tensor)).unwrap(), tensor);
        let tensor = Tensor::new(&[3], vec![true, false, true]).unwrap();
        assert_eq!(to_tensor(&from_tensor("t", &tensor)).unwrap(), tensor);
    }

    #[test]
    fn typed_fields_are_read() {
        let half = TensorProto {
            dims: vec![2],
            data_type: Some(10),
            int32_data: vec![0x3c00, 0xc000],
            ..TensorProto::default()
        };
        assert_eq!(to_tensor(&half).unwrap().to_f64(), [1.0, -2.0]);
    }

    #[test]
    fn too_few_elements_are_refused_by_name() {
        let short = TensorProto {
            dims: vec![3],
            data_type: Some(1),
            name: Some("weight".into()),
            float_data: vec![1.0],
            ..TensorProto::default()
        };
        let message = to_tensor(&short).unwrap_err().to_string();
        assert!(
            message.contains("weight") && message.contains("[3]"),
            "{message}"
        );
    }
}
