//! The one module that prints for people: answers to stdout, what went wrong to stderr.

use std::io;
use std::io::Write;

/// Width of tables where the output is no terminal.
const PIPED_WIDTH: u16 = 100;

/// Narrowest table: below it a column would be a letter wide.
const MIN_WIDTH: u16 = 60;

/// Writes an answer to stdout. A reader that went away (`| head`) is no failure.
///
/// # Errors
/// Any other error of stdout, such as a full disk.
pub fn answer(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes one line on what is being done to stderr, so that stdout holds the answer alone.
pub fn progress(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes one line to stderr. Where even that fails there is nobody left to tell.
pub fn complain(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "edgemesh: {line}");
}

/// How wide a table may be: the terminal's width, or 100 columns in a pipe.
pub fn width() -> u16 {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.max(MIN_WIDTH),
        Ok(_) | Err(_) => PIPED_WIDTH,
    }
}
