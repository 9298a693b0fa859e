//! Dropout and masks where leaves compute them: at every level of this machine, at sizes around
//! vectors and tiles, bit for bit the masks of the interpreter.

mod support;

use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::{
    Array, BinaryOp, Class, DType, Expr, ExprId, Exprs, FoldOp, Form, Guard, Index, Machine,
    OptLevel, Program, Scalar, Step, Store, UnaryOp,
};
use support::*;

/// The schedules and results of every level that runs here.
fn check_levels(program: &Program, relative: f64) -> Vec<(Level, String)> {
    let inputs = noise_inputs(program, 3);
    let arrays: Vec<Array> = inputs.iter().map(Array::from_tensor).collect();
    let expected = Machine::new(program).call("run", &arrays).unwrap();
    let levels = [Level::X86_64V2, Level::X86_64V3, Level::X86_64V4];
    let schedule = |level| {
        let target = CpuTarget::new(level);
        let options = options(OptLevel::O2, 2);
        let found = run(&target, program, &options, &inputs).unwrap();
        for (k, (found, wanted)) in found.iter().zip(&expected).enumerate() {
            let error = error(found, wanted);
            assert!(error <= relative, "{level:?}: output {k} is off by {error}\n{program}");
        }
        (level, dlc_kernel::Target::emit(&target, "schedule", program, &options).unwrap())
    };
    levels.into_iter().filter(|level| level.runs_here()).map(schedule).collect()
}

/// `0.4 <= random` of the element `element`, under the seed and step in two inputs.
fn kept(draft: &mut Draft, e: &mut Exprs, element: ExprId) -> ExprId {
    let [seed, step] = [(); 2].map(|()| {
        let number = draft.buffer(Class::Input, DType::I32, &[]);
        load_as(e, number, access([]), Scalar::new(DType::I32, 0.0))
    });
    let random = e.add(Expr::Random { site: 0x0123_4567_89ab_cdef, seed, step, element });
    let rate = e.constant(DType::F32, 0.4);
    binary(e, BinaryOp::Le, rate, random)
}

/// The row-major position in rows of `width` elements.
fn position(e: &mut Exprs, width: i64) -> ExprId {
    let (row, column) = (axis(e, 0), axis(e, 1));
    let width = e.constant(DType::I32, width as f64);
    let first = binary(e, BinaryOp::Mul, row, width);
    binary(e, BinaryOp::Add, first, column)
}

/// `x` scaled, or 0.
fn dropped(e: &mut Exprs, kept: ExprId, x: ExprId) -> ExprId {
    let (scale, zero) = (e.constant(DType::F32, 1.0 / 0.6), e.constant(DType::F32, 0.0));
    let scaled = binary(e, BinaryOp::Mul, x, scale);
    e.add(Expr::Select(kept, scaled, zero))
}

#[test]
fn maps() {
    for width in (16..=36).chain([100, 257]) {
        let mut draft = Draft::default();
        let (x, y) = (draft.input(&[3, width]), draft.output(&[3, width]));
        let mask = draft.buffer(Class::Output, DType::Bool, &[3, width]);
        let mut e = Exprs::new();
        let element = position(&mut e, width);
        let kept = kept(&mut draft, &mut e, element);
        let x = load(&mut e, x, at(&[0, 1]));
        let value = dropped(&mut e, kept, x);
        let stores = vec![store(mask, &[0, 1], kept), store(y, &[0, 1], value)];
        draft.map(&[3, width], e, stores);
        check_levels(&draft.program(), 1e-7);
    }
}

/// A product whose results are dropped and its mask stored; another one that reads the mask.
fn products(rows: i64, columns: i64) -> Program {
    let depth = 40;
    let mut draft = Draft::default();
    let (a, b) = (draft.input(&[rows, depth]), draft.input(&[columns, depth]));
    let (bias, scale) = (draft.input(&[columns]), draft.input(&[]));
    let (y, z) = (draft.output(&[rows, columns]), draft.output(&[rows, columns]));
    let mask = draft.buffer(Class::Output, DType::Bool, &[rows, columns]);
    let product = |draft: &mut Draft,
                   end: &dyn Fn(&mut Draft, &mut Exprs, ExprId) -> Vec<Store>| {
        let mut exprs = Exprs::new();
        let (lhs, rhs) = (load(&mut exprs, a, at(&[0, 2])), load(&mut exprs, b, at(&[1, 2])));
        let sum = folded(&mut exprs, 0, DType::F32);
        let stores = end(draft, &mut exprs, sum);
        let (out, reduce) = (sizes(&[rows, columns]), sizes(&[depth]));
        draft.kernel(Form::contract(out, reduce, exprs, [lhs, rhs], stores));
    };
    product(&mut draft, &|draft, e, sum| {
        let element = position(e, columns);
        let kept = kept(draft, e, element);
        let (bias, scale) = (load(e, bias, at(&[1])), load(e, scale, access([])));
        let sum = binary(e, BinaryOp::Add, sum, bias);
        let scaled = binary(e, BinaryOp::Mul, sum, scale);
        let value = dropped(e, kept, scaled);
        vec![store(mask, &[0, 1], kept), store(y, &[0, 1], value)]
    });
    product(&mut draft, &|_, e, sum| {
        let kept = load_as(e, mask, at(&[0, 1]), Scalar::new(DType::Bool, 0.0));
        let value = dropped(e, kept, sum);
        vec![store(z, &[0, 1], value)]
    });
    draft.program()
}

/// Rows that are no multiple of four elements long have no leaf for their random numbers.
#[test]
fn tiles() {
    for columns in (16..=36).chain([52, 64, 76, 100]) {
        for rows in [5, 14, 31] {
            for (level, schedule) in check_levels(&products(rows, columns), 1e-6) {
                for kernel in schedule.split("contract_").skip(1) {
                    let along = columns % 4 == 0 && kernel.contains("rows     a0 ");
                    let fits = !along || kernel.contains("stores from registers");
                    assert!(fits, "{level:?} {rows}x{columns}\n{schedule}");
                }
            }
        }
    }
    let schedule = &check_levels(&products(31, 100), 1e-6).pop().expect("a level runs here").1;
    assert_eq!(schedule.matches("stores from registers").count(), 2, "{schedule}");
}

/// Softmax over what a guard lets through, dropped, its mask stored.
fn attention(rows: i64, width: i64, guard: Index) -> Program {
    let mut draft = Draft::default();
    let (x, y, p) =
        (draft.input(&[rows, width]), draft.output(&[rows, width]), draft.output(&[rows, width]));
    let mask = draft.buffer(Class::Output, DType::Bool, &[rows, width]);
    let mut e = Exprs::new();
    let mut seen = at(&[0, 1]);
    seen.guards.push(Guard { index: guard, extent: width.into() });
    let x = load_or(&mut e, x, seen, f64::NEG_INFINITY);
    let largest = folded(&mut e, 0, DType::F32);
    let least = e.constant(DType::F32, f64::from(f32::MIN));
    let largest = binary(&mut e, BinaryOp::Max, largest, least);
    let distance = binary(&mut e, BinaryOp::Sub, x, largest);
    let power = unary(&mut e, UnaryOp::Exp, distance);
    let sum = folded(&mut e, 1, DType::F32);
    let softmax = binary(&mut e, BinaryOp::Div, power, sum);
    let element = position(&mut e, width);
    let kept = kept(&mut draft, &mut e, element);
    let value = dropped(&mut e, kept, softmax);
    let steps = vec![
        Step::Fold(FoldOp::Max, x),
        Step::Fold(FoldOp::Sum, power),
        Step::StoreEach(store(p, &[0, 1], power)),
        Step::StoreEach(store(mask, &[0, 1], kept)),
        Step::StoreEach(store(y, &[0, 1], value)),
    ];
    draft.kernel(Form::Row { outer: sizes(&[rows]), inner: sizes(&[width]), exprs: e, steps });
    draft.program()
}

/// What a row sees ends at its own place, or begins there, or is a band around it; every row sees
/// something.
#[test]
fn rows_see_windows() {
    let guards = [(1, -1, 0i64), (-1, 1, 0), (-1, 1, 9), (1, 0, 0)];
    for width in (16..=40).chain([64, 100]) {
        for (row, column, offset) in guards {
            let guard = Index::affine([(0, row), (1, column)], offset);
            for (level, schedule) in check_levels(&attention(width, width, guard), 3e-6) {
                let by_leaves =
                    schedule.matches("by a leaf").count() + schedule.matches("leaf x").count();
                assert!(width % 4 != 0 || by_leaves > 0, "{level:?}\n{schedule}");
            }
        }
    }
}
