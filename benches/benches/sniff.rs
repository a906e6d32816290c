//! Benches of sniffing: the verdict on the first bytes of a connection.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use edgemesh_core::sniff::{Protocol, Verdict, detect};

const SAMPLES: &[(&str, &[u8], Protocol)] = &[
    (
        "HTTP/1",
        b"GET /api/v1/things?page=2 HTTP/1.1\r\nHost: hello.default\r\nUser-Agent: curl/8.5\r\n\r\n",
        Protocol::Http1,
    ),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0", Protocol::Http2),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on", Protocol::Tls),
    ("opaque (redis)", b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", Protocol::Opaque),
    ("opaque (words)", b"HELO mail.example\r\n", Protocol::Opaque),
];

fn sniffs(c: &mut Criterion) {
    let mut group = c.benchmark_group("sniff");
    for (name, bytes, want) in SAMPLES {
        assert_eq!(detect(bytes), Verdict::Yes(*want), "{name}");
        group.bench_function(*name, |b| b.iter(|| detect(black_box(bytes))));
    }
    group.finish();
}

criterion_group!(benches, sniffs);
criterion_main!(benches);
