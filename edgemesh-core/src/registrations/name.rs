//! The name of a registration: namespace, Service, id; each a DNS label.

use std::fmt;

use edgemesh_proto::record::ServiceName;
use serde::{Deserialize, Serialize};

use crate::manifests::is_label;
use crate::registrations::Rejected;

/// Longest word that is kept as it is given.
const MAX_WORD: usize = 63;

/// Which registration of which Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    namespace: Box<str>,
    service: Box<str>,
    id: Box<str>,
}

impl Name {
    /// The registration `id` of a Service.
    ///
    /// # Errors
    /// [`Rejected`] names the part that is no DNS label.
    pub fn new(namespace: &str, service: &str, id: &str) -> Result<Self, Rejected> {
        for (field, text) in [("namespace", namespace), ("service", service), ("id", id)] {
            if !is_label(text) {
                let shown: String = text.chars().take(MAX_WORD).collect();
                let reason = format!(
                    "`{shown}` is no DNS label: at most 63 of a-z, 0-9 and -, with a letter or \
                     digit at both ends"
                );
                return Err(Rejected { field, reason });
            }
        }
        Ok(Self { namespace: namespace.into(), service: service.into(), id: id.into() })
    }

    /// The Service.
    pub fn service(&self) -> ServiceName {
        ServiceName::new(&self.namespace, &self.service)
    }

    /// Tells apart those of one Service.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As it was read; a file may hold anything.
    pub(super) fn is_valid(&self) -> bool {
        [&self.namespace, &self.service, &self.id].into_iter().all(|part| is_label(part))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.service, self.id)
    }
}

/// A short word without blanks, which goes into records as it is.
pub(super) fn word(field: &'static str, text: Option<&str>) -> Result<(), Rejected> {
    let Some(text) = text else { return Ok(()) };
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(inside) {
        return Ok(());
    }
    Err(Rejected { field, reason: "wants 1 to 63 letters, digits, `-`, `_`, `.`, `/`".into() })
}
