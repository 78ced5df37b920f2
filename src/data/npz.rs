//! NumPy's `.npz` files: zip archives of named arrays, compressed or not.
//!
//! The samples are the array `x`, the labels the array `y`, unless other names are given.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::arrays::{Arrays, StoredArray};
use super::error::{Error, Place};
use super::stream::{Member, Stream};
use super::{Contents, Flag, Reader, Source, npy};

const FORMAT: &str = "an .npz archive";

/// The reader of `.npz` archives.
pub(super) struct Npz;

impl Reader for Npz {
    fn name(&self) -> &'static str {
        ".npz"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".npz"]
    }

    fn flags(&self) -> &'static [Flag] {
        &[Flag::XKey, Flag::YKey]
    }

    fn recognises(&self, _: &Path, head: &[u8]) -> bool {
        head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
    }

    fn open(&self, source: &Source) -> Result<Box<dyn Contents>, Error> {
        let path = &source.path;
        let file = File::open(path).map_err(|source| Error::Io {
            place: Place::file(path),
            source,
        })?;
        let mut archive = ZipArchive::new(BufReader::new(file))
            .map_err(|error| zip_error(Place::file(path), error))?;
        let pixels = array(
            &mut archive,
            path,
            source.x_key.as_deref().unwrap_or("x"),
            "--x-key",
        )?;
        let labels = array(
            &mut archive,
            path,
            source.y_key.as_deref().unwrap_or("y"),
            "--y-key",
        )?;
        Ok(Box::new(Arrays::pair(pixels, labels)?))
    }
}

/// The array `key`, which is the member `key.npy`.
fn array(
    archive: &mut ZipArchive<BufReader<File>>,
    path: &Path,
    key: &str,
    flag: &'static str,
) -> Result<StoredArray, Error> {
    let place = Place::member(path, format!("array {key}"));
    let index = archive
        .index_for_name(&format!("{key}.npy"))
        .or_else(|| archive.index_for_name(key));
    let Some(index) = index else {
        return Err(Error::NoSuchArray {
            path: path.to_owned(),
            key: key.to_owned(),
            available: available(archive),
            flag,
        });
    };
    // Opened raw: only the position is wanted here, the bytes are read through `Stream`, which owns its file.
    let member = archive
        .by_index_raw(index)
        .map_err(|error| zip_error(place.clone(), error))?;
    let deflated = match member.compression() {
        CompressionMethod::Stored => false,
        CompressionMethod::Deflated => true,
        other => {
            let reason =
                format!("it is compressed with {other}: save it with numpy.savez_compressed");
            return Err(Error::Malformed {
                place,
                format: FORMAT,
                reason,
            });
        }
    };
    if member.encrypted() {
        let reason = "it is encrypted: save it without a password".to_owned();
        return Err(Error::Malformed {
            place,
            format: FORMAT,
            reason,
        });
    }
    let member = Member {
        start: member.data_start(),
        stored: member.compressed_size(),
        size: member.size(),
        deflated,
        crc32: member.crc32(),
    };
    npy::array(place, Stream::member(path, member))
}

fn available(archive: &ZipArchive<BufReader<File>>) -> String {
    let mut names: Vec<_> = archive
        .file_names()
        .map(|name| format!("`{}`", name.strip_suffix(".npy").unwrap_or(name)))
        .collect();
    names.sort_unstable();
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

fn zip_error(place: Place, error: ZipError) -> Error {
    match error {
        ZipError::Io(source) => Error::Io { place, source },
        other => Error::Malformed {
            place,
            format: FORMAT,
            reason: format!("{other}; is it cut off?"),
        },
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::fixtures::{
        Folder, archive, array, message, npy, npy_with_header, npz, npz_named, read,
    };
    use super::super::{Dataset, Source};
    use crate::tensor::DType;

    #[test]
    fn samples_come_back_as_they_were_written() {
        let folder = Folder::new();
        let x = array(&[3, 1, 2], vec![0u8, 1, 2, 127, 254, 255]);
        let y = array(&[3], vec![2i64, 0, 1]);
        for compressed in [false, true] {
            let dataset = folder.open("test.npz", &npz(&x, &y, compressed)).unwrap();
            assert_eq!(
                (dataset.len(), dataset.sample_shape(), dataset.dtype()),
                (3, &[1, 2][..], DType::U8)
            );
            let samples = read(&dataset).unwrap();
            assert_eq!(
                samples.iter().map(|s| s.index).collect::<Vec<_>>(),
                [0, 1, 2]
            );
            assert_eq!(
                samples.iter().map(|s| s.label).collect::<Vec<_>>(),
                [2, 0, 1]
            );
            assert_eq!(samples[1].pixels, [2.0, 127.0]);
            assert_eq!(
                read(&dataset).unwrap(),
                samples,
                "a second pass reads the same"
            );
        }
    }

    #[test]
    fn every_number_type_is_read() {
        let folder = Folder::new();
        let y = array(&[2], vec![0u8, 1]);
        macro_rules! check {
            ($($type:ty: $one:expr, $two:expr);* $(;)?) => {$(
                let x = array::<$type>(&[2, 1], vec![$one, $two]);
                let samples = read(&folder.open("test.npz", &npz(&x, &y, true)).unwrap()).unwrap();
                assert_eq!([samples[0].pixels[0], samples[1].pixels[0]], [1.0, 2.0], stringify!($type));
            )*};
        }
        check! { u8: 1, 2; i8: 1, 2; u16: 1, 2; i16: 1, 2; u32: 1, 2; i32: 1, 2; u64: 1, 2; i64: 1, 2; f32: 1.0, 2.0; f64: 1.0, 2.0 }
        let header = "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 1), }";
        let halves: Vec<u8> = [1.0, 2.0]
            .into_iter()
            .flat_map(|v| f16::from_f32(v).to_le_bytes())
            .collect();
        let bytes = archive(
            &[("x", npy_with_header(header, &halves)), ("y", npy(&y))],
            false,
        );
        let samples = read(&folder.open("test.npz", &bytes).unwrap()).unwrap();
        assert_eq!([samples[0].pixels[0], samples[1].pixels[0]], [1.0, 2.0]);
    }

    #[test]
    fn other_names_are_given_by_keys() {
        let folder = Folder::new();
        let (x, y) = (array(&[1, 1], vec![0.5f32]), array(&[1], vec![1i32]));
        let path = folder.write(
            "test.npz",
            &npz_named(("images", &x), ("labels", &y), false),
        );
        let keyed = Source {
            x_key: Some("images".to_owned()),
            y_key: Some("labels".to_owned()),
            ..Source::new(&path)
        };
        assert_eq!(Dataset::open(&keyed).unwrap().len(), 1);
        let error = message(Dataset::open(&Source::new(&path)).unwrap_err());
        assert!(
            error.ends_with(
                "has no array `x`, it holds `images`, `labels`: choose one with --x-key"
            ),
            "{error}"
        );
    }

    #[test]
    fn an_archive_that_is_cut_off_is_refused() {
        let folder = Folder::new();
        let (x, y) = (array(&[4, 9], vec![7u8; 36]), array(&[4], vec![0u8; 4]));
        for compressed in [false, true] {
            let bytes = npz(&x, &y, compressed);
            for length in 0..bytes.len() {
                assert!(
                    folder.open("test.npz", &bytes[..length]).is_err(),
                    "{length} of {} bytes",
                    bytes.len()
                );
            }
        }
    }

    #[test]
    fn a_flipped_byte_is_found_by_the_checksum() {
        let folder = Folder::new();
        let (x, y) = (
            array(&[4, 9], (0..36u8).collect()),
            array(&[4], vec![0u8; 4]),
        );
        let mut bytes = npz(&x, &y, false);
        let position = bytes
            .windows(3)
            .position(|bytes| bytes == [20, 21, 22])
            .unwrap();
        bytes[position] = 99;
        let error = folder
            .open("test.npz", &bytes)
            .unwrap()
            .validate(None, (0.0, 255.0))
            .unwrap_err();
        assert!(message(error).contains("(array x) is damaged near row 3"));
    }

    #[test]
    fn a_file_that_is_no_archive_is_refused_by_its_name() {
        let folder = Folder::new();
        let error = message(
            folder
                .open("test.npz", b"version https://example.org/pointer")
                .unwrap_err(),
        );
        assert!(
            error.contains("test.npz is not an .npz archive that mohs can read"),
            "{error}"
        );
    }

    #[test]
    fn lengths_that_differ_are_named() {
        let folder = Folder::new();
        let (x, y) = (array(&[3, 1], vec![0u8; 3]), array(&[2], vec![0u8; 2]));
        let error = message(folder.open("test.npz", &npz(&x, &y, true)).unwrap_err());
        assert!(
            error.contains("(array x) holds 3 samples, but")
                && error.contains("(array y) holds 2 labels")
        );
    }

    #[test]
    fn an_empty_array_is_refused() {
        let folder = Folder::new();
        for shape in [&[0, 4][..], &[4, 0]] {
            let (x, y) = (
                array(shape, Vec::<u8>::new()),
                array(&[0], Vec::<u8>::new()),
            );
            let error = message(folder.open("test.npz", &npz(&x, &y, false)).unwrap_err());
            assert!(error.contains("holds no samples"), "{error}");
        }
    }

    #[test]
    fn a_size_that_contradicts_the_header_is_refused() {
        let folder = Folder::new();
        let y = npy(&array(&[4], vec![0u8; 4]));
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 2), }";
        for (length, reason) in [
            (5, "is cut off in row 2 of 4"),
            (9, "goes on after the 4 rows"),
        ] {
            let x = npy_with_header(header, &vec![0; length]);
            let bytes = archive(&[("x", x), ("y", y.clone())], true);
            let error = message(folder.open("test.npz", &bytes).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }
}
