//! JSON as it is stored: shown without being read.

use aster_core::wit::json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Error;

/// A valid JSON text, of any depth. Whoever only passes it on isn't concerned by what can't be read of it; equality is that
/// of texts.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct JsonText(Box<RawValue>);

impl JsonText {
    pub(super) fn of(what: &str, text: String) -> Result<Self, Error> {
        let text = RawValue::from_string(text).map_err(|error| Error::corrupt(format!("{what}: {error}")))?;
        Ok(Self(text))
    }

    /// A value's text.
    ///
    /// # Errors
    /// It has no JSON.
    pub fn new(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The same as clients get it: integers that a double would round are texts.
    #[must_use]
    pub fn with_safe_integers(self) -> Self {
        // Without so many digits in a row there is nothing to do, and nothing to parse.
        let mut digits = 0;
        let suspect = self.as_str().bytes().any(|byte| {
            digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
            digits >= 16
        });
        if !suspect {
            return self;
        }
        let parsed = self.parse().ok().map(json::with_safe_integers);
        let text = parsed.and_then(|value| RawValue::from_string(value.to_string()).ok());
        text.map_or(self, Self)
    }

    /// # Errors
    /// It isn't a `T`, or nested deeper than serde_json reads (127).
    pub fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
