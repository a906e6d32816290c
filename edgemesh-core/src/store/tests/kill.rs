//! `kill -9` in the middle of applying changes: the store reopens whole, with all that was
//! acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use super::world::{given_folder, hidden};
use super::{assert_whole, change, folder, reopened};
use crate::store::{Store, opening};

/// Kills; the moment moves from the opening through the first transfer of the log.
const KILLS: u64 = 100;

#[tokio::test]
async fn a_hundred_kills() {
    let folder = folder();
    let mut reached = 0;
    for kill in 0..KILLS {
        // 0: as soon as the process exists, while it opens.
        let acknowledged = run_and_kill(folder.path(), (kill * kill) % 151).unwrap_or(reached);
        let (loaded, repairs) = if kill % 2 == 0 {
            reopened(folder.path()).await
        } else {
            // Only looks: the log stays, the next process opens what the crash left.
            let opened = opening::open(folder.path()).unwrap();
            (opened.loaded, opened.repairs)
        };
        assert_eq!(repairs, vec![], "kill {kill}");
        assert!(loaded.revision >= acknowledged, "kill {kill}: {acknowledged} was acknowledged");
        assert_whole(&loaded);
        reached = loaded.revision;
    }
    assert!(reached > KILLS * 20, "only {reached} changes were applied");
}

/// Starts the child, reads `lines` acknowledgements, kills it, and returns the last one read.
fn run_and_kill(folder: &Path, lines: u64) -> Option<u64> {
    let name = "store::tests::kill::child_applies_changes";
    let mut child =
        hidden(name, folder).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stderr.take().unwrap());
    let mut last = None;
    let mut line = String::new();
    for _ in 0..lines {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended by itself");
        last = Some(line.trim().parse().unwrap_or_else(|_| panic!("the child said: {line}")));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    last
}

#[tokio::test]
#[ignore = "runs as the child of a_hundred_kills"]
async fn child_applies_changes() {
    let Some(folder) = given_folder() else { return };
    let (store, loaded, _) = Store::open(&folder).unwrap();
    let mut output = std::io::stderr().lock();
    for number in loaded.revision + 1.. {
        store.commit(change(number)).await.unwrap();
        writeln!(output, "{number}").unwrap();
    }
}
