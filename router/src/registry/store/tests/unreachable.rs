//! A registry whose file cannot be written, or not even be read, while the cloud starts.

use super::*;

#[tokio::test]
async fn what_cannot_be_written_is_read_and_goes_on_from_there() {
    let folder = folder();
    filled(folder.path(), 7).await;
    let holder = rusqlite::Connection::open(folder.path().join("registry.db")).unwrap();
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let (store, kept, repairs) = Store::open(folder.path()).unwrap();
    assert!(matches!(&repairs[..], [Repair::ReadOnly { .. }]), "{repairs:?}");
    assert_eq!(assert_whole(kept), 7);
    keep(&store, 8).await.unwrap_err();
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    keep(&store, 9).await.unwrap();
    store.close().await;
    let (kept, repairs) = reopened(folder.path()).await;
    assert_eq!((assert_whole(kept), repairs), (9, vec![]));
}

#[tokio::test]
async fn what_cannot_be_read_is_moved_aside_before_anything_is_kept() {
    let folder = folder();
    filled(folder.path(), 7).await;
    let before = fs::read(folder.path().join("registry.db")).unwrap();
    // Nothing that SQLite could read as a log, nor take for the lack of one.
    fs::create_dir(folder.path().join("registry.db-wal")).unwrap();
    let (store, kept, repairs) = Store::open(folder.path()).unwrap();
    assert_eq!(kept, Kept::default());
    let [told @ Repair::Unreachable { .. }] = &repairs[..] else { panic!("{repairs:?}") };
    assert!(told.to_string().contains("moves the file aside"), "{told}");
    keep(&store, 1).await.unwrap();
    store.close().await;
    assert_eq!(fs::read(folder.path().join("registry.db.damaged-1")).unwrap(), before);
    let (kept, repairs) = reopened(folder.path()).await;
    assert_eq!((assert_whole(kept), repairs), (1, vec![]));
}

/// A file of the release before, which another program holds while the cloud is upgraded.
#[tokio::test]
async fn what_cannot_be_brought_up_to_date_is_read() {
    let (folder, made) = (folder(), folder());
    filled(made.path(), 7).await;
    let file = folder.path().join("registry.db");
    let holder = rusqlite::Connection::open(&file).unwrap();
    let before = include_str!("../registry_1.sql");
    holder.pragma_update(None, "application_id", MARK).unwrap();
    holder.execute_batch(&format!("PRAGMA journal_mode = WAL; {before}")).unwrap();
    holder.pragma_update(None, "user_version", 1).unwrap();
    let made = made.path().join("registry.db");
    let copy = format!(
        "ATTACH '{}' AS made; DELETE FROM state; INSERT INTO state SELECT * FROM made.state; \
         INSERT INTO owned SELECT * FROM made.owned; DETACH made; BEGIN IMMEDIATE",
        made.display()
    );
    holder.execute_batch(&copy).unwrap();
    let (store, kept, repairs) = Store::open(folder.path()).unwrap();
    assert!(matches!(&repairs[..], [Repair::ReadOnly { .. }]), "{repairs:?}");
    assert_eq!(assert_whole(kept), 7);
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    keep(&store, 8).await.unwrap();
    store.close().await;
    let (kept, repairs) = reopened(folder.path()).await;
    assert_eq!((assert_whole(kept), repairs), (8, vec![]));
}
