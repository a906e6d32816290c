//! What a real kube-apiserver said, byte by byte.
