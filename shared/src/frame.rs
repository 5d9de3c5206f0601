//! Length-prefixed frames over a byte stream: a u32 (little endian) that counts the bytes that follow, then
//! one encoded message. The cap is checked before anything is allocated for the frame.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

use crate::codec::{self, CodecError, MAX_MESSAGE};

/// Bytes of the length prefix.
pub const PREFIX: usize = 4;

/// The largest frame that a worker may send to the supervisor: a window of ten seconds and its header fit, and so do
/// the longest state and the scores of one window. Batches are cut so that their answers fit.
pub const MAX_FROM_WORKER: usize = 512 << 10;

/// The largest frame that the supervisor sends; batches are cut so that they fit.
pub const MAX_TO_WORKER: usize = MAX_MESSAGE;

/// What is wrong with a frame, or with the stream that should have carried it.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {len} bytes is larger than the {max} allowed")]
    TooLarge { len: usize, max: usize },
    #[error("stream ended in the middle of a frame")]
    Truncated,
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Appends one frame to `out`; on error `out` is as it was.
pub fn encode_frame<T: Serialize>(message: &T, max: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let result = codec::encode_into(message, out).map_err(FrameError::from).and_then(|()| {
        let len = out.len() - start - PREFIX;
        match u32::try_from(len) {
            Ok(prefix) if len <= max => Ok(prefix),
            _ => Err(FrameError::TooLarge { len, max }),
        }
    });
    match result {
        Ok(prefix) => {
            out[start..start + PREFIX].copy_from_slice(&prefix.to_le_bytes());
            Ok(())
        }
        Err(e) => {
            out.truncate(start);
            Err(e)
        }
    }
}

/// Writes one frame to a blocking stream.
pub fn write_frame<T: Serialize>(stream: &mut impl Write, message: &T, max: usize) -> Result<(), FrameError> {
    let mut bytes = Vec::new();
    encode_frame(message, max, &mut bytes)?;
    stream.write_all(&bytes)?;
    Ok(stream.flush()?)
}

/// Reads one frame from a blocking stream; `None` when the stream ended between two frames.
pub fn read_frame<T: DeserializeOwned>(stream: &mut impl Read, max: usize) -> Result<Option<T>, FrameError> {
    let mut prefix = [0; PREFIX];
    let mut got = 0;
    while got < PREFIX {
        match stream.read(&mut prefix[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let len = u32::from_le_bytes(prefix) as usize;
    if len > max {
        return Err(FrameError::TooLarge { len, max });
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Truncated,
        _ => FrameError::Io(e),
    })?;
    Ok(Some(codec::decode(&bytes)?))
}

/// Reassembles frames from a non-blocking stream, without ever holding more than one frame beyond what was
/// fed in.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    consumed: usize,
    max: usize,
}

impl FrameBuffer {
    /// A buffer that refuses frames of more than `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), consumed: 0, max }
    }

    /// Adds bytes as they came from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.bytes.drain(..self.consumed);
            self.consumed = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// As [`feed`](Self::feed) and [`next_frame`](Self::next_frame) in one: takes what it needs from the front of `fresh`,
    /// bytes as they came from the stream. A frame that is whole there is decoded where it is, and only what is left of one
    /// that is not is kept.
    pub fn next_frame_of<T: DeserializeOwned>(&mut self, fresh: &mut &[u8]) -> Result<Option<T>, FrameError> {
        if !self.is_at_boundary() {
            self.feed(std::mem::take(fresh));
            return self.next_frame();
        }
        let Some((message, used)) = first_frame(fresh, self.max)? else {
            self.feed(std::mem::take(fresh));
            return Ok(None);
        };
        *fresh = &fresh[used..];
        Ok(Some(message))
    }

    /// The next whole message, if one has arrived. After an error the stream cannot be trusted any more.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((message, used)) = first_frame(&self.bytes[self.consumed..], self.max)? else {
            return Ok(None);
        };
        self.consumed += used;
        Ok(Some(message))
    }

    /// True where the stream may end without cutting a frame in two.
    pub fn is_at_boundary(&self) -> bool {
        self.consumed == self.bytes.len()
    }
}

/// The frame that these bytes begin with, and its length with its prefix; `None` where it is not whole.
fn first_frame<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<Option<(T, usize)>, FrameError> {
    let Some(prefix) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
    let len = u32::from_le_bytes(*prefix) as usize;
    if len > max {
        return Err(FrameError::TooLarge { len, max });
    }
    let Some(body) = bytes.get(PREFIX..PREFIX + len) else { return Ok(None) };
    Ok(Some((codec::decode(body)?, PREFIX + len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_chunking() {
        let messages: Vec<String> = ["", "a", "long enough to be split"].map(String::from).into();
        let mut bytes = Vec::new();
        for m in &messages {
            encode_frame(m, 1000, &mut bytes).unwrap();
        }
        for chunk in 1..bytes.len() {
            let (mut buffer, mut out) = (FrameBuffer::new(1000), Vec::new());
            for piece in bytes.chunks(chunk) {
                buffer.feed(piece);
                while let Some(m) = buffer.next_frame::<String>().unwrap() {
                    out.push(m);
                }
            }
            assert_eq!(out, messages);
            assert!(buffer.is_at_boundary());

            let (mut buffer, mut out) = (FrameBuffer::new(1000), Vec::new());
            for mut piece in bytes.chunks(chunk) {
                while let Some(m) = buffer.next_frame_of::<String>(&mut piece).unwrap() {
                    out.push(m);
                }
                assert!(piece.is_empty(), "what is not whole is kept");
            }
            assert_eq!(out, messages);
            assert!(buffer.is_at_boundary());
        }
    }

    #[test]
    fn a_huge_length_is_refused_before_its_bytes_arrive() {
        let mut buffer = FrameBuffer::new(1000);
        buffer.feed(&u32::MAX.to_le_bytes());
        assert!(matches!(buffer.next_frame::<String>(), Err(FrameError::TooLarge { .. })));
        let fresh = FrameBuffer::new(1000).next_frame_of::<String>(&mut &u32::MAX.to_le_bytes()[..]);
        assert!(matches!(fresh, Err(FrameError::TooLarge { .. })));
        let bytes = u32::MAX.to_le_bytes();
        assert!(matches!(read_frame::<String>(&mut &bytes[..], 1000), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn a_length_inside_the_message_cannot_make_decode_allocate() {
        // A string that claims 2^60 bytes.
        let body = (1u64 << 60).to_le_bytes();
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&body);
        assert!(matches!(read_frame::<String>(&mut &bytes[..], 1000), Err(FrameError::Codec(_))));
    }

    #[test]
    fn a_text_that_claims_more_than_is_there_is_refused_whatever_the_limits() {
        for claimed in [9, 1 << 10, (1 << 24) - 9] {
            let body = [&u64::to_le_bytes(claimed)[..], b"8 bytes."].concat();
            let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
            bytes.extend_from_slice(&body);
            assert!(matches!(read_frame::<String>(&mut &bytes[..], 1000), Err(FrameError::Codec(_))));
        }
    }

    #[test]
    fn bytes_after_the_message_are_an_error() {
        let mut bytes = Vec::new();
        encode_frame(&"x", 100, &mut bytes).unwrap();
        bytes.push(0);
        let len = (bytes.len() - PREFIX) as u32;
        bytes[..PREFIX].copy_from_slice(&len.to_le_bytes());
        assert!(matches!(
            read_frame::<String>(&mut &bytes[..], 100),
            Err(FrameError::Codec(CodecError::Trailing { extra: 1, .. }))
        ));
    }

    #[test]
    fn a_stream_cut_in_a_frame_is_truncated_and_between_frames_is_the_end() {
        let mut bytes = Vec::new();
        encode_frame(&"hello", 100, &mut bytes).unwrap();
        assert!(read_frame::<String>(&mut &bytes[..0], 100).unwrap().is_none());
        for cut in 1..bytes.len() {
            assert!(matches!(read_frame::<String>(&mut &bytes[..cut], 100), Err(FrameError::Truncated)));
        }
    }
}
