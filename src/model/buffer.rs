//! One row per slot, in a value that sessions take as it is.

use super::Error;
use super::runner::Feed;
use crate::runtime::Value;
use crate::tensor::DType;
use half::{bf16, f16};

/// The rows of an input.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) feed: Feed,
    pub(super) value: Value,
}

/// Runs `$body` with `$Element` standing for the type of the buffer's elements.
macro_rules! with_element {
    ($buffer:expr, $Element:ident => $body:expr) => {
        match $buffer.feed.dtype {
            DType::F32 => {
                type $Element = f32;
                $body
            }
            DType::F64 => {
                type $Element = f64;
                $body
            }
            DType::F16 => {
                type $Element = f16;
                $body
            }
            DType::BF16 => {
                type $Element = bf16;
                $body
            }
            DType::I64 => {
                type $Element = i64;
                $body
            }
            DType::I32 => {
                type $Element = i32;
                $body
            }
            other => {
                return Err(Error::Unsuitable(format!(
                    "inputs of type {other} are not supported here"
                )));
            }
        }
    };
}

/// A type that a sample's elements are brought to.
trait FromElement {
    fn from_element(element: f32) -> Self;
}

macro_rules! from_element {
    ($($type:ty: $element:ident => $convert:expr),* $(,)?) => {$(
        impl FromElement for $type {
            #[allow(clippy::cast_possible_truncation, reason = "integers are token ids: whole numbers that fit")]
            fn from_element($element: f32) -> Self {
                $convert
            }
        }
    )*};
}

from_element! {
    f32: element => element,
    f64: element => element.into(),
    f16: element => f16::from_f32(element),
    bf16: element => bf16::from_f32(element),
    i64: element => element as i64,
    i32: element => element as i32,
}

impl Buffer {
    /// Rows of zeros.
    pub(super) fn new(feed: Feed, slots: usize) -> Result<Self, Error> {
        let value = feed.value(slots, vec![0.0; slots * feed.width()])?;
        Ok(Buffer { feed, value })
    }

    /// Writes a row.
    pub(super) fn put(&mut self, slot: usize, row: &[f32]) -> Result<(), Error> {
        let range = self.range(slot);
        with_element!(self, Element => {
            let target = &mut self.value.as_mut_slice::<Element>()?[range];
            for (target, &element) in target.iter_mut().zip(row) {
                *target = Element::from_element(element);
            }
        });
        Ok(())
    }

    /// Writes an integer into a row of one 64-bit integer.
    pub(super) fn put_integer(&mut self, slot: usize, integer: i64) -> Result<(), Error> {
        self.value.as_mut_slice::<i64>()?[slot] = integer;
        Ok(())
    }

    /// A copy of a row.
    pub(super) fn row(&self, slot: usize) -> Result<Vec<f32>, Error> {
        let range = self.range(slot);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "samples are single precision"
        )]
        Ok(match self.feed.dtype {
            DType::F32 => self.value.as_slice::<f32>()?[range].to_vec(),
            DType::F16 => {
                let row = &self.value.as_slice::<f16>()?[range];
                row.iter().map(|value| value.to_f32()).collect()
            }
            _ => {
                let row = &self.value.to_tensor()?.to_f64()[range];
                row.iter().map(|&value| value as f32).collect()
            }
        })
    }

    /// Copies a row to another.
    pub(super) fn relocate(&mut self, from: usize, to: usize) -> Result<(), Error> {
        let (source, target) = (self.range(from), self.range(to).start);
        with_element!(self, Element => {
            self.value.as_mut_slice::<Element>()?.copy_within(source, target);
        });
        Ok(())
    }

    /// Takes a row of another buffer of the same input.
    pub(super) fn copy_row(&mut self, to: usize, other: &Buffer, from: usize) -> Result<(), Error> {
        let (source, target) = (other.range(from), self.range(to));
        with_element!(self, Element => {
            let row = &other.value.as_slice::<Element>()?[source];
            self.value.as_mut_slice::<Element>()?[target].copy_from_slice(row);
        });
        Ok(())
    }

    /// Another number of rows, of which the first are kept and those that are new are zeros.
    pub(super) fn resize(&mut self, slots: usize) -> Result<(), Error> {
        let mut other = Buffer::new(self.feed.clone(), slots)?;
        with_element!(self, Element => {
            let target = other.value.as_mut_slice::<Element>()?;
            let kept = target.iter_mut().zip(self.value.as_slice::<Element>()?);
            kept.for_each(|(target, &element)| *target = element);
        });
        self.value = other.value;
        Ok(())
    }

    fn range(&self, slot: usize) -> std::ops::Range<usize> {
        let width = self.feed.width();
        slot * width..(slot + 1) * width
    }
}
