//! KubeEdge's MetaServer, as it was recorded and in its odd ways.
