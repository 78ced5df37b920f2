//! NumPy's `.npy` files: one array each, so data and labels come as a pair.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//! The labels are given as `x.npy,y.npy`, or found beside the data by name (`x_test.npy` and `y_test.npy`, `test_images.npy`
//! and `test_labels.npy`, else `NAME.npy` and `NAME_labels.npy`).

use std::io::{self, Read};
use std::path::Path;

use super::arrays::{Arrays, StoredArray};
use super::encoding::Encoding;
use super::error::{Error, Place};
use super::npy_header::Header;
use super::source::labels_beside;
use super::stream::Stream;
use super::{Contents, Flag, Reader, Source};
use crate::tensor::DType;

const FORMAT: &str = "a .npy array";
const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that is read; NumPy's own limit is 10,000 bytes.
const LONGEST_HEADER: u32 = 1 << 16;

/// The reader of `.npy` pairs.
pub(super) struct Npy;

impl Reader for Npy {
    fn name(&self) -> &'static str {
        ".npy pair"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".npy"]
    }

    fn flags(&self) -> &'static [Flag] {
        &[Flag::Labels]
    }

    fn recognises(&self, _: &Path, head: &[u8]) -> bool {
        head.starts_with(MAGIC)
    }

    fn open(&self, source: &Source) -> Result<Box<dyn Contents>, Error> {
        let pixels = array_file(&source.path)?;
        let labels = match &source.labels {
            Some(labels) => labels.clone(),
            None => {
                let expected = labels_beside(&source.path);
                if !expected.exists() {
                    return Err(Error::NoLabelsFile {
                        path: source.path.clone(),
                        expected,
                    });
                }
                expected
            }
        };
        Ok(Box::new(Arrays::pair(pixels, array_file(&labels)?)?))
    }
}

fn array_file(path: &Path) -> Result<StoredArray, Error> {
    let place = Place::file(path);
    let stream = Stream::file(path).map_err(|source| Error::Io {
        place: place.clone(),
        source,
    })?;
    array(place, stream)
}

/// The array whose header stands at the beginning of `stream`.
pub(super) fn array(place: Place, stream: Stream) -> Result<StoredArray, Error> {
    let read = stream.open(0).and_then(|mut bytes| read_header(&mut bytes));
    let (start, header) = read.map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            malformed(&place, format!("its header cannot be read ({source})"))
        }
        _ => Error::Io {
            place: place.clone(),
            source,
        },
    })?;
    let header = Header::parse(&header).map_err(|reason| malformed(&place, reason))?;
    let encoding = encoding(&place, &header.descr)?;
    if header.fortran_order && header.shape.len() > 1 {
        return Err(Error::FortranOrder { place });
    }
    if header.shape.is_empty() {
        return Err(malformed(
            &place,
            "it is a single number, not one entry per sample".to_owned(),
        ));
    }
    Ok(StoredArray {
        place,
        stream,
        start,
        encoding,
        shape: header.shape,
    })
}

fn malformed(place: &Place, reason: String) -> Error {
    Error::Malformed {
        place: place.clone(),
        format: FORMAT,
        reason,
    }
}

/// The number of bytes before the elements, and the header's text.
fn read_header(bytes: &mut impl Read) -> io::Result<(u64, String)> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let mut magic = [0; 6];
    bytes.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(invalid("it does not begin with the magic of .npy"));
    }
    let [major, _minor] = read_array(bytes)?;
    let (before, length) = match major {
        1 => (10, u16::from_le_bytes(read_array(bytes)?).into()),
        2 | 3 => (12, u32::from_le_bytes(read_array(bytes)?)),
        _ => return Err(invalid("its version is not 1, 2 or 3")),
    };
    if length > LONGEST_HEADER {
        return Err(invalid("it is longer than 65536 bytes"));
    }
    let mut text = Vec::new();
    bytes.take(length.into()).read_to_end(&mut text)?;
    if text.len() as u64 != u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8(text).map_err(|_| invalid("it is not text"))?;
    Ok((before + u64::from(length), text))
}

fn read_array<const N: usize>(bytes: &mut impl Read) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    bytes.read_exact(&mut array)?;
    Ok(array)
}

/// The element type that NumPy writes as `descr`, for example `<f4`.
fn encoding(place: &Place, descr: &str) -> Result<Encoding, Error> {
    let (order, kind) = match descr.split_at_checked(1) {
        Some(("<" | ">" | "|" | "=", kind)) => descr.split_at(descr.len() - kind.len()),
        _ => ("", descr),
    };
    let dtype = match kind {
        "b1" => DType::Bool,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        _ if kind.starts_with('O') => {
            return Err(Error::Pickled {
                place: place.clone(),
            });
        }
        _ => {
            return Err(Error::UnsupportedType {
                place: place.clone(),
                dtype: descr.to_owned(),
            });
        }
    };
    let native_is_big = cfg!(target_endian = "big");
    let big_endian = order == ">" || (order == "=" && native_is_big);
    Ok(Encoding { dtype, big_endian })
}

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::super::fixtures::{Folder, array, message, npy, npy_with_header, read};
    use super::*;

    #[test]
    fn a_pair_is_read_by_its_names_or_as_given() {
        let folder = Folder::new();
        let path = folder.write(
            "x_test.npy",
            &npy(&array(&[2, 2], vec![0.0f32, 0.25, 0.5, 1.0])),
        );
        let labels = npy(&array(&[2, 1], vec![3i32, 4]));
        folder.write("y_test.npy", &labels);
        let other = folder.write("other.npy", &labels);
        let pair = Source {
            labels: Some(other),
            ..Source::new(&path)
        };
        for source in [Source::new(&path), pair] {
            let samples = read(&Dataset::open(&source).unwrap()).unwrap();
            assert_eq!(samples[1].pixels, [0.5, 1.0]);
            assert_eq!(samples.iter().map(|s| s.label).collect::<Vec<_>>(), [3, 4]);
        }
    }

    #[test]
    fn missing_labels_say_where_they_were_looked_for() {
        let folder = Folder::new();
        let error = message(
            folder
                .open("x.npy", &npy(&array(&[1, 1], vec![0u8])))
                .unwrap_err(),
        );
        assert!(
            error.contains("y.npy does not exist; give both files as DATA,LABELS"),
            "{error}"
        );
    }

    fn refusal(header: &str, data: &[u8]) -> String {
        let folder = Folder::new();
        folder.write("y.npy", &npy(&array(&[2], vec![0u8, 1])));
        message(
            folder
                .open("x.npy", &npy_with_header(header, data))
                .unwrap_err(),
        )
    }

    #[test]
    fn pickled_objects_are_refused() {
        let error = refusal(
            "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
            b"\x80\x04",
        );
        assert!(error.contains("pickled"), "{error}");
    }

    #[test]
    fn fortran_order_is_refused_with_the_way_out() {
        let error = refusal(
            "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 2), }",
            &[0; 4],
        );
        assert!(error.contains("ascontiguousarray"), "{error}");
    }

    #[test]
    fn other_elements_are_refused_by_name() {
        assert!(
            refusal(
                "{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }",
                &[0; 16]
            )
            .contains("<c8")
        );
        assert!(
            refusal(
                "{'descr': '<U3', 'fortran_order': False, 'shape': (2,), }",
                &[0; 24]
            )
            .contains("<U3")
        );
        assert!(
            refusal(
                "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
                &[0; 8]
            )
            .contains("records")
        );
    }

    #[test]
    fn a_header_that_asks_for_too_much_memory_is_refused() {
        let axis = u64::MAX;
        let error = refusal(
            &format!("{{'descr': '|u1', 'fortran_order': False, 'shape': (2, {axis}, 3), }}"),
            &[0],
        );
        assert!(error.contains("at most 268435456 values"), "{error}");
        let error = refusal(
            &format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({axis}, 3), }}"),
            &[0; 7],
        );
        assert!(error.contains("cut off in row 2 of"), "{error}");
    }

    #[test]
    fn one_hot_labels_are_their_positions() {
        let folder = Folder::new();
        folder.write(
            "y.npy",
            &npy(&array(&[2, 3], vec![0.0f64, 0.0, 1.0, 1.0, 0.0, 0.0])),
        );
        let dataset = folder
            .open("x.npy", &npy(&array(&[2, 1], vec![0u8, 1])))
            .unwrap();
        assert_eq!(
            read(&dataset)
                .unwrap()
                .iter()
                .map(|s| s.label)
                .collect::<Vec<_>>(),
            [2, 0]
        );
        assert!(dataset.notes().any(|note| note.contains("one-hot")));
    }

    #[test]
    fn labels_that_are_no_classes_name_the_row() {
        for (labels, reason) in [
            (
                npy(&array(&[2], vec![0i64, -1])),
                "row 1: the label -1 is negative",
            ),
            (
                npy(&array(&[2], vec![0.0f32, 0.5])),
                "row 1: the label 0.5 is not a whole number",
            ),
            (
                npy(&array(&[2], vec![0.0f32, f32::NAN])),
                "row 1: the label is NaN",
            ),
            (
                npy(&array(&[2, 2], vec![0.0f32, 1.0, 0.5, 0.5])),
                "row 1: the label vector of length 2 is not one-hot",
            ),
            (
                npy(&array(&[2, 1, 2], vec![0u8; 4])),
                "labels are one class number [n] or one-hot vector",
            ),
        ] {
            let folder = Folder::new();
            folder.write("y.npy", &labels);
            let opened = folder.open("x.npy", &npy(&array(&[2, 1], vec![0u8, 1])));
            let error = message(
                opened
                    .and_then(|dataset| dataset.validate(None, (0.0, 1.0)))
                    .unwrap_err(),
            );
            assert!(error.contains(reason), "{error}");
        }
    }
}
