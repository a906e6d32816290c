//! An object as an API server tells it, read so that nothing in it can spoil what stands beside it.

use std::borrow::Cow;
use std::path::Path;

use edgemesh_core::manifests::{Parsed, Remark, Severity, parse_object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::kubernetes::PLACE;
use crate::kubernetes::asked::Asked;
use crate::kubernetes::objects::{Mark, Name, News};
use crate::kubernetes::ranges;

/// Names the Service of an EndpointSlice.
const SERVICE_LABEL: &str = "/metadata/labels/kubernetes.io~1service-name";

/// One object. Of its metadata only what following it takes is read as such, and a mistake there
/// makes that empty.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    meta: ObjectMeta,
    object: Value,
}

impl Seen {
    /// What it means that it is there. `None`: nothing, it has no name or is not for the mesh.
    pub(super) fn put(self, asked: &Asked) -> Option<News> {
        let name = self.name()?;
        if asked.kind == "EndpointSlice" && self.object.pointer(SERVICE_LABEL).is_none() {
            // Of nobody's Service: that is allowed, and others may use it.
            return Some(News::Put(name, Parsed::default()));
        }
        if asked.kind == "ServiceCIDR" {
            let said = ranges::read(&self.object).map_err(|wrong| Box::new(wrong.of(asked, &name)));
            return Some(News::Ranges(name, said));
        }
        Some(News::Put(name, self.parsed(asked)))
    }

    /// What the server holds of it, where is to be said what became of it.
    pub(super) fn mark(&self, asked: &Asked) -> Option<(Name, Mark)> {
        if !asked.is_written() {
            return None;
        }
        let generation = self.object.pointer("/metadata/generation").and_then(Value::as_i64);
        let status = self.object.get("status").cloned().unwrap_or_default();
        Some((self.name()?, Mark { generation, status }))
    }

    /// What it means that it is gone.
    pub(super) fn gone(&self) -> Option<News> {
        self.name().map(News::Gone)
    }

    pub(super) fn name(&self) -> Option<Name> {
        let name = self.meta.name.as_deref().filter(|name| !name.is_empty())?;
        let namespace = self.meta.namespace.as_deref().unwrap_or_default();
        Some(Name { namespace: namespace.into(), name: name.into() })
    }

    /// Its version, where that is a number.
    pub(super) fn version(&self) -> Option<u64> {
        self.meta.resource_version.as_deref()?.parse().ok()
    }

    fn parsed(self, asked: &Asked) -> Parsed {
        let mut object = self.object;
        let Some(map) = object.as_object_mut() else {
            return Parsed { remarks: vec![no_object(asked)], ..Parsed::default() };
        };
        // Items of lists, and what MetaServer has stored of some kinds, do not say what they are.
        map.insert("apiVersion".into(), asked.api_version().into());
        map.insert("kind".into(), asked.kind.into());
        parse_object(Path::new(PLACE), object)
    }
}

fn no_object(asked: &Asked) -> Remark {
    Remark {
        severity: Severity::Rejected,
        file: PLACE.into(),
        line: 0,
        object: asked.kind.into(),
        field: String::new(),
        reason: "is no JSON object".into(),
    }
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        let text = |path: &str| object.pointer(path)?.as_str().map(str::to_owned);
        let meta = ObjectMeta {
            name: text("/metadata/name"),
            namespace: text("/metadata/namespace"),
            resource_version: text("/metadata/resourceVersion"),
            ..ObjectMeta::default()
        };
        // Often more than half of an object, and nothing that the mesh reads.
        if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        Ok(Self { meta, object })
    }
}

impl Resource for Seen {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn api_version(of: &ApiResource) -> Cow<'_, str> {
        of.api_version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::asked::ASKED;

    fn seen(kind: &str, object: Value) -> Option<News> {
        let asked = ASKED.iter().find(|asked| asked.kind == kind).unwrap();
        serde_json::from_value::<Seen>(object).unwrap().put(asked)
    }

    #[test]
    fn what_does_not_say_its_kind_is_read_as_what_was_asked_for() {
        let object = serde_json::json!({"metadata": {"name": "hello", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}});
        let Some(News::Put(name, parsed)) = seen("Service", object) else { panic!() };
        assert_eq!((&*name.namespace, &*name.name), ("shop", "hello"));
        assert_eq!((parsed.documents.len(), parsed.remarks), (1, Vec::new()));
    }

    #[test]
    fn nothing_that_an_object_holds_is_an_error() {
        for (object, has_name) in [
            (serde_json::json!(7), false),
            (serde_json::json!({"metadata": {"name": 7}}), false),
            (serde_json::json!({"metadata": []}), false),
            (serde_json::json!({"metadata": {"name": "x", "labels": 7, "managedFields": 3}}), true),
        ] {
            let news = seen("Service", object.clone());
            assert_eq!(news.is_some(), has_name, "{object}");
            if let Some(News::Put(_, parsed)) = news {
                assert!(!parsed.remarks.is_empty(), "{object}");
            }
        }
    }

    #[test]
    fn a_slice_of_no_service_is_no_mistake() {
        let object = serde_json::json!({"metadata": {"name": "x", "namespace": "y"}});
        let Some(News::Put(_, parsed)) = seen("EndpointSlice", object) else { panic!() };
        assert_eq!(parsed, Parsed::default());
    }
}
