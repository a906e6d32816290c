//! The rule table: Endpoint and Rule rows with the column names, JSON names and sizes that are fixed.
//!
//! A row that exists is within its sizes: its texts and maps check themselves when they are made.

mod cell;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::record::{Invalid, Kind};
pub use crate::rule::cell::{Pairs, Text};
use crate::rule::cell::{object, optional, required};

/// An id: up to 36 bytes, a UUID as text where EdgeMesh makes it.
pub type Id = Text<1, 36>;

/// The id of a domain, empty where there are none.
pub type DomainId = Text<0, 36>;

/// A name or an Endpoint type: up to 64 bytes.
pub type Name = Text<1, 64>;

/// The properties of an Endpoint: up to 10240 bytes as JSON.
pub type Properties = Pairs<10240>;

/// What a Rule says about one of its sides: up to 1024 bytes as JSON.
pub type ResourceMap = Pairs<1024>;

/// One row of table `endpoint`: a messaging endpoint, never a Pod address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Endpoint {
    /// Primary key.
    pub id: Id,
    /// `rest`, `eventbus`, `servicebus` or `service`; what serves a type is the Router's to know.
    #[serde(rename = "type")]
    pub endpoint_type: Name,
    /// Name, shortened where the object's is longer ([`short_name`]).
    pub name: Name,
    /// Who owns it; see [`project_id`].
    pub project_id: Option<Id>,
    /// Rules of other projects may use it.
    pub is_shared: bool,
    /// Type-dependent settings.
    pub properties: Properties,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

/// One row of table `rule`: what arrives at `source` goes to `target`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Rule {
    /// Primary key.
    pub id: Id,
    /// Name, shortened where the object's is longer ([`short_name`]).
    pub name: Name,
    /// Who owns it; see [`project_id`].
    pub project_id: Id,
    /// The domain of the owner, or empty.
    pub domain_id: DomainId,
    /// Where messages come from; the table holds its id, the JSON all of it.
    pub source: Endpoint,
    /// What on the source the Rule is about (`path`, `topic`, …).
    pub source_resource: ResourceMap,
    /// Where messages go; the table holds its id, the JSON all of it.
    pub target: Endpoint,
    /// What on the target the Rule is about.
    pub target_resource: ResourceMap,
    /// `false` pauses the Rule.
    pub in_use: bool,
    /// Gone, but kept until nothing is queued for it.
    pub is_deleted: bool,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
    /// Messages delivered.
    pub success_messages: u64,
    /// Messages that were not.
    pub fail_messages: u64,
}

impl TryFrom<Value> for Endpoint {
    type Error = Invalid;

    fn try_from(value: Value) -> Result<Self, Invalid> {
        let mut row = object(value)?;
        Ok(Self {
            id: required(&mut row, "id")?,
            endpoint_type: required(&mut row, "type")?,
            name: required(&mut row, "name")?,
            project_id: optional(&mut row, "project_id")?,
            is_shared: optional(&mut row, "is_shared")?.unwrap_or(false),
            properties: optional(&mut row, "properties")?.unwrap_or_default(),
            created_at: required(&mut row, "created_at")?,
            updated_at: required(&mut row, "updated_at")?,
        })
    }
}

impl TryFrom<Value> for Rule {
    type Error = Invalid;

    fn try_from(value: Value) -> Result<Self, Invalid> {
        let mut row = object(value)?;
        Ok(Self {
            id: required(&mut row, "id")?,
            name: required(&mut row, "name")?,
            project_id: required(&mut row, "project_id")?,
            domain_id: optional(&mut row, "domain_id")?.unwrap_or_default(),
            source: side(&mut row, "source")?,
            source_resource: optional(&mut row, "source_resource")?.unwrap_or_default(),
            target: side(&mut row, "target")?,
            target_resource: optional(&mut row, "target_resource")?.unwrap_or_default(),
            in_use: optional(&mut row, "in_use")?.unwrap_or(true),
            is_deleted: optional(&mut row, "is_deleted")?.unwrap_or(false),
            created_at: required(&mut row, "created_at")?,
            updated_at: required(&mut row, "updated_at")?,
            success_messages: optional(&mut row, "success_messages")?.unwrap_or(0),
            fail_messages: optional(&mut row, "fail_messages")?.unwrap_or(0),
        })
    }
}

fn side(row: &mut Map<String, Value>, name: &str) -> Result<Endpoint, Invalid> {
    let value = row.remove(name).ok_or_else(|| Invalid::new(name, "is missing"))?;
    Endpoint::try_from(value).map_err(|error| error.under(name))
}

impl Rule {
    /// Whether the Rule may use both its Endpoints: its own project's, or shared ones.
    ///
    /// # Errors
    /// `source` or `target`, the first that it may not use.
    pub fn check_sharing(&self) -> Result<(), Invalid> {
        for (field, endpoint) in [("source", &self.source), ("target", &self.target)] {
            if !endpoint.is_shared && endpoint.project_id.as_ref() != Some(&self.project_id) {
                let reason = format!("Endpoint {} of another project is not shared", endpoint.name);
                return Err(Invalid::new(field, reason));
            }
        }
        Ok(())
    }
}

/// The UUIDv5 under which all ids of Kubernetes objects are made: that of the DNS name
/// `edgemesh.io`. Changing it would give every row a new id.
fn id_space() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"edgemesh.io")
}

/// The id of a Kubernetes object: UUIDv5 of `kind/namespace/name`.
pub fn object_id(kind: Kind, namespace: &str, name: &str) -> Id {
    let path = format!("{}/{namespace}/{name}", kind.name());
    Uuid::new_v5(&id_space(), path.as_bytes()).into()
}

/// The project of a Kubernetes object: UUIDv5 of its namespace.
pub fn project_id(namespace: &str) -> Id {
    Uuid::new_v5(&id_space(), namespace.as_bytes()).into()
}

/// A name as rows hold it: up to 64 bytes as it is, else its first 55 bytes (fewer where that would
/// cut a character), `-`, and eight hexadecimal digits of a hash of the whole.
///
/// # Errors
/// `name` when it is empty.
pub fn short_name(name: &str) -> Result<Name, Invalid> {
    const HEAD: usize = 64 - 1 - 8;
    if name.len() <= 64 {
        return Name::new("name", name);
    }
    let head = &name[..name.floor_char_boundary(HEAD)];
    let hash = Uuid::new_v5(&id_space(), name.as_bytes()).simple().to_string();
    Name::new("name", &format!("{head}-{}", &hash[..8]))
}

#[cfg(test)]
mod tests;
