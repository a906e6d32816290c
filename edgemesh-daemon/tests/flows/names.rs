//! Names: what the C library and `dig` make of them, with a name server that only interception
//! can reach.

use crate::agent::Agent;
use crate::common::namespace::in_namespace;
use crate::common::run::{need, run};
use crate::world::{ONE, PLACES, World};

/// A question and a word of the right answer.
const DIG: &[(&str, &str)] = &[
    ("hello.default.svc.cluster.local A", "10.96.0.10"),
    ("hello.default.svc.cluster.local AAAA", "fd10:96::10"),
    ("hello.default A", "10.96.0.10"),
    ("hello.default.svc A", "10.96.0.10"),
    ("+tcp hello.default A", "10.96.0.10"),
    ("+search hello A", "10.96.0.10"),
    ("HeLLo.DEFAULT.svc.cluster.local A", "10.96.0.10"),
    // a family that is missing is no error, or the C library gives up on the name
    ("four.default AAAA", "status: NOERROR"),
    ("four.default AAAA", "ANSWER: 0"),
    ("four.default A", "10.96.0.11"),
    ("six.default A", "status: NOERROR"),
    ("six.default AAAA", "fd10:96::12"),
    ("nobody.default.svc.cluster.local A", "status: NXDOMAIN"),
    ("headless.default A", "198.18."),
    ("headless.default AAAA", "fd96::"),
    // not ours, and the upstream does not exist
    ("example.com A", "status: SERVFAIL"),
    ("nobody.default A", "status: SERVFAIL"),
];

/// A name and what `getent ahosts` must print.
const GETENT: &[(&str, &[&str])] = &[
    ("hello", &["10.96.0.10", "fd10:96::10"]),
    ("hello.default", &["10.96.0.10", "fd10:96::10"]),
    ("hello.default.svc.cluster.local", &["10.96.0.10", "fd10:96::10"]),
    ("four.default", &["10.96.0.11"]),
    ("six.default", &["fd10:96::12"]),
];

#[test]
fn names_resolve() {
    in_namespace("names::names_resolve", || {
        need(&["dig"]);
        let world = World::new();
        world.service("hello", &["10.96.0.10", "fd10:96::10"], &[":80:8080"], &[ONE]);
        world.service("four", &["10.96.0.11"], &[":80:8080"], &[ONE]);
        world.service("six", &["fd10:96::12"], &[":80:8080"], &[ONE]);
        world.service("headless", &["None"], &[":80:8080"], &[ONE]);
        let _agent = Agent::start(&world);
        for place in PLACES {
            for (question, want) in DIG {
                let ran = run(place, &format!("dig +tries=1 +time=3 {question}"));
                assert!(
                    ran.out.contains(want),
                    "from `{place}` {question}: wanted {want} in\n{}",
                    ran.out
                );
            }
            for (name, want) in GETENT {
                let ran = run(place, &format!("getent ahosts {name} | cut -d' ' -f1 | sort -u"));
                assert_eq!(ran.out.lines().collect::<Vec<_>>(), *want, "from `{place}` {name}");
            }
            let ran = run(place, "getent ahosts nobody.default.svc.cluster.local");
            assert_eq!(ran.code, Some(2), "{ran:?}");
        }
        // A headless Service keeps its address over a restart.
        let of = || run("", "dig +short headless.default A headless.default AAAA").out;
        let before = of();
        drop(_agent);
        std::fs::remove_dir_all(world.path("nothing")).ok();
        let _agent = Agent::start(&world);
        assert_eq!(of(), before);
    });
}
