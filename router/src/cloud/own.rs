//! Keeps the cloud's own mesh in step with the registry, as one more agent that sees everything.

use edgemesh_core::mesh::Feeder;
use edgemesh_core::sync::FollowerStep;
use edgemesh_core::sync::replica::{Reaction, Replica, Step};
use edgemesh_proto::message::{Body, Hello, Selector};
use edgemesh_proto::record::{Delta, Key, Kind, NodeName, Put};
use tokio_util::sync::CancellationToken;

use crate::cloud::OwnNodes;
use crate::registry::session::Said;
use crate::registry::shared::{Shared as Registry, Talk};

pub(super) struct Own {
    pub(super) registry: Registry,
    pub(super) feeder: Feeder,
    pub(super) own_nodes: OwnNodes,
}

impl Own {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let mut replica = Replica::new([0; 16], 0, []);
            let Ok(talk) = self.registry.talk(&hello()) else { return };
            loop {
                if let Err(error) = self.follow(&mut replica, &talk).await {
                    // Both ends are ours: a defect, which the log shall show.
                    return tracing::error!("the cloud's own records: {error}");
                }
            }
        })
        .await;
    }

    async fn follow(
        &mut self,
        replica: &mut Replica,
        talk: &Talk,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let body = match talk.next().await {
            Said::Delta(delta) => Body::Delta(Delta::decode(delta)?.0),
            Said::Held(held) => Body::Held(held),
        };
        let answer = match replica.on(body)? {
            Reaction::Nothing => return Ok(()),
            Reaction::Say(body) => body,
            Reaction::Apply(step) => {
                self.apply(step);
                replica.done(true)
            }
        };
        talk.hear(&answer)?;
        Ok(())
    }

    fn apply(&mut self, step: Step) {
        let Step { to, put, delete, .. } = step;
        self.note_nodes(&put, &delete);
        let delta = Delta { epoch: to.epoch, to: to.revision, put, delete, ..Delta::default() };
        let left_out = self.feeder.apply(FollowerStep { delta, ..FollowerStep::default() });
        tracing::debug!(revision = to.revision, left_out, "records changed");
    }

    /// Which nodes' Backends this process calls.
    fn note_nodes(&self, put: &[Put], delete: &[Key]) {
        let mut own = self.own_nodes.write();
        for key in delete.iter().filter(|key| key.kind == Kind::Node) {
            own.remove(&key.name);
        }
        for put in put.iter().filter(|put| put.key.kind == Kind::Node) {
            let node = put.record().ok().and_then(|record| record.body.into_node());
            match node.is_some_and(|node| node.via_cloud && node.agent.is_none()) {
                true => own.insert(put.key.name.clone()),
                false => own.remove(&put.key.name),
            };
        }
    }
}

fn hello() -> Hello {
    Hello {
        node: NodeName(edgemesh_core::identity::CLOUD.into()),
        instance: [0; 16],
        generation: 0,
        version: String::new(),
        epoch: [0; 16],
        revision: 0,
        digest: [0; 32],
        selector: Selector::default(),
        links: Vec::new(),
        takes_over: false,
    }
}
