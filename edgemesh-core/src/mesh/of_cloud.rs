//! The mesh of the cloud's own process: it calls for nodes in the cloud that run no agent, and reaches
//! the others by the hub's Links.

use std::sync::Arc;

use edgemesh_proto::record::RuleName;

use crate::backends::Tally;
use crate::io::now;
use crate::mesh::{Mesh, OpenError, Options};
use crate::peers::Ways;
use crate::proxy::Linked;
use crate::sync::{Follower, FollowerStep};

/// Makes the registry's records visible to a [`Mesh`] of the cloud.
#[derive(Debug)]
pub struct Feeder {
    follower: Follower,
    status: Arc<crate::mesh::StatusCell>,
}

impl Feeder {
    /// What Rules counted in an earlier life of the cloud; said before the first step.
    pub fn counted(&mut self, counted: Vec<(RuleName, Tally)>) {
        self.follower.counted(counted);
    }

    /// Takes a step in. Returns how many records this version does not read.
    pub fn apply(&mut self, step: FollowerStep) -> usize {
        let left_out = self.follower.apply(step, now());
        self.status.update(|status| {
            status.read_at = Some(now());
            status.has_records = true;
        });
        self.status.records_changed();
        left_out
    }
}

impl Mesh {
    /// A mesh that keeps nothing and listens nowhere, for the cloud's own process. It must be called
    /// inside a runtime.
    ///
    /// # Errors
    /// A domain that is none.
    pub fn of_cloud(options: Options) -> Result<(Self, Feeder), OpenError> {
        let (node, zone) = (options.node.clone(), options.zone.clone());
        let mesh = Self::assemble(options, None)?;
        let follower = Follower::of_cloud(mesh.live(), node, zone);
        mesh.sweep_pools();
        let status = mesh.status();
        Ok((mesh, Feeder { follower, status }))
    }

    /// From now on Backends of other nodes are reached so. The first one counts.
    pub fn reach_by(&self, ways: Arc<dyn Ways>) {
        let _ = self.shared.ways.set(ways); // once a mesh
    }

    /// Serves what other nodes pass on, by the Backends of this one.
    pub fn linked(&self) -> Linked {
        Linked::new(self.shared.clone())
    }
}
