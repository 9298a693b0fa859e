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
mod trail;
mod walk;
mod windows;
pub mod winograd;
mod written_out;

use crate::schedule::Config;
use dlc_kernel::{Made, OptLevel, Program};
use std::collections::BTreeMap;
use trail::Trail;

/// A step of the arrangement.
struct Pass {
    /// What its kernels are, or are parts of.
    words: &'static str,
    run: fn(Program, Config) -> Program,
}

/// In order.
const PASSES: [Pass; 13] = [
    Pass { words: "a reshape is left out", run: |program, _| joined::joined(program) },
    Pass { words: "a phase of a strided window", run: |program, _| phases::phases(program) },
    Pass { words: "channels last", run: layout::channels_last },
    Pass {
        words: "terms written out, as of a depthwise convolution",
        run: |program, _| written_out::write_out(program),
    },
    Pass {
        words: "a fold for each place of a window",
        run: |program, _| folded::fold_places(program),
    },
    Pass { words: "a part of Winograd's algorithm", run: transformed },
    Pass { words: "a copy with edges written out", run: |program, _| pad::pad(program) },
    Pass { words: "a window written out", run: |program, _| windows::write_out(program) },
    Pass { words: "rows apart", run: |program, _| apart::rows_apart(program) },
    Pass { words: "loops together", run: |program, _| neighbours::loops_together(program) },
    Pass {
        words: "stretches of steps between loops",
        run: |program, _| followed::in_stretches(program),
    },
    Pass { words: "slices that fit the caches", run: |program, _| slices::in_slices(program) },
    Pass {
        words: "several sums at a point",
        run: |program, config| gates::in_one(program, config.level),
    },
];

fn transformed(program: Program, config: Config) -> Program {
    match config.exact_conv {
        true => program,
        false => winograd::winograd(program, config, &winograd::SIZES, 1.0),
    }
}

fn passes(config: Config) -> &'static [Pass] {
    match config.opt_level {
        OptLevel::O0 | OptLevel::O1 => &[],
        OptLevel::O2 => &PASSES,
    }
}

/// The program as it is scheduled.
pub fn arrange(program: &Program, config: Config) -> Program {
    passes(config).iter().fold(program.clone(), |program, pass| (pass.run)(program, config))
}

/// The same, and by entry what has become of its kernels.
pub fn explain(program: &Program, config: Config) -> (Program, Vec<BTreeMap<String, Made>>) {
    let (mut program, mut trail) = (program.clone(), Trail::new(program));
    for pass in passes(config) {
        program = (pass.run)(program, config);
        trail.follow(&program, pass.words);
    }
    (program, trail.made())
}
