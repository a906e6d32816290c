//! A definition as it is checked in: without what Kubernetes does not need, and as text that is always the same.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Number, Value};

/// First lines of each file.
const HEADER: &str =
    "# Generated from router/src/kubernetes/crds by `make golden`; change the types there.\n";

/// The definition without what says nothing.
pub(super) fn tidied(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()).for_each(tidy);
    crd
}

/// Without `nullable`, the server takes a null for a key that is not there, as the manifests do; with
/// it, rules would meet nulls. Without defaults, an object stays what its writer wrote. Line breaks of
/// the source are none of the reader's.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.default = None;
    schema.title = None;
    if let Some(description) = &mut schema.description {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    schema.properties.iter_mut().flat_map(BTreeMap::values_mut).for_each(tidy);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => tidy(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

/// The text of the definition's file.
///
/// # Panics
/// Never: a definition is a tree of texts, numbers and answers.
pub(super) fn yaml(crd: &CustomResourceDefinition) -> String {
    let value = serde_json::to_value(crd).expect("a definition is JSON");
    // Words that YAML 1.1 takes for answers, such as `on`, come in quotes: kubectl reads that.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: 100 };
    let text = serde_saphyr::to_string_with_options(&plain(value), options);
    format!("{HEADER}{}", text.expect("JSON is YAML"))
}

/// Keys in order whatever features a build has, and whole numbers without a point.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.into_iter().collect();
            Value::Object(sorted.into_iter().map(|(key, value)| (key, plain(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Number(number) => Value::Number(whole(number)),
        other @ (Value::Null | Value::Bool(_) | Value::String(_)) => other,
    }
}

/// Bounds are kept as floating point, where each of ours is exact.
fn whole(number: Number) -> Number {
    #[expect(clippy::cast_possible_truncation, reason = "looked at before")]
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
            Number::from(float as i64)
        }
        Some(_) | None => number,
    }
}
