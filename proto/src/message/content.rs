//! What a Message says: nothing, text, bytes or JSON.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::beehive::text::compact;
use crate::record::Invalid;

/// The content of a Message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Nothing; JSON `null`.
    #[default]
    Null,
    /// Text; a JSON string.
    Text(String),
    /// Bytes; in JSON a base64 string, which a reader gets as [`Content::Text`].
    Bytes(Bytes),
    /// Any other JSON value.
    Json(Json),
}

impl Content {
    /// JSON `null` and strings become [`Content::Null`] and [`Content::Text`], so that each value
    /// has one form here.
    ///
    /// # Errors
    /// `content` when the text is not one JSON value.
    pub fn from_json(json: &str) -> Result<Self, Invalid> {
        let raw = serde_json::from_str::<&RawValue>(json).map_err(not_json)?.get();
        match raw.as_bytes().first() {
            Some(b'"') => Ok(Self::Text(serde_json::from_str(raw).map_err(not_json)?)),
            Some(b'n') => Ok(Self::Null),
            _ => Ok(Self::Json(Json(compact(raw).into()))),
        }
    }

    /// Any value that serde can write as JSON.
    ///
    /// # Errors
    /// `content` when it cannot, as for a map whose keys are no strings.
    pub fn json<T: Serialize>(value: &T) -> Result<Self, Invalid> {
        Self::from_json(&serde_json::to_string(value).map_err(not_json)?)
    }

    /// The bytes that a reader works on: text and bytes as they are, JSON as text, null as
    /// nothing. This is what the protobuf form carries.
    pub fn payload(&self) -> Bytes {
        match self {
            Self::Null => Bytes::new(),
            Self::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Json(json) => Bytes::copy_from_slice(json.0.as_bytes()),
        }
    }

    /// Length of [`Content::payload`] in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Json(json) => json.0.len(),
        }
    }

    /// Whether [`Content::payload`] is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn not_json(error: serde_json::Error) -> Invalid {
    Invalid::new("content", error.to_string())
}

/// A JSON object, list, number or bool, as text in the form Go writes: no spaces, `<`, `>`, `&`,
/// U+2028 and U+2029 escaped. The order of members and the digits of numbers stay as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(Box<str>);

impl Json {
    /// The text.
    pub fn get(&self) -> &str {
        &self.0
    }
}
