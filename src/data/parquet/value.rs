//! What a field of a row holds: an encoded image, or nested lists of numbers.

use parquet::record::Field;

use super::super::picture::Target;
use crate::tensor::DType;

/// What a sample is made from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Encoded images.
    Pictures(Target),
    /// Lists of numbers, of this shape.
    Numbers(Vec<usize>),
}

impl Kind {
    /// What the samples are, by the first of them, and the type of their values.
    pub(super) fn of(field: &Field) -> Result<(Self, DType), String> {
        match encoded(field) {
            Some(bytes) => Ok((Kind::Pictures(Target::of_image(bytes)?), DType::U8)),
            None => shape(field).map(|(shape, dtype)| (Kind::Numbers(shape), dtype)),
        }
    }

    /// The shape of a sample.
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Kind::Pictures(target) => target.shape(),
            Kind::Numbers(shape) => shape.clone(),
        }
    }

    /// Writes a sample's values.
    pub(super) fn read(&self, field: &Field, pixels: &mut [f32]) -> Result<(), String> {
        match self {
            Kind::Pictures(target) => {
                let bytes = encoded(field)
                    .ok_or("the image has no bytes; store images in the file, not their paths")?;
                target.read(bytes, pixels)
            }
            Kind::Numbers(shape) => flatten(field, shape, &mut pixels.iter_mut()),
        }
    }
}

/// The bytes of an encoded image: of the column itself, or of its member `bytes`.
fn encoded(field: &Field) -> Option<&[u8]> {
    match field {
        Field::Bytes(bytes) => Some(bytes.data()),
        Field::Group(row) => {
            let mut members = row.get_column_iter();
            members
                .find(|(name, _)| *name == "bytes")
                .and_then(|(_, field)| match field {
                    Field::Bytes(bytes) => Some(bytes.data()),
                    _ => None,
                })
        }
        _ => None,
    }
}

/// A number, and the type that it has in the file.
pub(super) fn number(field: &Field) -> Option<(f64, DType)> {
    Some(match *field {
        Field::Byte(value) => (value.into(), DType::I8),
        Field::Short(value) => (value.into(), DType::I16),
        Field::Int(value) => (value.into(), DType::I32),
        Field::Long(value) => (value as f64, DType::I64),
        Field::UByte(value) => (value.into(), DType::U8),
        Field::UShort(value) => (value.into(), DType::U16),
        Field::UInt(value) => (value.into(), DType::U32),
        Field::ULong(value) => (value as f64, DType::U64),
        Field::Float16(value) => (value.to_f64(), DType::F16),
        Field::Float(value) => (value.into(), DType::F32),
        Field::Double(value) => (value, DType::F64),
        _ => return None,
    })
}

/// The shape of nested lists, by the first of each, and the type of their numbers.
fn shape(field: &Field) -> Result<(Vec<usize>, DType), String> {
    if let Some((_, dtype)) = number(field) {
        return Ok((Vec::new(), dtype));
    }
    let Field::ListInternal(list) = field else {
        return Err("it holds neither an image's bytes nor a list of numbers; choose another column with --x-key".into());
    };
    let first = list.elements().first().ok_or("the list is empty")?;
    let (mut inner, dtype) = shape(first)?;
    inner.insert(0, list.len());
    Ok((inner, dtype))
}

/// Writes nested lists of just this shape, row by row.
fn flatten(
    field: &Field,
    shape: &[usize],
    values: &mut std::slice::IterMut<'_, f32>,
) -> Result<(), String> {
    match (shape, field) {
        ([], field) => {
            let (number, _) = number(field).ok_or("a value is missing or no number")?;
            #[expect(clippy::cast_possible_truncation, reason = "models compute in float32")]
            let single = number as f32;
            if let Some(value) = values.next() {
                *value = single;
            }
            Ok(())
        }
        ([length, rest @ ..], Field::ListInternal(list)) if list.len() == *length => list
            .elements()
            .iter()
            .try_for_each(|element| flatten(element, rest, values)),
        ([length, ..], Field::ListInternal(list)) => Err(format!(
            "a list has {} elements, and that of the first row {length}",
            list.len()
        )),
        _ => Err("a list is missing".into()),
    }
}
