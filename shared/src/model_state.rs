//! What a model remembers of one stream between two windows, as it travels with them: opaque bytes that only the
//! model which wrote them understands, in one shared buffer, serialised as bytes and never element by element.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::frame::MAX_FROM_WORKER;

/// Longest state in bytes; with the scores of its window it fits a frame. Models of ours need a tenth of it.
pub const MAX_STATE: usize = MAX_FROM_WORKER / 2;

/// State of one stream; empty at the stream's begin. Cloning shares the buffer.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ModelState(Arc<[u8]>);

impl ModelState {
    /// Of a stream that begins.
    pub fn fresh() -> Self {
        Self::default()
    }

    /// Nothing is remembered.
    pub fn is_fresh(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes as the model wrote them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for ModelState {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl std::fmt::Debug for ModelState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModelState({} bytes)", self.0.len())
    }
}

impl Serialize for ModelState {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for ModelState {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ModelState;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("bytes of a model's state")
            }
            fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<ModelState, E> {
                if v.len() > MAX_STATE {
                    return Err(E::custom(format_args!("state of {} bytes, at most {MAX_STATE}", v.len())));
                }
                Ok(ModelState(v.into()))
            }
        }
        d.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::codec;

    #[test]
    fn a_state_travels_as_it_is_and_one_that_is_too_long_is_refused() {
        for len in [0, 1, 25_000, MAX_STATE] {
            let state = ModelState::from(vec![0xa5; len]);
            let mut bytes = Vec::new();
            codec::encode_into(&state, &mut bytes).unwrap();
            assert_eq!(bytes.len(), len + 8, "as bytes behind their number");
            assert_eq!(codec::decode::<ModelState>(&bytes).unwrap(), state);
        }
        let mut bytes = Vec::new();
        codec::encode_into(&ModelState::from(vec![0; MAX_STATE + 1]), &mut bytes).unwrap();
        assert!(codec::decode::<ModelState>(&bytes).unwrap_err().to_string().contains("at most"));
    }
}
