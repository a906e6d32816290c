//! Export and restore: a cloud that moves to another machine keeps its nodes.

use super::*;

/// A cloud in `folder` that one node has joined.
fn with_a_node(folder: &Path) -> (Authority, tempfile::TempDir, Identity) {
    let (cloud, edge) = (open(folder), machine());
    let token = cloud.create_token(TOKEN_TTL, None, TODAY).unwrap();
    let joined = cloud.join(&ask(&edge, "edge-1", Some(&token)), None, TODAY).unwrap();
    let identity = complete(&edge, "edge-1", &joined, cloud.ca());
    (cloud, edge, identity)
}

#[test]
fn a_moved_cloud_keeps_its_nodes() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (cloud, edge, identity) = with_a_node(here.path());
    let exported = cloud.export();

    // The new machine's cloud was started before anyone thought of the old one's CA.
    let stranger = open(there.path());
    let lost = stranger.create_token(TOKEN_TTL, None, TODAY).unwrap();
    assert_ne!(stranger.ca(), cloud.ca());
    assert_eq!(restore(there.path(), &exported).unwrap(), cloud.ca());

    let moved = open(there.path());
    assert_eq!(moved.ca(), cloud.ca());
    let hub = moved.hub(&["cloud.example".into()], TODAY).unwrap();
    assert_eq!((hub.ca(), hub.not_after()), (identity.ca(), TODAY + 30 * DAY));
    let renewed = moved.join(&ask(&edge, "edge-1", None), Some(&proved(&identity)), TODAY + DAY);
    assert_eq!(outcome(&renewed), "");
    let join = moved.join(&ask(&machine(), "edge-2", Some(&lost)), None, TODAY);
    assert_eq!(outcome(&join), "otherCloud");
    let taken = moved.create_token(TOKEN_TTL, None, TODAY).unwrap();
    let join = moved.join(&ask(&machine(), "edge-1", Some(&taken)), None, TODAY);
    assert_eq!(outcome(&join), "nameTaken", "its renewal was noted");
}

#[test]
fn a_ca_with_nodes_is_not_replaced() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (cloud, ..) = with_a_node(here.path());
    let (other, ..) = with_a_node(there.path());
    let wanted = other.export();
    let refused = || restore(here.path(), &wanted).unwrap_err().to_string();
    let says = format!("has a CA of its own ({})", cloud.ca().id());
    assert!(refused().contains(&says), "{}", refused());
    // Nor where its files are lost: they may turn up again.
    std::fs::remove_file(here.path().join("ca.key")).unwrap();
    assert!(refused().contains(&says), "{}", refused());
    std::fs::remove_file(here.path().join("ca.crt")).unwrap();
    assert!(refused().contains(&says), "{}", refused());

    // The same CA always, with all that the book knows.
    assert_eq!(restore(here.path(), &cloud.export()).unwrap(), cloud.ca());
    let again = open(here.path());
    let token = again.create_token(TOKEN_TTL, None, TODAY).unwrap();
    let join = again.join(&ask(&machine(), "edge-1", Some(&token)), None, TODAY);
    assert_eq!(outcome(&join), "nameTaken");

    // And any, once the operator has moved the files away.
    for file in ["ca.key", "ca.crt", "authority.db"] {
        std::fs::remove_file(here.path().join(file)).unwrap();
    }
    assert_eq!(restore(here.path(), &wanted).unwrap(), other.ca());
    assert_eq!(open(here.path()).ca(), other.ca());
}

#[test]
fn what_is_no_export_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = open(folder.path());
    let exported = cloud.export();
    for text in ["", "hello", &exported[..exported.len() / 2], &exported[..200]] {
        assert!(restore(folder.path(), text).is_err(), "{text}");
    }
    assert_eq!(open(folder.path()).ca(), cloud.ca());
    let empty = tempfile::tempdir().unwrap();
    assert!(restore(empty.path(), "hello").is_err());
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}
