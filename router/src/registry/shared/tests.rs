//! What is known of the registry while it changes.

use super::*;

#[tokio::test]
async fn who_is_revoked_is_known_while_records_change() {
    let (shared, node) = (Shared::in_memory([1; 16]), NodeName("edge".into()));
    let mut news = shared.revocations();
    shared.remove(&node, 5, || false).await;
    assert!(news.has_changed().unwrap());
    news.mark_unchanged();
    shared.joined(&node, 5, Vec::new()).await;
    assert!(!news.has_changed().unwrap(), "nothing of that kind changed");
    let changing = shared.0.registry.lock();
    assert_eq!(shared.revoked(&node), Some(5));
    assert_eq!(shared.revoked(&NodeName("other".into())), None);
    drop(changing);
    shared.forget_revocation(&node).await;
    assert_eq!(shared.revoked(&node), None);
}
