//! Rows of temporaries that collide in the caches: they move apart, and nothing else changes.

mod support;

use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::{BufferId, DType, Exprs, Form, OptLevel, Program, Target};
use support::*;

/// `out[i, j] = sum over k of x[i, k] * w[j, k]`.
fn product(draft: &mut Draft, [x, w, out]: [BufferId; 3], [rows, columns, depth]: [i64; 3]) {
    let mut exprs = Exprs::new();
    let (lhs, rhs) = (load(&mut exprs, x, at(&[0, 2])), load(&mut exprs, w, at(&[1, 2])));
    let stores = vec![store(out, &[0, 1], folded(&mut exprs, 0, DType::F32))];
    let (out, reduce) = (sizes(&[rows, columns]), sizes(&[depth]));
    draft.kernel(Form::contract(out, reduce, exprs, [lhs, rhs], stores));
}

/// Two products, with `width` numbers in each row between them.
fn chain(width: i64) -> Program {
    let mut draft = Draft::default();
    let (x, first) = (draft.input(&[40, 24]), draft.input(&[width, 24]));
    let (second, between) = (draft.input(&[32, width]), draft.temp(&[40, width]));
    let out = draft.output(&[40, 32]);
    product(&mut draft, [x, first, between], [40, width, 24]);
    product(&mut draft, [between, second, out], [40, 32, width]);
    draft.program()
}

#[test]
fn only_colliding_rows_move() {
    for (width, step) in [(256, 272), (1024, 1040), (240, 240), (1000, 1000)] {
        let program = chain(width);
        check(&program, &noise_inputs(&program, 5), 1e-5);
        let target = CpuTarget::new(Level::X86_64V3);
        let schedule = target.emit("schedule", &program, &options(OptLevel::O2, 1)).unwrap();
        assert!(schedule.contains(&format!("in place by {step} and")), "{schedule}");
    }
}
