//! Where records come from: one line a source, by the word that `source:` uses.

use std::path::PathBuf;

use edgemesh_core::mesh::Folders;

use crate::kubernetes::Access;

/// A source as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The word: `manifests`, `cloud`, `kubernetes`.
    pub word: &'static str,
    /// The folder of `manifests`.
    pub folder: Option<PathBuf>,
    /// The API server of `kubernetes`.
    pub access: Option<Access>,
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

/// What is to be followed.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Folders of manifests.
    pub folders: Folders,
    /// An API server.
    pub access: Option<Access>,
}

type Open = fn(Named) -> Result<Opened, &'static str>;

/// Every source. To add one, add one line here and one file beside this one.
const SOURCES: &[(&str, Open)] = &[
    ("manifests", |named| {
        let folders = Folders { source: named.folder, ..Folders::default() };
        Ok(Opened { folders, access: None })
    }),
    ("none", |_| Ok(Opened::default())),
    // The records come by Links, see `Mesh::link`.
    ("cloud", |_| Ok(Opened::default())),
    ("kubernetes", |named| match cfg!(feature = "cloud") {
        true => Ok(Opened { access: named.access, ..Opened::default() }),
        false => Err("this program was built without the feature `cloud`"),
    }),
];

/// Opens the source that the configuration names.
///
/// # Errors
/// [`Unserved`], with what to use in its place.
pub fn open(named: Named) -> Result<Opened, Unserved> {
    let word = named.word;
    let known = SOURCES.iter().find(|(name, _)| *name == word);
    let open = known.ok_or(Unserved { word, why: "nobody knows it" })?.1;
    open(named).map_err(|why| Unserved { word, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_and_what_is_not() {
        let named = |word| Named {
            word,
            folder: Some(PathBuf::from("/m")),
            access: Some(Access::InCluster),
        };
        let opened = open(named("manifests")).unwrap();
        assert_eq!((opened.folders.source, opened.access), (Some(PathBuf::from("/m")), None));
        let opened = open(named("kubernetes")).ok().map(|opened| opened.access);
        assert_eq!(opened, cfg!(feature = "cloud").then_some(Some(Access::InCluster)));
        let said = open(named("etcd")).unwrap_err().to_string();
        assert!(said.contains("etcd") && said.contains("--manifests DIR"), "{said}");
    }
}
