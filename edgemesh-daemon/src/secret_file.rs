//! What must be kept secret on its way to a file or stdout, and back from a file or stdin.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::IsTerminal;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use anyhow::bail;

use crate::say;

/// Longest text that is read; an authority has a few kilobytes.
const MAX_TEXT: u64 = 1 << 20;

/// Writes `text` to a new file that only its owner may read, or to stdout, unless people look at it.
///
/// # Errors
/// When the file exists or cannot be written, or when stdout is a terminal.
pub fn write(text: &str, out: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = out else {
        if io::stdout().is_terminal() {
            bail!(
                "a secret would be shown on this terminal: name a file with --out, or use a pipe"
            );
        }
        return Ok(say::answer(text)?);
    };
    let name = path.display();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot make {name}"))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path); // half of a secret helps nobody; the first error is told
    }
    written.with_context(|| format!("cannot write {name}"))
}

/// The text of the file, or of stdin.
///
/// # Errors
/// When it cannot be read, is too long, or is not UTF-8.
pub fn read(input: Option<&Path>) -> anyhow::Result<String> {
    let (name, source): (String, Box<dyn Read>) = match input {
        None => ("stdin".into(), Box::new(io::stdin())),
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
            (name, Box::new(file))
        }
    };
    let mut text = String::new();
    let read = source.take(MAX_TEXT + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {name}"))?;
    if text.len() as u64 > MAX_TEXT {
        bail!("{name} is longer than {MAX_TEXT} bytes: that is no exported authority");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_its_owners_and_never_goes_over_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        write("secret\n", Some(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(Some(&path)).unwrap(), "secret\n");
        let again = write("other\n", Some(&path)).unwrap_err();
        assert!(format!("{again:#}").contains("File exists"), "{again:#}");
        assert_eq!(read(Some(&path)).unwrap(), "secret\n");
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for (bytes, words) in
            [(vec![0xff], "cannot read"), (vec![b'a'; (1 << 20) + 1], "is longer than")]
        {
            let path = folder.path().join("x");
            fs::write(&path, bytes).unwrap();
            let error = format!("{:#}", read(Some(&path)).unwrap_err());
            assert!(error.contains(words) && error.contains("/x"), "{error}");
        }
        assert!(read(Some(&folder.path().join("none"))).is_err());
    }
}
