//! Maps against the interpreter.

mod support;

#[path = "../../dlc-kernel/tests/shared/map.rs"]
mod shared;

use dlc_kernel::{BinaryOp, Class, DType, Exprs, Index, OptLevel, Scalar, Target, UnaryOp};
use shared::gather;
use support::*;

#[test]
fn an_index_outside_names_the_kernel() {
    use dlc_kernel::RunError;
    let target = dlc_cpu::CpuTarget::detect().unwrap();
    for (ids, index) in
        [(vec![0, 5, -1], 5), (vec![0, 1, -1], -1), (vec![4, i32::MIN, 9], -2_147_483_648)]
    {
        let (draft, inputs) = gather(ids);
        for opt_level in [OptLevel::O0, OptLevel::O2] {
            for threads in 1..4 {
                let options = options(opt_level, threads);
                let error = run(&target, &draft.program(), &options, &inputs).unwrap_err();
                let place = "kernel `map_0`".to_string();
                assert_eq!(error, RunError::Index { place, index, extent: 5 });
            }
        }
    }
}

/// Many stores into one buffer touch no more of the caches than it is large.
#[test]
fn stores_pass_by_the_caches_if_buffers_are_large() {
    let target = dlc_cpu::CpuTarget::detect().unwrap();
    let schedule = |parts: i64, length: i64| {
        let mut draft = Draft::default();
        let (x, y) = (draft.input(&[length]), draft.output(&[parts, length]));
        let mut e = Exprs::new();
        let value = load(&mut e, x, at(&[0]));
        let part = |part| access([Index::constant(part), Index::axis(0)]);
        let store = |k| dlc_kernel::Store { buffer: y, access: part(k), value };
        draft.map(&[length], e, (0..parts).map(store).collect());
        target.emit("schedule", &draft.program(), &options(OptLevel::O2, 1)).unwrap()
    };
    let (many, large) = (schedule(64, 1 << 12), schedule(2, 1 << 29));
    assert!(!many.contains("past the caches"), "{many}");
    assert!(large.contains("past the caches"), "{large}");
}

/// What is read row by row and what is read column by column.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crossing {
    /// Two tensors of rows and one of columns become rows.
    Loads,
    /// One of rows becomes columns, scaled by a number of each row.
    Stores,
    /// Both are made, and integers change places.
    Both,
}

/// A map over `[batch, rows, columns]` of tensors whose last two dims stand one way or the other.
fn crossed(what: Crossing, [batch, rows, columns]: [i64; 3]) -> Draft {
    let (mut draft, mut e) = (Draft::default(), Exprs::new());
    let (plain, turned) = ([batch, rows, columns], [batch, columns, rows]);
    let (by_row, by_column) = (at(&[0, 1, 2]), at(&[0, 2, 1]));
    let one = draft.input(&plain);
    let one = load(&mut e, one, by_row.clone());
    let mut stores = Vec::new();
    if what != Crossing::Stores {
        let other = draft.input(&turned);
        let other = load(&mut e, other, by_column.clone());
        let tanh = unary(&mut e, UnaryOp::Tanh, one);
        let value = binary(&mut e, BinaryOp::Mul, tanh, other);
        stores.push(store(draft.output(&plain), &[0, 1, 2], value));
    }
    if what != Crossing::Loads {
        let scale = draft.input(&[rows]);
        let scale = load(&mut e, scale, at(&[1]));
        let value = binary(&mut e, BinaryOp::Add, one, scale);
        stores.push(store(draft.output(&turned), &[0, 2, 1], value));
    }
    if what == Crossing::Both {
        let integers = draft.buffer(Class::Input, DType::I32, &turned);
        let zero = Scalar::new(DType::I32, 0.0);
        let value = load_as(&mut e, integers, by_column, zero);
        stores.push(store(draft.buffer(Class::Output, DType::I32, &plain), &[0, 1, 2], value));
    }
    draft.map(&plain, e, stores);
    draft
}

/// Blocks of two axes, whole ones and what is left of them at either end.
#[test]
fn maps_walk_tensors_both_ways() {
    let target = dlc_cpu::CpuTarget::detect().unwrap();
    let sizes = [[3, 9, 67], [2, 8, 8], [1, 70, 33], [2, 130, 64], [1, 300, 17], [2, 13, 1030]];
    for what in [Crossing::Stores, Crossing::Both, Crossing::Loads] {
        for shape in sizes {
            let program = crossed(what, shape).program();
            let schedule = target.emit("schedule", &program, &options(OptLevel::O2, 1)).unwrap();
            let turned = if what == Crossing::Both { "3 turned" } else { "1 turned" };
            assert!(schedule.contains(turned), "{what:?} {shape:?}\n{schedule}");
            check(&program, &noise_inputs(&program, 3), 1e-6);
        }
    }
}

/// The same at the steps of a loop, whose room is taken anew at each.
#[test]
fn maps_walk_tensors_both_ways_at_steps() {
    let mut draft = crossed(Crossing::Both, [5, 21, 40]);
    let program = draft.repeat(5, 1).program();
    check(&program, &noise_inputs(&program, 4), 1e-6);
}
