//! Services and Slices, from protobuf to checked form and back.

use crate::pb;
use crate::record::values::{
    address_bytes, addresses, duration, label_strings, labels, list, port, required, span, text,
    variant, weight,
};
use crate::record::{
    Backend, Invalid, NodeName, Service, ServicePort, Slice, SlicePort, TargetPort, Transport,
};

impl From<&Service> for pb::Service {
    fn from(service: &Service) -> Self {
        Self {
            ports: service.ports.iter().map(Into::into).collect(),
            cluster_ips: address_bytes(&service.cluster_ips),
            external_ips: address_bytes(&service.external_ips),
            headless: service.headless,
            external_name: text(service.external_name.as_deref()),
            selector: label_strings(&service.selector),
            affinity: service.affinity.map(span),
            publish_not_ready: service.publish_not_ready,
            created: service.created,
            proxy_protocol: service.proxy_protocol,
        }
    }
}

impl TryFrom<pb::Service> for Service {
    type Error = Invalid;

    fn try_from(service: pb::Service) -> Result<Self, Invalid> {
        Ok(Self {
            ports: list("ports", service.ports, ServicePort::try_from)?,
            cluster_ips: addresses("cluster_ips", service.cluster_ips)?,
            external_ips: addresses("external_ips", service.external_ips)?,
            headless: service.headless,
            external_name: service.external_name.map(Into::into),
            selector: labels(service.selector),
            affinity: service.affinity.map(|s| duration("affinity", s)).transpose()?,
            publish_not_ready: service.publish_not_ready,
            created: service.created,
            proxy_protocol: service.proxy_protocol,
        })
    }
}

impl From<&ServicePort> for pb::ServicePort {
    fn from(entry: &ServicePort) -> Self {
        let target = match &entry.target {
            TargetPort::Same => None,
            TargetPort::Number(n) => Some(pb::service_port::Target::TargetNumber(n.get().into())),
            TargetPort::Name(n) => Some(pb::service_port::Target::TargetName((&**n).into())),
        };
        Self {
            name: (&*entry.name).into(),
            port: entry.port.get().into(),
            target,
            transport: pb::Transport::from(entry.transport).into(),
            app_protocol: text(entry.app_protocol.as_deref()),
            node_port: entry.node_port.map(|n| n.get().into()),
        }
    }
}

impl TryFrom<pb::ServicePort> for ServicePort {
    type Error = Invalid;

    fn try_from(entry: pb::ServicePort) -> Result<Self, Invalid> {
        let target = match entry.target {
            None => TargetPort::Same,
            Some(pb::service_port::Target::TargetNumber(n)) => {
                TargetPort::Number(port("target_number", n)?)
            }
            Some(pb::service_port::Target::TargetName(name)) => {
                TargetPort::Name(required("target_name", name)?)
            }
        };
        Ok(Self {
            name: entry.name.into(),
            port: port("port", entry.port)?,
            target,
            transport: variant::<pb::Transport>("transport", entry.transport)?.into(),
            app_protocol: entry.app_protocol.map(Into::into),
            node_port: entry.node_port.map(|n| port("node_port", n)).transpose()?,
        })
    }
}

impl From<&Slice> for pb::Slice {
    fn from(slice: &Slice) -> Self {
        Self {
            service: (&*slice.service).into(),
            ports: slice.ports.iter().map(Into::into).collect(),
            backends: slice.backends.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::Slice> for Slice {
    type Error = Invalid;

    fn try_from(slice: pb::Slice) -> Result<Self, Invalid> {
        Ok(Self {
            service: required("service", slice.service)?,
            ports: list("ports", slice.ports, SlicePort::try_from)?,
            backends: list("backends", slice.backends, Backend::try_from)?,
        })
    }
}

impl From<&SlicePort> for pb::SlicePort {
    fn from(entry: &SlicePort) -> Self {
        Self {
            name: (&*entry.name).into(),
            port: entry.port.get().into(),
            transport: pb::Transport::from(entry.transport).into(),
            app_protocol: text(entry.app_protocol.as_deref()),
        }
    }
}

impl TryFrom<pb::SlicePort> for SlicePort {
    type Error = Invalid;

    fn try_from(entry: pb::SlicePort) -> Result<Self, Invalid> {
        Ok(Self {
            name: entry.name.into(),
            port: port("port", entry.port)?,
            transport: variant::<pb::Transport>("transport", entry.transport)?.into(),
            app_protocol: entry.app_protocol.map(Into::into),
        })
    }
}

impl From<&Backend> for pb::Backend {
    fn from(backend: &Backend) -> Self {
        Self {
            addresses: address_bytes(&backend.addresses),
            ready: backend.ready,
            serving: backend.serving,
            terminating: backend.terminating,
            hostname: text(backend.hostname.as_deref()),
            node: text(backend.node.as_ref().map(|n| &*n.0)),
            zone: text(backend.zone.as_deref()),
            workload: text(backend.workload.as_deref()),
            weight: backend.weight.map(Into::into),
        }
    }
}

impl TryFrom<pb::Backend> for Backend {
    type Error = Invalid;

    fn try_from(backend: pb::Backend) -> Result<Self, Invalid> {
        Ok(Self {
            addresses: addresses("addresses", backend.addresses)?,
            ready: backend.ready,
            serving: backend.serving,
            terminating: backend.terminating,
            hostname: backend.hostname.map(Into::into),
            node: backend.node.map(|name| required("node", name).map(NodeName)).transpose()?,
            zone: backend.zone.map(Into::into),
            workload: backend.workload.map(Into::into),
            weight: weight("weight", backend.weight)?,
        })
    }
}

impl From<Transport> for pb::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
            Transport::Sctp => Self::Sctp,
        }
    }
}

impl From<pb::Transport> for Transport {
    fn from(transport: pb::Transport) -> Self {
        match transport {
            pb::Transport::Tcp => Self::Tcp,
            pb::Transport::Udp => Self::Udp,
            pb::Transport::Sctp => Self::Sctp,
        }
    }
}
