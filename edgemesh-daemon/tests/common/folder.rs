//! The folder of a world: its manifests, what its processes keep and say, and its `resolv.conf`; and
//! listeners in its namespaces.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::namespace::{sh, within};

/// See the module.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: TempDir,
}

impl Folder {
    /// Makes it. The name server that `resolv.conf` names exists nowhere: only interception can
    /// answer for it.
    pub(crate) fn new() -> Self {
        let folder = Self { folder: tempfile::tempdir().unwrap() };
        let resolv = folder.write(
            "resolv.conf",
            "nameserver 10.7.7.7\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n\
             options ndots:5 timeout:2 attempts:2\n",
        );
        sh(&format!(
            "at=$(readlink -m /etc/resolv.conf); mkdir -p $(dirname $at); [ -e $at ] || touch $at
             mount --bind {} $at",
            resolv.display()
        ));
        std::fs::create_dir(folder.path("manifests")).unwrap();
        folder
    }

    /// A path in the test's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The test's own folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the test's own folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Puts a manifest in place, at once, as careful people do.
    pub(crate) fn manifest(&self, name: &str, text: &str) {
        self.write("next", text);
        std::fs::rename(self.path("next"), self.path("manifests").join(format!("{name}.yaml")))
            .unwrap();
    }

    /// Removes a manifest.
    pub(crate) fn remove_manifest(&self, name: &str) {
        std::fs::remove_file(self.path("manifests").join(format!("{name}.yaml"))).unwrap();
    }

    /// Puts a TrafficPolicy in place; `spec` is what follows `targetRef`, as flow mappings.
    pub(crate) fn policy(&self, name: &str, spec: &str) {
        let text = format!(
            "apiVersion: edgemesh.io/v1alpha1\nkind: TrafficPolicy\n\
             metadata: {{ name: {name}, namespace: default }}\nspec:\n  \
             targetRef: {{ kind: Service, name: {name} }}\n{spec}\n"
        );
        self.manifest(&format!("{name}-policy"), &text);
    }
}

/// Listens in `netns` at an address, whatever its family.
pub(crate) fn listen(netns: &str, at: &str) -> TcpListener {
    let at: SocketAddr = at.parse().unwrap();
    within(netns, move || {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
        if at.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.set_reuse_address(true).unwrap();
        socket.bind(&at.into()).unwrap_or_else(|error| panic!("{at}: {error}"));
        socket.listen(4096).unwrap(); // a burst of connections is meant for the mesh
        socket.into()
    })
}
