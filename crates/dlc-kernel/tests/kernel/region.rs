//! Demand and support: what a mask leaves of scores and weights.

use crate::attention::{Mask, Sizes, attention, attention_of_seen};
use crate::build::*;
use dlc_kernel::region::{Regions, fixed_values};
use dlc_kernel::*;

const SIZES: Sizes = Sizes { heads: 2, queries: 6, keys: 8, depth: 3, width: 4 };

#[test]
fn a_mask_bounds_what_is_read_of_scores_and_what_weights_are_not_zero() {
    let mask = Mask { backwards: false, shift: 2, width: 5 };
    let (program, scores, weights) = attention(SIZES, Some(mask));
    let regions = Regions::of(&program, &program.entries[0]);
    assert_eq!(regions.demand(scores, &axes(&[0, 1, 2])), [mask.guard(1, 2)]);
    assert_eq!(regions.support(weights, &axes(&[0, 1, 3])), [mask.guard(1, 3)]);
    assert!(regions.support(scores, &axes(&[0, 1, 2])).is_empty());
    assert!(regions.demand(weights, &axes(&[0, 1, 2])).is_empty());
    // The interpreter's weights are 0 exactly there.
    let mut machine = Machine::new(&program);
    let shapes = [[6usize, 2, 3], [8, 2, 3], [8, 2, 4]];
    let numbers = |shape: &[usize; 3]| {
        let data = (0..shape.iter().product::<usize>()).map(|i| (i * 37 % 11) as f64 - 5.0);
        Array { shape: shape.to_vec(), data: data.collect() }
    };
    machine.call("run", &shapes.each_ref().map(numbers)).unwrap();
    let guard = &regions.support(weights, &Access::identity(3))[0];
    for (at, &value) in machine.array(weights).data.iter().enumerate() {
        let point = [at / 48, at / 8 % 6, at % 8].map(|x| x as i64);
        let inside = guard.index.at(&point).is_some_and(|x| (0..5).contains(&x));
        assert_eq!(value != 0.0, inside, "{point:?}");
    }
}

#[test]
fn a_mask_in_memory_says_what_masked_elements_are() {
    let masked = |(program, scores, weights): (Program, BufferId, BufferId)| {
        let regions = Regions::of(&program, &program.entries[0]);
        [scores, weights].map(|buffer| {
            let mut e = Exprs::new();
            let load = load(&mut e, buffer, axes(&[0, 1, 2]));
            regions.masked(&e, load)
        })
    };
    assert_eq!(masked(attention_of_seen(SIZES)), [Some(f64::NEG_INFINITY), Some(0.0)]);
    assert_eq!(masked(attention(SIZES, None)), [None, None]);
}

#[test]
fn without_a_mask_everything_matters() {
    let (program, scores, weights) = attention(SIZES, None);
    let regions = Regions::of(&program, &program.entries[0]);
    assert!(regions.demand(scores, &axes(&[0, 1, 2])).is_empty());
    assert!(regions.support(weights, &axes(&[0, 1, 2])).is_empty());
}

/// `y = x[i] where i < 3 else 0; z = y[i] + y[i + 1]`: each reader sees another range.
#[test]
fn readers_of_different_ranges_want_all() {
    let mut p = Program::default();
    let x = buffer(&mut p, Class::Temp, "x", DType::F32, &[4]);
    let y = buffer(&mut p, Class::Output, "y", DType::F32, &[4]);
    let guarded = |extent: i64| {
        let guard = Guard { index: Index::axis(0), extent: extent.into() };
        Access { guards: [guard].into_iter().collect(), ..axes(&[0]) }
    };
    let segment = |e: Exprs, to, value| {
        let stores = vec![store(to, axes(&[0]), value)];
        Form::Map { segments: vec![Segment { axes: sizes(&[4]), exprs: e, stores }] }
    };
    let mut ones = Exprs::new();
    let one = ones.constant(DType::F32, 1.0);
    let mut e = Exprs::new();
    let (a, b) = (load(&mut e, x, guarded(3)), load(&mut e, x, guarded(2)));
    let sum = binary(&mut e, BinaryOp::Add, a, b);
    let forms = [segment(ones, x, one), segment(e, y, sum)];
    let kernels = forms.into_iter().enumerate();
    let kernel = |(k, form)| Kernel { name: format!("k{k}"), origin: None, form };
    p.entries = vec![Entry {
        name: "run".into(),
        inputs: Vec::new(),
        outputs: vec![y],
        kernels: kernels.map(kernel).collect(),
        commit: 2,
    }];
    verify(&p).unwrap();
    let regions = Regions::of(&p, &p.entries[0]);
    assert!(regions.demand(x, &axes(&[0])).is_empty());
}

#[test]
fn only_what_no_operand_can_change_is_fixed() {
    let mut p = Program::default();
    let x = buffer(&mut p, Class::Input, "x", DType::F32, &[4]);
    let mut e = Exprs::new();
    let data = load(&mut e, x, axes(&[0]));
    let [zero, lowest, two] =
        [0.0, f64::NEG_INFINITY, 2.0].map(|value| e.constant(DType::F32, value));
    let bounded = binary(&mut e, BinaryOp::Max, data, two);
    let cases = [
        (binary(&mut e, BinaryOp::Mul, data, zero), Some(0.0)),
        (binary(&mut e, BinaryOp::Div, zero, data), Some(0.0)),
        (binary(&mut e, BinaryOp::Div, data, zero), None),
        (binary(&mut e, BinaryOp::Sub, lowest, bounded), Some(f64::NEG_INFINITY)),
        (binary(&mut e, BinaryOp::Sub, lowest, data), None),
        (binary(&mut e, BinaryOp::Add, data, lowest), None),
        (binary(&mut e, BinaryOp::Add, two, two), Some(4.0)),
        (unary(&mut e, UnaryOp::Exp, lowest), Some(0.0)),
        (data, None),
    ];
    let values = fixed_values(&e, |_, _| None, |_| false);
    for (id, expected) in cases {
        assert_eq!(values[id.0 as usize], expected, "{id}");
    }
}

/// `x` is written without a condition; `y = e^((x if t >= u else -inf) - largest)` needs it, and is not 0,
/// where the condition holds, because `largest` is bounded.
#[test]
fn conditions_of_selects_bound_what_is_read_and_written() {
    let mask = Mask { backwards: false, shift: 0, width: 6 };
    for bounded in [true, false] {
        let mut p = Program::default();
        let [x, y] = [0; 2].map(|_| buffer(&mut p, Class::Temp, "x", DType::F32, &[6, 6]));
        let largest = buffer(&mut p, Class::Temp, "m", DType::F32, &[6]);
        let z = buffer(&mut p, Class::Output, "z", DType::F32, &[6, 6]);
        let map = |shape: &[i64], e: Exprs, stored: Store| Form::Map {
            segments: vec![Segment { axes: sizes(shape), exprs: e, stores: vec![stored] }],
        };
        let copy = |from, to| {
            let mut e = Exprs::new();
            let value = load(&mut e, from, axes(&[0, 1]));
            map(&[6, 6], e, store(to, axes(&[0, 1]), value))
        };
        let input = buffer(&mut p, Class::Input, "i", DType::F32, &[6, 6]);
        let mut e = Exprs::new();
        let (value, lowest) = (e.constant(DType::F32, 1.0), e.constant(DType::F32, -3e38));
        let diagonal = load(&mut e, input, axes(&[0, 0]));
        let value = binary(&mut e, BinaryOp::Mul, diagonal, value);
        let value = if bounded { binary(&mut e, BinaryOp::Max, value, lowest) } else { value };
        let of_rows = map(&[6], e, store(largest, axes(&[0]), value));
        let mut e = Exprs::new();
        let inside = e.add(Expr::Inside(mask.guard(0, 1)));
        let (seen, never) =
            (load(&mut e, x, axes(&[0, 1])), e.constant(DType::F32, f64::NEG_INFINITY));
        let seen = e.add(Expr::Select(inside, seen, never));
        let most = load(&mut e, largest, axes(&[0]));
        let distance = binary(&mut e, BinaryOp::Sub, seen, most);
        let weight = unary(&mut e, UnaryOp::Exp, distance);
        let weights = map(&[6, 6], e, store(y, axes(&[0, 1]), weight));
        let forms = [copy(input, x), of_rows, weights, copy(y, z)];
        let kernel = |(k, form)| Kernel { name: format!("k{k}"), origin: None, form };
        p.entries = vec![Entry {
            name: "run".into(),
            inputs: vec![input],
            outputs: vec![z],
            kernels: forms.into_iter().enumerate().map(kernel).collect(),
            commit: 4,
        }];
        verify(&p).unwrap();
        let regions = Regions::of(&p, &p.entries[0]);
        assert_eq!(regions.demand(x, &axes(&[0, 1])), [mask.guard(0, 1)]);
        let support = if bounded { vec![mask.guard(0, 1)] } else { Vec::new() };
        assert_eq!(regions.support(y, &axes(&[0, 1])), support);
    }
}
