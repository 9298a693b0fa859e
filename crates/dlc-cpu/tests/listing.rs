//! Every dump of small programs, with the kernels they are made from. The level is x86-64-v3
//! whatever the machine.

mod support;

use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::{
    BinaryOp, Class, DType, Exprs, FoldOp, Form, OptLevel, Program, Step, Target, UnaryOp,
};
use support::*;

fn listing(program: &Program, stage: &str, opt_level: OptLevel) -> String {
    let target = CpuTarget::new(Level::X86_64V3);
    let text = target.emit(stage, program, &options(opt_level, 1)).unwrap();
    assert_eq!(text, target.emit(stage, program, &options(opt_level, 3)).unwrap());
    format!("{program}\n-- {stage} --\n{text}")
}

/// `y = 2 x`.
fn double() -> Program {
    let mut draft = Draft::default();
    let (x, y) = (draft.input(&[6, 4]), draft.output(&[6, 4]));
    let mut e = Exprs::new();
    let x = load(&mut e, x, at(&[0, 1]));
    let value = binary(&mut e, BinaryOp::Add, x, x);
    draft.map(&[6, 4], e, vec![store(y, &[0, 1], value)]);
    draft.program()
}

/// One kernel of each kind.
fn tour() -> Program {
    let mut draft = Draft::default();
    let (x, bias) = (draft.input(&[8, 3, 5, 5]), draft.input(&[3]));
    let (t, flat, shifted) = (draft.temp(&[8, 3, 5, 5]), draft.temp(&[600]), draft.output(&[600]));
    let (sums, all, largest) = (draft.output(&[3]), draft.output(&[]), draft.output(&[8, 3, 5]));
    let mut e = Exprs::new();
    let (a, b) = (load(&mut e, x, at(&[0, 1, 2, 3])), load(&mut e, bias, at(&[1])));
    let value = binary(&mut e, BinaryOp::Add, a, b);
    draft.map(&[8, 3, 5, 5], e, vec![store(t, &[0, 1, 2, 3], value)]);
    draft.kernel(Form::Reshape { src: t, dst: flat });
    let mut e = Exprs::new();
    let value = load(&mut e, flat, at(&[0]));
    let value = unary(&mut e, UnaryOp::Tanh, value);
    draft.map(&[600], e, vec![store(shifted, &[0], value)]);
    for (to, outer, inner, axes, kept) in [
        (sums, vec![3], vec![8, 5, 5], [1, 0, 2, 3], vec![0]),
        (all, vec![], vec![8, 3, 5, 5], [0, 1, 2, 3], vec![]),
        (largest, vec![8, 3, 5], vec![5], [0, 1, 3, 2], vec![0, 1, 2]),
    ] {
        let mut exprs = Exprs::new();
        let value = load(&mut exprs, x, at(&axes));
        let fold = folded(&mut exprs, 0, DType::F32);
        let op = if to == largest { FoldOp::Max } else { FoldOp::Sum };
        let steps = vec![Step::Fold(op, value), Step::StoreRow(store(to, &kept, fold))];
        draft.kernel(Form::Row { outer: sizes(&outer), inner: sizes(&inner), exprs, steps });
    }
    draft.kernel(Form::Check { buffers: vec![sums, shifted] });
    draft.program()
}

#[test]
fn schedules() {
    insta::assert_snapshot!(listing(&tour(), "schedule", OptLevel::O2));
}

#[test]
fn cranelift_code() {
    insta::assert_snapshot!(listing(&double(), "clif", OptLevel::O2));
}

#[test]
fn machine_code() {
    insta::assert_snapshot!(listing(&double(), "asm", OptLevel::O2));
}

#[test]
fn unoptimized_machine_code() {
    insta::assert_snapshot!(listing(&double(), "asm", OptLevel::O0));
}

#[test]
fn an_unknown_stage_is_refused() {
    let target = CpuTarget::new(Level::X86_64V3);
    let error = target.emit("ptx", &double(), &options(OptLevel::O2, 1)).unwrap_err();
    assert_eq!(error.to_string(), "x86-64-v3 has no stage `ptx`");
}

/// `y = x w`; `w` is a parameter of `[depth, columns]`.
fn products([rows, depth, columns]: [i64; 3]) -> Program {
    let mut draft = Draft::default();
    let (x, y) = (draft.input(&[rows, depth]), draft.output(&[rows, columns]));
    let w = draft.buffer(Class::Param, DType::F32, &[depth, columns]);
    let mut e = Exprs::new();
    let (lhs, rhs) = (load(&mut e, x, at(&[0, 2])), load(&mut e, w, at(&[2, 1])));
    let sum = folded(&mut e, 0, DType::F32);
    let stores = vec![store(y, &[0, 1], sum)];
    draft.kernel(Form::contract(sizes(&[rows, columns]), sizes(&[depth]), e, [lhs, rhs], stores));
    draft.program()
}

#[test]
fn weights_are_asked_for_ahead_where_they_come_from_memory() {
    let asks = |sizes| listing(&products(sizes), "asm", OptLevel::O2).contains("_ahead4096");
    assert!(!asks([1, 512, 1024]));
    assert!(asks([1, 4096, 2048]));
}

#[test]
fn tiles_that_share_a_panel_ask_for_the_next_together_where_it_is_far() {
    let asks = |sizes| listing(&products(sizes), "asm", OptLevel::O2).contains("_next");
    assert!(!asks([256, 64, 256]));
    assert!(asks([256, 1024, 512]));
}
