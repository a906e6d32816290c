//! Carries bytes where the client's side is no socket: TLS, or a stream of HTTP/2.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::forward::bytes::{Carriage, Reached, SMALL, Side, Traffic};
use crate::listen::reset_on_close;

/// As [`carry`](super::carry), where the client's side is no socket, and is reset when it is dropped
/// without a shutdown. `gone` may end when the client breaks it and nobody reads.
pub async fn splice<C>(
    mut client: C,
    gone: impl Future<Output = ()>,
    mut backend: Reached,
    early: Vec<u8>,
    traffic: &Traffic,
) -> Carriage
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let broken = async {
        client.write_all(&early).await.map_err(|_| Side::Client)?;
        client.flush().await.map_err(|_| Side::Client)?;
        traffic.down.fetch_add(early.len() as u64, Relaxed);
        let (from_client, to_client) = tokio::io::split(&mut client);
        let (from_backend, to_backend) = tokio::io::split(&mut backend);
        let up = one_way(from_client, to_backend, &traffic.up, [Side::Client, Side::Backend]);
        let down = one_way(from_backend, to_client, &traffic.down, [Side::Backend, Side::Client]);
        let carrying = async { tokio::try_join!(up, down) };
        tokio::select! {
            biased; // a client that is gone has not ended in order
            () = gone => Err(Side::Client),
            carried = carrying => carried,
        }
    };
    let broken = broken.await.err();
    // An exchange on a Link is reset by being dropped.
    if let (Some(Side::Client), Reached::Socket(backend)) = (broken, &backend) {
        reset_on_close(backend);
    }
    traffic.ended(broken)
}

/// One direction of a [`splice`]; fails with the side that broke.
async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    carried: &AtomicU64,
    [source, target]: [Side; 2],
) -> Result<(), Side> {
    let mut buffer = vec![0; SMALL];
    loop {
        let n = from.read(&mut buffer).await.map_err(|_| source)?;
        if n == 0 {
            to.shutdown().await.ok(); // it may be gone, which its own direction reports
            return Ok(());
        }
        let written = async {
            to.write_all(&buffer[..n]).await?;
            to.flush().await // TLS keeps what its socket did not take
        };
        match written.await {
            Ok(()) => carried.fetch_add(n as u64, Relaxed),
            // It ended in order and takes no more; what it said is still to be passed on.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(_) => return Err(target),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::time::Duration;

    use edgemesh_proto::message::{Accepted, Body, Connect, Message, Target, fresh_id};
    use edgemesh_proto::record::ServiceName;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::io::pair;
    use crate::link::sample::end;
    use crate::link::{
        Answering, Called, Duplex, Limits, Operation, Role, Serve, client, pipe, serve,
    };

    /// Says so much at once and is done; takes nothing.
    struct Says(usize);

    impl Serve for Says {
        fn serve(
            self: Arc<Self>,
            called: Called,
        ) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
            let (writer, rest) = pipe();
            writer.send(vec![7; self.0].into());
            writer.finish();
            let accepted = Body::Accepted(Accepted { backend: None });
            let opening = called.opening.answered(fresh_id(), 0, "far", accepted);
            Box::pin(async move { Answering { opening, rest } })
        }
    }

    /// A connection of bytes over a Link, to such a Backend.
    async fn linked(says: Says, tasks: &TaskTracker) -> Reached {
        let (near, far) = tokio::io::duplex(1 << 20);
        serve(end(far, "near", Role::Serves), Arc::new(says), Limits::REQUESTS, tasks);
        let link = client(end(near, "far", Role::Opens), Limits::REQUESTS, tasks.clone()).await;
        let target = Target {
            service: ServiceName::new("default", "api"),
            port: std::num::NonZeroU16::MIN,
            hostname: None,
            backend: None,
            caller: edgemesh_proto::message::Caller::default(),
        };
        let connect = Body::Connect(Connect { target, race: false });
        let opening = Message::of_link(fresh_id(), 0, ["near", "far"], connect);
        let (writer, rest) = pipe();
        let reply = link.unwrap().open(Operation::Stream, &opening, rest).await.unwrap();
        Reached::Link(Box::new(Duplex::new(writer, reply.body)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_backend_said_last_is_heard_by_who_still_speaks() {
        const LAST: usize = 100_000;
        let (tasks, traffic) = (TaskTracker::new(), Traffic::default());
        let backend = linked(Says(LAST), &tasks).await;
        // Little room, so that most of it is still under way.
        let (mut client, near) = tokio::io::duplex(1000);
        let talk = async {
            for _ in 0..3 {
                client.write_all(b"and so on").await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            heard.len()
        };
        let spliced = splice(near, pending(), backend, Vec::new(), &traffic);
        let (carriage, heard) = tokio::join!(spliced, talk);
        assert_eq!((heard, carriage.down, carriage.broken), (LAST, LAST as u64, None));
    }

    #[tokio::test]
    async fn a_spliced_stream_ends_as_its_sides_do() {
        for breaks in [None, Some(Side::Client), Some(Side::Backend)] {
            let (client, near) = pair().await;
            let (far, backend) = pair().await;
            let traffic = Traffic::default();
            let talk = async {
                let (mut client, mut backend) = (client, backend);
                client.write_all(b"ping").await.unwrap();
                backend.read_exact(&mut [0; 4]).await.unwrap();
                client.read_exact(&mut [0; 6]).await.unwrap();
                match breaks {
                    Some(Side::Client) => reset_on_close(&client),
                    Some(Side::Backend) => reset_on_close(&backend),
                    None => {}
                }
                if breaks == Some(Side::Backend) {
                    drop(backend);
                    assert!(!matches!(client.read(&mut [0]).await, Ok(1)));
                } else {
                    drop(client);
                    assert_eq!(backend.read(&mut [0]).await.is_err(), breaks.is_some());
                }
            };
            let far = Reached::Socket(far);
            let spliced = splice(near, pending(), far, b"hello ".into(), &traffic);
            let (carriage, ()) = tokio::join!(spliced, talk);
            assert_eq!(carriage, Carriage { up: 4, down: 6, broken: breaks });
        }
    }
}
