//! Answers what other nodes ask of this one.

use std::pin::Pin;
use std::sync::Arc;

use edgemesh_proto::message::{Body, Refused};

use crate::forward::Shared;
use crate::link::{Answering, Called, Rest, Serve};

#[derive(Debug)]
pub struct Linked(Arc<Shared>);

impl Linked {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

impl Serve for Linked {
    fn serve(self: Arc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
        let _ = &self.0;
        let refused =
            Refused { label: "draining".into(), text: "interim".into(), retry_after_ms: 0 };
        let opening = crate::peers::message(["", ""], Body::Refused(refused));
        let _ = called;
        Box::pin(async move { Answering { opening, rest: Rest::Nothing } })
    }
}
