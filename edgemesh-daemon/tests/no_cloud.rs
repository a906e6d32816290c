//! The program without its cloud side: an agent, which says of the rest that it is not there.
//!
//! `cargo test -p edgemesh-daemon --no-default-features --test no_cloud --test flows -- without_the_cloud hosts:: start::`

#![cfg(not(feature = "cloud"))]

use std::process::Command;

#[test]
fn what_is_not_there_without_the_cloud_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("written");
        file.to_str().expect("a plain path").to_owned()
    };
    let cloud = write("cloud.yaml", &format!("dataDir: {}\n", folder.path().display()));
    let agent = write(
        "agent.yaml",
        &format!(
            "node: n\ndataDir: {}\nproxy: {{ intercept: none }}\nsource: {{ kubernetes: {{}} }}\n",
            folder.path().display()
        ),
    );
    for (command, want) in [
        (&["cloud", "--config", &cloud][..], "was built without the cloud"),
        (&["token", "create", "--config", &cloud], "was built without the cloud"),
        (&["agent", "--config", &agent], "source: kubernetes is not served by this version"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_edgemesh")).args(command).output();
        let output = output.expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(want) && said.contains("feature `cloud`"), "{command:?}: {said}");
        assert!(!said.contains("panicked"), "{command:?}: {said}");
    }
}
