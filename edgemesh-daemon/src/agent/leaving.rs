//! The two ways in which an agent ends: it stops, or another one takes over.

use std::time::Duration;

use edgemesh_core::mesh::Mesh;

use crate::agent::alone::Alone;
use crate::agent::capturing::Capturing;
use crate::agent::sockets::Sockets;
use crate::handover::Successor;

/// Longest wait for flows to end when the agent stops: what Kubernetes grants a Pod.
const DRAIN: Duration = Duration::from_secs(30);
/// Longest wait for them when another agent serves already, and nobody waits for us.
const LINGER: Duration = Duration::from_secs(15 * 60);

/// How often what was given up is asked for again after a failed hand-over, and how often a second.
const TAKE_BACK_TRIES: u32 = 100;
const TAKE_BACK_EVERY: Duration = Duration::from_millis(100);

/// What only one agent may have; given up for a successor, taken back when it fails.
pub(super) struct Place<'a> {
    pub(super) mesh: &'a mut Mesh,
    pub(super) alone: &'a mut Option<Alone>,
    pub(super) sockets: &'a Sockets,
}

/// Nothing new is captured; what is under way may end; then nothing of us is left.
pub(super) async fn stop(mesh: Mesh, mut capturing: Capturing) {
    tracing::info!("stopping: no new connections; waiting for open ones");
    capturing.stop_new().await;
    drain(mesh, DRAIN).await;
    capturing.finish().await;
    tracing::info!("stopped");
}

/// Lets what is under way end. Capture is the successor's now.
pub(super) async fn linger(mesh: Mesh) {
    tracing::info!("another agent serves; waiting for open connections");
    mesh.stop_accepting().await;
    drain(mesh, LINGER).await;
    tracing::info!("ended after the hand-over");
}

async fn drain(mesh: Mesh, within: Duration) {
    let cut = mesh.drain(within).await;
    if cut > 0 {
        tracing::warn!(cut, seconds = within.as_secs(), "connections were still open and are cut");
    }
}

/// Hands over to `successor`. `true`: it serves. Else everything is as before.
pub(super) async fn hand_over(place: Place<'_>, successor: Successor) -> bool {
    let Place { mesh, alone, sockets } = place;
    tracing::info!(pid = successor.pid, "handing over");
    let captured = alone.take().is_some();
    mesh.release_store().await;
    let served = match successor.give(sockets.held()).await {
        Ok(()) => successor.serves().await,
        Err(error) => {
            tracing::error!("{error:#}");
            false
        }
    };
    if served {
        return true;
    }
    tracing::error!("the other agent did not come up; this one goes on");
    for left in (0..TAKE_BACK_TRIES).rev() {
        match take_back(mesh, alone, captured).await {
            Ok(()) => break,
            // It hung up, and has not ended yet.
            Err(_) if left > 0 => tokio::time::sleep(TAKE_BACK_EVERY).await,
            Err(error) => {
                tracing::error!("the last records stay in force until a restart: {error:#}");
            }
        }
    }
    false
}

async fn take_back(
    mesh: &mut Mesh,
    alone: &mut Option<Alone>,
    captured: bool,
) -> anyhow::Result<()> {
    if captured && alone.is_none() {
        *alone = Some(Alone::take()?);
    }
    Ok(mesh.take_back().await?)
}
