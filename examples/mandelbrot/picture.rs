//! The picture: a part of the Mandelbrot set in 256 tiles, each computed by itself, to the same
//! bytes wherever it is computed.

use std::io::Write;

/// Tiles on one side of the picture.
const SIDE: usize = 16;
/// Tiles of the picture.
pub(crate) const TILES: usize = SIDE * SIDE;
/// Pixels on one side of a tile.
const TILE: usize = 32;
/// Pixels on one side of the picture.
const PIXELS: usize = SIDE * TILE;
/// Bytes of a tile: red, green and blue of each pixel, line by line.
pub(crate) const TILE_BYTES: usize = TILE * TILE * 3;

/// What the picture shows: its centre, and how wide it is.
const CENTRE: (f64, f64) = (-0.743_42, 0.131_50);
const WIDTH: f64 = 0.002_4;
/// A point that has not left by then is in the set.
const MAX_STEPS: u32 = 3000;
/// A point is gone at this distance, squared; far out, so that the colours have no steps.
const GONE: f64 = 65_536.0;
/// Points on one side of a pixel: their mean takes the noise out of fine threads.
const SAMPLES: usize = 2;

/// Colours of one round, at even distances.
const COLOURS: [[f64; 3]; 6] = [
    [0.0, 7.0, 60.0],
    [24.0, 92.0, 172.0],
    [214.0, 240.0, 255.0],
    [255.0, 196.0, 64.0],
    [150.0, 48.0, 8.0],
    [20.0, 2.0, 32.0],
];
/// Rounds through the colours for each doubling of the steps.
const ROUNDS: f64 = 1.6;

/// A picture that is being put together.
#[derive(Debug)]
pub(crate) struct Picture(Vec<u8>);

impl Picture {
    /// All black.
    pub(crate) fn new() -> Self {
        Self(vec![0; PIXELS * PIXELS * 3])
    }

    /// Puts tile `number` in its place. False when `tile` is none.
    #[must_use]
    pub(crate) fn put(&mut self, number: usize, tile: &[u8]) -> bool {
        if number >= TILES || tile.len() != TILE_BYTES {
            return false;
        }
        let (left, top) = (number % SIDE * TILE, number / SIDE * TILE);
        for (y, line) in tile.chunks_exact(TILE * 3).enumerate() {
            let at = ((top + y) * PIXELS + left) * 3;
            self.0[at..at + line.len()].copy_from_slice(line);
        }
        true
    }

    /// The picture as PNG.
    pub(crate) fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut out = Vec::new();
        let side = PIXELS as u32;
        let mut encoder = png::Encoder::new(out.by_ref(), side, side);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.0)?;
        writer.finish()?;
        Ok(out)
    }
}

/// Computes tile `number`, counted from the upper left, line by line.
pub(crate) fn tile(number: usize) -> Vec<u8> {
    let (left, top) = (number % SIDE * TILE, number / SIDE * TILE);
    let mut out = Vec::with_capacity(TILE_BYTES);
    for y in top..top + TILE {
        for x in left..left + TILE {
            out.extend(pixel(x, y));
        }
    }
    out
}

fn pixel(x: usize, y: usize) -> [u8; 3] {
    let step = WIDTH / (PIXELS * SAMPLES) as f64;
    let mut sum = [0.0; 3];
    for sample in 0..SAMPLES * SAMPLES {
        let across = (x * SAMPLES + sample % SAMPLES) as f64 + 0.5;
        let down = (y * SAMPLES + sample / SAMPLES) as f64 + 0.5;
        let half = (PIXELS * SAMPLES) as f64 / 2.0;
        let point = (CENTRE.0 + (across - half) * step, CENTRE.1 - (down - half) * step);
        let colour = colour(steps(point));
        for (sum, part) in sum.iter_mut().zip(colour) {
            *sum += part;
        }
    }
    sum.map(|sum| (sum / (SAMPLES * SAMPLES) as f64) as u8)
}

/// How many steps it takes a point to be gone, and what of the last one; `None` = it stays.
fn steps((a, b): (f64, f64)) -> Option<f64> {
    let (mut x, mut y) = (0.0f64, 0.0f64);
    for step in 0..MAX_STEPS {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > GONE {
            return Some(f64::from(step) + 1.0 - log2(log2(xx + yy) / log2(GONE)));
        }
        (x, y) = (xx - yy + a, 2.0 * x * y + b);
    }
    None
}

fn colour(steps: Option<f64>) -> [f64; 3] {
    let Some(steps) = steps else { return [0.0; 3] };
    let place = log2(steps.max(1.0)) * ROUNDS;
    let place = (place - place.floor()) * COLOURS.len() as f64;
    let (first, part) = (place.floor(), place - place.floor());
    let colour = |i: usize| COLOURS[i % COLOURS.len()];
    let (from, to) = (colour(first as usize), colour(first as usize + 1));
    [0, 1, 2].map(|i| from[i] + (to[i] - from[i]) * part)
}

/// A logarithm by sums and products only: libraries and processors differ in the last bit of
/// `f64::log2`, and two workers must not. A cubic between the powers of two, off by at most 0.0013.
fn log2(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as f64 - 1023.0;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52) - 1.0;
    let cubic = 1.0 + (1.0 - mantissa) * (0.424 - 0.160 * mantissa);
    exponent + mantissa * cubic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_close_and_steady() {
        let mut before = f64::MIN;
        for i in 1..20_000 {
            let x = f64::from(i) / 64.0;
            let got = log2(x);
            assert!((got - x.log2()).abs() < 0.005, "{x}: {got}");
            assert!(got >= before, "{x}");
            before = got;
        }
    }

    #[test]
    fn tiles_have_their_places() {
        let mut picture = Picture::new();
        assert!(picture.put(TILES - 1, &[7; TILE_BYTES]));
        assert!(!picture.put(TILES, &[7; TILE_BYTES]) && !picture.put(0, &[7; TILE_BYTES - 1]));
        let coloured = picture.0.iter().filter(|byte| **byte == 7).count();
        assert_eq!((coloured, picture.0[0], picture.0[picture.0.len() - 1]), (TILE_BYTES, 0, 7));
    }
}
