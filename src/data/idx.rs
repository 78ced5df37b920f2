//! IDX files, the format of MNIST and its successors, also gzipped: one array each, so images and labels come as a pair.
//!
//! Format: <https://yann.lecun.com/exdb/mnist/>. Bytes 0, 0, element type, number of axes; one big-endian 32-bit extent per axis;
//! the elements in row-major order, most significant byte first.
//! The labels are given as `IMAGES,LABELS`, or found beside the images by MNIST's naming (`t10k-images-idx3-ubyte.gz` and
//! `t10k-labels-idx1-ubyte.gz`), with or without `.gz`.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::arrays::{Arrays, StoredArray};
use super::encoding::Encoding;
use super::error::{Error, Place};
use super::source::labels_beside;
use super::stream::Stream;
use super::{Contents, Flag, Reader, Source};
use crate::tensor::DType;

const FORMAT: &str = "an IDX file";

/// The reader of IDX pairs.
pub(super) struct Idx;

impl Reader for Idx {
    fn name(&self) -> &'static str {
        "IDX (-ubyte, also .gz)"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["-ubyte", ".idx"]
    }

    fn flags(&self) -> &'static [Flag] {
        &[Flag::Labels]
    }

    fn recognises(&self, _: &Path, head: &[u8]) -> bool {
        matches!(*head, [0, 0, element, 1..=8, ..] if dtype(element).is_some())
    }

    fn open(&self, source: &Source) -> Result<Box<dyn Contents>, Error> {
        let pixels = array(&source.path)?;
        if pixels.shape.len() == 1 {
            let reason =
                "it has a single axis, as labels have: give the file with the images".to_owned();
            return Err(Error::Malformed {
                place: pixels.place,
                format: FORMAT,
                reason,
            });
        }
        let labels = match &source.labels {
            Some(labels) => labels.clone(),
            None => labels_file(&source.path)?,
        };
        Ok(Box::new(Arrays::pair(pixels, array(&labels)?)?))
    }
}

/// The labels' file beside the images, gzipped or not, whatever the images are.
fn labels_file(images: &Path) -> Result<PathBuf, Error> {
    let expected = labels_beside(images);
    let other = if expected
        .extension()
        .is_some_and(|extension| extension == "gz")
    {
        expected.with_extension("")
    } else {
        let mut name = OsString::from(&expected);
        name.push(".gz");
        name.into()
    };
    let found = [&expected, &other]
        .into_iter()
        .find(|path| path.exists() && path.as_path() != images)
        .cloned();
    found.ok_or_else(|| Error::NoLabelsFile {
        path: images.to_owned(),
        expected,
    })
}

fn array(path: &Path) -> Result<StoredArray, Error> {
    let place = Place::file(path);
    let stream = Stream::file(path).map_err(|source| Error::Io {
        place: place.clone(),
        source,
    })?;
    let read = stream.open(0).and_then(|mut bytes| read_header(&mut bytes));
    let (dtype, shape) = read.map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            let reason = format!("its header cannot be read ({source})");
            Error::Malformed {
                place: place.clone(),
                format: FORMAT,
                reason,
            }
        }
        _ => Error::Io {
            place: place.clone(),
            source,
        },
    })?;
    let start = 4 + 4 * shape.len() as u64;
    Ok(StoredArray {
        place,
        stream,
        start,
        encoding: Encoding {
            dtype,
            big_endian: true,
        },
        shape,
    })
}

fn read_header(bytes: &mut impl Read) -> io::Result<(DType, Vec<u64>)> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let mut magic = [0; 4];
    bytes.read_exact(&mut magic)?;
    let [0, 0, element, axes @ 1..=u8::MAX] = magic else {
        return Err(invalid(
            "it does not begin with 0, 0, an element type and the number of axes",
        ));
    };
    let dtype = dtype(element).ok_or_else(|| invalid("its element type is unknown"))?;
    let mut shape = Vec::new();
    for _ in 0..axes {
        let mut extent = [0; 4];
        bytes.read_exact(&mut extent)?;
        shape.push(u32::from_be_bytes(extent).into());
    }
    Ok((dtype, shape))
}

fn dtype(element: u8) -> Option<DType> {
    Some(match element {
        0x08 => DType::U8,
        0x09 => DType::I8,
        0x0b => DType::I16,
        0x0c => DType::I32,
        0x0d => DType::F32,
        0x0e => DType::F64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::super::fixtures::{Folder, gzip, idx, message, read};
    use super::*;

    const IMAGES: &str = "t10k-images-idx3-ubyte";
    const LABELS: &str = "t10k-labels-idx1-ubyte";

    fn images() -> Vec<u8> {
        idx(0x08, &[2, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 255])
    }

    #[test]
    fn images_and_labels_are_paired_by_name_gzipped_or_not() {
        for (images_gz, labels_gz) in [(false, false), (true, true), (true, false), (false, true)] {
            let folder = Folder::new();
            let file = |name: &str, bytes: Vec<u8>, gz: bool| {
                let bytes = if gz { gzip(&bytes) } else { bytes };
                folder.write(&format!("{name}{}", if gz { ".gz" } else { "" }), &bytes)
            };
            let path = file(IMAGES, images(), images_gz);
            file(LABELS, idx(0x08, &[2], &[7, 9]), labels_gz);
            let dataset = Dataset::open(&Source::new(path)).unwrap();
            assert_eq!(dataset.sample_shape(), [2, 2]);
            let samples = read(&dataset).unwrap();
            assert_eq!(
                (samples[1].label, &*samples[1].pixels),
                (9, &[4.0, 5.0, 6.0, 255.0][..])
            );
        }
    }

    #[test]
    fn elements_are_big_endian() {
        let folder = Folder::new();
        let data: Vec<u8> = [0.5f32, -1.0]
            .into_iter()
            .flat_map(f32::to_be_bytes)
            .collect();
        let labels = folder.write("any", &idx(0x0c, &[2], &[0, 0, 1, 0, 0, 0, 0, 2]));
        let path = folder.write("some", &idx(0x0d, &[2, 1], &data));
        let samples = read(
            &Dataset::open(&Source {
                labels: Some(labels),
                ..Source::new(path)
            })
            .unwrap(),
        )
        .unwrap();
        assert_eq!((samples[0].label, samples[0].pixels[0]), (256, 0.5));
        assert_eq!((samples[1].label, samples[1].pixels[0]), (2, -1.0));
    }

    #[test]
    fn missing_labels_say_where_they_were_looked_for() {
        let folder = Folder::new();
        let error = message(folder.open(IMAGES, &images()).unwrap_err());
        assert!(
            error.contains("t10k-labels-idx1-ubyte does not exist"),
            "{error}"
        );
    }

    #[test]
    fn labels_are_no_images() {
        let error = message(
            Folder::new()
                .open(LABELS, &idx(0x08, &[2], &[7, 9]))
                .unwrap_err(),
        );
        assert!(error.contains("give the file with the images"), "{error}");
    }

    #[test]
    fn a_file_that_is_cut_off_names_the_row() {
        let folder = Folder::new();
        folder.write(LABELS, &idx(0x08, &[2], &[7, 9]));
        let bytes = images();
        let cut = &bytes[..bytes.len() - 1];
        let error = message(folder.open(IMAGES, cut).unwrap_err());
        assert!(error.contains("is cut off in row 1 of 2"), "{error}");
        // The size of gzipped content shows only while reading.
        for bytes in [gzip(cut), gzip(&bytes)[..30].to_vec()] {
            let dataset = folder.open(&format!("{IMAGES}.gz"), &bytes);
            let error = message(
                dataset
                    .and_then(|dataset| dataset.validate(None, (0.0, 255.0)))
                    .unwrap_err(),
            );
            assert!(error.contains("is cut off in row"), "{error}");
        }
    }

    #[test]
    fn gzipped_content_that_goes_on_is_refused() {
        let folder = Folder::new();
        folder.write(LABELS, &idx(0x08, &[2], &[7, 9]));
        let mut bytes = images();
        bytes.push(0);
        let dataset = folder.open(&format!("{IMAGES}.gz"), &gzip(&bytes)).unwrap();
        let error = message(dataset.validate(None, (0.0, 255.0)).unwrap_err());
        assert!(error.contains("goes on after the 2 rows"), "{error}");
    }

    #[test]
    fn a_damaged_gzip_file_is_found_by_its_checksum() {
        let folder = Folder::new();
        folder.write(LABELS, &idx(0x08, &[2], &[7, 9]));
        let mut bytes = gzip(&images());
        let checksum = bytes.len() - 8;
        bytes[checksum] ^= 1;
        let dataset = folder.open(&format!("{IMAGES}.gz"), &bytes).unwrap();
        let error = message(dataset.validate(None, (0.0, 255.0)).unwrap_err());
        assert!(error.contains("is damaged near row 1"), "{error}");
    }
}
