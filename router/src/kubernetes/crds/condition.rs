//! Conditions: what became of an object, in the form in which Kubernetes says it.

use edgemesh_core::snapshot::rules::Standing;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::kubernetes::crds::words;

/// Longest message, in bytes: the bound that Kubernetes has for its own conditions.
const MAX_MESSAGE: usize = 32_768;
/// Longest type: a DNS name, a slash, a label.
const MAX_TYPE: u32 = 316;
/// Longest reason.
const MAX_REASON: u32 = 1024;

/// What the mesh says of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Which generation of the object (metadata.generation) this is said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Whether the mesh goes by the object (Accepted), and why not.
    #[serde(default, deserialize_with = "words::list")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One thing that is so, is not so, or is not known, of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about: Accepted, or for Rules also Active. There is one of each.
    #[serde(rename = "type")]
    #[schemars(schema_with = "type_schema")]
    pub type_: String,
    /// Whether it is so: True, False, or Unknown.
    pub status: Truth,
    /// Why, in one word that programs may go by.
    #[schemars(schema_with = "reason_schema")]
    pub reason: String,
    /// Why, for people: the field, what is wrong with it, and how to put it right.
    #[schemars(length(max = 32768))]
    pub message: String,
    /// Since when the status is what it is.
    #[schemars(schema_with = "words::moment")]
    pub last_transition_time: Time,
    /// Which generation of the object (metadata.generation) was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}

fn type_schema(_: &mut SchemaGenerator) -> Schema {
    identifier(MAX_TYPE)
}

fn reason_schema(_: &mut SchemaGenerator) -> Schema {
    identifier(MAX_REASON)
}

fn identifier(longest: u32) -> Schema {
    Schema::try_from(words::identifier(longest)).unwrap_or_default()
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Truth {
    /// It is.
    True,
    /// It is not.
    False,
    /// Nobody can tell.
    Unknown,
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The mesh has read the object and goes by it.
    Accepted,
    /// A Rule takes messages.
    Active,
}

/// Why a condition is as it is. Each belongs to one type and says whether that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Accepted: the mesh goes by the object.
    Accepted,
    /// Accepted, and without effect until the Service that it is about is there.
    NoService,
    /// Not accepted: something in it is wrong; the mesh works without it until it is put right.
    Invalid,
    /// Not accepted: another object, which is older or counts more, says something of the same.
    Conflicted,
    /// Active: the Rule takes messages.
    Active,
    /// Active, and the last message did not arrive; the message names the node.
    Degraded,
    /// Not active: `inUse` is false.
    Paused,
    /// Not active: a RuleEndpoint that it names is not there yet.
    Waiting,
    /// Not active: as it is, it can never work.
    Faulty,
    /// Not active: an older Rule takes the same messages.
    Overruled,
}

impl ConditionType {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Active => "Active",
        }
    }
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Accepted,
        Self::NoService,
        Self::Invalid,
        Self::Conflicted,
        Self::Active,
        Self::Degraded,
        Self::Paused,
        Self::Waiting,
        Self::Faulty,
        Self::Overruled,
    ];

    /// As it is written, what it is about, and whether that is so.
    const fn row(self) -> (&'static str, ConditionType, Truth) {
        use ConditionType::{Accepted, Active};
        match self {
            Self::Accepted => ("Accepted", Accepted, Truth::True),
            Self::NoService => ("NoService", Accepted, Truth::True),
            Self::Invalid => ("Invalid", Accepted, Truth::False),
            Self::Conflicted => ("Conflicted", Accepted, Truth::False),
            Self::Active => ("Active", Active, Truth::True),
            Self::Degraded => ("Degraded", Active, Truth::True),
            Self::Paused => ("Paused", Active, Truth::False),
            Self::Waiting => ("Waiting", Active, Truth::False),
            Self::Faulty => ("Faulty", Active, Truth::False),
            Self::Overruled => ("Overruled", Active, Truth::False),
        }
    }

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// What it is a reason of.
    pub const fn about(self) -> ConditionType {
        self.row().1
    }

    /// Whether that is so.
    pub const fn truth(self) -> Truth {
        self.row().2
    }

    /// Of a Rule that stands so; `None` for one that is deleted, of which there is nothing to say.
    pub const fn of(standing: &Standing) -> Option<Self> {
        match standing {
            Standing::Active => Some(Self::Active),
            Standing::Paused => Some(Self::Paused),
            Standing::Waiting(_) => Some(Self::Waiting),
            Standing::Faulty(_) => Some(Self::Faulty),
            Standing::Overruled(_) => Some(Self::Overruled),
            Standing::Deleted => None,
        }
    }
}

impl Condition {
    /// What is so at the moment `now`, of that generation of the object. A message longer than 32,768
    /// bytes is cut.
    pub fn new(reason: Reason, message: &str, generation: Option<i64>, now: Time) -> Self {
        Self {
            type_: reason.about().as_str().to_owned(),
            status: reason.truth(),
            reason: reason.as_str().to_owned(),
            message: message[..message.floor_char_boundary(MAX_MESSAGE)].to_owned(),
            last_transition_time: now,
            observed_generation: generation,
        }
    }

    /// The same, with the time since when it is so, where `before` says it too.
    #[must_use]
    pub fn since(mut self, before: &[Self]) -> Self {
        let known = before.iter().find(|known| known.type_ == self.type_);
        if let Some(known) = known.filter(|known| known.status == self.status) {
            self.last_transition_time = known.last_transition_time.clone();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_time_is_that_of_the_last_change() {
        let waits = Condition::new(Reason::Waiting, "for e", Some(1), at(1));
        for (reason, want) in
            [(Reason::Faulty, at(1)), (Reason::Paused, at(1)), (Reason::Active, at(9))]
        {
            let now = Condition::new(reason, "", Some(2), at(9));
            let since =
                now.since(&[Condition::new(Reason::Accepted, "", None, at(3)), waits.clone()]);
            assert_eq!(since.last_transition_time, want, "{reason:?}");
            assert_eq!(since.observed_generation, Some(2));
        }
        let first = Condition::new(Reason::Active, "", None, at(9)).since(&[]);
        assert_eq!(first.last_transition_time, at(9));
    }

    #[test]
    fn as_kubernetes_writes_it() {
        let condition = Condition::new(Reason::Invalid, &"é".repeat(20_000), Some(3), at(0));
        let mut value = serde_json::to_value(&condition).unwrap();
        assert_eq!(serde_json::from_value::<Condition>(value.clone()).unwrap(), condition);
        assert_eq!(value["message"].take().as_str().unwrap().len(), MAX_MESSAGE);
        let want = serde_json::json!({
            "type": "Accepted", "status": "False", "reason": "Invalid", "message": null,
            "lastTransitionTime": "1970-01-01T00:00:00Z", "observedGeneration": 3,
        });
        assert_eq!(value, want);
    }

    #[test]
    fn every_reason_is_listed_once() {
        let names: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
