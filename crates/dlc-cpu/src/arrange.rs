//! What this target changes in a program before it schedules it: a program again, that computes
//! the same.
//!
//! 1. `joined`: reshapes beside windows are done away with.
//! 2. `phases`: a contraction or sum that divides coordinates becomes several that do not.
//! 3. `layout`: the channels of convolutions become neighbours in memory.
//! 4. `written_out`, `folded`: a contraction that uses every element once becomes a map, if it has few
//!    terms, or rows with a fold for each place of a window, if it has many (both read copies: `walk`).
//! 5. `winograd`: convolutions become products of transformed tiles.
//! 6. `pad`: a contraction or pool that reads beyond the edges of a tensor gets a copy of it with the
//!    edges written out, so that its operand lies in memory in constant steps. Rows of few points, as
//!    pools have them, become maps then (`windows`).
//! 7. `apart`: rows of temporaries whose distance makes them collide in the caches move apart.
//! 8. `neighbours`: loops that need nothing of each other stand next to each other.
//! 9. `followed`: what stands between loops that follow each other becomes loops over stretches of
//!    their steps.
//! 10. `slices`: kernels that follow each other are computed part by part, where their temporaries are
//!     too large for the caches.
//! 11. `gates`: a contraction and the map that reads it at several places become one kernel, with
//!     AVX2 if it has few rows.
//!
//! Each takes a program and returns one, by replacing kernels (`entries.rs`) or by changing what all
//! forms of kernels have in common (`piece.rs`).

mod apart;
mod cut;
mod entries;
mod folded;
mod followed;
mod gates;
mod joined;
mod layout;
mod neighbours;
mod pad;
mod phases;
mod piece;
mod slices;
mod substitute;
mod walk;
mod windows;
pub mod winograd;
mod written_out;

use crate::schedule::Config;
use dlc_kernel::{OptLevel, Program};

/// The program as it is scheduled.
pub fn arrange(program: &Program, config: Config) -> Program {
    match config.opt_level {
        OptLevel::O0 | OptLevel::O1 => program.clone(),
        OptLevel::O2 => {
            let laid_out =
                layout::channels_last(phases::phases(joined::joined(program.clone())), config);
            let written_out = folded::fold_places(written_out::write_out(laid_out));
            let transformed = match config.exact_conv {
                true => written_out,
                false => winograd::winograd(written_out, config, &winograd::SIZES, 1.0),
            };
            let padded = apart::rows_apart(windows::write_out(pad::pad(transformed)));
            let sliced =
                slices::in_slices(followed::in_stretches(neighbours::loops_together(padded)));
            gates::in_one(sliced, config.level)
        }
    }
}
