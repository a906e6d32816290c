//! Where records come from: one line a source, by the word that `source:` uses.

use std::path::PathBuf;

use edgemesh_core::mesh::Folders;

/// A source as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The word: `manifests`, `cloud`, `kubernetes`.
    pub word: &'static str,
    /// The folder of `manifests`.
    pub folder: Option<PathBuf>,
}

/// A source that this version does not serve.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "source: {word} is not served by this version ({why}); use `source: {{ manifests: DIR }}` or --manifests DIR"
)]
pub struct Unserved {
    word: &'static str,
    why: &'static str,
}

type Open = fn(Option<PathBuf>) -> Result<Folders, &'static str>;

/// Every source. To add one, add one line here and one file beside this one.
const SOURCES: &[(&str, Open)] = &[
    ("manifests", |folder| Ok(Folders { source: folder, ..Folders::default() })),
    ("none", |_| Ok(Folders::default())),
    // The records come by Links, see `Mesh::link`.
    ("cloud", |_| Ok(Folders::default())),
    ("kubernetes", |_| Err("it does not speak to API servers yet")),
];

/// Opens the source that the configuration names.
///
/// # Errors
/// [`Unserved`], with what to use in its place.
pub fn open(named: Named) -> Result<Folders, Unserved> {
    let Named { word, folder } = named;
    let known = SOURCES.iter().find(|(name, _)| *name == word);
    let open = known.ok_or(Unserved { word, why: "nobody knows it" })?.1;
    open(folder).map_err(|why| Unserved { word, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_and_what_is_not() {
        let named = |word, folder: Option<&str>| Named { word, folder: folder.map(PathBuf::from) };
        let opened = open(named("manifests", Some("/m"))).unwrap();
        assert_eq!(opened.source, Some(PathBuf::from("/m")));
        for word in ["kubernetes", "etcd"] {
            let said = open(named(word, None)).unwrap_err().to_string();
            assert!(said.contains(word) && said.contains("--manifests DIR"), "{said}");
        }
    }
}
