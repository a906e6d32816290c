//! Folders: which files are read, and the rules over all documents.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::manifests::tests::shown;
use crate::manifests::{MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, MAX_REMARKS, Observed, read};

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn service(name: &str, extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}{extra}}}\nspec:\n  ports: [{{port: 80}}]\n"
    )
}

fn observe(folder: &TempDir) -> Observed {
    read(&[folder.path().to_owned()])
}

/// Keys of the records, and Remarks after the name of their file.
fn told(observed: &Observed, folder: &Path) -> (Vec<String>, Vec<String>) {
    let keys = observed.records.keys().map(ToString::to_string).collect();
    let remarks = observed.remarks.iter().map(|remark| {
        let file = remark.file.strip_prefix(folder).unwrap_or(&remark.file);
        format!("{}: {}", file.display(), shown(remark).replace(&*folder.to_string_lossy(), "."))
    });
    (keys, remarks.collect())
}

fn check(files: &[(&str, &str)], keys: &[&str], remarks: &[&str]) {
    let folder = folder(files);
    let (got_keys, got_remarks) = told(&observe(&folder), folder.path());
    assert_eq!(got_keys, keys, "{got_remarks:?}");
    assert_eq!(got_remarks.len(), remarks.len(), "{got_remarks:?}");
    for (got, want) in got_remarks.iter().zip(remarks) {
        assert!(got.contains(want), "{got}\n  for {want}");
    }
}

#[test]
fn files_are_found() {
    let (a, b, c, d) = (service("a", ""), service("b", ""), service("c", ""), service("d", ""));
    let nothing = "not: read";
    check(
        &[
            ("a.yaml", &a),
            ("sub/deep/b.yml", &b),
            ("c.JSON", "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"n\"}}"),
            ("d.txt", &d),
            ("README", nothing),
            (".hidden.yaml", nothing),
            (".git/c.yaml", &c),
            ("x.yaml~", nothing),
        ],
        &["service default/a", "service default/b", "node n"],
        &[],
    );
}

#[test]
fn identities_are_kept_by_the_first() {
    let twice = format!("---\n{}---\n{}", service("a", ""), service("a", ", labels: {x: y}"));
    check(
        &[("a.yaml", &twice)],
        &["service default/a"],
        &["a.yaml: rejected 8 Service default/a [] is already there in ./a.yaml, line 2"],
    );
    check(
        &[
            ("b.yaml", &service("a", "")),
            ("a.yaml", &service("a", "")),
            ("c.yaml", &service("a", ", namespace: other")),
        ],
        &["service default/a", "service other/a"],
        &["b.yaml: rejected 1 Service default/a [] is already there in ./a.yaml, line 1"],
    );
}

#[test]
fn slices_count_more_than_endpoints() {
    let endpoints =
        |name: &str| format!("apiVersion: v1\nkind: Endpoints\nmetadata: {{name: {name}}}\n");
    let slice = |name: &str, of: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{kubernetes.io/service-name: {of}}}}}\naddressType: IPv4\nports: []\n"
        )
    };
    check(
        &[("a.yaml", &endpoints("a")), ("b.yaml", &endpoints("b")), ("c.yaml", &slice("a-1", "a"))],
        &["slice default/a-1", "slice default/b"],
        &["a.yaml: ignored 1 Endpoints default/a [] EndpointSlices of this Service"],
    );
    check(
        &[("a.yaml", &endpoints("a")), ("b.yaml", &slice("a", "other"))],
        &["slice default/a"],
        &["b.yaml: rejected 1 EndpointSlice default/a [] would become slice default/a"],
    );
    let broken = slice("a-1", "a").replace("IPv4", "IPv5");
    check(
        &[("a.yaml", &endpoints("a")), ("b.yaml", &broken)],
        &["slice default/a"],
        &["b.yaml: rejected 4 EndpointSlice default/a-1 [addressType]"],
    );
}

#[test]
fn addresses_are_kept_by_the_older() {
    let at = |name: &str, extra: &str, ip: &str, port: u16| {
        service(name, extra).replace("80}]", &format!("{port}}}]\n  clusterIP: {ip}"))
    };
    let born = |year: u16| format!(", creationTimestamp: {year}-01-01T00:00:00Z");
    let lost = |name: &str, winner: &str| {
        format!(
            "rejected 6 Service default/{name} [spec.clusterIP] 10.0.0.1 is the address of service {winner}"
        )
    };
    let (old, new) = (at("b", &born(2001), "10.0.0.1", 80), at("a", &born(2002), "10.0.0.1", 80));
    check(
        &[("1.yaml", &new), ("2.yaml", &old)],
        &["service default/b"],
        &[&lost("a", "default/b")],
    );
    let unknown = at("a", "", "10.0.0.1", 80);
    check(
        &[("1.yaml", &unknown), ("2.yaml", &old)],
        &["service default/b"],
        &[&lost("a", "default/b")],
    );
    let later = at("b", "", "10.0.0.1", 80);
    check(
        &[("1.yaml", &later), ("2.yaml", &unknown)],
        &["service default/a"],
        &[&lost("b", "default/a")],
    );
    // Another port, another address: no rival.
    let (port, address) = (at("c", "", "10.0.0.1", 81), at("d", "", "10.0.0.2", 80));
    check(
        &[("1.yaml", &unknown), ("2.yaml", &port), ("3.yaml", &address)],
        &["service default/a", "service default/c", "service default/d"],
        &[],
    );
}

#[test]
fn policies_without_a_service_are_noted() {
    let policy = "apiVersion: edgemesh.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p}\nspec:\n  targetRef: {kind: Service, name: a}\n";
    check(
        &[("p.yaml", policy)],
        &["policy default/p"],
        &["note 5 TrafficPolicy default/p [spec.targetRef] has no effect until service default/a"],
    );
    check(
        &[("p.yaml", policy), ("a.yaml", &service("a", ""))],
        &["service default/a", "policy default/p"],
        &[],
    );
}

#[test]
fn what_cannot_be_read_is_told() {
    let folder = folder(&[("good.yaml", &service("good", ""))]);
    let root = folder.path();
    fs::write(root.join("latin.yaml"), b"# x\nname: \xff\n").unwrap();
    let long = fs::File::create(root.join("long.yaml")).unwrap();
    long.set_len(MAX_FILE_BYTES + 1).unwrap();
    symlink("nowhere", root.join("dangling.yaml")).unwrap();
    symlink(".", root.join("loop")).unwrap();
    let deep = (0..=MAX_DEPTH).fold(root.to_owned(), |path, _| path.join("d"));
    fs::create_dir_all(&deep).unwrap();
    nix::unistd::mkfifo(&root.join("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let missing = PathBuf::from("/nowhere/at/all");
    let (keys, remarks) = told(&read(&[root.to_owned(), root.to_owned(), missing]), root);
    assert_eq!(keys, ["service default/good"]);
    let d = "d/".repeat(MAX_DEPTH);
    for (got, want) in remarks.iter().zip([
        "/nowhere/at/all: rejected 0  [] cannot read the folder: No such file".to_owned(),
        format!("{d}d: rejected 0  [] lies more than 8 folders deep"),
        "dangling.yaml: rejected 0  [] cannot read the file: No such file".to_owned(),
        "latin.yaml: rejected 0  [] is not UTF-8 text (line 2)".to_owned(),
        "long.yaml: rejected 0  [] is longer than 8 MiB".to_owned(),
    ]) {
        assert!(got.starts_with(&want), "{got}\n  for {want}");
    }
    assert_eq!(remarks.len(), 5, "{remarks:?}");
}

#[test]
fn mounted_config_maps_are_read_once() {
    let folder = folder(&[
        ("..2026_01/a.yaml", &service("a", "")),
        ("..2026_01/sub/b.yaml", &service("b", "")),
    ]);
    symlink("..2026_01", folder.path().join("..data")).unwrap();
    symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
    symlink("..data/sub", folder.path().join("sub")).unwrap();
    let (keys, remarks) = told(&observe(&folder), folder.path());
    assert_eq!((keys.len(), remarks.len()), (2, 0), "{keys:?} {remarks:?}");
}

#[test]
fn reading_twice_says_the_same() {
    let many: String =
        (0..2_000).map(|n| format!("---\n{}", service(&format!("s{}", n % 1_500), ""))).collect();
    let folder = folder(&[("many.yaml", &many)]);
    let observed = observe(&folder);
    assert_eq!((observed.records.len(), observed.remarks.len()), (1_500, 500));
    assert_eq!(observed, observe(&folder));
}

#[test]
fn files_and_remarks_are_bounded() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.yaml"), "wrong\n---\n".repeat(MAX_REMARKS + 5)).unwrap();
    let observed = observe(&folder);
    assert_eq!(observed.remarks.len(), MAX_REMARKS);
    assert_eq!(observed.remarks[MAX_REMARKS - 1].reason, "6 more remarks are left out");
    fs::write(folder.path().join("a.yaml"), "").unwrap();
    for n in 0..MAX_FILES {
        fs::File::create(folder.path().join(format!("b{n:05}.yaml"))).unwrap();
    }
    // The folder counts too, so two are left out, and one Remark says so.
    let (_, remarks) = told(&observe(&folder), folder.path());
    let first = format!("b{}.yaml: rejected 0  [] it and all after it", MAX_FILES - 2);
    assert!(remarks.len() == 1 && remarks[0].starts_with(&first), "{remarks:?}");
}

fn rule(name: &str, host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\n\
         spec:\n  host: {host}\n"
    )
}

#[test]
fn a_rule_and_a_policy_of_one_name_are_two() {
    let policy = "apiVersion: edgemesh.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: a}\n\
                  spec: {targetRef: {kind: Service, name: a}}\n";
    check(
        &[("a.yaml", &service("a", "")), ("b.yaml", policy), ("c.yaml", &rule("a", "a"))],
        &["service default/a", "policy default/a", "policy default/istio:a"],
        &[],
    );
}

/// KubeEdge's EdgeMesh goes by the rule's name, and its own examples have hosts that no Service has.
#[test]
fn a_rule_whose_host_is_no_service_is_taken_by_its_name() {
    let (svc, other) = (service("svc", ""), service("other", ""));
    let taken = "`edge` is no Service, so that the rule is taken for the Service of its own name";
    for (rule, service, said) in [
        (rule("svc", "edge"), "svc", taken),
        (rule("svc", "other"), "other", ""),
        (rule("lost", "edge"), "edge", "has no effect until service default/edge is there"),
    ] {
        let folder = folder(&[("a.yaml", &svc), ("b.yaml", &other), ("c.yaml", &rule)]);
        let observed = observe(&folder);
        let target = observed.records.values().find_map(|record| match &record.body {
            edgemesh_proto::record::Body::Policy(policy) => Some(&*policy.service),
            _ => None,
        });
        assert_eq!(target, Some(service));
        match &observed.remarks[..] {
            [] => assert!(said.is_empty(), "{rule}"),
            [remark] => assert!(!said.is_empty() && remark.reason.contains(said), "{remark:?}"),
            more => panic!("{more:?}"),
        }
    }
}
