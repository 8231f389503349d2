//! Decompression of layers, told by their first bytes: media types lie.
//!
//! Invariant: memory is bounded by the window of the format, whatever a stream claims.

use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The largest window of a zstd frame, in bytes: what `zstd` itself accepts by default.
const WINDOW: u64 = 128 << 20;

/// Gives the content of a stream that is compressed by gzip or zstd, or as it is.
pub(crate) fn decompress<'a>(from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut from = BufReader::with_capacity(128 << 10, from);
    // A first read may give less than four bytes; no format has a name shorter than that.
    let start = from.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(from)));
    }
    let is_frame = |magic: &[u8; 4]| {
        let magic = u32::from_le_bytes(*magic);
        magic == 0xfd2f_b528 || magic & 0xffff_fff0 == 0x184d_2a50
    };
    if start.first_chunk().is_some_and(is_frame) {
        return Ok(Box::new(Frames { from, frame: None }));
    }
    Ok(Box::new(from))
}

/// The frames of a zstd stream, one after the other.
struct Frames<R> {
    from: R,
    frame: Option<FrameDecoder>,
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame with content; `false` at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.from.fill_buf()?.is_empty() {
            let mut decoder = self.frame.take().unwrap_or_else(|| {
                let mut decoder = FrameDecoder::new();
                decoder.set_max_window_size(WINDOW);
                decoder
            });
            match decoder.reset(&mut self.from) {
                Ok(()) => {
                    self.frame = Some(decoder);
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let mut skipped = (&mut self.from).take(length);
                    if io::copy(&mut skipped, &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(decoder) = &mut self.frame else {
                if !self.begin()? {
                    return Ok(0);
                }
                continue;
            };
            if decoder.can_collect() > 0 {
                return decoder.read(buffer);
            }
            if decoder.is_finished() {
                let (said, found) = (
                    decoder.get_checksum_from_data(),
                    decoder.get_calculated_checksum(),
                );
                if said.is_some() && said != found {
                    return Err(io::Error::other("a zstd frame has another checksum"));
                }
                if !self.begin()? {
                    self.frame = None;
                    return Ok(0);
                }
                continue;
            }
            decoder
                .decode_blocks(&mut self.from, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(io::Error::other)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn streams_of_several_parts_are_read_to_their_end() {
        let (one, two) = (vec![7_u8; 300_000], b"the second".to_vec());
        let whole = [&one[..], &two].concat();
        assert_eq!(all(&[gzip(&one), gzip(&two)].concat()).unwrap(), whole);
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames = [zstd(&one), skipped.to_vec(), zstd(&two), skipped.to_vec()].concat();
        assert_eq!(all(&frames).unwrap(), whole);
        let led = [skipped.to_vec(), zstd(&whole)].concat();
        assert_eq!(all(&led).unwrap(), whole);
        assert_eq!(all(b"plain").unwrap(), b"plain");
        assert_eq!(all(b"").unwrap(), b"");
    }

    #[test]
    fn a_stream_that_is_cut_short_or_altered_is_an_error() {
        for sound in [gzip(&vec![1; 100_000]), zstd(&vec![1; 100_000])] {
            assert!(all(&sound).is_ok());
            let step = sound.len() / 40 + 1;
            for length in (4..sound.len()).step_by(step).chain([sound.len() - 1]) {
                assert!(
                    all(&sound[..length]).is_err(),
                    "{length} of {}",
                    sound.len()
                );
            }
        }
        let mut altered = gzip(b"some content that is checked");
        let middle = altered.len() - 6;
        altered[middle] ^= 1;
        assert!(all(&altered).is_err());
    }
}
