//! Agents and a cloud between machines: real networks, real clients and servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "how long things take is for people")]

#[path = "../common"]
mod common {
    pub(crate) mod folder;
    pub(crate) mod namespace;
    pub(crate) mod run;
    pub(crate) mod wait;
}

/// Shared with `flows`, of which this uses a part.
#[path = "../flows"]
#[allow(dead_code, reason = "see there")]
mod flows {
    pub(crate) mod backend;
    pub(crate) mod h2peer;
    pub(crate) mod raw;
    pub(crate) mod servers;
}
use flows::{backend, h2peer, raw, servers};

mod load;
mod nodes;
mod world;

mod autonomy;
mod bad;
mod bulk;
mod busy;
mod cases;
mod disk;
mod faults;
mod identity;
mod ingress;
mod limits;
mod ways;

use std::time::Duration;

use common::namespace::{in_namespace, within};
use common::run::run;
use common::wait::eventually;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client's HTTP/2 connection from `netns` to `at`.
async fn h2_from(netns: &str, at: &str) -> h2::client::SendRequest<bytes::Bytes> {
    let at = at.to_owned();
    let stream = within(netns, move || std::net::TcpStream::connect(at).unwrap());
    stream.set_nonblocking(true).unwrap();
    h2peer::shake_hands(tokio::net::TcpStream::from_std(stream).unwrap()).await
}

#[test]
fn the_world_is_as_drawn() {
    in_namespace("the_world_is_as_drawn", || {
        let _world = world::World::new();
        let reach = |from: &str, to: &str| {
            let listener = within(to_ns(to), {
                let at = format!("{to}:7777");
                move || std::net::TcpListener::bind(at).unwrap()
            });
            let ran = run(from, &format!("nc -z -w 1 {to} 7777"));
            drop(listener);
            ran.code == Some(0)
        };
        assert!(reach("a1", world::B1.ip) && reach("a1", world::CLOUD.ip));
        assert!(reach("a1", world::A2.ip) && reach("b1", world::B2.ip));
        assert!(reach("b1", world::CLOUD.ip) && reach("cloud", world::B1.ip));
        assert!(!reach("b1", world::A1.ip) && !reach("cloud", world::A1.ip), "NAT lets nobody in");
        world::Cable::SiteA.drop_packets();
        assert!(!reach("a1", world::CLOUD.ip) && reach("a1", world::A2.ip));
        world::Cable::SiteA.pass_packets();
        assert!(reach("a1", world::CLOUD.ip));
        world::Cable::SiteB.pull();
        assert!(!reach("b1", world::CLOUD.ip));
        world::Cable::SiteB.plug();
        // The kernel takes a moment to believe it.
        let both = || reach("b1", world::CLOUD.ip) && reach("a1", world::B1.ip);
        eventually("the cable is in again", PATIENCE, || both().then_some(()));
    });
}

fn to_ns(ip: &str) -> &'static str {
    world::PLACES.iter().find(|place| place.ip == ip).unwrap().name
}
