//! Any Endpoint and any Rule that is valid.

use std::collections::BTreeMap;

use edgemesh_proto::record::{Endpoint, EndpointName, Rule};
use edgemesh_proto::rule::{DomainId, Id, Name, Properties, ResourceMap};
use proptest::option;
use proptest::prelude::{Strategy, any};

use crate::samples::{flag, name};

fn id() -> impl Strategy<Value = Id> {
    "[ -~]{1,36}".prop_map(|text| Id::new("id", &text).expect("short"))
}

fn pairs() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(".{0,12}", ".{0,12}", 0..4)
}

fn resource() -> impl Strategy<Value = ResourceMap> {
    pairs().prop_map(|pairs| ResourceMap::new("", pairs).expect("few"))
}

fn side() -> impl Strategy<Value = EndpointName> {
    (name(), name()).prop_map(|(namespace, name)| EndpointName { namespace, name })
}

pub(super) fn endpoint() -> impl Strategy<Value = Endpoint> {
    let kind = "[a-z]{1,64}".prop_map(|text| Name::new("type", &text).expect("short"));
    let properties = pairs().prop_map(|pairs| Properties::new("", pairs).expect("few"));
    (id(), kind, option::of(id()), flag(), properties, any::<[i64; 2]>()).prop_map(
        |(id, endpoint_type, project_id, is_shared, properties, [created_at, updated_at])| {
            Endpoint {
                id,
                endpoint_type,
                project_id,
                is_shared,
                properties,
                created_at,
                updated_at,
            }
        },
    )
}

pub(super) fn rule() -> impl Strategy<Value = Rule> {
    let domain = "[a-z]{0,36}".prop_map(|text| DomainId::new("domain_id", &text).expect("short"));
    let ids = (id(), id(), domain);
    let sides = (side(), resource(), side(), resource());
    (ids, sides, any::<[bool; 2]>(), any::<[i64; 2]>()).prop_map(
        |((id, project_id, domain_id), sides, [in_use, is_deleted], [created_at, updated_at])| {
            let (source, source_resource, target, target_resource) = sides;
            Rule {
                id,
                project_id,
                domain_id,
                source,
                source_resource,
                target,
                target_resource,
                in_use,
                is_deleted,
                created_at,
                updated_at,
            }
        },
    )
}
