//! Small files with secrets: written whole or not at all, readable by their owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::identity::error::IdentityError;

/// No file of an identity is longer.
const MAX_FILE: u64 = 64 * 1024;

/// Puts `bytes` at `path` (mode 0600), durably; whoever reads sees the old file or the new one. The folder is made where it is missing (mode 0700).
///
/// # Errors
/// [`IdentityError::File`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    replace(path, bytes).map_err(|source| IdentityError::File { file: path.into(), source })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    // Left by a run that was cut off, perhaps with another mode.
    absent_is_fine(fs::remove_file(&fresh))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

/// The text at `path`, where there is a file.
///
/// # Errors
/// [`IdentityError::File`].
pub fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    let failed = |source| IdentityError::File { file: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// Removes `path`, where there is such a file.
///
/// # Errors
/// [`IdentityError::File`].
pub fn remove(path: &Path) -> Result<(), IdentityError> {
    absent_is_fine(fs::remove_file(path))
        .map_err(|source| IdentityError::File { file: path.into(), source })
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}
