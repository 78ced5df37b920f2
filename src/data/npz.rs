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
