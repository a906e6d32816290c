//! Istio's objects as the configuration of an Envoy, for what deploy/istio says: what istiod makes of
//! a ServiceEntry and its DestinationRule for a sidecar, and no more.

use serde_json::{Value, json};

/// Where things are in a test that are elsewhere in a cluster.
pub(crate) struct Place<'p> {
    /// Where the ingress listens.
    pub(crate) port: u16,
    /// In place of `/etc/edgemesh-ingress`.
    pub(crate) secrets: &'p str,
    /// A folder for the sockets by which clients reach Envoy, `NAME.sock` for each entry.
    pub(crate) sockets: &'p str,
    /// In place of what an entry's protocol says: CONNECT by HTTP/2.
    pub(crate) tunnel_by_http2: bool,
}

/// The configuration that `manifests` mean, and the names of their ServiceEntries.
pub(crate) fn bootstrap(manifests: &str, place: &Place<'_>) -> (Value, Vec<String>) {
    let objects: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
    let of_kind = |kind: &str| {
        let kind = json!(kind);
        objects.iter().filter(move |object| object["kind"] == kind).cloned().collect::<Vec<_>>()
    };
    let (entries, rules) = (of_kind("ServiceEntry"), of_kind("DestinationRule"));
    assert_eq!(entries.len() + rules.len(), objects.len(), "only these kinds are read");
    let (mut listeners, mut clusters, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for entry in &entries {
        let host = &entry["spec"]["hosts"][0];
        let rule = rules.iter().find(|rule| rule["spec"]["host"] == *host).expect("a rule");
        let policy = &rule["spec"]["trafficPolicy"];
        listeners.push(listener(entry, policy, place));
        clusters.push(cluster(entry, policy, place));
        names.push(text(&entry["metadata"]["name"]).to_owned());
    }
    let resources = json!({ "listeners": listeners, "clusters": clusters });
    (json!({ "static_resources": resources }), names)
}

fn listener(entry: &Value, policy: &Value, place: &Place<'_>) -> Value {
    let (name, spec) = (text(&entry["metadata"]["name"]), &entry["spec"]);
    let filter = match text(&spec["ports"][0]["protocol"]) {
        "TCP" => tcp(name, &policy["tunnel"]),
        "HTTP" | "GRPC" => http(name, text(&spec["hosts"][0]), &spec["ports"][0]["number"]),
        other => panic!("{other}"),
    };
    json!({
        "name": name,
        "address": { "pipe": { "path": format!("{}/{name}.sock", place.sockets) } },
        "filter_chains": [{ "filters": [filter] }],
    })
}

fn tcp(name: &str, tunnel: &Value) -> Value {
    assert_eq!(tunnel["protocol"], "CONNECT");
    let target = format!("{}:{}", text(&tunnel["targetHost"]), tunnel["targetPort"]);
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name,
            "cluster": name,
            "tunneling_config": { "hostname": target },
        },
    })
}

fn http(name: &str, host: &str, port: &Value) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        },
    });
    let route =
        json!({ "match": { "prefix": "/" }, "route": { "cluster": name, "timeout": "0s" } });
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "http_filters": [router],
            "upgrade_configs": [{ "upgrade_type": "websocket" }],
            "route_config": { "virtual_hosts": [{
                "name": name,
                "domains": [host, format!("{host}:{port}")],
                "routes": [route],
            }] },
        },
    })
}

fn cluster(entry: &Value, policy: &Value, place: &Place<'_>) -> Value {
    let (name, spec) = (text(&entry["metadata"]["name"]), &entry["spec"]);
    assert_eq!(spec["resolution"], "STATIC");
    let (port, endpoint) = (&spec["ports"][0], &spec["endpoints"][0]);
    assert!(endpoint["ports"][text(&port["name"])].is_u64(), "the endpoint has the entry's port");
    let address = json!({ "address": "127.0.0.1", "port_value": place.port });
    let endpoint = json!({ "endpoint": { "address": { "socket_address": address } } });
    let protocol = text(&port["protocol"]);
    let http2 = protocol == "GRPC" || (protocol == "TCP" && place.tunnel_by_http2);
    let protocol = if http2 { "http2_protocol_options" } else { "http_protocol_options" };
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
        "transport_socket": tls(&policy["tls"], http2, place),
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { protocol: {} },
        } },
    })
}

fn tls(settings: &Value, http2: bool, place: &Place<'_>) -> Value {
    assert_eq!(settings["mode"], "MUTUAL");
    let file = |key: &str| {
        let path = text(&settings[key]).replace("/etc/edgemesh-ingress", place.secrets);
        json!({ "filename": path })
    };
    let name = json!({ "san_type": "DNS", "matcher": { "exact": settings["subjectAltNames"][0] } });
    let alpn: &[&str] = if http2 { &["h2"] } else { &[] };
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": settings["sni"],
            "common_tls_context": {
                "alpn_protocols": alpn,
                "tls_certificates": [
                    { "certificate_chain": file("clientCertificate"), "private_key": file("privateKey") },
                ],
                "validation_context": {
                    "trusted_ca": file("caCertificates"),
                    "match_typed_subject_alt_names": [name],
                },
            },
        },
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}
