//! The binary itself: help, exit codes, and reading commands against an agent that says given words.

mod common;
#[path = "cli/reading.rs"]
mod reading;

use std::process::Command;
use std::process::Output;

fn edgemesh(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgemesh"))
        .args(args)
        .env_remove("NODE_NAME")
        .env_remove("COLUMNS")
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Commands that have commands of their own.
const INNER: &[(&str, &str)] = &[
    ("token", "create"),
    ("node", "remove"),
    ("ca", "export"),
    ("ca", "restore"),
    ("explain", "rule"),
];

#[test]
fn help_is_what_it_was() {
    let commands = [
        "agent",
        "cloud",
        "get",
        "expose",
        "serve",
        "explain",
        "status",
        "doctor",
        "check",
        "token",
        "node",
        "ca",
        "redirect",
        "demo",
        "completions",
    ];
    let top = edgemesh(&["--help"]);
    assert_eq!(top.status.code(), Some(0));
    common::golden::check("help", &stdout(&top));
    for command in commands {
        let help = edgemesh(&[command, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{command}");
        common::golden::check(&format!("help-{command}"), &stdout(&help));
        assert!(stdout(&top).contains(&format!("\n  {command} ")), "{command} is not listed");
    }
    for (command, action) in INNER {
        let help = edgemesh(&[command, action, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{command} {action}");
        common::golden::check(&format!("help-{command}-{action}"), &stdout(&help));
    }
    let listed = stdout(&top);
    let listed = listed.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty()).count();
    assert_eq!(listed, commands.len() + 1, "a command (but help) without a golden help");
}

#[test]
fn help_is_at_most_80_wide_names_admin_where_it_counts_and_is_a_command_too() {
    let reading = ["get", "expose", "serve", "explain", "status"];
    let others =
        ["agent", "cloud", "check", "token", "node", "ca", "redirect", "demo", "completions"];
    for command in reading.into_iter().chain(others) {
        let long = stdout(&edgemesh(&[command, "--help"]));
        assert_eq!(stdout(&edgemesh(&["help", command])), long, "{command}");
        assert_eq!(long.contains("--admin"), reading.contains(&command), "{long}");
    }
    assert_eq!(stdout(&edgemesh(&["help"])), stdout(&edgemesh(&["--help"])));
    let inner = INNER.iter().map(|(command, action)| format!("{command} {action}"));
    let outer = ["", "agent", "cloud", "get", "explain", "status", "check", "redirect", "demo"];
    for args in outer.into_iter().map(str::to_owned).chain(inner) {
        for flag in ["-h", "--help"] {
            let args: Vec<_> = args.split_whitespace().chain([flag]).collect();
            let help = stdout(&edgemesh(&args));
            let widest = help.lines().map(|line| line.chars().count()).max();
            assert!((1..=80).contains(&widest.unwrap_or(0)), "{args:?}: {widest:?}\n{help}");
        }
    }
    let explain = stdout(&edgemesh(&["explain", "-h"]));
    assert!(explain.contains("A refusal is an answer too: the exit code is 0."), "{explain}");
}

#[test]
fn exit_codes_are_0_fine_1_failed_2_usage() {
    let missing = ["--config", "/nonexistent/agent.yaml"];
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--version"], 0, ""),
        (&["completions", "bash"], 0, ""),
        (&["completions", "zsh"], 0, ""),
        (&["completions", "fish"], 0, ""),
        (&[], 2, "Usage:"),
        (&["fly"], 2, "unrecognized subcommand"),
        (&["expose", "hello"], 2, "--to"),
        (&["serve", "hello", "--port", "0", "--", "true"], 2, "--port"),
        (&["get", "pods"], 2, "services"),
        (&["get", "nodes", "-n", "default"], 2, "nodes have no namespace"),
        (&["explain", "ftp://hello/"], 2, "HOST:PORT"),
        (&["explain", "http://hello/", "--header", "x"], 2, "NAME:VALUE"),
        (&["explain", "http://hello/", "--from", "me"], 2, "--from"),
        (&["demo", "--seconds", "0"], 2, "--seconds"),
        (&["completions", "tcsh"], 2, "bash"),
        (&["agent", "--config", "f", "--log", "inof"], 2, "no log filter"),
        (&["agent", "--config", "f", "--log", "info,"], 2, "no log filter"),
        (&["status", "--admin", "https://127.0.0.1:1"], 1, "not http://HOST:PORT"),
        (&["status", "--admin", "127.0.0.1"], 1, "not http://HOST:PORT"),
        (&["--admin", "127.0.0.1", "status"], 1, "not http://HOST:PORT"),
        (&["check", "--config", "f", "--admin", "http://127.0.0.1:1"], 2, "--admin"),
        (
            &["check", missing[0], missing[1]],
            1,
            "/nonexistent/agent.yaml: cannot be opened: No such",
        ),
        (
            &["agent", missing[0], missing[1]],
            1,
            "/nonexistent/agent.yaml: cannot be opened: No such",
        ),
        (&["redirect", "print", missing[0], missing[1]], 1, "cannot be opened"),
        (&["redirect", "flush", missing[0], missing[1]], 2, "install"),
    ];
    for (args, code, words) in cases {
        let output = edgemesh(args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?} said: {said}");
    }
}

#[test]
fn commands_of_later_versions_are_not_offered() {
    for args in [["token", "list"], ["node", "list"], ["get", "queue"]] {
        assert_eq!(edgemesh(&args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn commands_of_the_cloud_take_what_they_need_and_read_its_configuration_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a plain path").to_owned()
    };
    let bad = write("bad.yaml", "hub: { listen: x }\n");
    let agents = write("agent.yaml", "node: edge-1\nproxy: { port: 1 }\n");
    let exists = write("exists", "");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["token"], 2, "Usage: edgemesh token <COMMAND>"),
        (&["node"], 2, "Usage: edgemesh node <COMMAND>"),
        (&["ca"], 2, "Usage: edgemesh ca <COMMAND>"),
        (&["node", "remove"], 2, "<NAME>"),
        (&["node", "remove", "Edge_1"], 2, "is no name"),
        (&["token", "create", "--ttl", "24"], 2, "no time, such as 10m, 24h or 30d"),
        (&["token", "create", "--ttl", "2000d"], 2, "out of range: 1s to 365d"),
        (&["token", "create", "--node", "a/b"], 2, "is no name"),
        (&["ca", "export", "--in", &exists], 2, "--in"),
        (&["ca", "restore", "--out", &exists], 2, "--out"),
        (&["cloud", "--log", "inof", "--config", &bad], 2, "no log filter"),
        (&["cloud", "--node", "a"], 2, "--node"),
        (&["cloud", "--config", &bad], 1, "bad.yaml:1: hub.listen: `x` is no IP:PORT"),
        (&["token", "create", "--config", &bad], 1, "bad.yaml: 1 problem\n"),
        (&["node", "remove", "edge-1", "--config", &bad], 1, "bad.yaml: 1 problem\n"),
        (&["ca", "export", "--config", &bad], 1, "bad.yaml: 1 problem\n"),
        (&["ca", "restore", "--config", &bad], 1, "bad.yaml: 1 problem\n"),
        (
            &["cloud", "--config", &agents],
            1,
            "agent.yaml: 2 problems; it looks like an agent's: `edgemesh agent --config ",
        ),
        (
            &["agent", "--config", &bad],
            1,
            "bad.yaml: 1 problem; it looks like a cloud's: `edgemesh cloud --config ",
        ),
    ];
    for (args, code, words) in cases {
        let output = edgemesh(args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?} said: {said}");
    }
}

#[test]
fn completions_know_the_commands_and_not_the_hidden_flag() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&edgemesh(&["completions", shell]));
        assert!(script.contains("explain") && script.contains("manifests"), "{shell}");
    }
    assert!(!stdout(&edgemesh(&["agent", "--help"])).contains("guarded"));
}

#[test]
fn check_prints_to_stdout_or_all_problems_to_stderr() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.yaml");
    let path = file.to_str().expect("a plain path");
    std::fs::write(&file, "node: edge-1\nsource: { manifests: /m }\n").expect("written");
    let good = edgemesh(&["check", "--config", path, "--node", "edge-2"]);
    assert_eq!((good.status.code(), stderr(&good).as_str()), (Some(0), ""));
    let head = "# configuration of an agent: it has `node` on line 1\nnode: edge-2 ";
    assert!(stdout(&good).starts_with(head), "{}", stdout(&good));
    std::fs::write(&file, "nod: edge-1\nproxy: { port: x }\n").expect("written");
    let bad = edgemesh(&["check", "--config", path, "--node", "edge-1"]);
    assert_eq!((bad.status.code(), stdout(&bad).as_str()), (Some(1), ""));
    common::golden::check("check-problems", &stderr(&bad).replace(path, "agent.yaml"));
    std::fs::write(&file, "hub: { names: [c] }\nrouter: { listen: \"[::]:1\" }\n")
        .expect("written");
    let bad = edgemesh(&["check", "--config", path]);
    assert_eq!((bad.status.code(), stdout(&bad).as_str()), (Some(1), ""));
    let said = stderr(&bad).replace(path, "agent.yaml");
    common::golden::check("check-cloud-problems", &said);
}

#[test]
fn check_and_agent_refuse_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.yaml");
    let path = file.to_str().expect("a plain path");
    let agents = "source: { kubernetes: { caFile: /c } }\npeer: { path: hub }\n";
    let clouds = "source: { kubernetes: { caFile: /c } }\nhub: { names: [\"c:1\"] }\n";
    for (serve, text, places) in [
        ("agent", agents, ["1: source.kubernetes.caFile: ", "2: peer.path: hub needs "]),
        ("cloud", clouds, ["1: source.kubernetes.caFile: ", "2: hub.names[0]: `c:1` has a port; "]),
    ] {
        std::fs::write(&file, text).expect("written");
        let said = ["check", serve].map(|command| {
            let output = edgemesh(&[command, "--config", path]);
            assert_eq!(output.status.code(), Some(1), "{command}");
            // The last line counts them, and `check` says as what they were read.
            let said = stderr(&output);
            said.trim_end().rsplit_once('\n').expect("more than one line").0.to_owned()
        });
        assert_eq!(said[0], said[1]);
        for place in places {
            let line = format!("{path}:{place}");
            assert!(said[0].contains(&line), "no {line} in {}", said[0]);
        }
    }
}

#[test]
fn without_an_agent_the_next_step_is_named() {
    // Bound and not listening: the port is ours, and refuses.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let address = socket.local_addr().expect("an address").as_socket().expect("an IP");
    let url = format!("http://{address}");
    let output = edgemesh(&["status", "--admin", &url]);
    assert_eq!(output.status.code(), Some(1));
    let want = format!(
        "edgemesh: no agent answers at {url}: start one with `sudo edgemesh agent`, \
         or name another with --admin (a cloud's is http://127.0.0.1:15010)\n"
    );
    assert_eq!(stderr(&output), want);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgemesh"))
        .args(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_says_nothing_is_given_five_seconds() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let admin = edgemesh_daemon::client::Admin::new(&url).expect("a URL");
    let begin = tokio::time::Instant::now();
    let answer = admin.get::<serde_json::Value>("/v1/status").await;
    let error = answer.expect_err("nobody answered").to_string();
    assert_eq!(error, format!("the agent at {url} did not answer within 5 s"));
    assert_eq!(begin.elapsed().as_secs(), 5);
}

#[test]
fn check_names_who_holds_a_port_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cloud.yaml");
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = held.local_addr().expect("an address");
    std::fs::write(&file, format!("hub: {{ listen: \"{at}\" }}\n")).expect("written");
    let output = edgemesh(&["check", "--config", file.to_str().expect("a plain path")]);
    assert_eq!(output.status.code(), Some(0), "it may be for another machine");
    let (said, pid) = (stderr(&output), std::process::id());
    let want = format!("note: port {}/tcp (hub.listen) is held by pid {pid} (", at.port());
    assert!(said.contains(&want), "{said}");
    assert!(said.contains("stop it, or choose another `hub.listen`"), "{said}");
    drop(held);
    let output = edgemesh(&["check", "--config", file.to_str().expect("a plain path")]);
    assert!(!stderr(&output).contains("hub.listen"), "{}", stderr(&output));
}
