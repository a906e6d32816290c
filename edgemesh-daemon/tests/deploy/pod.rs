//! A container of a manifest as a process: its command line, with the rights that it is given and
//! folders of the test in the place of its volumes.

use std::io::{Read, Write};

use serde_json::Value;

use crate::common::folder::listen;
use crate::common::namespace::sh;
use crate::common::run::Running;
use crate::helm::words;

/// Where the folders of all Pods are.
const PODS: &str = "/run/pods";

/// Stands for a Pod: its configuration, its secrets and its data are folders of the test.
#[derive(Debug)]
pub(crate) struct Pod {
    name: &'static str,
}

impl Pod {
    /// Makes its folders.
    pub(crate) fn new(name: &'static str) -> Self {
        let pod = Self { name };
        sh(&format!(
            "cd {PODS} 2>/dev/null || mkdir {PODS}; cd {PODS}; mkdir -p {name}/etc {name}/secrets {name}/data"
        ));
        pod
    }

    /// A text of the manifest with the test's folders in it.
    pub(crate) fn placed(&self, text: &str) -> String {
        let at = |folder: &str| format!("{PODS}/{}/{folder}", self.name);
        text.replace("/etc/edgemesh", &at("etc"))
            .replace("/run/secrets", &at("secrets"))
            .replace("/var/lib/edgemesh-cloud", &at("data"))
            .replace("/var/lib/edgemesh", &at("data"))
    }

    /// Writes a file to where the container has it at `path`.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.placed(path);
        let folder = path.rsplit_once('/').unwrap().0;
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&path, self.placed(text)).unwrap();
    }

    /// The command line of a container, with its rights and no more.
    pub(crate) fn line(&self, container: &Value) -> Vec<String> {
        let line = [words(&container["command"]), words(&container["args"])].concat();
        let line = line.into_iter().map(|word| self.placed(word)).map(program);
        contained(container)
            .into_iter()
            .chain([format!("NODE_NAME={}", self.name)])
            .chain(line)
            .collect()
    }

    /// Starts a container in `netns`.
    #[track_caller]
    pub(crate) fn start(&self, netns: &str, container: &Value) -> Running {
        let line = self.line(container);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        Running::start(netns, &line, std::path::Path::new(&self.log(container)))
    }

    /// What a container that was started has said so far.
    pub(crate) fn said(&self, container: &Value) -> String {
        std::fs::read_to_string(self.log(container)).unwrap_or_default()
    }

    fn log(&self, container: &Value) -> String {
        format!("{PODS}/{}/{}.log", self.name, container["name"].as_str().unwrap())
    }
}

/// The program under test for the image's.
fn program(word: String) -> String {
    if word == "edgemesh" { env!("CARGO_BIN_EXE_edgemesh").into() } else { word }
}

/// What a container runtime does: processes of its own, of which the first one is this, the bounding set of
/// `securityContext`, and no new privileges.
fn contained(container: &Value) -> Vec<String> {
    let context = &container["securityContext"];
    assert_eq!(words(&context["capabilities"]["drop"]), ["ALL"], "{container}");
    assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
    let added = words(&context["capabilities"]["add"]);
    let bounds: String = added.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
    let bounds = format!("--bounding-set=-all{bounds}");
    let apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let bound = ["setpriv", &bounds, "--inh-caps=-all", "--no-new-privs", "env"];
    apart.into_iter().chain(bound).map(Into::into).collect()
}

/// The process that is the first of a container that runs, and its children.
pub(crate) fn inside(container: &Running) -> Vec<u32> {
    let children = |of: u32| -> Vec<u32> {
        let all = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
        all.unwrap_or_default().split_whitespace().map(|id| id.parse().unwrap()).collect()
    };
    let first = children(container.child.id());
    let below = first.iter().flat_map(|id| children(*id));
    first.iter().copied().chain(below).collect()
}

/// Makes everything read-only but `/run`, where the folders of the Pods are, and what is the kernel's.
/// Flags that a mount has stay: in a user namespace they are locked.
pub(crate) fn read_only_root() {
    sh("findmnt -rno TARGET,VFS-OPTIONS | while read -r at flags; do
          case $at in /run|/run/*|/proc|/proc/*|/sys|/sys/*|/dev|/dev/*) continue;; esac
          mount -o \"remount,bind,$flags,ro\" \"$at\"
        done
        ! touch /tmp/edgemesh-was-here 2>/dev/null");
}

/// What is in `/run` beside the folders of tests and the notes of `mount`: what containers wrote there.
pub(crate) fn written_to_run() -> Vec<String> {
    let found = std::fs::read_dir("/run")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<_> = found
        .filter(|name| !["first", "mount", "netns", "pods"].contains(&name.as_str()))
        .collect();
    found.sort();
    found
}

/// An HTTP server in `netns` that always says the same.
pub(crate) fn serve(netns: &str, at: &str, says: &'static str) {
    let listener = listen(netns, at);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = Vec::new();
            let mut part = [0; 1024];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut part) {
                    Ok(read) if read > 0 => head.extend_from_slice(&part[..read]),
                    Ok(_) | Err(_) => break,
                }
            }
            let length = says.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{says}"
            );
            stream.write_all(answer.as_bytes()).ok();
        }
    });
}
