//! Identities in the data folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn identity(name: &str) -> Identity {
    Authority::new(TODAY).unwrap().node(&node(name), TODAY, LIFETIME).unwrap()
}

#[test]
fn what_was_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("not/there/yet");
    assert!(Identity::load(&data_dir).unwrap().is_none());
    for name in ["edge-1", "edge-2"] {
        let saved = identity(name);
        saved.save(&data_dir).unwrap();
        let loaded = Identity::load(&data_dir).unwrap().unwrap();
        assert_eq!((loaded.node(), loaded.ca()), (saved.node(), saved.ca()));
        assert_eq!(loaded.chain, saved.chain);
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path(&data_dir)), 0o600);
    assert_eq!(mode(&data_dir), 0o700);
    assert!(!format!("{:?}", identity("edge-1")).contains("PRIVATE"));
}

/// A run that was cut off while it saved leaves its half behind, and the old file.
#[test]
fn a_save_that_was_cut_off_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    identity("edge-1").save(folder.path()).unwrap();
    fs::write(folder.path().join("identity.pem.new"), "-----BEGIN").unwrap();
    assert_eq!(Identity::load(folder.path()).unwrap().unwrap().node(), &node("edge-1"));
    identity("edge-2").save(folder.path()).unwrap();
    assert_eq!(Identity::load(folder.path()).unwrap().unwrap().node(), &node("edge-2"));
    assert!(!folder.path().join("identity.pem.new").exists());
}

#[test]
fn a_damaged_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (identity("edge-1"), identity("edge-2"));
    one.save(folder.path()).unwrap();
    let file = path(folder.path());
    let good = fs::read_to_string(&file).unwrap();
    two.save(folder.path()).unwrap();
    let other = fs::read_to_string(&file).unwrap();
    let begin = good.find("-----BEGIN CERT").unwrap();
    let other_begin = other.find("-----BEGIN CERT").unwrap();
    let ca = good.rfind("-----BEGIN CERT").unwrap();
    for (case, text) in [
        ("empty", String::new()),
        ("cut off in the key", good[..60].into()),
        ("no certificates", good[..begin].into()),
        ("no CA", good[..ca].into()),
        ("no key", good[begin..].into()),
        ("another's key", format!("{}{}", &other[..other_begin], &good[begin..])),
        (
            "another's CA",
            format!("{}{}", &good[..ca], &other[other.rfind("-----BEGIN CERT").unwrap()..]),
        ),
        ("altered", good.replace("MIIB", "MIIC")),
        ("no PEM", "hello".into()),
    ] {
        fs::write(&file, text).unwrap();
        let error = Identity::load(folder.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{case}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("identity.pem") && text.contains("join again"), "{case}: {text}");
    }
    fs::write(&file, b"\xff\xfe").unwrap();
    assert!(matches!(Identity::load(folder.path()), Err(IdentityError::File { .. })));
    fs::write(&file, good).unwrap();
    assert!(Identity::load(folder.path()).unwrap().is_some());
}

/// Whoever asks again after a lost answer asks with the same key, until it has a certificate.
#[test]
fn the_key_of_a_join_is_kept_until_it_has_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let kept = || Pending::kept(folder.path(), &node("edge-1")).unwrap();
    let hash = |pending: &Pending| authority::key_hash(&pending.csr().unwrap()).unwrap();
    let first = hash(&kept());
    assert_eq!(hash(&kept()), first);
    let file = folder.path().join("joining.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    fs::write(&file, "damaged").unwrap();
    let second = hash(&kept());
    assert_ne!(second, first, "a damaged key is replaced: it has no certificate yet");
    assert_eq!(hash(&kept()), second);

    identity("edge-1").save(folder.path()).unwrap();
    assert!(!file.exists());
    assert_ne!(hash(&kept()), second);
}
