//! The folder: made once, never half, and never made anew in place of what is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use super::*;

#[test]
fn a_new_folder_gets_a_ca_that_stays() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("cloud");
    let first = open(&folder).ca();
    for file in ["ca.key", "authority.db"] {
        let mode = fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let secret = open(&folder).create_token(TOKEN_TTL, None, TODAY).unwrap().reveal();
    let secret = secret.rsplit('.').next().unwrap().to_owned();
    let stored = fs::read(folder.join("authority.db")).unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains(&secret), "only a hash is kept");
    assert_eq!(open(&folder).ca(), first);
}

/// `token create` and a first start of the cloud at the same time.
#[test]
fn two_who_come_first_make_one_ca() {
    let folder = tempfile::tempdir().unwrap();
    let cas = thread::scope(|scope| {
        let open = || open(folder.path()).ca();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(cas.iter().all(|ca| *ca == cas[0]), "{cas:?}");
}

#[test]
fn a_lost_half_is_told_and_not_replaced() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ca = open(one.path()).ca();
    open(two.path());
    let keep = |name: &str| fs::read(one.path().join(name)).unwrap();
    let (key, certificate) = (keep("ca.key"), keep("ca.crt"));
    let other_key = fs::read(two.path().join("ca.key")).unwrap();
    type Harm<'a> = &'a dyn Fn(&Path);
    let remove =
        |name: &'static str| move |folder: &Path| fs::remove_file(folder.join(name)).unwrap();
    let both = |folder: &Path| {
        remove("ca.key")(folder);
        remove("ca.crt")(folder);
    };
    let cases: [(&str, Harm<'_>, &str); 5] = [
        ("no key", &remove("ca.key"), "ca.key is missing in"),
        ("no certificate", &remove("ca.crt"), "ca.crt is missing in"),
        ("neither", &both, "ca.key and ca.crt is missing in"),
        (
            "another's key",
            &|folder| fs::write(folder.join("ca.key"), &other_key).unwrap(),
            "put ca.key and ca.crt back",
        ),
        (
            "half a file",
            &|folder| fs::write(folder.join("ca.crt"), &certificate[..100]).unwrap(),
            "put ca.key and ca.crt back",
        ),
    ];
    for (case, harm, says) in cases {
        harm(one.path());
        let before = fs::read_dir(one.path()).unwrap().count();
        let text = Authority::open(one.path(), TODAY, OFFLINE_GRACE).unwrap_err().to_string();
        assert!(text.contains(says) && text.contains("no node would believe it"), "{case}: {text}");
        assert_eq!(fs::read_dir(one.path()).unwrap().count(), before, "{case}: nothing was made");
        fs::write(one.path().join("ca.key"), &key).unwrap();
        fs::write(one.path().join("ca.crt"), &certificate).unwrap();
        assert_eq!(open(one.path()).ca(), ca, "{case}");
    }
}

/// The steps in which a CA is put into a folder, cut after each.
#[test]
fn a_ca_whose_making_was_cut_off_is_the_old_one_or_the_new_one() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old_ca, new_ca) = (open(old.path()).ca(), open(new.path()).ca());
    let of_new = |name: &str| fs::read(new.path().join(name)).unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(old.path().join(name), bytes).unwrap();

    put("ca.crt.coming", &of_new("ca.crt"));
    assert_eq!(open(old.path()).ca(), old_ca);
    put("ca.key", &of_new("ca.key"));
    assert_eq!(open(old.path()).ca(), new_ca);
    assert!(!old.path().join("ca.crt.coming").exists());
    assert_eq!(open(old.path()).ca(), new_ca);

    // A first start: there is no old one.
    let first = tempfile::tempdir().unwrap();
    fs::write(first.path().join("ca.crt.coming"), of_new("ca.crt")).unwrap();
    fs::write(first.path().join("ca.key"), of_new("ca.key")).unwrap();
    assert_eq!(open(first.path()).ca(), new_ca);

    let first = tempfile::tempdir().unwrap();
    fs::write(first.path().join("ca.crt.coming"), of_new("ca.crt")).unwrap();
    assert_ne!(open(first.path()).ca(), new_ca, "its key was never written");
}

#[test]
fn a_book_that_cannot_be_read_is_told() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path());
    let file = folder.path().join("authority.db");
    let newer = rusqlite::Connection::open(&file).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let text = || Authority::open(folder.path(), TODAY, OFFLINE_GRACE).unwrap_err().to_string();
    assert!(text().contains("written by a newer EdgeMesh"), "{}", text());
    fs::write(&file, "no database at all, but long enough to be one".repeat(100)).unwrap();
    assert!(text().contains("is damaged: put it back"), "{}", text());
    fs::remove_file(&file).unwrap();
    open(folder.path());

    let text = Authority::open(&file, TODAY, OFFLINE_GRACE).unwrap_err().to_string();
    assert!(text.contains("cannot use the data folder"), "{text}");
}

/// A command on the wrong machine makes nothing there.
#[test]
fn where_there_is_no_authority_none_is_made_by_who_wants_one() {
    let folder = machine();
    let wanted = folder.path().join("cloud");
    let existing = || Authority::existing(&wanted, TODAY, OFFLINE_GRACE);
    let error = existing().err().unwrap();
    assert!(matches!(error, AuthorityError::NoneThere { .. }), "{error}");
    assert!(error.to_string().contains("is this the cloud's machine?"), "{error}");
    assert!(!wanted.exists());
    let ca = open(&wanted).ca();
    assert_eq!(existing().unwrap().ca(), ca);
}
