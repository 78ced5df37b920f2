//! Data files for the tests of this module.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{WritableElement, WriteNpyExt};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{Dataset, Error, Sample, Source};

/// A folder that is removed at the end of the test.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(super) fn open(&self, name: &str, bytes: &[u8]) -> Result<Dataset, Error> {
        Dataset::open(&Source::new(self.write(name, bytes)))
    }
}

pub(super) fn array<T>(shape: &[usize], data: Vec<T>) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(shape), data).unwrap()
}

pub(super) fn npy<T: WritableElement>(array: &ArrayD<T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    array.write_npy(&mut bytes).unwrap();
    bytes
}

/// A `.npy` file with any header.
pub(super) fn npy_with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

pub(super) fn npz<X: WritableElement, Y: WritableElement>(
    x: &ArrayD<X>,
    y: &ArrayD<Y>,
    compressed: bool,
) -> Vec<u8> {
    npz_named(("x", x), ("y", y), compressed)
}

pub(super) fn npz_named<X: WritableElement, Y: WritableElement>(
    (x_key, x): (&str, &ArrayD<X>),
    (y_key, y): (&str, &ArrayD<Y>),
    compressed: bool,
) -> Vec<u8> {
    archive(&[(x_key, npy(x)), (y_key, npy(y))], compressed)
}

/// A zip archive of `.npy` members.
pub(super) fn archive(members: &[(&str, Vec<u8>)], compressed: bool) -> Vec<u8> {
    let method = if compressed {
        CompressionMethod::Deflated
    } else {
        CompressionMethod::Stored
    };
    let options = SimpleFileOptions::default().compression_method(method);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (key, bytes) in members {
        writer.start_file(format!("{key}.npy"), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// An IDX file with elements of type `element`, already big-endian.
pub(super) fn idx(element: u8, shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, element, u8::try_from(shape.len()).unwrap()];
    bytes.extend(shape.iter().flat_map(|axis| axis.to_be_bytes()));
    bytes.extend(data);
    bytes
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn read(dataset: &Dataset) -> Result<Vec<Sample>, Error> {
    dataset.samples()?.collect()
}

/// Opens and reads everything; only whether it panics matters.
pub(super) fn exercise(path: &Path) -> Result<u64, Error> {
    let dataset = Dataset::open(&Source {
        limit: Some(1000),
        ..Source::new(path)
    })?;
    let checked = dataset.validate(Some(10), (0.0, 255.0))?;
    Ok(checked.samples)
}

/// The message of an error as the command line prints it, causes included.
pub(super) fn message(error: Error) -> String {
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
        error.source()
    });
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
