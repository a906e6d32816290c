//! Scenes of what is carried: each protocol by name, from the node and from a pod.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use anyhow::ensure;

use crate::demo::children::ask;
use crate::demo::clients;
use crate::demo::clients::Http;
use crate::demo::clients::Tally;
use crate::demo::clients::Way;
use crate::demo::curl;
use crate::demo::grpc;
use crate::demo::load as loads;
use crate::demo::programs::TLS_NAME;
use crate::demo::report::Row;
use crate::demo::scenes::NO_WALLS;
use crate::demo::scenes::at;
use crate::demo::scenes::from_both;
use crate::demo::servers::BANNER;
use crate::demo::stage::HELLOS;
use crate::demo::stage::Stage;
use crate::demo::world::NAMESERVER;
use crate::demo::world::Place;
use crate::say;

/// Calls of a scene: the same number for each of three Backends.
const CALLS: u32 = 30;
/// Connections of the load.
const LOAD_CONNECTIONS: usize = 8;
/// A greeting that took longer means that somebody waited for a time-out.
const GREETS_WITHIN: Duration = Duration::from_millis(500);
const BUILT_IN: &str = "built-in client";

/// Calls by curl where it is installed.
fn web(stage: &Stage<'_>, way: Way, url: &str, more: &[&str]) -> anyhow::Result<Tally> {
    match &stage.curl {
        Some(curl) => curl::calls(stage.world, curl, way, url, CALLS, more),
        None => {
            let name = url.trim_start_matches("http://").trim_end_matches('/');
            Ok(clients::calls(stage.world, way, &format!("{name}:80"), CALLS))
        }
    }
}

fn web_client(stage: &Stage<'_>) -> &'static str {
    if stage.curl.is_some() { "curl" } else { BUILT_IN }
}

/// All answered, by `NAME-1` to `NAME-3` in equal shares, on one connection.
fn balanced(tally: &Tally, name: &str) -> anyhow::Result<String> {
    ensure!(tally.failed() == 0 && tally.answered() == CALLS, "{}", tally.text());
    let wanted: BTreeSet<String> = (1..=HELLOS).map(|i| format!("{name}-{i}")).collect();
    let answered: BTreeSet<String> = tally.answers.keys().cloned().collect();
    let (least, most) = (tally.answers.values().min(), tally.answers.values().max());
    let even = most.zip(least).is_some_and(|(most, least)| most - least <= 2);
    let text = format!(
        "{} on {} connection{}",
        tally.text(),
        tally.connections,
        if tally.connections == 1 { "" } else { "s" }
    );
    ensure!(answered == wanted && even, "not balanced: {text}");
    ensure!(tally.connections == 1, "not on one connection: {text}");
    Ok(text)
}

pub(super) fn names(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "names, by the captured port 53";
    let to = format!("{NAMESERVER}, where nobody is");
    from_both(stage, what, "C library", &to, |from| {
        let found = clients::resolve(stage.world, from, "hello.default")?;
        let wanted = stage.hello_addresses();
        let text: Vec<_> = found.iter().map(ToString::to_string).collect();
        ensure!(found == wanted, "not {wanted:?}: {}", text.join(", "));
        Ok(format!("hello.default is {}", text.join(", ")))
    })
}

pub(super) fn http(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "HTTP/1.1 by name, balanced per request";
    from_both(stage, what, web_client(stage), "hello.default, 3 Backends", |from| {
        balanced(&web(stage, stage.way(from), "http://hello.default/", &["-4"])?, "hello")
    })
}

pub(super) fn ipv6(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "the same over IPv6";
    let Some(curl) = &stage.curl else {
        return vec![Row::not_shown(what, "curl -6", "curl is not installed")];
    };
    if stage.world.walls && !stage.world.ipv6 {
        return vec![Row::not_shown(what, "curl -6", "this kernel runs without IPv6")];
    }
    from_both(stage, what, "curl -6", "hello.default, 3 Backends", |from| {
        let url = "http://hello.default/";
        balanced(&curl::calls(stage.world, curl, stage.way(from), url, CALLS, &["-6"])?, "hello")
    })
}

pub(super) fn grpc(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "gRPC, each call of one connection balanced";
    from_both(stage, what, "built-in gRPC client", "echo.default, 3 Backends", |from| {
        let authority = "echo.default:50051";
        let stream = clients::connect_async(stage.world, from, authority)?;
        balanced(&grpc::calls(stage.world, stream, authority, CALLS)?, "echo")
    })
}

pub(super) fn headless(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "headless Service at a virtual address";
    from_both(stage, what, BUILT_IN, "notes.default", |from| {
        let stream = clients::connect(stage.world, from, "notes.default:80")?;
        let address = stream.peer_addr()?.ip();
        let tally = clients::calls(stage.world, stage.way(from), "notes.default:80", 1);
        ensure!(tally.answers.contains_key("notes-1"), "{}", tally.text());
        Ok(format!("notes-1 answers at {address}"))
    })
}

pub(super) fn redis(stage: &mut Stage<'_>) -> Vec<Row> {
    let world = stage.world;
    if let Some(Err(error)) = stage.redis.as_mut().map(|redis| redis.wait(world)) {
        return vec![Row::new("redis by name", "redis-server", Err(error))];
    }
    let (client, to) = match &stage.redis {
        Some(_) => ("redis-cli", "redis.default, redis-server"),
        None => (BUILT_IN, "redis.default, built-in server"),
    };
    from_both(stage, "redis by name", client, to, |from| {
        let Some(redis) = &stage.redis else {
            let (said, _) = clients::ping(world, from, "redis.default:6379")?;
            ensure!(said == "+PONG", "it said {said}");
            return Ok("PING, PONG".into());
        };
        let run = |words: &[&str]| {
            let mut command = Command::new(&redis.client);
            command.args(["-h", "redis.default", "-p", "6379"]).args(words);
            world.within(from, || ask(&mut command))
        };
        run(&["SET", "where", at(from)])?;
        let said = run(&["GET", "where"])?;
        ensure!(said.trim() == at(from), "it said {}", said.trim());
        Ok(format!("SET, then GET: {}", said.trim()))
    })
}

pub(super) fn server_first(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "a server that speaks first";
    let world = stage.world;
    if let Some(Err(error)) = stage.db.as_mut().map(|db| db.wait(world)) {
        return vec![Row::new(what, "mariadbd", Err(error))];
    }
    let (client, to) = match &stage.db {
        Some(_) => ("mariadb", "db.default, mariadbd"),
        None => (BUILT_IN, "db.default, built-in server"),
    };
    from_both(stage, what, client, to, |from| {
        let (greeting, took) = clients::greeting(world, from, "db.default:3306")?;
        let said = match &stage.db {
            None => String::from_utf8_lossy(&greeting).trim().to_owned(),
            Some(db) => {
                let mut command = Command::new(&db.client);
                command.args(["--no-defaults", "--connect-timeout=3", "-h", "db.default"]);
                command.args(["-P", "3306", "-N", "-e", "select version()"]);
                world.within(from, || ask(&mut command))?.trim().to_owned()
            }
        };
        let text = format!("{said}, greets after {} ms", took.as_millis());
        ensure!(stage.db.is_some() || said == BANNER.trim(), "not its greeting: {text}");
        ensure!(took < GREETS_WITHIN, "somebody waited: {text}");
        Ok(text)
    })
}

pub(super) fn tls(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "TLS passed through, certificate intact";
    let (Some(tls), Some(curl)) = (&mut stage.tls, &stage.curl) else {
        let how = "curl --cacert → tls.default";
        return vec![Row::not_shown(what, how, "curl or openssl is not installed")];
    };
    let world = stage.world;
    if let Err(error) = tls.wait(world) {
        return vec![Row::new(what, "openssl s_server", Err(error))];
    }
    let trusted = tls.client.display().to_string();
    let call = |way: Way| {
        let url = format!("https://{TLS_NAME}/");
        let more = ["--cacert", &trusted, "-o", "/dev/null"];
        let tally = curl::calls(world, curl, way, &url, 1, &more)?;
        ensure!(tally.failed() == 0, "{}", tally.text());
        Ok("verified against the server's own certificate".to_owned())
    };
    if !world.walls {
        let way = Way { from: Place::Node, proxy: Some(stage.setup.proxy) };
        let how = "curl --cacert → CONNECT → openssl s_server";
        return vec![Row::new(what, how, call(way))];
    }
    let captured = |from| call(Way { from, proxy: None });
    from_both(stage, what, "curl --cacert", "tls.default, openssl s_server", captured)
}

pub(super) fn explicit(stage: &mut Stage<'_>) -> Vec<Row> {
    let what = "explicit proxy, nothing captured";
    let way = Way { from: Place::Node, proxy: Some(stage.setup.proxy) };
    let client = if stage.curl.is_some() { "curl -x" } else { BUILT_IN };
    let tally = web(stage, way, "http://hello.default/", &[]);
    let outcome = tally.and_then(|tally| balanced(&tally, "hello"));
    vec![Row::new(what, format!("{client} on the node → proxy → 3 Backends"), outcome)]
}

pub(super) fn load(stage: &mut Stage<'_>) -> Vec<Row> {
    let length = stage.load / 2;
    let build = if cfg!(debug_assertions) { ", debug build" } else { "" };
    let how = format!("built-in client, {LOAD_CONNECTIONS} connections{build}");
    let from = if stage.world.walls { Place::Client } else { Place::Node };
    let run = |to: &str, open: &dyn Fn(usize) -> anyhow::Result<Http>| {
        say::progress(format_args!("      {to} for {} s", length.as_secs_f32()));
        let connections = (0..LOAD_CONNECTIONS).map(open).collect::<anyhow::Result<Vec<_>>>()?;
        let measured = stage.world.runtime.block_on(loads::run(connections, length));
        let calls = measured.calls();
        ensure!(calls > 0 && measured.failed == 0, "{} of {calls} calls failed", measured.failed);
        Ok(measured.text())
    };
    let direct = Way { from, proxy: None };
    let addresses: Vec<_> = stage.hello[..HELLOS].iter().map(|b| b.addresses[0]).collect();
    let plain = run("straight to the Backends", &|i| {
        Http::open(stage.world, direct, &addresses[i % HELLOS].to_string())
    });
    let mesh =
        run("through the mesh", &|_| Http::open(stage.world, stage.way(from), "hello.default:80"));
    vec![
        Row::new("HTTP straight to the Backends", format!("{how}, no mesh"), plain),
        Row::new("HTTP through the mesh", format!("{how} → hello.default"), mesh),
    ]
}

/// For the scenes that only captured traffic can show.
pub(super) fn captured_only(
    stage: &Stage<'_>,
    what: &'static str,
    how: &str,
) -> anyhow::Result<(), Vec<Row>> {
    if stage.world.walls { Ok(()) } else { Err(vec![Row::not_shown(what, how, NO_WALLS)]) }
}

/// One call, for scenes that ask again and again.
pub(super) fn one(stage: &Stage<'_>, from: Place, authority: &str) -> anyhow::Result<String> {
    let mut http = Http::open(stage.world, stage.way(from), authority)?;
    let answer = stage.world.runtime.block_on(http.get())?;
    match answer.good() {
        Ok(who) => Ok(who),
        Err(error) => bail!("{authority}: {error}"),
    }
}
