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

/// Decodes exactly `bytes`: bytes left over are an error. What a text claims to be long is allocated before it is read,
/// so a short message is held to a short limit.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.len() {
        0..=0x1000 => decode_within::<T, 0x1000>(bytes),
        0x1001..=0x1_0000 => decode_within::<T, 0x1_0000>(bytes),
        0x1_0001..=0x10_0000 => decode_within::<T, 0x10_0000>(bytes),
        _ => decode_within::<T, MAX_MESSAGE>(bytes),
    }
}

fn decode_within<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    let len = bytes.len();
    // Borrowed, so that byte strings are copied once and not twice.
    let (message, used) = bincode::serde::borrow_decode_from_slice(bytes, CONFIG.with_limit::<LIMIT>())
        .map_err(|source| CodecError::Decode { len, source })?;
    if used != len {
        return Err(CodecError::Trailing { len, extra: len - used });
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_every_length_come_back_and_the_limit_is_none_for_them() {
        for len in [0, 0xff8, 0xff9, 0xfff8, 0xfff9, 0xf_fff8, 0xf_fff9, MAX_MESSAGE - 8] {
            let text = "x".repeat(len);
            let mut bytes = Vec::new();
            encode_into(&text, &mut bytes).unwrap();
            assert_eq!(decode::<String>(&bytes).unwrap(), text);
            assert!(matches!(decode::<String>(&bytes[..bytes.len() - 1]), Err(CodecError::Decode { .. })));
        }
    }
}
