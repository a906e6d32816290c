//! The weight label: on Slices it becomes the Backends', on Pods it stays a label.

use edgemesh_proto::record::Body;

use crate::manifests::tests::yaml;

#[test]
fn labels_say_weights() {
    const NOTE: &str = "is no weight and counts as 1";
    for (label, weight, note) in [
        ("", None, None),
        (", edgemesh.io/weight: '0'", Some(0), None),
        (", edgemesh.io/weight: '1000'", Some(1000), None),
        (", edgemesh.io/weight: '1001'", None, Some(NOTE)),
        (", edgemesh.io/weight: heavy", None, Some(NOTE)),
    ] {
        let slice = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: a, labels: {{kubernetes.io/service-name: a{label}}}}}\n\
             addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [10.1.0.1]}}]\n"
        );
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, labels: {{app: a{label}}}}}\n\
             spec: {{}}\nstatus: {{podIP: 10.1.0.1}}\n"
        );
        for text in [slice, pod] {
            let parsed = yaml(&text);
            assert_eq!(parsed.documents.len(), 1, "{:?}\n{text}", parsed.remarks);
            match &parsed.documents[0].records[0].body {
                Body::Slice(slice) => assert_eq!(slice.backends[0].weight, weight, "{text}"),
                Body::Workload(pod) => {
                    assert_eq!(pod.labels.len(), 1 + usize::from(!label.is_empty()))
                }
                other => panic!("{other:?}"),
            }
            let said: Vec<_> =
                parsed.remarks.iter().map(|r| (r.line, &*r.field, &*r.reason)).collect();
            match (note, &said[..]) {
                (None, []) => {}
                (Some(note), [(3, "metadata.labels[\"edgemesh.io/weight\"]", said)]) => {
                    assert!(said.contains(note), "{said}");
                }
                _ => panic!("{said:?}"),
            }
        }
    }
}
