//! An agent that is renewed: configuration read again, sockets handed over, nobody interrupted.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::{Agent, PATIENCE, config};
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::run;
use crate::common::wait::eventually;
use crate::raw::Raw;
use crate::world::{ONE, TWO, World, listen};

/// Threads that open one connection after the other.
const CALLERS: usize = 4;
/// Calls before, during and after a hand-over that make it a test.
const CALLS: usize = 500;

/// Callers that do nothing but connect, ask once and read to the end.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn begin() -> Self {
        let (stop, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let caller = |_| {
            let (stop, calls) = (stop.clone(), calls.clone());
            std::thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    calls.fetch_add(1, Ordering::Relaxed);
                    failed.extend(call().err().map(|error| error.to_string()));
                }
                failed
            })
        };
        Self { threads: (0..CALLERS).map(caller).collect(), stop, calls }
    }

    fn go_on(&self) {
        let enough = self.calls.load(Ordering::Relaxed) + CALLS;
        eventually("calls go on", PATIENCE, || {
            (self.calls.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    #[track_caller]
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failed: Vec<_> = self.threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        let calls = self.calls.load(Ordering::Relaxed);
        assert!(failed.is_empty(), "{} of {calls} calls failed: {:?}", failed.len(), &failed[..1]);
    }
}

fn call() -> std::io::Result<()> {
    let raw = Raw::try_connect("", "10.96.0.100:80")?;
    let mut answer = String::new();
    let request = b"GET / HTTP/1.1\r\nHost: one.default\r\nConnection: close\r\n\r\n";
    raw.stream().write_all(request)?;
    raw.stream().read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("one") {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("answered {answer:?}"))),
    }
}

fn world() -> (World, Arc<Backend>) {
    let world = World::new();
    let one = Backend::start("", "one", ONE, 8080);
    world.service("one", &["10.96.0.100"], &[":80:8080"], &[ONE]);
    world.service("bytes", &["10.96.0.104"], &["tcp-x:7:7007"], &[ONE]);
    (world, one)
}

/// The guard's newest child, once it is another than `old` and says that it serves.
fn renewed(agent: &Agent, old: Pid) {
    eventually("another agent serves", PATIENCE, || {
        let newest = agent.children().last().copied()?;
        (newest != old && agent.log().matches(" started ").count() >= 2).then_some(())
    });
}

#[test]
fn a_hand_over_interrupts_nobody() {
    in_namespace("renew::a_hand_over_interrupts_nobody", || {
        let (world, _one) = world();
        let listener = listen("", "10.4.0.1:7007");
        let mut agent = Agent::start(&world);
        let old = agent.worker();
        let mut long = Raw::connect("pod", "10.96.0.104:7");
        let (mut server, _) = listener.accept().unwrap();
        let load = Load::begin();
        load.go_on();
        kill(agent.id(), Signal::SIGUSR2).unwrap();
        renewed(&agent, old);
        load.go_on();
        assert_eq!(agent.children().len(), 2, "the old one serves what was open");
        long.send(b"hi");
        let mut got = [0; 2];
        server.read_exact(&mut got).unwrap();
        drop(server);
        assert_eq!(long.rest().0, "", "it ends in order");
        drop(long);
        eventually("the old one ends", PATIENCE, || (agent.children().len() == 1).then_some(()));
        load.go_on();
        load.end();
        // What belongs to one agent only went along: changes are followed, capture is healed.
        let _two = Backend::start("", "two", TWO, 8080);
        world.service("two", &["10.96.0.102"], &[":80:8080"], &[TWO]);
        eventually("a new Service", PATIENCE, || {
            (run("pod", "curl -sS -m 1 http://two.default/").out == "two").then_some(())
        });
        agent.terminate();
        assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
        assert!(call().is_err(), "no rule is left");
    });
}

#[test]
fn a_hand_over_that_fails_changes_nothing() {
    in_namespace("renew::a_hand_over_that_fails_changes_nothing", || {
        let (world, _one) = world();
        let agent = Agent::start(&world);
        let old = agent.worker();
        let load = Load::begin();
        // Too late to be seen by a check: the port is taken, and the store is the new one's by then.
        let _taken = listen("", "127.0.0.1:15999");
        world.write("agent.yaml", &format!("{}proxy: {{ port: 15999 }}\n", config(&world)));
        kill(agent.id(), Signal::SIGUSR2).unwrap();
        eventually("it fails", PATIENCE, || {
            agent.log().contains("the old one goes on").then_some(())
        });
        assert_eq!(agent.worker(), old);
        load.go_on();
        load.end();
        let _two = Backend::start("", "two", TWO, 8080);
        world.service("two", &["10.96.0.102"], &[":80:8080"], &[TWO]);
        eventually("changes are followed again", PATIENCE, || {
            (run("pod", "curl -sS -m 1 http://two.default/").out == "two").then_some(())
        });
        // And the next one, with a sound configuration, succeeds.
        world.write("agent.yaml", &config(&world));
        kill(agent.id(), Signal::SIGUSR2).unwrap();
        renewed(&agent, old);
        call().unwrap();
    });
}

/// A full disk, as far as new files are concerned: there is no room for the socket.
#[test]
fn no_room_for_the_socket_of_a_hand_over() {
    in_namespace("renew::no_room_for_the_socket_of_a_hand_over", || {
        let (world, _one) = world();
        let data = world.path("data").display().to_string();
        sh(&format!("mkdir {data}; mount -t tmpfs -o mode=700,nr_inodes=20 none {data}"));
        let agent = Agent::start(&world);
        let old = agent.worker();
        // Nor for the one that starts, nor, when that has failed, for the one that goes on.
        sh(&format!("i=0; while touch {data}/$i; do i=$((i+1)); done 2>/dev/null || :"));
        let _taken = listen("", "127.0.0.1:15999");
        world.write("agent.yaml", &format!("{}proxy: {{ port: 15999 }}\n", config(&world)));
        kill(agent.id(), Signal::SIGUSR2).unwrap();
        eventually("it fails", PATIENCE, || {
            agent.log().contains("the old one goes on").then_some(())
        });
        call().unwrap();
        world.write("agent.yaml", &config(&world));
        kill(agent.id(), Signal::SIGUSR2).unwrap();
        renewed(&agent, old);
        call().unwrap();
        assert!(!agent.log().contains("started again"), "{}", agent.log());
    });
}

/// Half a minute later a service manager would kill it, and the rules would stay.
#[test]
fn stopped_while_the_other_one_hangs() {
    in_namespace("renew::stopped_while_the_other_one_hangs", || {
        let (world, _one) = world();
        let mut agent = Agent::start(&world);
        let mut hung = UnixStream::connect(world.path("data/handover.sock")).unwrap();
        hung.write_all(b"take 1\n").unwrap();
        hung.read_exact(&mut [0]).unwrap(); // the sockets
        call().unwrap();
        agent.terminate();
        assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
        assert!(call().is_err(), "no rule is left");
    });
}

/// The one that drains must not hold what the next one listens on.
#[test]
fn killed_while_the_one_before_drains() {
    in_namespace("renew::killed_while_the_one_before_drains", || {
        let (world, _one) = world();
        let listener = listen("", "10.4.0.1:7007");
        let agent = Agent::start(&world);
        let old = agent.worker();
        let mut long = Raw::connect("pod", "10.96.0.104:7");
        let (mut server, _) = listener.accept().unwrap();
        kill(agent.id(), Signal::SIGUSR2).unwrap();
        renewed(&agent, old);
        let killed = agent.children()[1];
        kill(killed, Signal::SIGKILL).unwrap();
        eventually("a third one serves", PATIENCE, || {
            (agent.log().matches("daemon::agent: started").count() >= 3).then_some(())
        });
        call().unwrap();
        long.send(b"hi");
        let mut got = [0; 2];
        server.read_exact(&mut got).unwrap();
        assert_eq!(agent.children().first(), Some(&old), "{}", agent.log());
    });
}

/// As a DaemonSet with `maxSurge` does it, or a person: a second guard with a second agent.
#[test]
fn another_process_takes_over() {
    in_namespace("renew::another_process_takes_over", || {
        let (world, _one) = world();
        let mut first = Agent::start(&world);
        let load = Load::begin();
        load.go_on();
        let mut line = std::process::Command::new(env!("CARGO_BIN_EXE_edgemesh"));
        line.args(["agent", "--take-over", "--config"]).arg(world.path("agent.yaml"));
        let log = std::fs::File::create(world.path("second.log")).unwrap();
        line.process_group(0).stdout(std::process::Stdio::null()).stderr(log);
        let mut second = line.spawn().unwrap();
        assert_eq!(first.wait().code(), Some(0), "{}", first.log());
        load.go_on();
        load.end();
        kill(Pid::from_raw(second.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(second.wait().unwrap().success());
        assert!(call().is_err(), "no rule is left");
    });
}

#[test]
fn sighup_takes_what_it_can() {
    in_namespace("renew::sighup_takes_what_it_can", || {
        let (world, _one) = world();
        let agent = Agent::start(&world);
        let again = |text: &str, says: &str| {
            world.write("agent.yaml", &format!("{}{text}\n", config(&world)));
            kill(agent.id(), Signal::SIGHUP).unwrap();
            eventually(says, PATIENCE, || agent.log().contains(says).then_some(()));
        };
        call().unwrap();
        agent.lines("it is logged", 1, |line| line["service"] == "default/one");
        again("accessLog: off\nzone: z", "keys=\"zone\"");
        call().unwrap();
        again("accessLog: off\nproxy: { excludePorts: [80] }", "keys=\"proxy.excludePorts\"");
        eventually("nothing is captured any more", PATIENCE, || call().err());
        again("proxy: { prot: 1 }", "all of it stays as it was");
        assert!(call().is_err(), "still not captured");
        again("", "keys=\"proxy.excludePorts, accessLog\"");
        eventually("captured again", Duration::from_secs(5), || call().ok());
        agent.lines("logged again, and not what was off", 2, |line| {
            line["service"] == "default/one"
        });
    });
}
