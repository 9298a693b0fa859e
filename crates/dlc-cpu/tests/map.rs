//! Maps against the interpreter.

mod support;

#[path = "../../dlc-kernel/tests/shared/map.rs"]
mod shared;

use shared::gather;
use support::*;

#[test]
fn an_index_outside_names_the_kernel() {
    use dlc_kernel::{OptLevel, RunError};
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
