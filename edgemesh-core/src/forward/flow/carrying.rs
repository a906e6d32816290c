//! A flow while its bytes are carried, between sockets or by a Link.

use std::future::poll_fn;
use std::pin::{Pin, pin};

use bytes::Bytes;
use futures_util::future::Either;
use tokio::net::TcpStream;

use crate::forward::bytes::{Before, Carriage, Early, Reached, Side, Traffic, bridge, carry};
use crate::forward::flow::Flow;
use crate::forward::idle::Idle;
use crate::io::now;
use crate::link::Duplex;
use crate::metrics::Ended;
use crate::plan::Hop;
use crate::refusal::Refusal;

impl Flow {
    /// Carries everything between a client's socket and the Backend, and ends.
    pub fn carry(
        self: Box<Self>,
        client: TcpStream,
        backend: Reached,
        early: Early,
    ) -> impl Future<Output = ()> + Send {
        match backend {
            Reached::Socket(backend) => Either::Left(self.between(client, backend, early)),
            // Most connections take the other way, and shall have no room for this one.
            Reached::Link(link) => Either::Right(Box::pin(async move {
                let before = Before { of_socket: early.up.into(), of_link: early.down.into() };
                self.bridged(client, *link, before, Side::Client).await;
            })),
        }
    }

    /// Carries everything between another node, which passes the connection on, and the Backend's
    /// socket, and ends. `words` are what the Backend said already.
    pub async fn carry_passed(
        mut self: Box<Self>,
        mut link: Duplex,
        backend: TcpStream,
        words: Bytes,
    ) {
        let mut before = Before { of_socket: words, of_link: Bytes::new() };
        if self.hop.as_ref().is_some_and(Hop::is_race) {
            // The words decide nothing: what the client says does.
            self.traffic.came_down(before.of_socket.len());
            link.writer().send(std::mem::take(&mut before.of_socket));
            match poll_fn(|cx| link.poll_bytes(cx)).await {
                Ok(bytes) => before.of_link = bytes.unwrap_or_default(),
                Err(_) => return self.end(Ended::Cancelled),
            }
            if let Err(refusal) = self.confirm_passed() {
                return self.end(Ended::Refused(refusal));
            }
        }
        self.bridged(backend, link, before, Side::Backend).await;
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` keeps each argument twice, in every connection"
    )]
    fn between(
        mut self: Box<Self>,
        client: TcpStream,
        backend: TcpStream,
        early: Early,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let carriage = {
                let mut idle = self.idle();
                let Self { traffic, hop, .. } = &mut *self;
                let mut carrying = pin!(carry(client, backend, early, traffic));
                watch(carrying.as_mut(), (traffic, hop), idle.as_deref_mut()).await
            };
            self.was_carried(carriage);
        }
    }

    async fn bridged(
        mut self: Box<Self>,
        socket: TcpStream,
        link: Duplex,
        before: Before,
        socket_is: Side,
    ) {
        let carriage = {
            let mut idle = self.idle();
            let Self { traffic, hop, .. } = &mut *self;
            let mut carrying = pin!(bridge(socket, link, before, socket_is, traffic));
            watch(carrying.as_mut(), (traffic, hop), idle.as_deref_mut()).await
        };
        self.was_carried(carriage);
    }

    /// Watches for silence, where the Policy of the Service bounds it.
    fn idle(&self) -> Option<Box<Idle>> {
        let longest = self.hop.as_ref()?.service().policy.idle_timeout?;
        Some(Box::new(Idle::new(longest, now().into())))
    }

    /// Ends; `None` = nothing was said for too long.
    fn was_carried(self: Box<Self>, carriage: Option<Carriage>) {
        match carriage {
            Some(carriage) => self.carried(carriage),
            None => self.end(Ended::Refused(Refusal::IdleTimeout)),
        }
    }
}

/// Looks at a flow whenever bytes may have gone through. `None` = nothing was said for too long.
async fn watch(
    mut carrying: Pin<&mut impl Future<Output = Carriage>>,
    (traffic, hop): (&Traffic, &mut Option<Hop>),
    mut idle: Option<&mut Idle>,
) -> Option<Carriage> {
    poll_fn(|cx| {
        let over = carrying.as_mut().poll(cx).map(Some);
        // A probe need not wait for the end of a connection that lives for hours.
        if let Some(hop) = hop.as_mut().filter(|hop| hop.is_probe())
            && traffic.has_answered()
        {
            hop.answered(now());
        }
        match &mut idle {
            Some(idle) if over.is_pending() => idle.poll(cx, traffic).map(|()| None),
            Some(_) | None => over,
        }
    })
    .await
}
