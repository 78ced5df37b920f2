//! Bytes of data files, decompressed on the way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder};

const BUFFER: usize = 1 << 16;

/// What [`Stream::open`] gives: bytes that can be sent to another thread.
pub(super) type Bytes = Box<dyn BufRead + Send>;

/// A file, or a member of a zip archive, that can be read from its beginning any number of times.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    path: PathBuf,
    storage: Storage,
}

#[derive(Debug, Clone, Copy)]
enum Storage {
    Plain,
    Gzip,
    Member(Member),
}

/// Where a zip archive keeps a member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    /// The position of the first byte in the archive.
    pub(super) start: u64,
    /// The number of bytes in the archive.
    pub(super) stored: u64,
    /// The number of bytes after decompression, as the archive's directory says.
    pub(super) size: u64,
    /// Whether the bytes are compressed with Deflate.
    pub(super) deflated: bool,
    /// The checksum of the decompressed bytes.
    pub(super) crc32: u32,
}

impl Stream {
    /// The file at `path`, decompressed if its first bytes are those of gzip.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        let mut magic = Vec::new();
        File::open(path)?.take(2).read_to_end(&mut magic)?;
        let storage = if magic == [0x1f, 0x8b] {
            Storage::Gzip
        } else {
            Storage::Plain
        };
        Ok(Stream {
            path: path.to_owned(),
            storage,
        })
    }

    /// A member of the zip archive at `path`.
    pub(super) fn member(path: &Path, member: Member) -> Self {
        Stream {
            path: path.to_owned(),
            storage: Storage::Member(member),
        }
    }

    /// The number of bytes after decompression, where it is known without reading them.
    pub(super) fn size(&self) -> io::Result<Option<u64>> {
        Ok(match self.storage {
            Storage::Plain => Some(std::fs::metadata(&self.path)?.len()),
            Storage::Gzip => None,
            Storage::Member(member) => Some(member.size),
        })
    }

    /// The bytes from position `skip` on.
    /// A damaged stream shows as an error of kind `InvalidData` or `InvalidInput` while reading, at the latest at its end.
    pub(super) fn open(&self, skip: u64) -> io::Result<Bytes> {
        let mut file = File::open(&self.path)?;
        match self.storage {
            Storage::Plain => {
                file.seek(SeekFrom::Start(skip))?;
                Ok(Box::new(BufReader::with_capacity(BUFFER, file)))
            }
            Storage::Gzip => after(
                skip,
                MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file)),
            ),
            Storage::Member(member) => {
                file.seek(SeekFrom::Start(member.start))?;
                let stored = BufReader::with_capacity(BUFFER, file.take(member.stored));
                if member.deflated {
                    after(skip, Summed::new(DeflateDecoder::new(stored), member.crc32))
                } else {
                    after(skip, Summed::new(stored, member.crc32))
                }
            }
        }
    }
}

/// `reader` without its first `skip` bytes.
fn after(skip: u64, reader: impl Read + Send + 'static) -> io::Result<Bytes> {
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    io::copy(&mut reader.by_ref().take(skip), &mut io::sink())?;
    Ok(Box::new(reader))
}

/// A reader that fails at its end unless the bytes have the expected checksum.
struct Summed<R> {
    inner: R,
    sum: Crc,
    expected: u32,
}

impl<R> Summed<R> {
    fn new(inner: R, expected: u32) -> Self {
        Summed {
            inner,
            sum: Crc::new(),
            expected,
        }
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sum.update(buffer.get(..count).unwrap_or_default());
        if count == 0 && !buffer.is_empty() && self.sum.sum() != self.expected {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the checksum differs",
            ));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_gzipped_file_reads_as_its_content_from_any_position() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let plain = folder.path().join("plain");
        std::fs::write(&plain, &content).unwrap();
        let zipped = folder.path().join("zipped");
        let mut encoder = flate2::write::GzEncoder::new(
            File::create(&zipped).unwrap(),
            flate2::Compression::fast(),
        );
        encoder.write_all(&content).unwrap();
        encoder.finish().unwrap();
        for path in [plain, zipped] {
            for skip in [0, 1, 100_000, content.len()] {
                let mut read = Vec::new();
                let stream = Stream::file(&path).unwrap();
                stream
                    .open(skip as u64)
                    .unwrap()
                    .read_to_end(&mut read)
                    .unwrap();
                assert!(read == content[skip..], "from {skip}");
            }
        }
    }

    #[test]
    fn a_wrong_checksum_is_an_error_at_the_end() {
        let mut sum = Crc::new();
        sum.update(b"content");
        let mut read = Vec::new();
        assert!(
            Summed::new(&b"content"[..], sum.sum())
                .read_to_end(&mut read)
                .is_ok()
        );
        let error = Summed::new(&b"contend"[..], sum.sum())
            .read_to_end(&mut read)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
