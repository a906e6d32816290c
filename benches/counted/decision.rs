//! What is decided without waiting: the protocol of first bytes, and where a call goes.

use std::hint::black_box;
use std::io;

use edgemesh_benches::{PORT, address, world};
use edgemesh_core::io::now;
use edgemesh_core::plan::{self, Arrival, Destination, Outcome, Purpose, Target};
use edgemesh_core::snapshot::Builder;
use edgemesh_proto::record::{BalancePolicy, NodeName};

/// The first bytes of a connection, one of each kind.
const FIRST_BYTES: &[&[u8]] = &[
    b"GET /api/v1/things?page=2 HTTP/1.1\r\nHost: hello.default\r\nUser-Agent: curl/8.5\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on",
    b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n",
    b"HELO mail.example\r\n",
];
const SERVICES: u32 = 100;
const BACKENDS: u32 = 8;

/// Each kind of first bytes once.
pub(crate) fn sniff(times: u64) -> io::Result<()> {
    for _ in 0..times {
        for bytes in FIRST_BYTES {
            black_box(edgemesh_core::sniff::detect(black_box(bytes)));
        }
    }
    Ok(())
}

/// A captured call is planned and ends well.
pub(crate) fn plan(times: u64) -> io::Result<()> {
    let now = now();
    let mut builder = Builder::new(NodeName("edge-9".into()), None);
    let snapshot = builder.apply(world(SERVICES, BACKENDS, BalancePolicy::LeastRequest), now);
    let to = Target::Address((address(black_box(47)), PORT).into());
    let call = Destination {
        caller: Some(address(9)),
        ..Destination::new(to, Arrival::Captured, Purpose::Call)
    };
    for _ in 0..times {
        let hop = plan::plan(&snapshot, black_box(&call), now);
        let hop = hop.map_err(|refusal| io::Error::other(refusal.to_string()))?;
        hop.finish(Outcome::Good, now);
    }
    Ok(())
}
