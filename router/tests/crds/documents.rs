//! Every object of our kinds in examples, documentation and deployment, as `kubectl apply` would send it.

use std::fs;
use std::path::{Path, PathBuf};

use edgemesh_router::kubernetes::crds::{self, Reason};
use serde_json::Value;

use crate::judge::{faults, schema};
use crate::{is_ours, rejected, root};

/// Where people find objects to copy, and what KubeEdge's router was given.
const PLACES: &[&str] =
    &["examples", "docs", "deploy", "README.md", "edgemesh-core/tests/vectors/router"];

#[test]
fn what_people_copy_is_taken() {
    let mut files = Vec::new();
    PLACES.iter().for_each(|place| find(&root().join(place), &mut files));
    let mut counts = [0; 3];
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        for object in blocks(&file, &text).iter().flat_map(|block| objects(block)) {
            let kind = object["kind"].as_str().expect("a kind");
            assert_eq!(rejected(&object), None, "{}", file.display());
            let sent = as_sent(object.clone());
            assert_eq!(faults(&schema(kind), &sent), [""; 0], "{}: {sent}", file.display());
            assert_eq!(rejected(&sent), None, "{}: as kubectl sends it", file.display());
            counts[["TrafficPolicy", "Rule", "RuleEndpoint"]
                .iter()
                .position(|k| *k == kind)
                .expect("ours")] += 1;
        }
    }
    let [policies, rules, endpoints] = counts;
    assert!(policies >= 3 && rules >= 12 && endpoints >= 6, "{counts:?}");
}

/// Every reason of a condition, and every definition, is on the page about them.
#[test]
fn the_page_names_every_reason() {
    let page = fs::read_to_string(root().join("docs/crds.md")).expect("text");
    for reason in Reason::ALL {
        let row = page.lines().find(|line| line.contains(&format!("| `{}` |", reason.as_str())));
        let row = row.unwrap_or_else(|| panic!("{reason:?} is not explained"));
        assert!(row.contains(&format!("| {:?} |", reason.truth())), "{row}");
    }
    for crd in crds::all() {
        let name = crd.metadata.name.expect("a name");
        assert!(page.contains(&format!("| `{name}` (`{}`)", crd.spec.versions[0].name)), "{name}");
    }
}

/// The files below a place that may hold objects.
fn find(place: &Path, into: &mut Vec<PathBuf>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).expect("a folder") {
            find(&entry.expect("an entry").path(), into);
        }
        return;
    }
    let extension = place.extension().and_then(|extension| extension.to_str());
    if matches!(extension, Some("yaml" | "yml" | "json" | "md"))
        && !place.starts_with(root().join("deploy/helm"))
    {
        into.push(place.to_owned());
    }
}

/// The YAML in a file: all of it, or the blocks of a page.
fn blocks(file: &Path, text: &str) -> Vec<String> {
    if file.extension().is_none_or(|extension| extension != "md") {
        return vec![text.to_owned()];
    }
    let blocks = text.split("```yaml\n").skip(1);
    blocks.filter_map(|block| block.split_once("```")).map(|(block, _)| block.to_owned()).collect()
}

/// Our objects in a text; one that is no YAML, such as a template, has none.
fn objects(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_default();
    documents.into_iter().filter(is_ours).collect()
}

/// kubectl's YAML is 1.1: a key `on` without quotes is an answer, and goes over the wire as `true`.
fn as_sent(mut object: Value) -> Value {
    if let Some(retries) = object["spec"].get_mut("retries").and_then(Value::as_object_mut)
        && let Some(on) = retries.remove("on")
    {
        retries.insert("true".to_owned(), on);
    }
    object
}
