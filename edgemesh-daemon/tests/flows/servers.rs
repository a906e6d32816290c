//! Real servers in the background: nginx, redis, MariaDB, sshd, gRPC.

use std::net::TcpStream;
use std::time::Duration;

use crate::common::namespace::{sh, within};
use crate::common::run::{Running, need, need_python};
use crate::common::wait::eventually;
use crate::world::World;

/// MariaDB makes its tables first.
const PATIENCE: Duration = Duration::from_secs(40);

/// The gRPC peer, server and client.
pub(crate) const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/peer.py");

/// Waits until something accepts at `ip:port`.
#[track_caller]
fn wait(netns: &str, ip: &str, port: u16, log: &std::path::Path) {
    let at = std::net::SocketAddr::new(ip.parse().unwrap(), port);
    let looked = std::panic::Location::caller();
    within_wait(netns, at, log, &looked.to_string());
}

fn within_wait(netns: &str, at: std::net::SocketAddr, log: &std::path::Path, from: &str) {
    let (log, from) = (log.to_owned(), from.to_owned());
    within(netns, move || {
        eventually(&format!("{at} accepts ({from}; see {})", log.display()), PATIENCE, || {
            TcpStream::connect_timeout(&at, Duration::from_secs(1)).ok()
        })
    });
}

/// nginx, as one process (workers would outlive a killed master): HTTP/1.1 on 8080, HTTP/2 on 8082, HTTPS (both) on 8443. Says its name; `/big` is 10 GiB, none of it on disk.
pub(crate) fn nginx(world: &World, netns: &str, name: &str, ips: [&str; 2]) -> Running {
    need(&["nginx", "openssl"]);
    let folder = world.path(name);
    std::fs::create_dir_all(folder.join("www")).unwrap();
    sh(&format!("truncate -s 10G {}/www/big", folder.display()));
    certificate(world);
    let listens = |port: u16, more: &str| -> String {
        let [v4, v6] = ips;
        format!("listen {v4}:{port} {more}; listen [{v6}]:{port} {more};")
    };
    let location = format!(
        "location = / {{ return 200 \"{name}\\n\"; }} location = /upload {{ proxy_pass http://unix:{}/sink; }}",
        folder.display()
    );
    let config = format!(
        "daemon off; master_process off; user root; pid {f}/pid; error_log stderr warn;
         events {{ worker_connections 4096; }}
         http {{
           access_log off; root {f}/www; default_type text/plain; client_max_body_size 0;
           client_body_temp_path {f}/t1; proxy_temp_path {f}/t2; fastcgi_temp_path {f}/t3; uwsgi_temp_path {f}/t4; scgi_temp_path {f}/t5;
           keepalive_requests 100000; proxy_request_buffering off;
           server {{ {h1} {location} location = /h {{ return 200 \"$http_x_forwarded_for|$http_x_request_id|$http_traceparent\\n\"; }} }}
           server {{ {h2} {location} }}
           server {{ {tls} ssl_certificate {w}/cert.pem; ssl_certificate_key {w}/key.pem; {location} }}
           server {{ listen unix:{f}/sink; location / {{ return 200 \"$content_length\\n\"; }} }}
         }}",
        f = folder.display(),
        w = world.folder().display(),
        h1 = listens(8080, ""),
        h2 = listens(8082, "http2"),
        tls = listens(8443, "ssl http2"),
    );
    let file = world.write(&format!("{name}.conf"), &config);
    let log = world.path(&format!("{name}.log"));
    let file = file.display().to_string();
    let running = Running::start(netns, &["nginx", "-e", "stderr", "-c", &file], &log);
    for ip in ips {
        wait(netns, ip, 8443, &log);
    }
    running
}

/// A key and a certificate for `web.default`, once a test.
fn certificate(world: &World) {
    let folder = world.folder().display();
    if !world.path("cert.pem").exists() {
        sh(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
             -keyout {folder}/key.pem -out {folder}/cert.pem -subj /CN=web.default \
             -addext subjectAltName=DNS:web.default,DNS:web6.default 2>&1"
        ));
    }
}

/// redis on 6379.
pub(crate) fn redis(world: &World, netns: &str, ips: [&str; 2]) -> Running {
    need(&["redis-server", "redis-cli"]);
    let log = world.path("redis.log");
    let dir = world.folder().display().to_string();
    let program = [
        "redis-server",
        "--bind",
        ips[0],
        ips[1],
        "--port",
        "6379",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--dir",
        &dir,
    ];
    let running = Running::start(netns, &program, &log);
    for ip in ips {
        wait(netns, ip, 6379, &log);
    }
    running
}

/// A gRPC server on 50051 that says its name.
pub(crate) fn grpc(world: &World, netns: &str, name: &str, ips: [&str; 2]) -> Running {
    need_python("grpc", "python3-grpcio");
    let log = world.path(&format!("{name}.log"));
    let [v4, v6] = [format!("{}:50051", ips[0]), format!("[{}]:50051", ips[1])];
    let running = Running::start(netns, &["/usr/bin/python3", PEER, "serve", name, &v4, &v6], &log);
    for ip in ips {
        wait(netns, ip, 50051, &log);
    }
    running
}

/// MariaDB on 3306 of every address, without passwords.
pub(crate) fn mariadb(world: &World) -> Running {
    need(&["mariadbd", "mariadb"]);
    let data = world.path("mariadb").display().to_string();
    sh(&format!(
        "mariadb-install-db --no-defaults --user=root --datadir={data} --skip-test-db \
         --auth-root-authentication-method=normal >{data}.install 2>&1 || {{ cat {data}.install; exit 1; }}"
    ));
    let log = world.path("mariadb.log");
    let line = format!(
        "exec mariadbd --no-defaults --user=root --datadir={data} --socket={data}/sock --pid-file={data}/pid \
         --bind-address=10.4.0.1,fd04::1 --port=3306 --skip-name-resolve --skip-grant-tables --skip-networking=0"
    );
    let running = Running::start("", &["sh", "-c", &line], &log);
    for ip in ["10.4.0.1", "fd04::1"] {
        wait("", ip, 3306, &log);
    }
    running
}

/// sshd on 2222 of every address; `key` in the test's folder lets `runner` in. It drops its
/// rights to another user, which one mapped user cannot; so it runs as an ordinary one, in a user
/// namespace below.
pub(crate) fn sshd(world: &World) -> Running {
    need(&["sshd", "ssh"]);
    let f = world.folder().display();
    sh(&format!(
        "chmod 755 {f}
         ssh-keygen -q -t ed25519 -N '' -f {f}/host; ssh-keygen -q -t ed25519 -N '' -f {f}/key
         grep -v ':1000:' /etc/passwd > {f}/passwd; echo 'runner:x:1000:1000::{f}:/bin/sh' >> {f}/passwd
         mount --bind {f}/passwd /etc/passwd; mkdir -p /run/sshd"
    ));
    let config = format!(
        "Port 2222\nHostKey {f}/host\nAuthorizedKeysFile {f}/key.pub\nStrictModes no\nUsePAM no\n\
         PidFile none\nPasswordAuthentication no\nUseDNS no\n"
    );
    let file = world.write("sshd.conf", &config).display().to_string();
    let log = world.path("sshd.log");
    let line = format!(
        "exec unshare -U --map-user=1000 --map-group=1000 $(command -v sshd) -D -e -f {file}"
    );
    let running = Running::start("", &["sh", "-c", &line], &log);
    wait("", "10.4.0.1", 2222, &log);
    running
}
