//! The demo from end to end: every row holds, and whatever is broken on purpose turns its row red.

use std::process::Command;
use std::process::Output;

/// Runs the demo with a short load, without `feature` if one is named.
fn demo(feature: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgemesh"));
    command.args(["demo", "--seconds", "1"]);
    if let Some(feature) = feature {
        command.args(["--without", feature]);
    }
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The first line of each row, and the verdict that it ends with.
fn rows(table: &str) -> Vec<(&str, &str)> {
    let table = table.trim_end().rsplit_once('\n').map_or("", |(rows, _count)| rows);
    let verdict =
        |line: &str| ["holds", "FAILED", "not shown"].into_iter().find(|word| line.ends_with(word));
    table.lines().filter_map(|line| Some((line, verdict(line)?))).collect()
}

/// The folder with the logs is kept where something failed; a test reads it and takes it away.
fn remove_kept_folder(stderr: &str) {
    let folder = stderr.lines().find_map(|line| line.split_once("its logs are in "));
    let (_, folder) = folder.unwrap_or_else(|| panic!("no folder is named:\n{stderr}"));
    // Of the first act's agent, or of the second's.
    let has = |name| std::fs::exists(format!("{folder}/{name}")).is_ok_and(|is| is);
    assert!(has("agent.log") || has("a1.log"), "{folder} has no log of an agent");
    std::fs::remove_dir_all(folder).expect("the folder is there");
}

#[test]
fn every_row_holds() {
    let output = demo(None);
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{table}\n{errors}");
    let rows = rows(&table);
    assert!(rows.len() >= 50, "{table}");
    for (line, verdict) in rows {
        assert!(verdict == "holds", "{line}\n{errors}");
    }
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    assert!(!errors.contains("logs are in"), "a folder was kept:\n{errors}");
}

/// `--without FEATURE` must fail these rows and hold those.
fn check(feature: &str, red: &[&str], green: &[&str]) {
    let output = demo(Some(feature));
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "without {feature}:\n{table}\n{errors}");
    let rows = rows(&table);
    for (names, want) in [(red, "FAILED"), (green, "holds")] {
        for name in names {
            let of_it: Vec<_> = rows.iter().filter(|(line, _)| line.starts_with(name)).collect();
            assert!(!of_it.is_empty(), "without {feature}: no row {name}\n{table}");
            for (line, verdict) in of_it {
                assert_eq!(*verdict, want, "without {feature}: {line}\n{errors}");
            }
        }
    }
    remove_kept_folder(&errors);
}

const HTTP: &str = "HTTP/1.1 by name";
const GRPC: &str = "gRPC";
const LIMIT: &str = "limit on the client's side";
const EJECTED: &str = "a failing Backend is ejected";
const LIVE: &str = "a changed manifest";
const KILLED: &str = "kill -9";
const COLD: &str = "cold restart";
const STOP: &str = "a graceful stop";

#[test]
fn without_capture_nothing_is_reached_by_name() {
    check("capture", &["the agent starts", HTTP, GRPC, STOP], &["explicit proxy"]);
}

#[test]
fn without_dns_names_are_red() {
    check("dns", &["names", HTTP], &["the agent starts", "explicit proxy", STOP]);
}

#[test]
fn without_balance_one_takes_it_all() {
    check("balance", &[HTTP, GRPC], &[LIMIT, EJECTED, KILLED]);
}

#[test]
fn without_a_limit_its_row_is_red() {
    check("limit", &[LIMIT], &[HTTP, EJECTED, COLD]);
}

#[test]
fn without_a_breaker_its_rows_are_red() {
    check("breaker", &[EJECTED, "a Backend that is well"], &[HTTP, LIMIT]);
}

#[test]
fn without_a_watch_changes_are_not_seen() {
    check("live", &[LIVE], &[HTTP, COLD]);
}

#[test]
fn without_a_route_a_service_of_routes_has_nobody() {
    check("routes", &["a Route splits"], &[HTTP, LIMIT]);
}

#[test]
fn without_a_key_users_are_spread() {
    check("keys", &["a key stays"], &[HTTP, LIMIT]);
}

#[test]
fn without_a_hand_over_calls_fail() {
    check("handover", &["a new agent takes over"], &[HTTP, COLD]);
}

#[test]
fn without_a_guard_nobody_comes_back() {
    check("guard", &[KILLED], &[HTTP, COLD, STOP]);
}

#[test]
fn without_a_store_a_cold_restart_knows_nothing() {
    check("store", &[COLD], &[HTTP, KILLED]);
}

#[test]
fn without_cleanup_rules_are_left() {
    check("cleanup", &[STOP], &[HTTP, KILLED, COLD]);
}

#[test]
fn another_certificate_is_noticed() {
    check("tls", &["TLS"], &[HTTP]);
}

#[test]
fn without_ipv6_its_rows_are_red() {
    check("ipv6", &["the same over IPv6"], &[HTTP]);
}

const JOIN: &str = "nodes join";
const ACROSS: &str = "edge → edge, gRPC";
const BEHIND_NAT: &str = "edge → edge behind";
const RELAYED: &str = "edge → edge, neither";
const TO_CLOUD: &str = "edge → cloud";
const REBOOT: &str = "an agent reboots";
const RELAYED_AGAIN: &str = "the cable is in again";
const CLOUD_KILLED: &str = "kill -9 of the cloud";
const CLOUD_BACK: &str = "the cloud is back";
const REMOVED: &str = "a removed node";
const UNHARMED: &str = "the others are unharmed";

#[test]
fn a_token_of_another_cloud_lets_nobody_join() {
    check("token", &[JOIN, RELAYED, REMOVED], &["in a node", ACROSS, TO_CLOUD, CLOUD_KILLED]);
}

#[test]
fn without_a_direct_link_all_depends_on_the_cloud() {
    let red = [ACROSS, BEHIND_NAT, "the cloud's cable", REBOOT, CLOUD_KILLED];
    check("direct", &red, &[JOIN, "in a node", RELAYED, TO_CLOUD, CLOUD_BACK]);
}

#[test]
fn without_the_hub_nobody_is_relayed() {
    check("hub", &[RELAYED, RELAYED_AGAIN], &[JOIN, ACROSS, REBOOT, CLOUD_KILLED, UNHARMED]);
}

#[test]
fn without_its_data_a_reboot_knows_nothing() {
    check("autonomy", &[REBOOT], &[ACROSS, RELAYED_AGAIN, CLOUD_KILLED, CLOUD_BACK]);
}

#[test]
fn what_is_told_to_nobody_arrives_nowhere() {
    check("sync", &[CLOUD_BACK], &[ACROSS, REBOOT, CLOUD_KILLED, UNHARMED]);
}

#[test]
fn without_rules_messages_lead_nowhere() {
    let red = ["Rule: REST", "Rule: MQTT", "Rule: edge call"];
    check("rules", &red, &[JOIN, ACROSS, TO_CLOUD, CLOUD_BACK, UNHARMED]);
}

#[test]
fn a_node_that_is_not_removed_is_not_refused() {
    check("removal", &[REMOVED], &[RELAYED, REBOOT, CLOUD_BACK, UNHARMED]);
}

#[test]
fn without_namespaces_the_explicit_proxy_is_shown_and_the_rest_is_not() {
    let output = demo(Some("namespaces"));
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{table}\n{errors}");
    assert!(errors.contains("to allow them: "), "{errors}");
    let rows_wanted =
        [(HTTP, "not shown"), (STOP, "not shown"), (JOIN, "not shown"), ("explicit", "holds")];
    for (name, want) in rows_wanted {
        let row = rows(&table).into_iter().find(|(line, _)| line.starts_with(name));
        assert_eq!(row.map(|(_, verdict)| verdict), Some(want), "{name}\n{table}\n{errors}");
    }
}
