//! Links between the meshes of a test: made when somebody calls, cut and refused when it says so.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use edgemesh_core::backends::Way;
use edgemesh_core::identity::Proved;
use edgemesh_core::link::{Dialled, Limits, Link, Peer, Role, Serve, ServedLink, client, serve};
use edgemesh_core::peers::{Finding, NoWay, Ways};
use edgemesh_proto::record::NodeName;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// The ways of one node.
pub(crate) struct Wires {
    own: String,
    far: Mutex<BTreeMap<String, Far>>,
    tasks: TaskTracker,
    /// Nodes that calls were sent to and that the way did not lead to.
    pub(crate) nowhere: Mutex<Vec<(String, String)>>,
    /// Links that were made.
    pub(crate) made: AtomicUsize,
}

/// Another node.
struct Far {
    handler: Arc<dyn Serve>,
    way: Way,
    is_up: bool,
    link: Option<(Link, ServedLink)>,
}

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the wires of {}", self.own)
    }
}

impl Wires {
    pub(crate) fn new(own: &str) -> Arc<Self> {
        let (far, made) = (Mutex::default(), AtomicUsize::new(0));
        let nowhere = Mutex::default();
        Arc::new(Self { own: own.into(), far, tasks: TaskTracker::new(), nowhere, made })
    }

    /// From now on `handler` answers for a node.
    pub(crate) fn join(&self, node: &str, handler: Arc<dyn Serve>) {
        let far = Far { handler, way: Way::Direct, is_up: true, link: None };
        self.far.lock().insert(node.into(), far);
    }

    /// Cuts the Link to a node in the middle of whatever is under way.
    pub(crate) fn cut(&self, node: &str) {
        if let Some((_, served)) = self.far.lock().get_mut(node).and_then(|far| far.link.take()) {
            served.cut();
        }
    }

    /// Whether a Link to a node can be made.
    pub(crate) fn up(&self, node: &str, is_up: bool) {
        self.far.lock().get_mut(node).unwrap().is_up = is_up;
    }

    /// Which way leads to a node.
    pub(crate) fn by(&self, node: &str, way: Way) {
        self.cut(node);
        self.far.lock().get_mut(node).unwrap().way = way;
    }

    async fn dial(&self, node: &NodeName) -> Result<(Link, Way), NoWay> {
        let (handler, way) = match self.far.lock().get(&*node.0) {
            Some(far) if far.is_up => (far.handler.clone(), far.way),
            Some(_) => return Err(NoWay::new("the cable is out")),
            None => return Err(NoWay::new("there is no such node")),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        let end = |stream: TcpStream, node: &str, role| {
            let proved = Proved {
                node: NodeName(node.into()),
                // The hub speaks for others.
                is_hub: way == Way::Hub,
                issued: 0,
                until: i64::MAX,
            };
            let peer =
                Arc::new(Peer { proved: Some(proved), address: stream.peer_addr().unwrap() });
            Dialled { stream, peer, role }
        };
        let (near, far) = (end(near, &node.0, Role::Opens), end(far, &self.own, Role::Serves));
        let served = serve(far, handler, Limits::REQUESTS, &self.tasks);
        let link = client(near, Limits::REQUESTS, self.tasks.clone()).await.unwrap();
        self.made.fetch_add(1, SeqCst);
        self.far.lock().get_mut(&*node.0).unwrap().link = Some((link.clone(), served));
        Ok((link, way))
    }
}

impl Ways for Wires {
    fn ready(&self, node: &NodeName) -> Option<(Link, Way)> {
        let far = self.far.lock();
        let far = far.get(&*node.0)?;
        let (link, _) = far.link.as_ref()?;
        link.is_open().then(|| (link.clone(), far.way))
    }

    fn find<'a>(&'a self, node: &'a NodeName) -> Finding<'a> {
        Box::pin(self.dial(node))
    }

    fn leads_nowhere(&self, node: &NodeName, why: &str) {
        self.nowhere.lock().push((node.0.to_string(), why.into()));
    }
}
