//! How far sums of products may be off: the table in docs/ptx.md.

use dlc_ptx::Math;

/// The error of a sum of `terms` products, by the sum of their magnitudes.
pub fn relative(math: Math, terms: i64) -> f64 {
    let sums = |count: i64| (count + 2) as f64 * 2f64.powi(-24);
    match math {
        Math::F32 => sums(terms),
        // Sums of tensor cores may be truncated, not rounded.
        Math::Tf32x3 => 2f64.powi(-20) + 2.0 * sums(3 * terms),
        Math::Tf32 => 2f64.powi(-10) + 2f64.powi(-22) + 2.0 * sums(terms),
        // Of operands that are 0 or not below 2^-14, up to 65504.
        Math::F16 => 2f64.powi(-10) + 2f64.powi(-22) + 2.0 * sums(terms),
        Math::Bf16 => 2f64.powi(-7) + 2f64.powi(-16) + 2.0 * sums(terms),
    }
}
