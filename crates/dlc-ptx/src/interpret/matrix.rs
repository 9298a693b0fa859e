//! Matrices spread over a warp: `ldmatrix` and `mma.sync`.

use super::warp::Bits;
use crate::ir::MmaShape;

/// What the registers of `a` and `b` hold in all lanes, and the accumulators: gives `a * b + c`.
/// Products are exact; sums are f32, in the order of k.
pub fn multiply(shape: MmaShape, a: &[Bits], b: &[Bits], c: &[Bits; 4]) -> [Bits; 4] {
    let depth = if shape == MmaShape::Tf32 { 8 } else { 16 };
    let mut d = *c;
    for (lane, register) in (0..32).flat_map(|lane| (0..4).map(move |r| (lane, r))) {
        let (group, t) = (lane / 4, lane % 4);
        let row = group + 8 * (register / 2);
        let column = 2 * t + register % 2;
        let sum = (0..depth).fold(f32::from_bits(c[register][lane] as u32), |sum, k| {
            sum + left(shape, a, row, k) * right(shape, b, k, column)
        });
        d[register][lane] = u64::from(sum.to_bits());
    }
    d
}

/// Element (row, k) of the 16-row matrix.
fn left(shape: MmaShape, a: &[Bits], row: usize, k: usize) -> f32 {
    let low = row / 8;
    if shape == MmaShape::Tf32 {
        let lane = row % 8 * 4 + k % 4;
        return tf32(a[low + 2 * (k / 4)][lane]);
    }
    let lane = row % 8 * 4 + k % 8 / 2;
    half(shape, a[low + 2 * (k / 8)][lane], k % 2)
}

/// Element (k, column) of the 8-column matrix.
fn right(shape: MmaShape, b: &[Bits], k: usize, column: usize) -> f32 {
    if shape == MmaShape::Tf32 {
        return tf32(b[k / 4][column * 4 + k % 4]);
    }
    half(shape, b[k / 8][column * 4 + k % 8 / 2], k % 2)
}

/// The tensor cores do not see the low 13 bits.
fn tf32(bits: u64) -> f32 {
    f32::from_bits(bits as u32 & !0x1fff)
}

fn half(shape: MmaShape, pair: u64, which: usize) -> f32 {
    let bits = (pair >> (16 * which)) as u16;
    match shape {
        MmaShape::F16 => half::f16::from_bits(bits).to_f32(),
        _ => half::bf16::from_bits(bits).to_f32(),
    }
}

/// What `ldmatrix` gives each lane of the matrix whose rows are `rows`: two neighbouring halves.
pub fn spread(rows: &[[u16; 8]; 8], transposed: bool) -> Bits {
    std::array::from_fn(|lane| {
        let (row, pair) = (lane / 4, 2 * (lane % 4));
        let at = |i: usize| if transposed { rows[pair + i][row] } else { rows[row][pair + i] };
        u64::from(at(0)) | u64::from(at(1)) << 16
    })
}
