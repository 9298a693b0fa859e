//! Counter-based random numbers: Philox4x32-10.
//!
//! A number is a pure function of where it is used, so results never depend on threads, order or
//! optimization level. The generator is that of J. K. Salmon, M. A. Moraes, R. O. Dror and
//! D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; every target computes
//! [`uniform`] bit for bit:
//!
//! ```text
//! key     = (seed, KEY_HIGH)
//! counter = (element / 4, step, site's low word, site's high word)      all as u32
//! word    = philox4x32_10(counter, key)[element % 4]
//! value   = (word >> 8) * 2^-24                                         exact in f32
//! ```

/// The second key word: "dlc" in ASCII. It keeps our streams apart from those of other users of
/// the generator who leave it 0.
pub const KEY_HIGH: u32 = 0x0064_6c63;

/// The two multipliers of a round.
pub const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];

/// What is added to the key words (wrapping) before every round but the first.
pub const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Rounds of one call.
pub const ROUNDS: u32 = 10;

/// Four random words for a counter under a key.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for round in 0..ROUNDS {
        if round > 0 {
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        let a = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
    }
    c
}

/// The uniform number in [0, 1) of element `element` at random site `site`: a multiple of 2^-24.
/// Negative arguments count as the unsigned words of the same bits.
pub fn uniform(seed: i32, step: i32, site: u64, element: i32) -> f32 {
    let element = element as u32;
    let counter = [element / 4, step as u32, site as u32, (site >> 32) as u32];
    let word = philox4x32_10(counter, [seed as u32, KEY_HIGH])[(element % 4) as usize];
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of Random123 1.14, lines `philox4x32 10`.
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        for (counter, key, expected) in [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([ones; 4], [ones; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ] {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn every_argument_matters_and_the_range_is_half_open() {
        let base = uniform(1, 2, 3, 4);
        for other in [
            uniform(2, 2, 3, 4),
            uniform(1, 3, 3, 4),
            uniform(1, 2, 4, 4),
            uniform(1, 2, 3 | 1 << 32, 4),
            uniform(1, 2, 3, 5),
            uniform(1, 2, 3, 8),
        ] {
            assert_ne!(base, other);
        }
        assert!(
            (-5000..5000).map(|e| uniform(-1, -1, u64::MAX, e)).all(|u| (0.0..1.0).contains(&u))
        );
    }

    /// Mean and variance of 10^5 uniform numbers, within five standard errors of 1/2 and 1/12.
    #[test]
    fn moments() {
        let n = 100_000;
        let draws: Vec<f64> = (0..n).map(|e| f64::from(uniform(42, 0, 7, e))).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        let variance = draws.iter().map(|u| (u - 0.5) * (u - 0.5)).sum::<f64>() / f64::from(n);
        assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / f64::from(n)).sqrt());
        assert!((variance - 1.0 / 12.0).abs() < 5.0 * (1.0 / 180.0 / f64::from(n)).sqrt());
    }
}
