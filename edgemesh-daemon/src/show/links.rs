//! The lines of `status` about Links: to the cloud, and the ways to other nodes.

use crate::api::Certificate;
use crate::api::CloudLink;
use crate::api::CloudState;
use crate::api::Links;
use crate::api::Path;
use crate::api::PeerLink;
use crate::api::Status;
use crate::show::page::duration;
use crate::show::page::epoch;
use crate::show::table::draw;
use crate::show::wrap::Page;

/// Ways to other nodes that `status` lists; the rest is counted, and `get nodes` has them all.
const LISTED: usize = 16;

/// Adds what there is to tell.
pub(super) fn links(page: &mut Page, status: &Status) {
    let Links { cloud, peers } = &status.links;
    if let Some(cloud) = cloud {
        to_cloud(page, cloud);
    }
    if !peers.is_empty() {
        to_peers(page, peers);
    }
}

fn to_cloud(page: &mut Page, link: &CloudLink) {
    let (server, since) = (&link.server, duration(link.since_seconds));
    let rtt = link.rtt_ms.map(|rtt| format!(", {} there and back", milliseconds(rtt)));
    let text = match link.state {
        CloudState::Linked => format!("linked to {server} for {since}{}", rtt.unwrap_or_default()),
        CloudState::Connecting => format!("connecting to {server} for {since}"),
        CloudState::Away => format!("away for {since}, {server} tried last; tried again by itself"),
        CloudState::Refused => format!("refused by {server} for {since}: somebody has to act"),
    };
    page.fact("cloud", &text);
    if let Some(error) = &link.last_error {
        page.fact("", error);
    }
    if let Some(age) = link.data_age_seconds {
        let (revision, of) = (link.revision, epoch(&link.epoch));
        page.fact(
            "",
            &format!("has revision {revision} of epoch {of}, told {} ago", duration(age)),
        );
    }
    page.fact("", &link.certificate.as_ref().map_or_else(|| "not joined yet".into(), certificate));
}

fn certificate(certificate: &Certificate) -> String {
    let Certificate { node, not_after, expired_for_seconds } = certificate;
    match expired_for_seconds {
        None => format!("certificate of {node} until {not_after}"),
        Some(seconds) => format!(
            "certificate of {node} ended {} ago: other nodes accept it for the time of their \
             `cloud.offlineGrace`, the cloud renews it",
            duration(*seconds)
        ),
    }
}

fn to_peers(page: &mut Page, peers: &[PeerLink]) {
    let of = |path| peers.iter().filter(|peer| peer.path == path).count();
    let counted = [(Path::Direct, "direct"), (Path::Hub, "by the hub"), (Path::None, "cut off")];
    let counted: Vec<_> = counted
        .iter()
        .map(|(path, word)| (of(*path), word))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    page.fact("nodes", &counted.join(", "));
    let mut peers: Vec<&PeerLink> = peers.iter().collect();
    // What is amiss is listed where not all can be.
    peers.sort_by(|a, b| (b.path, &a.node).cmp(&(a.path, &b.node)));
    let rest = peers.len().saturating_sub(LISTED);
    let rows = peers.iter().take(LISTED).map(|peer| {
        vec![
            peer.node.clone(),
            path(peer.path).into(),
            peer.rtt_ms.map_or_else(|| "-".into(), milliseconds),
            duration(peer.since_seconds),
            peer.reason.clone(),
        ]
    });
    let draw = |width| draw(&["NODE", "PATH", "RTT", "FOR", "WHY"], &[2], rows, width);
    page.table(draw);
    if rest > 0 {
        page.item("…", &format!("and {rest} more: `edgemesh get nodes`"));
    }
}

/// The word for tables.
pub(super) const fn path(path: Path) -> &'static str {
    match path {
        Path::Direct => "direct",
        Path::Hub => "hub",
        Path::None => "none",
    }
}

/// With as many digits as say something.
pub(super) fn milliseconds(milliseconds: f64) -> String {
    match milliseconds {
        short if short < 9.95 => format!("{short:.1} ms"),
        long => format!("{long:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_digits_that_count() {
        for (ms, want) in [
            (0.04, "0.0 ms"),
            (0.42, "0.4 ms"),
            (9.94, "9.9 ms"),
            (9.96, "10 ms"),
            (131.4, "131 ms"),
        ] {
            assert_eq!(milliseconds(ms), want);
        }
    }
}
