//! A file of 1 GiB between two nodes: whole, at bounded memory, and never short without a word.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::namespace::in_namespace;
use crate::common::run::{Running, need, within};
use crate::common::wait::{eventually, timed};
use crate::nodes::{Node, agent, agent_with, cloud, cloud_again};
use crate::raw::{End, Raw};
use crate::world::{A1, B1, Cable, World, listen};
use crate::{PATIENCE, servers};

const SIZE: u64 = 1 << 30;
/// Where the file is.
const URL: &str = "http://10.96.0.1/file";
/// Where bytes come without end.
const ENDLESS: &str = "10.96.0.1:81";
/// How much more memory each process may take while the file passes, in KiB.
const MORE: u64 = 64 * 1024;
/// A debug build on a machine that does other things too.
const LONG: Duration = Duration::from_secs(300);
/// How long the next call may take to succeed after a cut was healed.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

/// Servers of the file and of bytes without end at `b1`. The file is sparse, and each MiB of it
/// begins with its number.
fn servers(world: &World) -> Running {
    need(&["nginx", "curl"]);
    let nginx = servers::nginx(world, "b1", "nginx", [B1.ip, "::1"]);
    let mut file = std::fs::File::create(world.path("nginx/www/file")).unwrap();
    file.set_len(SIZE).unwrap();
    for at in (0..SIZE).step_by(1 << 20) {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(format!("{at:032}").as_bytes()).unwrap();
    }
    let listener = listen("b1", &format!("{}:8081", B1.ip));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || while stream.write_all(&[7; 1 << 16]).is_ok() {});
        }
    });
    world.service("files", "10.96.0.1", "http:80:8080 tcp:81:8081", &[B1]);
    nginx
}

/// Runs a script at `a1` in the background.
fn begin(script: &str) -> Child {
    let line: Vec<&str> = within("a1").into_iter().chain(["sh", "-c", script]).collect();
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Fetches the file while the memory of all processes is watched.
fn passes_whole(world: &World, processes: &[&Node], via: &str) {
    let entry = processes[0];
    assert_eq!(entry.sh("curl -sS -o /dev/null -w '%{http_code}' http://10.96.0.1/").out, "200");
    let before: Vec<u64> = processes.iter().map(|node| node.resident()).collect();
    let mut most = before.clone();
    let mut client = begin(&format!("curl -sS {URL} | sha256sum"));
    let ((), took) = timed(|| {
        eventually("the file is there", LONG, || {
            for (most, node) in most.iter_mut().zip(processes) {
                *most = (*most).max(node.resident());
            }
            client.try_wait().unwrap().map(|status| assert!(status.success()))
        });
    });
    let mut sum = String::new();
    client.stdout.take().unwrap().read_to_string(&mut sum).unwrap();
    let want = crate::common::namespace::sh(&format!(
        "sha256sum < {}",
        world.path("nginx/www/file").display()
    ));
    assert_eq!(sum, want, "via {via}");
    let line = entry.lines("the file", 0, 1, |line| line["path"] == "/file").pop().unwrap();
    assert_eq!((&line["via"], &line["down"]), (&via.into(), &SIZE.into()), "{line}");
    for ((node, before), most) in processes.iter().zip(before).zip(most) {
        let name = node.place.name;
        println!("via {via}, {took:?}: {name} had {before} KiB, and {most} KiB at most");
        assert!(most < before + MORE, "{name}: {before} KiB, then {most} KiB");
    }
}

#[test]
fn a_file_passes_whole_at_bounded_memory() {
    in_namespace("bulk::a_file_passes_whole_at_bounded_memory", || {
        let world = World::new();
        let _servers = servers(&world);
        let cloud = cloud(&world);
        let b1 = agent(&world, B1);
        let a1 = agent_with(&world, A1, "peer: { path: hub }");
        passes_whole(&world, &[&a1, &b1, &cloud], "hub");
        a1.stop();
        let a1 = agent_with(&world, A1, "peer: { path: direct }");
        passes_whole(&world, &[&a1, &b1], "direct");
    });
}

/// What goes on while a way is cut: a file of which half is there, and bytes without end.
struct Halfway {
    client: Child,
    into: PathBuf,
    bytes: Raw,
}

impl Halfway {
    fn begin(world: &World, name: &str) -> Self {
        let into = world.path(name);
        let client = begin(&format!("curl -sS -o {} {URL}", into.display()));
        let mut bytes = Raw::connect("a1", ENDLESS);
        bytes.expect(&[7; 1 << 20]);
        eventually("some of the file is there", LONG, || {
            let length = std::fs::metadata(&into).map_or(0, |file| file.len());
            (length > SIZE / 16).then_some(())
        });
        Self { client, into, bytes }
    }

    /// Both clients were told, within `patience`.
    #[track_caller]
    fn must_be_told(mut self, patience: Duration) {
        let status = eventually("curl is told", patience, || self.client.try_wait().unwrap());
        let length = std::fs::metadata(&self.into).unwrap().len();
        // 18: less came than was said; 56: the connection was reset.
        assert!(matches!(status.code(), Some(18 | 56)), "{status}, {length} bytes");
        assert!(length < SIZE, "{length} bytes");
        std::fs::remove_file(&self.into).unwrap();
        self.bytes.stream().set_read_timeout(Some(patience)).unwrap();
        let mut buffer = vec![0; 1 << 16];
        let ended = loop {
            match self.bytes.reader.read(&mut buffer) {
                Ok(0) => break End::Closed,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    break End::Reset;
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(ended, End::Reset, "bytes end as if they were whole");
    }
}

/// Calls until one succeeds, and by the way that is meant; that may take [`HEALED_WITHIN`].
#[track_caller]
fn next_call_succeeds(a1: &Node, via: &str, what: &str) {
    let ((), took) = timed(|| {
        eventually(&format!("a call succeeds: {what}"), HEALED_WITHIN, || {
            let ran = a1.sh("curl -sS -m 5 -o /dev/null -w '%{http_code}' http://10.96.0.1/");
            (ran.out == "200").then_some(())
        });
    });
    let line = a1.access().into_iter().rfind(|line| line["status"] == 200).unwrap();
    assert_eq!(line["via"], via, "{what}: {line}");
    println!("{what}: the next call succeeds {took:?} after it was healed");
}

#[test]
fn a_cut_is_told_and_heals() {
    in_namespace("bulk::a_cut_is_told_and_heals", || {
        let world = World::new();
        let _servers = servers(&world);
        let first = cloud(&world);
        let mut b1 = agent(&world, B1);
        let a1 = agent_with(&world, A1, "peer: { path: hub }");
        let halfway = Halfway::begin(&world, "hub-killed");
        first.kill();
        halfway.must_be_told(PATIENCE);
        let _cloud = cloud_again(&world);
        next_call_succeeds(&a1, "hub", "hub killed");

        let halfway = Halfway::begin(&world, "uplink-dropped");
        Cable::SiteB.drop_packets();
        halfway.must_be_told(PATIENCE);
        Cable::SiteB.pass_packets();
        next_call_succeeds(&a1, "hub", "uplink of the other site dropped");
        a1.stop();

        let a1 = agent_with(&world, A1, "peer: { path: direct }");
        let halfway = Halfway::begin(&world, "link-dropped");
        Cable::SiteB.drop_packets();
        halfway.must_be_told(PATIENCE);
        Cable::SiteB.pass_packets();
        next_call_succeeds(&a1, "direct", "direct Link dropped");

        let halfway = Halfway::begin(&world, "peer-killed");
        b1.signal(Signal::SIGKILL); // its guard starts it again
        halfway.must_be_told(PATIENCE);
        b1.wait_ready();
        next_call_succeeds(&a1, "direct", "peer killed");
    });
}
