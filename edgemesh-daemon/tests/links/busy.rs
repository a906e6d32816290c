//! Many calls at once to one node: each lane of the agent that is busy has a Link of its own.

use crate::PATIENCE;
use crate::common::namespace::in_namespace;
use crate::common::wait::eventually;
use crate::faults::reset;
use crate::nodes::{Node, agent, cloud};
use crate::raw::Raw;
use crate::ways::{PORTS, address, backends, goes};
use crate::world::{A1, B1, World};

/// Enough for each lane to have a few, and for the Link that is there to be busy.
const CALLS: usize = 48;

#[test]
fn busy_lanes_have_links_of_their_own() {
    in_namespace("busy::busy_lanes_have_links_of_their_own", || {
        let world = World::new();
        world.service("far", &address(B1), PORTS, &[B1]);
        let _running = backends(&world, B1);
        let _cloud = cloud(&world);
        let (a1, _b1) = (agent(&world, A1), agent(&world, B1));
        goes(&a1, B1, "direct");
        for _ in 0..20 {
            assert_eq!(a1.sh(&format!("curl -sS http://{}/", address(B1))).out, B1.name);
        }
        assert_eq!(links(&a1), 1, "who calls now and then needs no more");
        let held: Vec<Raw> = (0..CALLS).map(|_| greeted(&a1)).collect();
        let lanes = std::thread::available_parallelism().unwrap().get().min(4);
        eventually("a Link a lane", PATIENCE, || {
            let _one_more = greeted(&a1);
            (links(&a1) == lanes).then_some(())
        });
        // All of them break, in use as they are.
        reset("-I");
        eventually("the Links break", PATIENCE, || {
            a1.sh(&format!(
                "for n in 1 2 3 4; do curl -sS -m 1 http://{}/ & done; wait",
                address(B1)
            ));
            (links(&a1) == 0).then_some(())
        });
        reset("-D");
        eventually("the next call", PATIENCE, || {
            let ran = a1.sh(&format!("curl -sS -m 5 http://{}/", address(B1)));
            (ran.out == B1.name).then_some(())
        });
        drop(held);
    });
}

/// Where the other node lets its peers in.
const B1_AT: &str = "10.92.1.11:15008";

/// A call that lasts until it is dropped.
fn greeted(from: &Node) -> Raw {
    let mut raw = Raw::connect(from.place.name, &format!("{}:2701", address(B1)));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut raw.reader, &mut line).unwrap();
    assert_eq!(line, "Welcome\n");
    raw
}

/// Direct Links that the agent has made.
fn links(of: &Node) -> usize {
    let ran = of.sh(&format!("ss -Htn state established dst {B1_AT}"));
    ran.out.lines().count()
}
