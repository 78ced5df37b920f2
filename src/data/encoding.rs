//! Numbers as files store them.

use half::{bf16, f16};

use crate::tensor::DType;

/// An element type and the order of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    /// The type of an element.
    pub(super) dtype: DType,
    /// Whether the most significant byte comes first.
    pub(super) big_endian: bool,
}

/// A float that elements are decoded to.
pub(super) trait Decoded: Copy {
    /// The nearest value of this type.
    fn nearest(value: f64) -> Self;
}

impl Decoded for f32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounds to the nearest; what is too large becomes infinite"
    )]
    fn nearest(value: f64) -> Self {
        value as f32
    }
}

impl Decoded for f64 {
    fn nearest(value: f64) -> Self {
        value
    }
}

impl Encoding {
    /// Decodes the elements in `bytes` to `out`, as many as the shorter of the two holds.
    #[expect(
        clippy::cast_precision_loss,
        reason = "an integer above 2⁵³ is rounded, as every float of it would be"
    )]
    pub(super) fn decode<T: Decoded>(self, bytes: &[u8], out: &mut [T]) {
        match self.dtype {
            DType::F16 => self.each(bytes, out, |b| f16::from_le_bytes(b).to_f64()),
            DType::BF16 => self.each(bytes, out, |b| bf16::from_le_bytes(b).to_f64()),
            DType::F32 => self.each(bytes, out, |b| f32::from_le_bytes(b).into()),
            DType::F64 => self.each(bytes, out, f64::from_le_bytes),
            DType::I8 => self.each(bytes, out, |b| i8::from_le_bytes(b).into()),
            DType::I16 => self.each(bytes, out, |b| i16::from_le_bytes(b).into()),
            DType::I32 => self.each(bytes, out, |b| i32::from_le_bytes(b).into()),
            DType::I64 => self.each(bytes, out, |b| i64::from_le_bytes(b) as f64),
            DType::U8 => self.each(bytes, out, |b| u8::from_le_bytes(b).into()),
            DType::U16 => self.each(bytes, out, |b| u16::from_le_bytes(b).into()),
            DType::U32 => self.each(bytes, out, |b| u32::from_le_bytes(b).into()),
            DType::U64 => self.each(bytes, out, |b| u64::from_le_bytes(b) as f64),
            DType::Bool => self.each(bytes, out, |[b]: [u8; 1]| f64::from(u8::from(b != 0))),
        }
    }

    fn each<const N: usize, T: Decoded>(
        self,
        bytes: &[u8],
        out: &mut [T],
        value: impl Fn([u8; N]) -> f64,
    ) {
        let (elements, _) = bytes.as_chunks::<N>();
        if self.big_endian {
            for (out, element) in out.iter_mut().zip(elements) {
                let mut element = *element;
                element.reverse();
                *out = T::nearest(value(element));
            }
        } else {
            for (out, element) in out.iter_mut().zip(elements) {
                *out = T::nearest(value(*element));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(dtype: DType, big_endian: bool, bytes: &[u8]) -> Vec<f64> {
        let mut out = vec![0.0; bytes.len() / dtype.size()];
        Encoding { dtype, big_endian }.decode(bytes, &mut out);
        out
    }

    #[test]
    fn every_type_decodes_in_both_byte_orders() {
        macro_rules! check {
            ($($dtype:ident $value:expr => $expected:expr),* $(,)?) => {$(
                assert_eq!(decode(DType::$dtype, false, &$value.to_le_bytes()), [$expected], stringify!($dtype));
                assert_eq!(decode(DType::$dtype, true, &$value.to_be_bytes()), [$expected], stringify!($dtype));
            )*};
        }
        check! {
            F16 f16::from_f32(-1.5) => -1.5, BF16 bf16::from_f32(2.5) => 2.5, F32 0.1f32 => f64::from(0.1f32), F64 -0.3f64 => -0.3,
            I8 -7i8 => -7.0, I16 -300i16 => -300.0, I32 -70_000i32 => -70_000.0, I64 -5_000_000_000i64 => -5e9,
            U8 200u8 => 200.0, U16 60_000u16 => 60_000.0, U32 4_000_000_000u32 => 4e9, U64 1u64 << 40 => 1_099_511_627_776.0,
        }
        assert_eq!(decode(DType::Bool, false, &[0, 1, 2]), [0.0, 1.0, 1.0]);
    }

    #[test]
    fn a_double_is_rounded_to_the_nearest_float() {
        let mut out = [0.0f32];
        Encoding {
            dtype: DType::F64,
            big_endian: false,
        }
        .decode(&0.1f64.to_le_bytes(), &mut out);
        assert_eq!(out, [0.1f32]);
    }
}
