//! The one module that prints for people: answers to stdout, what went wrong to stderr.

use std::io;
use std::io::Write;

use crate::config::Environment;

/// Width of tables where the output is no terminal and nobody says otherwise.
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

/// How wide a table may be: the terminal's width; in a pipe `$COLUMNS`, else 100 columns.
pub fn width() -> u16 {
    let terminal = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col);
    width_of(terminal, Environment::of_process().columns.as_deref())
}

fn width_of(terminal: Option<u16>, columns: Option<&str>) -> u16 {
    let told = terminal
        .filter(|width| *width > 0)
        .or_else(|| columns?.parse().ok().filter(|width| *width > 0));
    told.map_or(PIPED_WIDTH, |width| width.max(MIN_WIDTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_wins_over_columns_over_100() {
        let cases = [
            (Some(120), Some("80"), 120),
            (Some(0), Some("80"), 80),
            (None, Some("80"), 80),
            (None, Some("20"), MIN_WIDTH),
            (Some(20), None, MIN_WIDTH),
            (None, Some("0"), PIPED_WIDTH),
            (None, Some("wide"), PIPED_WIDTH),
            (None, Some("99999"), PIPED_WIDTH),
            (None, None, PIPED_WIDTH),
        ];
        for (terminal, columns, want) in cases {
            assert_eq!(width_of(terminal, columns), want, "{terminal:?} {columns:?}");
        }
    }
}
