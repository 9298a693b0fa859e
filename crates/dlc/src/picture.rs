//! Pictures of attention: a table of squares for each head, the darker the more weight.

use crate::generate::Attention;
use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};
use image::{Rgb, RgbImage};

/// The side of a square, in pixels.
const CELL: u32 = 24;
/// The side of a character.
const LETTER: u32 = 8;
/// Between parts of the picture.
const GAP: u32 = 12;
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([40, 40, 40]);
const LINE: Rgb<u8> = Rgb([225, 225, 225]);
/// The color of the whole weight.
const FULL: [u8; 3] = [8, 48, 107];

/// Draws heads side by side, numbered from 1: the source above, the target at the left.
///
/// # Panics
/// If a head has not a weight for each piece of target and source.
pub fn draw(attention: &Attention, heads: &[usize]) -> RgbImage {
    let Attention { source, target, heads: weights } = attention;
    let widest = |labels: &[String]| labels.iter().map(|l| width(l)).max().unwrap_or(0);
    let (left, above) = (widest(target) + 2 * GAP, widest(source) + LETTER + 3 * GAP);
    let (across, down) = (source.len() as u32 * CELL, target.len() as u32 * CELL);
    let size = (left + heads.len() as u32 * (across + GAP), above + down + GAP);
    let mut picture = RgbImage::from_pixel(size.0, size.1, PAPER);
    for (row, label) in target.iter().enumerate() {
        let (x, y) = (left - GAP / 2 - width(label), above + row as u32 * CELL);
        write(&mut picture, label, |along, up| (x + along, y + (CELL - LETTER) / 2 + up));
    }
    for (place, &head) in heads.iter().enumerate() {
        let x = left + place as u32 * (across + GAP);
        if weights.len() > 1 {
            write(&mut picture, &format!("head {head}"), |along, up| (x + along, GAP + up));
        }
        for (column, label) in source.iter().enumerate() {
            let x = x + column as u32 * CELL + (CELL - LETTER) / 2;
            write(&mut picture, label, |along, up| (x + up, above - GAP / 2 - along));
        }
        for (at, &weight) in weights[head - 1].iter().enumerate() {
            let (row, column) = (at / source.len(), at % source.len());
            let corner = (x + column as u32 * CELL, above + row as u32 * CELL);
            square(&mut picture, corner, shade(weight));
        }
    }
    picture
}

/// How wide a text is.
fn width(text: &str) -> u32 {
    text.trim().chars().count() as u32 * LETTER
}

/// Writes a text; `place` says where a point is that is so far along the line and down from its top.
fn write(picture: &mut RgbImage, text: &str, place: impl Fn(u32, u32) -> (u32, u32)) {
    for (number, letter) in text.trim().chars().enumerate() {
        let known = BASIC_FONTS.get(letter).or_else(|| LATIN_FONTS.get(letter));
        let rows = known.or_else(|| BASIC_FONTS.get('?')).unwrap_or_default();
        for (down, row) in rows.into_iter().enumerate() {
            for along in (0..LETTER).filter(|along| row >> along & 1 == 1) {
                let (x, y) = place(number as u32 * LETTER + along, down as u32);
                picture.put_pixel(x, y, INK);
            }
        }
    }
}

fn square(picture: &mut RgbImage, (x, y): (u32, u32), color: Rgb<u8>) {
    for (across, down) in (0..CELL).flat_map(|x| (0..CELL).map(move |y| (x, y))) {
        let edge = across == CELL - 1 || down == CELL - 1;
        picture.put_pixel(x + across, y + down, if edge { LINE } else { color });
    }
}

/// From white to the full color.
fn shade(weight: f32) -> Rgb<u8> {
    let part = if weight.is_nan() { 0.0 } else { weight.clamp(0.0, 1.0) };
    Rgb(FULL.map(|full| (255.0 + (f32::from(full) - 255.0) * part) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attention() -> Attention {
        Attention {
            source: vec!["ein".into(), " H\u{fc}ndchen".into(), "<end>".into()],
            target: vec!["a".into(), "puppy".into()],
            heads: vec![vec![0.0; 6], vec![1.0, 0.0, 0.5, 0.0, 1.0, f32::NAN]],
        }
    }

    #[test]
    fn squares_have_the_color_of_their_weight() {
        let picture = draw(&attention(), &[1, 2]);
        let (left, above) = (5 * LETTER + 2 * GAP, 8 * LETTER + LETTER + 3 * GAP);
        assert_eq!(picture.dimensions(), (left + 2 * (3 * CELL + GAP), above + 2 * CELL + GAP));
        let at = |head: u32, row: u32, column: u32| {
            let x = left + head * (3 * CELL + GAP) + column * CELL + CELL / 2;
            picture.get_pixel(x, above + row * CELL + CELL / 2).0
        };
        assert_eq!([at(0, 0, 0), at(1, 0, 1), at(1, 1, 2)], [PAPER.0; 3]);
        assert_eq!([at(1, 0, 0), at(1, 1, 1)], [FULL; 2]);
        assert_eq!(at(1, 0, 2), [131, 151, 181]);
    }

    /// A letter upright and the same turned to the left have as many points.
    #[test]
    fn labels_are_written_along_both_sides() {
        let label = |source: &str, target: &str| {
            let all = |text: &str| vec![text.to_owned()];
            let heads = vec![vec![0.0]];
            let picture =
                draw(&Attention { source: all(source), target: all(target), heads }, &[1]);
            picture.pixels().filter(|&&pixel| pixel == INK).count()
        };
        assert!(label("R", " ") > 10);
        assert_eq!(label("R", " "), label(" ", "R"));
    }
}
