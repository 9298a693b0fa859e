//! What masks rule out is not computed, and changes nothing that is.

mod support;

#[path = "../../dlc-kernel/tests/shared/attention.rs"]
mod attention;

use attention::{Mask, Sizes, attention};
use dlc_cpu::CpuTarget;
use dlc_kernel::{Data, OptLevel, Target};
use support::{draft, *};

const CAUSAL: Mask = Mask { backwards: false, shift: 0, width: 1 << 20 };

#[test]
fn every_mask_at_every_border() {
    let masks = [
        CAUSAL,
        Mask { shift: 3, ..CAUSAL },
        Mask { shift: -2, ..CAUSAL },
        Mask { backwards: true, ..CAUSAL },
        Mask { width: 9, ..CAUSAL },
        Mask { backwards: true, shift: 70, width: 90 },
    ];
    let sizes = [(1, 1), (7, 7), (48, 48), (49, 70), (130, 131), (200, 97), (90, 300)];
    for mask in masks {
        for (k, &(queries, keys)) in sizes.iter().enumerate() {
            let (depth, width) = ([8, 64][k % 2], [64, 5, 48][k % 3]);
            let n = Sizes { heads: 2, queries, keys, depth, width };
            let (program, ..) = attention(n, Some(mask));
            check(&program, &noise_inputs(&program, 7), 3e-6);
        }
    }
}

#[test]
fn what_nobody_sees_does_not_turn_up() {
    let n = Sizes { heads: 1, queries: 192, keys: 192, depth: 16, width: 64 };
    let (program, ..) = attention(n, Some(CAUSAL));
    let mut inputs = noise_inputs(&program, 3);
    for tensor in &mut inputs[1..] {
        let Data::F32(data) = &mut tensor.data else { unreachable!("inputs are floats") };
        let last = data.len() / 192 * 191;
        data[last..].fill(f32::NAN);
    }
    let target = CpuTarget::detect().unwrap();
    let schedule = target.emit("schedule", &program, &options(OptLevel::O2, 1)).unwrap();
    assert_eq!(schedule.matches("bands ").count(), 2, "{schedule}");
    let outputs = run(&target, &program, &options(OptLevel::O2, 1), &inputs).unwrap();
    let values = outputs[0].data.to_f64();
    assert!(values[..64 * 128].iter().all(|x| x.is_finite()));
    assert!(values[64 * 191..].iter().all(|x| x.is_nan()));
}
