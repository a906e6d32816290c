//! ServiceCIDRs that the cloud tells.

use crate::mesh::kept_service_cidrs;

use super::*;

fn ranges(text: &[&str]) -> Body {
    let service_cidrs = text.iter().map(|range| range.parse().unwrap()).collect();
    Body::Ranges(Ranges { service_cidrs })
}

fn known(world: &World) -> Vec<String> {
    world.status.get().service_cidrs.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn what_the_cloud_tells_of_ranges_counts_until_it_tells_others() {
    let world = World::new().await;
    let (mut cloud, _) = world.talk(EPOCH, 1).await;
    let mut changes = world.status.changes();
    cloud.say.send(ranges(&["10.96.0.0/12", "fd00::/108"])).await.unwrap();
    world.until(|world| known(world) == ["10.96.0.0/12", "fd00::/108"]).await;
    assert!(changes.has_changed().unwrap(), "capture is to be done anew");
    changes.mark_unchanged();
    // It is no step of the records: nothing is to be answered, and they go on.
    assert_eq!(cloud.tell(everything(1, &[service("a", &[("", 80)])])).await, ack(1));
    drop(cloud);
    world.until(|world| !world.status.get().in_step).await;
    assert_eq!(known(&world).len(), 2, "the last ones stay in force");
    // A cloud that does not know yet says nothing, and one without ranges says so.
    let (cloud, _) = world.talk([8; 16], 1).await;
    assert_eq!(known(&world).len(), 2);
    cloud.say.send(ranges(&["10.96.0.0/16"])).await.unwrap();
    world.until(|world| known(world) == ["10.96.0.0/16"]).await;
    let kept = || kept_service_cidrs(&world.folder.path().join("data")).len();
    world.until(|_| kept() == 1).await;
    cloud.say.send(ranges(&[])).await.unwrap();
    world.until(|world| known(world).is_empty() && kept() == 0).await;
    world.end().await;
}
