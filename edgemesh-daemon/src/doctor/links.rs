//! Checks of the Links: the cloud, the token, and where other nodes come in.

use crate::api::{CloudLink, CloudState, Path as Way, PeerLink};
use crate::config::PeerPath;
use crate::doctor::facts::Facts;
use crate::doctor::report::{Finding, bad, ok, or_ok, warn};
use crate::doctor::uplink::{Reached, Token, Unreached};
use crate::show::page::counted;

/// Said where there is nothing to look at.
const ALONE: &str = "no `cloud` is configured: this node stands alone";
/// Ways to other nodes that are listed; the rest is counted.
const LISTED: usize = 8;
/// Where tokens come from.
const MAKE: &str = "`edgemesh token create` where the cloud runs; put it into `cloud.tokenFile`";

/// Whether the cloud can be reached, and what it says.
pub(super) fn cloud(facts: &Facts) -> Vec<Finding> {
    if facts.told().is_none_or(|config| config.cloud.is_none()) {
        return ok(ALONE);
    }
    let said = facts.agent.as_ref().ok().and_then(|answers| answers.status.links.cloud.as_ref());
    servers(&facts.uplink.servers, said)
}

fn servers(reached: &[Reached], said: Option<&CloudLink>) -> Vec<Finding> {
    let any = reached.iter().any(|server| server.outcome.is_ok());
    let linked = said.is_some_and(|link| link.state == CloudState::Linked);
    let mut findings: Vec<Finding> = reached.iter().filter_map(|r| unreached(r, any)).collect();
    if let Some(link) = said {
        let error = link.last_error.as_deref().unwrap_or("it does not say why");
        match link.state {
            CloudState::Linked | CloudState::Connecting => {}
            CloudState::Away if !any => {}
            CloudState::Away => findings.push(bad(
                format!("{} takes connections, and the Link fails: {error}", link.server),
                "what the line names; the cloud's log has its side of it",
            )),
            CloudState::Refused => findings.push(bad(
                format!("{} refuses this node: {error}", link.server),
                "what the line names; the agent tries again by itself",
            )),
        }
    }
    let first = reached.iter().find(|server| server.outcome.is_ok());
    let first = first.map_or("", |server| server.server.as_str());
    or_ok(findings, if linked { format!("linked, {first}") } else { format!("{first} answers") })
}

fn unreached(reached: &Reached, another: bool) -> Option<Finding> {
    let server = &reached.server;
    let (found, fix) = match reached.outcome.as_ref().err()? {
        Unreached::NoName(error) => (
            format!("{server}: its name has no address ({error})"),
            "correct the name, or see the line on the resolver; an address in `cloud.servers` needs none",
        ),
        Unreached::Refused => (
            format!("{server} refuses connections: nothing listens there"),
            "start `edgemesh cloud` there, or correct the port: it is `hub.listen` of cloud.yaml",
        ),
        Unreached::Silent => (
            format!("{server} does not answer"),
            "a firewall on the way, or the machine is off: let TCP to that port through",
        ),
        Unreached::NoWay(error) => (
            format!("{server} cannot be reached: {error}"),
            "see that the uplink is up and has a route; within the site all goes on without",
        ),
    };
    Some(if another { warn(found, fix) } else { bad(found, fix) })
}

/// Whether a node that has not joined can.
pub(super) fn token(facts: &Facts) -> Vec<Finding> {
    match facts.told().map(|config| config.cloud.is_some()) {
        Some(true) => usable(&facts.uplink.token, facts.uplink.joined()),
        Some(false) | None => ok(ALONE),
    }
}

fn usable(token: &Token, joined: bool) -> Vec<Finding> {
    match token {
        // Where the file is gone it was tidied away.
        Token::Unnamed | Token::Absent(_) | Token::Wrong(..) if joined => {
            ok("not needed: this node has joined")
        }
        Token::Unnamed => {
            vec![bad("this node has not joined, and `cloud.tokenFile` names no token", MAKE)]
        }
        Token::Absent(error) => vec![bad(error, MAKE)],
        Token::Wrong(file, error) => vec![bad(format!("{file}: {error}"), MAKE)],
        Token::OtherCloud(file) => vec![warn(
            format!("{file} holds a token for another cloud than the one that this node joined"),
            "to move the node there, stop the agent, remove `identity.pem` in `dataDir` and start it",
        )],
        Token::Open(file) => vec![warn(
            format!("others may read {file}, and could join by the token in it"),
            format!("`chmod 600 {file}`"),
        )],
        Token::Fine if joined => ok("not needed: this node has joined"),
        Token::Fine => ok("can be read, and is whole"),
    }
}

/// Whether other nodes can come in, and this one reaches them.
pub(super) fn peers(facts: &Facts) -> Vec<Finding> {
    let Some(config) = facts.told().filter(|config| config.cloud.is_some()) else {
        return ok(ALONE);
    };
    let Ok(answers) = &facts.agent else { return ok("not looked at: no agent answers") };
    let bound = facts.ports.iter().any(|holder| holder.key == "peer.listen");
    let port = config.peer.listen.port();
    let bound = bound || port == 0; // the kernel chose another
    ways(&answers.status.links.peers, config.peer.path, port, bound)
}

fn ways(peers: &[PeerLink], path: PeerPath, port: u16, bound: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !bound && path != PeerPath::Hub {
        findings.push(bad(
            format!("nothing listens at port {port} (peer.listen): others come in by the hub only"),
            "the agent's log says why; then restart it",
        ));
    }
    let cut_off: Vec<_> = peers.iter().filter(|peer| peer.path == Way::None).collect();
    findings.extend(cut_off.iter().take(LISTED).map(|peer| {
        bad(
            format!("no way leads to {}: {}", peer.node, peer.reason),
            "`edgemesh status` there; let TCP to its `peer.listen` through, or mend the uplinks",
        )
    }));
    if let Some(more) = cut_off.len().checked_sub(LISTED).filter(|more| *more > 0) {
        findings.push(bad(format!("and {more} more"), "`edgemesh get nodes` lists them"));
    }
    let of = |way| peers.iter().filter(|peer| peer.path == way).count() as u64;
    let (direct, hub) = (counted(of(Way::Direct), "node"), of(Way::Hub));
    or_ok(findings, format!("{direct} reached directly, {hub} by the hub"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Level;

    fn check(findings: &[Finding], want: &[(Level, &str)]) {
        let have: Vec<_> = findings.iter().map(|f| (f.level, &f.found)).collect();
        let fits = have.len() == want.len()
            && have.iter().zip(want).all(|(h, w)| h.0 == w.0 && h.1.contains(w.1));
        assert!(fits, "{have:?}, not {want:?}");
        assert!(
            findings.iter().all(|f| (f.level == Level::Ok) == f.fix.is_empty()),
            "{findings:?}"
        );
    }

    fn link(state: CloudState, last_error: Option<&str>) -> CloudLink {
        CloudLink {
            state,
            since_seconds: 1,
            server: "a:1".into(),
            rtt_ms: None,
            epoch: String::new(),
            revision: 0,
            data_age_seconds: None,
            certificate: None,
            last_error: last_error.map(str::to_owned),
        }
    }

    /// How the servers were reached, what the agent says, and what is found.
    type Case = (Vec<Reached>, Option<CloudLink>, Vec<(Level, &'static str)>);

    #[test]
    fn why_the_cloud_is_not_reached_is_named() {
        let to = |server: &str, outcome| Reached { server: server.into(), outcome };
        let (bad, warn, ok) = (Level::Bad, Level::Warn, Level::Ok);
        let refused = || to("a:1", Err(Unreached::Refused));
        let good = || to("b:1", Ok(()));
        let cases: Vec<Case> = vec![
            (vec![good()], None, vec![(ok, "b:1 answers")]),
            (vec![good()], Some(link(CloudState::Linked, None)), vec![(ok, "linked, b:1")]),
            (vec![refused()], None, vec![(bad, "a:1 refuses connections")]),
            // A dead first entry harms nobody as long as there is a second.
            (vec![refused(), good()], None, vec![(warn, "a:1 refuses connections")]),
            (
                vec![to("a:1", Err(Unreached::NoName("nobody knows it".into())))],
                None,
                vec![(bad, "a:1: its name has no address (nobody knows it)")],
            ),
            (vec![to("a:1", Err(Unreached::Silent))], None, vec![(bad, "a:1 does not answer")]),
            (
                vec![to("a:1", Err(Unreached::NoWay("Network is unreachable".into())))],
                Some(link(CloudState::Away, Some("said already"))),
                vec![(bad, "a:1 cannot be reached: Network is unreachable")],
            ),
            (
                vec![good()],
                Some(link(CloudState::Away, Some("other CA"))),
                vec![(bad, "a:1 takes connections, and the Link fails: other CA")],
            ),
            (
                vec![good()],
                Some(link(CloudState::Refused, Some("revoked"))),
                vec![(bad, "a:1 refuses this node: revoked")],
            ),
        ];
        for (reached, said, want) in cases {
            check(&servers(&reached, said.as_ref()), &want);
        }
    }

    #[test]
    fn a_token_counts_until_the_node_has_joined() {
        let cases = [
            (Token::Unnamed, (Level::Bad, "names no token"), (Level::Ok, "has joined")),
            (Token::Absent("t: gone".into()), (Level::Bad, "t: gone"), (Level::Ok, "has joined")),
            (
                Token::Wrong("t".into(), "no join token".into()),
                (Level::Bad, "t: no join token"),
                (Level::Ok, "has joined"),
            ),
            (
                Token::Open("t".into()),
                (Level::Warn, "others may read t"),
                (Level::Warn, "others may read t"),
            ),
            (
                Token::OtherCloud("t".into()),
                (Level::Warn, "another cloud"),
                (Level::Warn, "another cloud"),
            ),
            (Token::Fine, (Level::Ok, "is whole"), (Level::Ok, "has joined")),
        ];
        for (token, before, after) in cases {
            check(&usable(&token, false), &[before]);
            check(&usable(&token, true), &[after]);
        }
    }

    #[test]
    fn nodes_that_nobody_reaches_and_a_port_that_nobody_holds() {
        let peer = |node: &str, path| PeerLink {
            node: node.into(),
            path,
            reason: "no answer".into(),
            rtt_ms: None,
            since_seconds: 0,
            address: String::new(),
        };
        let peers = [peer("a", Way::Direct), peer("b", Way::Hub)];
        let well = (Level::Ok, "1 node reached directly, 1 by the hub");
        check(&ways(&peers, PeerPath::Auto, 15008, true), &[well]);
        check(&ways(&peers, PeerPath::Hub, 15008, false), &[well]);
        let unbound = (Level::Bad, "nothing listens at port 15008");
        check(&ways(&peers, PeerPath::Auto, 15008, false), &[unbound]);
        let lost: Vec<_> = (0..10).map(|_| peer("c", Way::None)).collect();
        let mut want = vec![(Level::Bad, "no way leads to c: no answer"); 8];
        want.push((Level::Bad, "and 2 more"));
        check(&ways(&lost, PeerPath::Auto, 15008, true), &want);
    }
}
