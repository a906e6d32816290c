//! `embed` does what it says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

#[test]
fn the_example_says_what_its_comments_say() {
    let output = Command::new(env!("CARGO_BIN_EXE_embed")).output().unwrap();
    let (said, complained) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((complained.as_str(), output.status.success()), ("", true), "{said}");
    let limited = "greeting.default: the rate limit of the Service is spent";
    let nobody = "nobody.default:6379: no Service has this name";
    let want = ["hello, one", "hello, two", "hello, three", limited, limited, nobody];
    assert_eq!(said.lines().collect::<Vec<_>>(), want);
}
