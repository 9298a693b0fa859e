//! Loops that follow each other: they run beside each other, and compute what they compute in turn.

mod support;

use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::{
    Access, BinaryOp, BufferId, DType, Exprs, Form, Index, OptLevel, Program, Size, Store, Target,
    UnaryOp,
};
use support::*;

/// Recurrent layers on top of each other, each over the history of the one below.
#[derive(Clone, Copy, Debug)]
struct Stack {
    /// By layer: whether it walks from the last row of what it reads to the first.
    backwards: &'static [bool],
    rows: i64,
    steps: i64,
    width: i64,
    /// Whether a product stands between layers, and something pointwise after it.
    products: bool,
    /// Whether each layer begins with the last state of the one below.
    handed_on: bool,
}

const PLAIN: Stack = Stack {
    backwards: &[false, false],
    rows: 2,
    steps: 24,
    width: 24,
    products: true,
    handed_on: false,
};

impl Stack {
    fn program(self) -> Program {
        let mut draft = Draft::default();
        let (rows, steps, width) = (self.rows, self.steps, self.width);
        let mut below = draft.input(&[rows, steps, width]);
        let w = draft.input(&[width, width]);
        let mut last = None;
        for &backwards in self.backwards {
            let history = self.layer(&mut draft, (below, w), backwards, last);
            last = Some(history).filter(|_| self.handed_on);
            below = if self.products {
                self.between(&mut draft, (history, w), backwards)
            } else {
                self.in_order(&mut draft, history, backwards)
            };
        }
        let out = draft.output(&[rows, steps, width]);
        let mut e = Exprs::new();
        let value = load(&mut e, below, at(&[0, 1, 2]));
        draft.map(&[rows, steps, width], e, vec![store(out, &[0, 1, 2], value)]);
        draft.program()
    }

    /// `h[t + 1] = tanh(0.04 h[t] W + x[t])`; gives the history. Its steps go backwards through `x` if asked.
    fn layer(
        self,
        draft: &mut Draft,
        (x, w): (BufferId, BufferId),
        backwards: bool,
        first: Option<BufferId>,
    ) -> BufferId {
        let (rows, steps, width) = (self.rows, self.steps, self.width);
        let state = draft.temp(&[steps + 1, rows, width]);
        let products = draft.temp(&[steps, rows, width]);
        let mut e = Exprs::new();
        let fixed = |step: i64| access([Index::constant(step), Index::axis(0), Index::axis(1)]);
        let start = match first {
            Some(other) => load(&mut e, other, fixed(steps)),
            None => e.constant(DType::F32, 0.25),
        };
        draft.map(&[rows, width], e, vec![stored(state, fixed(0), start)]);
        let mut e = Exprs::new();
        let factors = [load(&mut e, state, at(&[0, 1, 3])), load(&mut e, w, at(&[3, 2]))];
        let stores = vec![store(products, &[0, 1, 2], folded(&mut e, 0, DType::F32))];
        let out = sizes(&[steps, rows, width]);
        draft.kernel(Form::contract(out, sizes(&[width]), e, factors, stores));
        let mut e = Exprs::new();
        let time = self.time(0, backwards);
        let sum = load(&mut e, products, at(&[0, 1, 2]));
        let x = load(&mut e, x, access([Index::axis(1), time, Index::axis(2)]));
        let factor = e.constant(DType::F32, 0.04);
        let scaled = binary(&mut e, BinaryOp::Mul, sum, factor);
        let sum = binary(&mut e, BinaryOp::Add, scaled, x);
        let next = unary(&mut e, UnaryOp::Tanh, sum);
        let there = access([Index::affine([(0, 1)], 1i64), Index::axis(1), Index::axis(2)]);
        draft.map(&[steps, rows, width], e, vec![stored(state, there, next)]);
        draft.repeat_after(1, steps, 2);
        state
    }

    /// Half of the history times `W`, row by row and in the order of `x`.
    fn between(
        self,
        draft: &mut Draft,
        (history, w): (BufferId, BufferId),
        backwards: bool,
    ) -> BufferId {
        let (rows, steps, width) = (self.rows, self.steps, self.width);
        let [product, half] = [0; 2].map(|_| draft.temp(&[rows, steps, width]));
        let mut e = Exprs::new();
        let then = self.time(1, backwards);
        let row = access([plus_one(then), Index::axis(0), Index::axis(3)]);
        let factors = [load(&mut e, history, row), load(&mut e, w, at(&[3, 2]))];
        let stores = vec![store(product, &[0, 1, 2], folded(&mut e, 0, DType::F32))];
        let out = sizes(&[rows, steps, width]);
        draft.kernel(Form::contract(out, sizes(&[width]), e, factors, stores));
        let mut e = Exprs::new();
        let (value, factor) = (load(&mut e, product, at(&[0, 1, 2])), e.constant(DType::F32, 0.1));
        let value = binary(&mut e, BinaryOp::Mul, value, factor);
        draft.map(&[rows, steps, width], e, vec![store(half, &[0, 1, 2], value)]);
        half
    }

    /// The history in the order of `x`.
    fn in_order(self, draft: &mut Draft, history: BufferId, backwards: bool) -> BufferId {
        let (rows, steps, width) = (self.rows, self.steps, self.width);
        let copy = draft.temp(&[rows, steps, width]);
        let mut e = Exprs::new();
        let then = plus_one(self.time(1, backwards));
        let value = load(&mut e, history, access([then, Index::axis(0), Index::axis(2)]));
        draft.map(&[rows, steps, width], e, vec![store(copy, &[0, 1, 2], value)]);
        copy
    }

    fn time(self, axis: u32, backwards: bool) -> Index {
        match backwards {
            true => Index::affine([(axis, -1)], self.steps - 1),
            false => Index::axis(axis),
        }
    }
}

fn plus_one(index: Index) -> Index {
    Index { offset: index.offset + Size::ONE, ..index }
}

fn stored(buffer: BufferId, access: Access, value: dlc_kernel::ExprId) -> Store {
    Store { buffer, access, value }
}

/// How many loops run beside others, and how many of them follow one, with so many threads.
fn beside(program: &Program, threads: usize) -> (usize, usize) {
    let target = CpuTarget::new(Level::X86_64V3);
    let decided = target.decide(program, &options(OptLevel::O2, threads)).unwrap();
    let says = |word| {
        let mut made = decided.kernels.iter().flatten();
        made.by_ref().filter(|decision| decision.algorithm.contains(word)).count()
    };
    (says("; on thread"), says(", following"))
}

#[test]
fn layers_follow_each_other_whatever_stands_between_them() {
    for products in [true, false] {
        for backwards in [&[false, false][..], &[true, true]] {
            let stack = Stack { backwards, products, ..PLAIN };
            let program = stack.program();
            check(&program, &noise_inputs(&program, 1), 1e-5);
            assert_eq!(beside(&program, 1), (0, 0), "{stack:?}");
            let between = if products { 2 } else { 1 };
            assert_eq!(beside(&program, 2), (2 + between, 1 + between), "{stack:?}");
        }
    }
}

#[test]
fn what_stands_between_layers_lies_step_by_step() {
    let target = CpuTarget::new(Level::X86_64V3);
    let decided = target.decide(&PLAIN.program(), &options(OptLevel::O2, 1)).unwrap();
    let mut layouts = decided.kernels.iter().flatten().map(|decision| &decision.layout);
    assert!(layouts.any(|layout| layout.contains("; steps first in ")));
}

#[test]
fn more_layers_than_threads_share_them() {
    for rows in [1, 3] {
        let backwards = &[false, false, false, false, false];
        let stack = Stack { backwards, rows, ..PLAIN };
        let program = stack.program();
        check(&program, &noise_inputs(&program, 2), 1e-5);
        assert_eq!(beside(&program, 2), (13, 12));
    }
}

#[test]
fn sequences_of_every_length_have_the_same_results() {
    for steps in [1, 2, 3, 5, 6, 7, 9, 16, 23, 40] {
        for rows in [1, 2, 8] {
            let program = Stack { steps, rows, ..PLAIN }.program();
            check(&program, &noise_inputs(&program, 3), 1e-5);
        }
    }
}

#[test]
fn a_loop_that_needs_the_end_of_another_waits_for_it() {
    // A layer in the other direction, and one that begins with the last state of the layer below.
    let other_way = Stack { backwards: &[false, true], ..PLAIN };
    let handed_on = Stack { handed_on: true, ..PLAIN };
    for stack in [other_way, handed_on] {
        let program = stack.program();
        check(&program, &noise_inputs(&program, 4), 1e-5);
        assert_eq!(beside(&program, 2), (0, 0), "{stack:?}");
    }
}
