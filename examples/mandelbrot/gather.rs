//! The client's side: asks for every tile by one name, and puts the answers together.

use anyhow::{Context as _, ensure};
use axum::http::StatusCode;
use bytes::Bytes;
use edgemesh_core::mesh::Http;
use futures_util::StreamExt as _;
use http::Request;

use crate::picture::{Picture, TILES};
use crate::worker::{NAME, WORKER};

/// Fetches all tiles, at most `width` at once, and gives the picture as PNG. `seen` is told how
/// many are there, and which worker computed the last one.
pub(crate) async fn gather(
    http: &Http,
    width: usize,
    mut seen: impl FnMut(usize, &str),
) -> anyhow::Result<Vec<u8>> {
    let requests = (0..TILES).map(|number| {
        let uri = format!("http://{NAME}/tile/{number}");
        Request::get(uri).body(Bytes::new()).expect("a number fits a path")
    });
    let mut picture = Picture::new();
    let mut tiles = http.map_ordered(requests, width).enumerate();
    while let Some((number, tile)) = tiles.next().await {
        let tile = tile.with_context(|| format!("tile {number}"))?;
        ensure!(tile.status() == StatusCode::OK, "tile {number}: {}", tile.status());
        ensure!(picture.put(number, tile.body()), "tile {number} is no tile");
        let worker = tile.headers().get(WORKER).and_then(|worker| worker.to_str().ok());
        seen(number + 1, worker.unwrap_or("?"));
    }
    Ok(picture.png()?)
}
