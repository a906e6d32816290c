//! Which files a set of folders holds, and what those files say: blocking, bounded everywhere.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::manifests::whole::Whole;
use crate::manifests::{Observed, Remark, Severity, parse};

/// Longest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 8 << 20;
/// Longest sum of all files, in bytes.
pub const MAX_TOTAL_BYTES: u64 = 256 << 20;
/// Most files and folders that are looked at.
pub const MAX_FILES: usize = 20_000;
/// Deepest sub-folder; a folder that was named is at depth 0.
pub const MAX_DEPTH: usize = 8;
/// Most Remarks that are kept.
pub const MAX_REMARKS: usize = 10_000;

/// Reads every manifest in `folders` and their sub-folders, in the order of folders, then names.
///
/// Blocks. Hidden files and folders are left out; symbolic links are followed, so that a mounted
/// ConfigMap (whose visible names point into `..data`) is read once. Nothing fails as a whole:
/// what cannot be read has a [`Remark`] and the rest counts.
pub fn read(folders: &[PathBuf]) -> Observed {
    let found = find(folders);
    let mut whole = Whole::default();
    for (path, reason) in found.troubles {
        whole.remark(&path, reason);
    }
    let mut left = MAX_TOTAL_BYTES;
    for file in &found.files {
        match text_of(file, left) {
            Err(reason) => whole.remark(file, reason),
            Ok(text) => {
                left = left.saturating_sub(text.len() as u64);
                let parsed = parse(file, &text);
                whole.add(file, parsed.documents, parsed.remarks);
            }
        }
    }
    let mut observed = whole.finish();
    bound(&mut observed.remarks);
    observed
}

/// The files and folders of a set of folders.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<PathBuf>,
    pub(super) folders: Vec<PathBuf>,
    /// What cannot be looked at, and why.
    pub(super) troubles: Vec<(PathBuf, String)>,
    /// Folders by their real path: two ways to one folder, and loops, count once.
    known: HashSet<PathBuf>,
    /// Something was left out.
    full: bool,
}

/// Looks for manifests. Blocks.
pub(super) fn find(folders: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for folder in folders {
        found.enter(folder, 0);
    }
    found
}

impl Found {
    fn enter(&mut self, folder: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            let reason = format!("lies more than {MAX_DEPTH} folders deep; move it up");
            return self.troubles.push((folder.to_owned(), reason));
        }
        let names = folder.canonicalize().and_then(|real| {
            if !self.known.insert(real) {
                return Ok(Vec::new());
            }
            self.folders.push(folder.to_owned());
            visible_names(folder)
        });
        match names {
            Err(error) => {
                self.troubles.push((folder.to_owned(), format!("cannot read the folder: {error}")));
            }
            Ok(names) => names.iter().for_each(|name| self.look(folder.join(name), depth)),
        }
    }

    fn look(&mut self, path: PathBuf, depth: usize) {
        if self.files.len() + self.folders.len() >= MAX_FILES {
            // Said once, of the first that is left out.
            if !self.full {
                let reason =
                    format!("it and all after it are left out: {MAX_FILES} files are the most");
                self.troubles.push((path, reason));
            }
            self.full = true;
            return;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => self.enter(&path, depth + 1),
            Ok(metadata) if metadata.is_file() && is_manifest(&path) => self.files.push(path),
            Ok(_) => {}
            Err(error) if is_manifest(&path) => {
                self.troubles.push((path, format!("cannot read the file: {error}")));
            }
            Err(_) => {}
        }
    }
}

fn visible_names(folder: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        // Other files may be there in any number; only what can matter is kept.
        let folder_or_link = !entry.file_type()?.is_file();
        if !is_hidden(&name) && (folder_or_link || is_manifest(Path::new(&name))) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn is_manifest(path: &Path) -> bool {
    let known = |extension: &OsStr| {
        ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    };
    path.extension().is_some_and(known)
}

/// The text of a file, or why there is none. At most `left` bytes.
fn text_of(file: &Path, left: u64) -> Result<String, String> {
    let opened = fs::File::open(file).map_err(|error| format!("cannot open the file: {error}"))?;
    let mut bytes = Vec::new();
    let most = MAX_FILE_BYTES.min(left);
    let read = opened.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read the file: {error}"))?;
    if bytes.len() as u64 > most {
        let (what, bound) = if most == MAX_FILE_BYTES {
            ("is", MAX_FILE_BYTES)
        } else {
            ("makes the folders", MAX_TOTAL_BYTES)
        };
        return Err(format!("{what} longer than {} MiB; split it or remove some", bound >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("is not UTF-8 text (line {line}); save it as UTF-8")
    })
}

fn bound(remarks: &mut Vec<Remark>) {
    if remarks.len() <= MAX_REMARKS {
        return;
    }
    let more = remarks.len() - (MAX_REMARKS - 1);
    remarks.truncate(MAX_REMARKS - 1);
    remarks.push(Remark {
        severity: Severity::Note,
        file: PathBuf::new(),
        line: 0,
        object: String::new(),
        field: String::new(),
        reason: format!("{more} more remarks are left out"),
    });
}
