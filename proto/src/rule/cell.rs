//! The cells of a row: bounded texts and maps, and how they are taken out of a JSON object.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::record::Invalid;

/// Text of `MIN` to `MAX` bytes. Columns count characters, of which there are never more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text<const MIN: usize, const MAX: usize>(Box<str>);

impl<const MIN: usize, const MAX: usize> Text<MIN, MAX> {
    /// Checks the length of `text`.
    ///
    /// # Errors
    /// Names `field` when the text is too short or too long.
    pub fn new(field: &str, text: &str) -> Result<Self, Invalid> {
        if (MIN..=MAX).contains(&text.len()) {
            return Ok(Self(text.into()));
        }
        Err(Invalid::new(field, format!("{} bytes: {MIN} to {MAX}", text.len())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Default for Text<0, MAX> {
    fn default() -> Self {
        Self("".into())
    }
}

impl<const MIN: usize, const MAX: usize> fmt::Display for Text<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<String> for Text<MIN, MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new("", &text).map_err(|error| error.reason)
    }
}

impl<const MIN: usize, const MAX: usize> From<Text<MIN, MAX>> for String {
    fn from(text: Text<MIN, MAX>) -> Self {
        text.0.into()
    }
}

impl From<Uuid> for Text<1, 36> {
    /// With dashes: exactly 36 bytes.
    fn from(uuid: Uuid) -> Self {
        Self(uuid.to_string().into())
    }
}

/// Names and values, at most `MAX` bytes when written as a JSON object; order by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Pairs<const MAX: usize>(BTreeMap<String, String>);

impl<const MAX: usize> Pairs<MAX> {
    /// Checks the size of `pairs`.
    ///
    /// # Errors
    /// Names `field` when their JSON is too long.
    pub fn new(field: &str, pairs: BTreeMap<String, String>) -> Result<Self, Invalid> {
        let length = json(&pairs).len();
        if length <= MAX {
            return Ok(Self(pairs));
        }
        Err(Invalid::new(field, format!("{length} bytes as JSON: at most {MAX}")))
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What a column holds.
    pub fn to_json(&self) -> String {
        json(&self.0)
    }

    /// From what a column holds.
    ///
    /// # Errors
    /// Names `field` when the text is no JSON object of strings, or too long.
    pub fn from_json(field: &str, text: &str) -> Result<Self, Invalid> {
        let pairs = serde_json::from_str(text).map_err(|e| Invalid::new(field, e.to_string()))?;
        Self::new(field, pairs)
    }
}

fn json(pairs: &BTreeMap<String, String>) -> String {
    serde_json::to_string(pairs).expect("a map from text to text is always JSON")
}

impl<const MAX: usize> TryFrom<BTreeMap<String, String>> for Pairs<MAX> {
    type Error = String;

    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, String> {
        Self::new("", pairs).map_err(|error| error.reason)
    }
}

impl<const MAX: usize> From<Pairs<MAX>> for BTreeMap<String, String> {
    fn from(pairs: Pairs<MAX>) -> Self {
        pairs.0
    }
}

/// The members of a row.
pub(super) fn object(value: Value) -> Result<Map<String, Value>, Invalid> {
    match value {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Invalid::new("", "not a JSON object"))
        }
    }
}

/// The member of that name, unless it is absent or null.
pub(super) fn optional<T: DeserializeOwned>(
    row: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<T>, Invalid> {
    let value = row.remove(name).unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|error| Invalid::new(name, error.to_string()))
}

/// The member of that name.
pub(super) fn required<T: DeserializeOwned>(
    row: &mut Map<String, Value>,
    name: &str,
) -> Result<T, Invalid> {
    optional(row, name)?.ok_or_else(|| Invalid::new(name, "is missing"))
}
