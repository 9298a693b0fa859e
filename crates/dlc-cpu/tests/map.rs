//! Maps against the interpreter.

mod support;

#[path = "../../dlc-kernel/tests/shared/map.rs"]
mod shared;

use dlc_kernel::{Exprs, Index, OptLevel, Target};
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
