//! The only place that knows how a message becomes bytes: bincode 2 through serde. bincode is finished and
//! unmaintained (RUSTSEC-2025-0141), so a successor (wincode, postcard) replaces these functions and nothing
//! else.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes are not a message, or a message could not become bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("cannot encode message: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    #[error("cannot decode message of {len} bytes: {source}")]
    Decode { len: usize, source: bincode::error::DecodeError },
    #[error("message of {len} bytes has {extra} bytes after its end")]
    Trailing { len: usize, extra: usize },
}

/// No message is larger than this, whoever sends it; `decode` allocates no more than this either, whatever
/// lengths the bytes claim.
pub const MAX_MESSAGE: usize = 16 << 20;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<MAX_MESSAGE>,
> = bincode::config::standard().with_fixed_int_encoding().with_limit::<MAX_MESSAGE>();

/// Appends the encoding of `message` to `out`.
pub fn encode_into<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(message, out, CONFIG)?;
    Ok(())
}

/// Decodes exactly `bytes`: bytes left over are an error. Texts and byte strings are taken from where they stand, so
/// that nothing is allocated for one that claims to be longer than what is there.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let len = bytes.len();
    let (message, used) = bincode::serde::borrow_decode_from_slice(bytes, CONFIG)
        .map_err(|source| CodecError::Decode { len, source })?;
    if used != len {
        return Err(CodecError::Trailing { len, extra: len - used });
    }
    Ok(message)
}
