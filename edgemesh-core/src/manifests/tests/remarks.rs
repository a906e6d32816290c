//! Every reason for which a document does not count, with its line and field.

use edgemesh_proto::record::MAX_BODY;
use proptest::prelude::*;

use crate::manifests::tests::{remarks, yaml};

/// One document, and what is said of it: line, field, and a part of the reason.
struct Row {
    text: String,
    want: (u32, &'static str, &'static str),
}

fn check(rows: &[Row]) {
    for Row { text, want: (line, field, reason) } in rows {
        let parsed = yaml(text);
        assert_eq!(parsed.documents, [], "{text}");
        let [remark] = &parsed.remarks[..] else {
            panic!("not one remark: {:?}\n{text}", parsed.remarks)
        };
        assert_eq!((remark.line, &*remark.field), (*line, *field), "{remark:?}\n{text}");
        assert!(remark.reason.contains(reason), "{remark:?}\n{text}");
    }
}

/// A Service whose spec begins at line 4.
fn service(spec: &str, want: (u32, &'static str, &'static str)) -> Row {
    let head = "apiVersion: v1\nkind: Service\nmetadata: {name: hello}\nspec:\n";
    Row { text: format!("{head}{spec}\n"), want }
}

#[test]
fn services() {
    check(&[
        service("  ports: [{port: 0}]", (5, "spec.ports[0].port", "1 to 65535, not 0")),
        service("  ports:\n  - port: 65536", (6, "spec.ports[0].port", "not 65536")),
        service("  ports: [{port: '80'}]", (5, "spec.ports[0].port", "not `80`")),
        service("  ports: [{port: 80.5}]", (5, "spec.ports[0].port", "whole number")),
        service("  ports:\n  - name: a", (6, "spec.ports[0].port", "is missing; add `port`")),
        service("  ports: 80", (5, "spec.ports", "must be a list, not 80")),
        service("  ports: [80]", (5, "spec.ports[0]", "must be a map")),
        service("  selector: {a: b}", (4, "spec.ports", "no port")),
        service("  ports: []", (5, "spec.ports", "no port")),
        service(
            "  ports:\n  - port: 80\n    name: a\n  - port: 81",
            (8, "spec.ports[1].name", "each port needs a name"),
        ),
        service(
            "  ports:\n  - {name: a, port: 80}\n  - {name: a, port: 81}",
            (7, "spec.ports[1].name", "also the name of ports[0]"),
        ),
        service(
            "  ports:\n  - {name: a, port: 80}\n  - name: b\n    port: 80",
            (8, "spec.ports[1].port", "also the port of ports[0]"),
        ),
        service("  ports: [{port: 80, name: A}]", (5, "spec.ports[0].name", "no DNS label")),
        service(
            "  ports: [{port: 80, targetPort: 65536}]",
            (5, "spec.ports[0].targetPort", "65535"),
        ),
        service(
            "  ports: [{port: 80, targetPort: '80'}]",
            (5, "spec.ports[0].targetPort", "remove the quotes"),
        ),
        service("  ports: [{port: 80, nodePort: -1}]", (5, "spec.ports[0].nodePort", "not -1")),
        service(
            "  ports: [{port: 80, protocol: tcp}]",
            (5, "spec.ports[0].protocol", "one of TCP, UDP, SCTP"),
        ),
        service(
            "  ports: [{port: 80}]\n  clusterIP: 10.0.0",
            (6, "spec.clusterIP", "no IP address"),
        ),
        service(
            "  ports: [{port: 80}]\n  clusterIP: 0.0.0.0",
            (6, "spec.clusterIP", "one machine"),
        ),
        service("  ports: [{port: 80}]\n  clusterIP: 10", (6, "spec.clusterIP", "in quotes")),
        service(
            "  ports: [{port: 80}]\n  clusterIP: 10.0.0.1\n  clusterIPs: [10.0.0.2]",
            (7, "spec.clusterIPs", "that of `clusterIP`"),
        ),
        service(
            "  ports: [{port: 80}]\n  clusterIPs: [10.0.0.1, 10.0.0.2]",
            (6, "spec.clusterIPs", "one family"),
        ),
        service(
            "  ports: [{port: 80}]\n  clusterIPs: [10.0.0.1, None]",
            (6, "spec.clusterIPs", "stands alone"),
        ),
        service(
            "  ports: [{port: 80}]\n  clusterIPs: [10.0.0.1, 'fd00::1', 10.0.0.2]",
            (6, "spec.clusterIPs", "more than two"),
        ),
        service(
            "  ports: [{port: 80}]\n  externalIPs:\n  - 1.2.3.4\n  - x",
            (8, "spec.externalIPs[1]", "no IP address"),
        ),
        service("  ports: [{port: 80}]\n  type: Cluster", (6, "spec.type", "one of ClusterIP")),
        service("  type: ExternalName", (4, "spec.externalName", "is missing")),
        service(
            "  type: ExternalName\n  externalName: a b",
            (6, "spec.externalName", "no DNS name"),
        ),
        service(
            "  type: ExternalName\n  externalName: 1.2.3.4",
            (6, "spec.externalName", "is an address"),
        ),
        service(
            "  type: ExternalName\n  externalName: a.b\n  clusterIP: None",
            (7, "spec.clusterIP", "no place"),
        ),
        service(
            "  ports: [{port: 80}]\n  sessionAffinity: Cookie",
            (6, "spec.sessionAffinity", "ClientIP"),
        ),
        service(
            "  ports: [{port: 80}]\n  sessionAffinity: ClientIP\n  sessionAffinityConfig:\n    clientIP:\n      timeoutSeconds: 86401",
            (9, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", "1 to 86400"),
        ),
        service(
            "  ports: [{port: 80}]\n  publishNotReadyAddresses: 1",
            (6, "spec.publishNotReadyAddresses", "true or false"),
        ),
        service(
            "  ports: [{port: 80}]\n  selector: {app.io/v: 1}",
            (5 + 1, "spec.selector[\"app.io/v\"]", "in quotes"),
        ),
        service("  ports: [{port: 80}]\n  selector: [a]", (6, "spec.selector", "a map")),
    ]);
}

#[test]
fn heads() {
    let row = |text: &str, want| Row { text: text.into(), want };
    check(&[
        row("kind: Service\n", (1, "apiVersion", "is missing; add `apiVersion`")),
        row("# c\n\napiVersion: v1\n", (3, "kind", "is missing; add `kind`")),
        row("apiVersion: v1\nkind: 5\n", (2, "kind", "must be text")),
        row("- a\n", (1, "", "must be a map")),
        row("hello\n", (1, "", "must be a map")),
        row("apiVersion: v1\nkind: Service\n", (1, "metadata", "is missing")),
        row(
            "apiVersion: v1\nkind: Service\nmetadata:\n  labels: {}\n",
            (3, "metadata.name", "is missing"),
        ),
        row(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a.b\n",
            (4, "metadata.name", "no DNS label"),
        ),
        row(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a..b\n",
            (4, "metadata.name", "no DNS name"),
        ),
        row(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: A\n",
            (4, "metadata.name", "no DNS name"),
        ),
        row(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: b.c\n",
            (5, "metadata.namespace", "no DNS label"),
        ),
        row(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  creationTimestamp: today\n",
            (5, "metadata.creationTimestamp", "a time such as"),
        ),
        row("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n", (1, "spec", "is missing")),
        row(
            "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1beta1\n",
            (2, "apiVersion", "write discovery.k8s.io/v1"),
        ),
        row("apiVersion: v2\nkind: Service\n", (1, "apiVersion", "write v1")),
        row("apiVersion: v1\nkind: List\nitems: 5\n", (3, "items", "a list")),
    ]);
}

/// An EndpointSlice whose own part begins at line 4.
fn slice(rest: &str, want: (u32, &'static str, &'static str)) -> Row {
    let head = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                metadata: {name: hello-1, labels: {kubernetes.io/service-name: hello}}\n";
    Row { text: format!("{head}{rest}\n"), want }
}

#[test]
fn slices_and_endpoints() {
    let no_label = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: x\n  labels: {a: b}\n";
    let subsets = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\nsubsets:\n";
    let row = |text: String, want| Row { text, want };
    check(&[
        row(no_label.into(), (5, "metadata.labels", "kubernetes.io/service-name")),
        row(
            no_label.replace("\n  labels: {a: b}", ""),
            (3, "metadata", "kubernetes.io/service-name"),
        ),
        slice("ports: []", (1, "addressType", "is missing")),
        slice("addressType: FQDN", (4, "addressType", "FQDN is not served")),
        slice("addressType: ipv4", (4, "addressType", "one of IPv4")),
        slice("addressType: IPv4\nports: null", (5, "ports", "all ports")),
        slice("addressType: IPv4", (1, "ports", "all ports")),
        slice("addressType: IPv4\nports:\n- name: a\n  port: null", (6, "ports[0]", "all ports")),
        slice(
            "addressType: IPv4\nports:\n- port: 1\n- port: 2",
            (7, "ports[1]", "the name of ports[0]"),
        ),
        slice(
            "addressType: IPv4\nports: []\nendpoints:\n- addresses: ['::1']",
            (7, "endpoints[0].addresses[0]", "another family"),
        ),
        slice(
            "addressType: IPv6\nports: []\nendpoints:\n- addresses: [10.0.0.1]",
            (7, "endpoints[0].addresses[0]", "another family"),
        ),
        slice(
            "addressType: IPv4\nports: []\nendpoints:\n- addresses: []",
            (7, "endpoints[0].addresses", "1 to 100"),
        ),
        slice(
            "addressType: IPv4\nports: []\nendpoints:\n- hostname: a",
            (7, "endpoints[0].addresses", "is missing"),
        ),
        slice(
            "addressType: IPv4\nports: []\nendpoints:\n- addresses: [10.0.0.1]\n  conditions: {ready: 1}",
            (8, "endpoints[0].conditions.ready", "true or false"),
        ),
        slice(
            "addressType: IPv4\nports: []\nendpoints:\n- addresses: [10.0.0.1]\n  nodeName: A_b",
            (8, "endpoints[0].nodeName", "no DNS name"),
        ),
        slice(
            "addressType: IPv4\nports: []\nendpoints:\n- addresses: [10.0.0.1]\n  hostname: a.b",
            (8, "endpoints[0].hostname", "no DNS label"),
        ),
        row(
            format!("{subsets}- addresses:\n  - {{ip: x}}\n"),
            (6, "subsets[0].addresses[0].ip", "no IP address"),
        ),
        row(
            format!("{subsets}- addresses:\n  - {{hostname: x}}\n"),
            (6, "subsets[0].addresses[0].ip", "is missing"),
        ),
        row(
            format!("{subsets}- notReadyAddresses: 1\n"),
            (5, "subsets[0].notReadyAddresses", "a list"),
        ),
        row(format!("{subsets}- ports: [{{name: a}}]\n"), (5, "subsets[0].ports[0]", "all ports")),
    ]);
}

#[test]
fn pods_and_nodes() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n";
    let row = |text: String, want| Row { text, want };
    check(&[
        row(pod.into(), (1, "", "no address yet")),
        row(format!("{pod}status: {{phase: Pending}}\n"), (1, "", "no address yet")),
        row(format!("{pod}status: {{phase: Failed, podIP: 10.0.0.1}}\n"), (1, "", "has ended")),
        row(format!("{pod}status: {{phase: Succeeded, podIP: 10.0.0.1}}\n"), (1, "", "has ended")),
        row(
            format!("{pod}status:\n  podIPs:\n  - ip: ten\n"),
            (6, "status.podIPs[0].ip", "no IP address"),
        ),
        row(format!("{pod}status: {{podIP: 10.0.0.1}}\n"), (1, "spec", "is missing")),
        row(
            format!(
                "{pod}status: {{podIP: 10.0.0.1}}\nspec:\n  containers:\n  - ports:\n    - {{name: a, containerPort: 0}}\n"
            ),
            (8, "spec.containers[0].ports[0].containerPort", "1 to 65535"),
        ),
        row(
            format!("{node}status:\n  addresses:\n  - type: InternalIP\n    address: x\n"),
            (7, "status.addresses[0].address", "no IP address"),
        ),
    ]);
}

#[test]
fn other_kinds_are_ignored() {
    for (head, object, reason) in [
        ("apiVersion: apps/v1\nkind: Deployment", "Deployment default/a", "of this kind"),
        ("apiVersion: v1\nkind: ConfigMap", "ConfigMap default/a", "of this kind"),
        ("apiVersion: serving.knative.dev/v1\nkind: Service", "Service default/a", "of this kind"),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute",
            "GRPCRoute default/a",
            "of this kind",
        ),
    ] {
        let said = remarks(&format!("{head}\nmetadata: {{name: a}}\n"));
        let [said] = &said[..] else { panic!("{said:?}") };
        assert!(
            said.starts_with(&format!("ignored 1 {object} []")) && said.ends_with(reason),
            "{said}"
        );
    }
}

const GOOD: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: good}\nspec: {ports: [{port: 80}]}\n";

#[test]
fn a_broken_document_ends_with_its_own_text() {
    for (broken, line) in [
        ("a: [1\nb: 2\n", 8),
        ("a: 1\na: 2\n", 8),
        ("\"never ends\n", 7),
        ("a: b: c\n", 7),
        ("{{{{{{\n", 7),
        ("kind: Service\nmetadata:\n   x: 1\n  y: 2\n", 10),
    ] {
        let text = format!("---\n{GOOD}---\n{broken}---\n{GOOD}");
        let parsed = yaml(&text);
        assert_eq!(parsed.documents.len(), 2, "{text}");
        let [remark] = &parsed.remarks[..] else { panic!("{:?}\n{text}", parsed.remarks) };
        assert!(remark.reason.starts_with("no valid YAML: "), "{remark:?}");
        assert!(!remark.reason.contains('\n'), "{remark:?}");
        assert!(
            remark.line >= line && remark.line <= line + 3,
            "{} for {line}: {remark:?}",
            remark.line
        );
    }
}

#[test]
fn bombs_are_refused() {
    let mut aliases = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let row = format!("*a{}, ", level - 1).repeat(10);
        aliases.push_str(&format!("a{level}: &a{level} [{row}]\n"));
    }
    for text in [aliases, "[".repeat(100_000), "a: {".repeat(200), "- ".repeat(50_000)] {
        let parsed = yaml(&format!("{text}\n---\n{GOOD}"));
        assert_eq!(parsed.documents.len(), 1);
        assert_eq!(parsed.remarks.len(), 1);
    }
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "\\PC*") {
        yaml(&text);
    }

    #[test]
    fn any_yaml_like_text_is_survived(
        words in prop::collection::vec(prop::sample::select(&[
            "apiVersion: v1\n", "kind: Service\n", "kind: List\n", "items:\n", "- ", "  ", "metadata: ",
            "{name: a}\n", "spec:\n", "ports: ", "[", "]", "{", "}", "port: ", "80", "null", "\n", "---\n",
            "...\n", "&a ", "*a", "<<: ", "!!int ", "'", "\"", "|\n", "# ", "\t", ": ", "? ", "%", "é",
        ][..]), 0..40),
    ) {
        yaml(&words.concat());
    }

    #[test]
    fn a_bad_document_changes_no_other(bad in "[ -~\n]{0,60}") {
        // Lines that begin a document would make the bad one two.
        prop_assume!(!bad.lines().any(|line| line.starts_with("---") || line.starts_with("...")));
        let parsed = yaml(&format!("{GOOD}---\n{bad}\n---\n{GOOD}"));
        let good = parsed.documents.iter().filter(|document| document.object == "Service default/good");
        prop_assert_eq!(good.count(), 2);
    }
}

/// No Message could carry it, so that it would count here and nowhere else.
#[test]
fn what_is_larger_than_a_record_may_be_is_named() {
    let node = |bytes: usize| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{ name: n, labels: {{ l: {} }} }}\n",
            "x".repeat(bytes)
        )
    };
    assert_eq!(remarks(&node(1000)), [""; 0]);
    let said = remarks(&format!("---\n---\n{}", node(MAX_BODY)));
    let [said] = &said[..] else { panic!("{said:?}") };
    assert!(said.starts_with("rejected 3 Node n") && said.contains("at most 2097152"), "{said}");
}
