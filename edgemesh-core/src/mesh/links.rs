//! What joins a mesh to those of other nodes.

use std::sync::Arc;

use crate::mesh::Mesh;
use crate::peers::Ways;
use crate::proxy::Linked;

impl Mesh {
    /// From now on Backends of other nodes are reached so. The first one counts.
    pub fn reach_by(&self, ways: Arc<dyn Ways>) {
        let _ = self.shared.ways.set(ways); // once a mesh
    }

    /// Serves what other nodes pass on, by the Backends of this one.
    pub fn linked(&self) -> Linked {
        Linked::new(self.shared.clone())
    }
}
