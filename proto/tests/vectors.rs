//! Every recorded KubeEdge message is read, and written again byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use edgemesh_proto::beehive;
use edgemesh_proto::message::Message;
use serde_json::Value;

/// Frames that are not written again as they came: file, line (0 = every frame of that direction),
/// direction, and why. Each is still read, and what is written for it reads the same.
const EXCEPTIONS: &[(&str, usize, &str, &str)] = &[
    (
        "resend-after-error-reply.jsonl",
        0,
        "client->cloud",
        "the test client was no Go program: spaces between tokens, resource before operation",
    ),
    (
        "router-eventbus-rest.jsonl",
        3,
        "edge->cloud",
        "bytes that were no UTF-8: Go writes \\ufffd for them, but U+FFFD itself unescaped",
    ),
    ("router-rest-eventbus.jsonl", 4, "cloud->edge", "as in router-eventbus-rest.jsonl"),
];

/// Frames in all files. Those over 60 kB were cut by the recorder and cannot be read.
const WHOLE: usize = 447;
const CUT: usize = 5;

#[test]
fn recorded_frames_survive() {
    let (mut whole, mut cut) = (0, 0);
    let mut used = vec![false; EXCEPTIONS.len()];
    for file in files() {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        for (index, line) in text.lines().enumerate() {
            let record: Value = serde_json::from_str(line).unwrap();
            cut += usize::from(record.get("frame_prefix").is_some());
            let Some(frame) = record.get("frame") else { continue };
            let (frame, way) = (frame.as_str().unwrap(), record["dir"].as_str().unwrap());
            let exception = EXCEPTIONS.iter().position(|(file, line, dir, _)| {
                *file == name && *dir == way && (*line == 0 || *line == index + 1)
            });
            check(&format!("{name}:{}", index + 1), frame, exception.is_none());
            exception.into_iter().for_each(|i| used[i] = true);
            whole += 1;
        }
    }
    assert_eq!((whole, cut), (WHOLE, CUT));
    assert!(used.iter().all(|used| *used), "an exception that nothing needs: {used:?}");
}

fn check(place: &str, frame: &str, to_the_letter: bool) {
    let message = beehive::decode(frame.as_bytes()).unwrap_or_else(|e| panic!("{place}: {e}"));
    let again = beehive::encode(&message);
    assert_eq!(again == frame, to_the_letter, "{place}:\n{frame}{again}");
    assert_eq!(beehive::decode(again.as_bytes()).as_ref(), Ok(&message), "{place}");
    let binary =
        Message::decode(message.encode().into()).unwrap_or_else(|e| panic!("{place}: {e}"));
    assert_eq!(binary.header, message.header, "{place}");
    assert_eq!(binary.route, message.route, "{place}");
    assert_eq!(binary.content.payload(), message.content.payload(), "{place}");
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/ws");
    let entries = fs::read_dir(folder).expect("the recordings are checked in");
    entries.map(|entry| entry.expect("a readable folder").path()).collect()
}
