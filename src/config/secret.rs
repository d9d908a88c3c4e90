//! Passwords and the like, which are never printed.

use std::fmt;

use serde::{Serialize, Serializer};

/// A value that may be a secret; only [`Secret::reveal`] shows it if it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    secret: bool,
}

impl Secret {
    /// The value itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.value
    }

    /// A property's value; secret if its name or its origin says so.
    pub(super) fn new(property: &str, value: String, hidden: bool) -> Self {
        let named = ["password", "secret", ".pem", "token", "jaas"].iter().any(|word| property.contains(word));
        Self { value, secret: hidden || named }
    }

    fn shown(&self) -> &str {
        if self.secret { "<secret>" } else { &self.value }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}
