//! One plain TLS connection, as the measure of what encryption alone costs a bulk transfer.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What is written at once.
const CHUNK: usize = 64 * 1024;
const NAME: &str = "bulk.test";

/// Serves zeros, as many as each client asks for by eight bytes; writes its certificate to `file`.
pub(crate) async fn serve(listen: SocketAddr, file: &Path) -> io::Result<()> {
    let made =
        rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).map_err(io::Error::other)?;
    let certificate = made.cert.der().clone();
    std::fs::write(file, &certificate)?;
    let key =
        PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(io::Error::other)?;
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind(listen).await?);
    let zeros = vec![0; CHUNK];
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let Ok(mut left) = stream.read_u64().await else { continue };
        while left > 0 {
            let part = left.min(CHUNK as u64) as usize;
            if stream.write_all(&zeros[..part]).await.is_err() {
                break;
            }
            left -= part as u64;
        }
        let _ = stream.shutdown().await; // it may be gone
    }
}

/// Reads `bytes` from [`serve`]; prints how fast.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a load generator tells the time"
)]
pub(crate) async fn fetch(to: SocketAddr, file: &Path, bytes: u64) -> io::Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(file)?)).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let begin = Instant::now();
    stream.write_u64(bytes).await?;
    let (mut buffer, mut left) = (vec![0; 4 * CHUNK], bytes);
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => left -= n as u64,
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}", serde_json::json!({ "bytes": bytes, "seconds": seconds }));
    Ok(())
}
