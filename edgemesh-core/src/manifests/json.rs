//! Objects that come as JSON from an API server, one by one.

use std::path::Path;

use serde_json::Value;

use crate::manifests::tree::{Entry, Item, Tree};
use crate::manifests::{Parsed, drop_too_large, object};

/// Reads one object as an API server tells it, with `apiVersion` and `kind`. Remarks name `place` as
/// their file, and no line.
pub fn parse_object(place: &Path, object: Value) -> Parsed {
    let mut parsed = Parsed::default();
    object::read(place, 0, &item(object), &mut parsed);
    drop_too_large(place, &mut parsed);
    parsed
}

fn item(value: Value) -> Item {
    Item { line: 0, tree: tree(value) }
}

fn tree(value: Value) -> Tree {
    match value {
        Value::Null => Tree::Null,
        Value::Bool(value) => Tree::Bool(value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Tree::Int(value.into()),
            (None, Some(value)) => Tree::Int(value.into()),
            (None, None) => Tree::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Tree::Text(text.into()),
        Value::Array(items) => Tree::List(items.into_iter().map(item).collect()),
        Value::Object(map) => {
            let entry = |(key, value): (String, Value)| Entry {
                line: 0,
                key: key.into(),
                tree: tree(value),
            };
            Tree::Map(map.into_iter().map(entry).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::parse;

    /// What a file says and what an API server says of it is the same, but for lines.
    #[test]
    fn objects_read_as_files_do() {
        let text = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hello"},
            "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80, "targetPort": "http"}]}}"#;
        let from_file = parse(Path::new("a.json"), text);
        let object = serde_json::from_str(text).unwrap();
        let from_api = parse_object(Path::new("kubernetes"), object);
        assert_eq!(from_api.documents[0].records, from_file.documents[0].records);
        assert_eq!(from_api.remarks, []);
    }

    #[test]
    fn what_is_wrong_names_object_and_field_and_no_line() {
        let object = serde_json::json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": "cart"}, "spec": {"ports": [{"port": "x"}]}});
        let parsed = parse_object(Path::new("kubernetes"), object);
        let [remark] = &parsed.remarks[..] else { panic!("{:?}", parsed.remarks) };
        assert_eq!((&*remark.object, remark.line), ("Service shop/cart", 0));
        assert_eq!(remark.field, "spec.ports[0].port");
        assert_eq!(parsed.documents, []);
    }
}
