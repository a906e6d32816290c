//! In the place of the API server, in a program that was built without the feature `cloud`: it is refused
//! before, so that there is never one.

use std::convert::Infallible;

use edgemesh_core::dial::Dial;
use edgemesh_core::mesh::{Mesh, Supply};
use edgemesh_router::kubernetes::Access;

use crate::api::SourceView;
use crate::config::AgentConfig;

/// There is none.
#[derive(Debug)]
pub(super) struct ApiServer(Infallible);

/// There is none.
pub(crate) type Report = Infallible;

impl ApiServer {
    /// A source that says nothing.
    pub(super) fn new(_: Access, _: &AgentConfig, _: Dial) -> (Self, Supply) {
        unreachable!("`sources::open` refuses it")
    }

    pub(super) fn follow(self, _: &Mesh) -> Report {
        self.0
    }
}

pub(crate) fn view(report: &Report) -> SourceView {
    match *report {}
}
