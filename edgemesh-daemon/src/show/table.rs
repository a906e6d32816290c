//! The tables of `get`: one function a kind, each never wider than it is told to be.

use comfy_table::CellAlignment;
use comfy_table::ColumnConstraint;
use comfy_table::ContentArrangement;
use comfy_table::Table;
use comfy_table::Width;
use comfy_table::presets::NOTHING;

use crate::api::BackendSource;
use crate::api::BackendView;
use crate::api::BreakerState;
use crate::api::HealthState;
use crate::api::HealthView;
use crate::api::NodeView;
use crate::api::PolicySummary;
use crate::api::PolicyView;
use crate::api::PortView;
use crate::api::RegistrationView;
use crate::api::ServiceView;
use crate::show::links;

/// Stands where there is nothing to say.
const NONE: &str = "-";

/// Narrowest width at which all titles fit beside an address.
const ROOM_FOR_TITLES: u16 = 80;

/// Services with their addresses, ports and ready Backends.
pub fn services(services: &[ServiceView], width: u16) -> String {
    let rows = services.iter().map(|service| {
        let addresses: Vec<_> = service
            .addresses
            .iter()
            .cloned()
            .chain(service.virtual_addresses.iter().map(|address| format!("{address} (mesh)")))
            .chain(service.external_name.iter().map(|name| format!("is {name}")))
            .collect();
        let (ports, ready) = ports(&service.ports);
        vec![
            format!("{}/{}", service.namespace, service.name),
            lines(&addresses),
            ports,
            ready,
            backend_source(service.source).into(),
            service.policy.as_ref().map_or_else(|| NONE.into(), summary),
        ]
    });
    draw(&["SERVICE", "ADDRESSES", "PORTS", "READY", "FROM", "POLICY"], &[], rows, width)
}

fn ports(ports: &[PortView]) -> (String, String) {
    let name = |port: &PortView| {
        let name = if port.name.is_empty() { String::new() } else { format!("{} ", port.name) };
        let transport =
            if port.transport == "TCP" { String::new() } else { format!("/{}", port.transport) };
        let text = format!("{name}{}{transport} {}", port.port, port.protocol);
        text.trim_end().to_owned()
    };
    let names: Vec<_> = ports.iter().map(name).collect();
    let ready: Vec<_> =
        ports.iter().map(|port| format!("{}/{}", port.ready, port.backends)).collect();
    (lines(&names), lines(&ready))
}

const fn backend_source(source: BackendSource) -> &'static str {
    match source {
        BackendSource::Slice => "slice",
        BackendSource::Pods => "pods",
        BackendSource::None => "none",
    }
}

/// Backends with their breakers and counters.
pub fn backends(backends: &[BackendView], width: u16) -> String {
    let rows = backends.iter().map(|backend| {
        vec![
            format!("{}/{}:{}", backend.namespace, backend.service, or_none(&backend.port)),
            backend.address.clone(),
            or_none(&backend.node),
            near(backend),
            state(backend),
            backend.in_flight.to_string(),
            backend.requests.to_string(),
            backend.failures.to_string(),
        ]
    });
    let head = ["SERVICE:PORT", "ADDRESS", "NODE", "NEAR", "VERDICT", "NOW", "CALLS", "FAILED"];
    draw(&head, &[5, 6, 7], rows, width)
}

/// How near it is, and the way there.
fn near(backend: &BackendView) -> String {
    match backend.path {
        None => backend.tier.clone(),
        Some(path) => format!("{} {}", backend.tier, links::path(path)),
    }
}

/// What keeps calls away, and why.
fn state(backend: &BackendView) -> String {
    match &backend.health {
        Some(HealthView { state: HealthState::Unhealthy, reason }) => {
            format!("unhealthy: {}", reason.as_deref().unwrap_or(NONE))
        }
        Some(HealthView { state: HealthState::Unknown, .. }) => "unchecked".into(),
        Some(HealthView { state: HealthState::Healthy, .. }) | None => breaker(backend),
    }
}

fn breaker(backend: &BackendView) -> String {
    match (backend.state, backend.until_seconds) {
        (BreakerState::Admits, _) => "admits".into(),
        (BreakerState::Probes, _) => "probes".into(),
        (BreakerState::Rejects, None) => "rejects".into(),
        (BreakerState::Rejects, Some(seconds)) => format!("rejects {seconds}s"),
    }
}

/// Machines, and the ways to them where there are Links.
pub fn nodes(nodes: &[NodeView], width: u16) -> String {
    let linked = |node: &NodeView| node.agent || node.via_cloud || node.link.is_some();
    if nodes.iter().any(linked) {
        return linked_nodes(nodes, width);
    }
    let rows = nodes.iter().map(|node| {
        vec![
            node_name(node),
            or_none(&node.zone),
            lines(&node.addresses),
            node.backends.to_string(),
        ]
    });
    draw(&["NODE", "ZONE", "ADDRESSES", "BACKENDS"], &[3], rows, width)
}

fn linked_nodes(nodes: &[NodeView], width: u16) -> String {
    let rows = nodes.iter().map(|node| {
        let link = node.link.as_ref();
        let dialled = link.map(|link| link.address.clone()).filter(|address| !address.is_empty());
        let agent = match (node.agent, node.via_cloud) {
            (true, _) => "yes",
            (false, true) => "cloud",
            (false, false) => "no",
        };
        vec![
            node_name(node),
            or_none(&node.zone),
            dialled.unwrap_or_else(|| lines(&node.addresses)),
            agent.into(),
            link.map_or(NONE, |link| links::path(link.path)).into(),
            link.and_then(|link| link.rtt_ms).map_or_else(|| NONE.into(), links::milliseconds),
            link.map_or_else(|| NONE.into(), |link| or_none(&link.reason)),
        ]
    });
    draw(&["NODE", "ZONE", "ADDRESS", "AGENT", "PATH", "RTT", "WHY"], &[5], rows, width)
}

fn node_name(node: &NodeView) -> String {
    let here = if node.here { " (here)" } else { "" };
    format!("{}{here}", node.name)
}

/// What was signed up on the node.
pub fn registrations(registrations: &[RegistrationView], width: u16) -> String {
    let rows = registrations.iter().map(|one| {
        let state = match (&one.note, &one.health) {
            (Some(note), _) => note.clone(),
            (None, Some(HealthView { state: HealthState::Unhealthy, reason })) => {
                format!("unhealthy: {}", reason.as_deref().unwrap_or(NONE))
            }
            (None, Some(HealthView { state: HealthState::Unknown, .. })) => "unchecked".into(),
            (None, Some(HealthView { state: HealthState::Healthy, .. })) => "healthy".into(),
            (None, None) => "no check".into(),
        };
        vec![
            format!("{}/{}", one.namespace, one.service),
            one.id.clone(),
            one.address.clone(),
            one.left_seconds.map_or_else(|| "stays".into(), |left| format!("{left}s")),
            state,
        ]
    });
    draw(&["SERVICE", "ID", "ADDRESS", "LEFT", "STATE"], &[], rows, width)
}

/// Policies, in force or not.
pub fn policies(policies: &[PolicyView], width: u16) -> String {
    let rows = policies.iter().map(|policy| {
        let state = match (&policy.conflicted, &policy.missing) {
            (Some(reason), _) => format!("conflicted: {reason}"),
            (None, Some(reason)) => format!("inactive: {reason}"),
            (None, None) if policy.active => "active".into(),
            (None, None) => "inactive".into(),
        };
        vec![
            format!("{}/{}", policy.namespace, policy.name),
            policy.service.clone(),
            policy.origin.clone(),
            state,
            summary(&policy.policy),
        ]
    });
    draw(&["POLICY", "SERVICE", "KIND", "STATE", "SAYS"], &[], rows, width)
}

/// A Policy in a line or a few.
pub(crate) fn summary(policy: &PolicySummary) -> String {
    let mut says: Vec<String> = Vec::new();
    let words = [&policy.balance, &policy.locality];
    says.extend(words.into_iter().filter(|word| !word.is_empty()).cloned());
    let facts = [
        policy.client_qps.map(|qps| format!("client {qps}/s")),
        policy.server_qps.map(|qps| format!("server {qps}/s")),
        policy.consecutive_failures.map(|n| format!("eject after {n}")),
        policy.connect_timeout_ms.map(|ms| format!("connect {ms}ms")),
        policy.request_timeout_ms.map(|ms| format!("request {ms}ms")),
        policy.retries.map(|n| format!("retries {n}")),
    ];
    says.extend(facts.into_iter().flatten());
    says.extend(policy.guards.iter().cloned());
    if says.is_empty() { NONE.into() } else { says.join(", ") }
}

fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.into() } else { text.into() }
}

fn lines(items: &[String]) -> String {
    if items.is_empty() { NONE.into() } else { items.join("\n") }
}

/// A table without lines, columns two blanks apart; `numbers` are the columns set to the right.
pub(crate) fn draw(
    head: &[&str],
    numbers: &[usize],
    rows: impl Iterator<Item = Vec<String>>,
    width: u16,
) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(head.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for index in 0..head.len() {
        let Some(column) = table.column_mut(index) else { continue };
        column.set_padding((0, if index + 1 == head.len() { 0 } else { 2 }));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if fits(&table, width) {
        table.set_content_arrangement(ContentArrangement::Disabled);
    } else {
        constrain(&mut table, head, numbers, width);
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// Whether every row has room as it is.
fn fits(table: &Table, width: u16) -> bool {
    let contents: usize = table.column_max_content_widths().iter().copied().map(usize::from).sum();
    let padding: usize =
        table.column_iter().map(|column| usize::from(column.padding_width())).sum();
    contents + padding <= usize::from(width)
}

/// An address is what people copy: other columns wrap first, unless it takes a third of the
/// width. Where there is room for all titles, no column gets narrower than its own, and numbers
/// are not cut.
fn constrain(table: &mut Table, head: &[&str], numbers: &[usize], width: u16) {
    let widths = table.column_max_content_widths();
    for (index, title) in head.iter().enumerate() {
        let Some(column) = table.column_mut(index) else { continue };
        let content = widths.get(index).copied().unwrap_or(0);
        let title_width = u16::try_from(title.len()).unwrap_or(width);
        let least = match (title.starts_with("ADDRESS"), width >= ROOM_FOR_TITLES) {
            (true, _) => content.min(width / 3),
            (false, true) if numbers.contains(&index) => content.max(title_width),
            (false, true) => title_width,
            (false, false) => 1,
        };
        let least = least + column.padding_width(); // comfy-table counts it in
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
    }
}
