//! What the tests of this crate share: values for sources, and the two interpreters side by side.
#![allow(dead_code, reason = "each test crate uses its own part")]

pub mod models;

use dlc_graph::eval::eval;
use dlc_graph::op::{Op, Source, SourceClass};
use dlc_graph::{Graph, Role, Type, Value};
use dlc_kernel::eval::Machine;
use dlc_kernel::{Array, Class, DType, OptLevel, Program, Scalar};
use std::collections::BTreeMap;

pub type Values = BTreeMap<String, Array>;

/// SplitMix64: numbers in 0..1 that look random and are the same on every machine.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In `low..high`; integers include both ends.
    pub fn array(&mut self, ty: &Type, (low, high): (f64, f64)) -> Array {
        let shape: Vec<usize> =
            ty.shape.iter().map(|s| s.as_const().expect("bound") as usize).collect();
        let n = shape.iter().product();
        let integral = !ty.dtype.is_float();
        let next = |_| match integral {
            true => (low + self.next() * (high - low + 1.0)).floor().min(high),
            false => low + self.next() * (high - low),
        };
        Array::new(shape, (0..n).map(next).collect())
    }
}

pub fn source(g: &mut Graph, name: &str, class: SourceClass, ty: Type) -> Value {
    let default = Scalar::new(ty.dtype, 0.0);
    g.push(Source { name: name.into(), class, ty, default }, &[], None)
}

pub fn input(g: &mut Graph, name: &str, shape: &[i64]) -> Value {
    source(g, name, SourceClass::Input, Type::known(DType::F32, shape))
}

pub fn param(g: &mut Graph, name: &str, shape: &[i64]) -> Value {
    source(g, name, SourceClass::Param, Type::known(DType::F32, shape))
}

/// Values for every source: floats in -1..1, integers in 0..3, state positive.
pub fn random_values(graph: &Graph, seed: u64) -> Values {
    let mut numbers = Numbers(seed);
    let mut values = Values::new();
    for (_, source) in graph.sources() {
        let range = match (source.class, source.ty.dtype) {
            (SourceClass::State, _) => (0.5, 2.0),
            (_, dtype) if dtype.is_float() => (-1.0, 1.0),
            (_, DType::Bool) => (0.0, 1.0),
            _ => (0.0, 2.0),
        };
        values.insert(source.name.to_string(), numbers.array(&source.ty, range));
    }
    values
}

/// The results of `graph` in f64, in order.
pub fn graph_results(graph: &Graph, values: &Values) -> Vec<Array> {
    eval(graph, &|name| values.get(name).cloned()).expect("the graph evaluates")
}

/// The same results from the lowered program: outputs as returned, updates as stored.
pub fn program_results(graph: &Graph, values: &Values) -> Vec<Array> {
    let program = dlc_pass::lower(&[("run", graph)]);
    run_program(&program, graph, values)
}

pub fn run_program(program: &Program, graph: &Graph, values: &Values) -> Vec<Array> {
    let mut machine = Machine::new(program);
    for buffer in &program.buffers {
        if matches!(buffer.class, Class::Param | Class::State | Class::Scalar) {
            machine.write(&buffer.name, &values[&buffer.name]).expect("it exists");
        }
    }
    let entry = program.entry("run").expect("it was lowered");
    let inputs: Vec<Array> =
        entry.inputs.iter().map(|&b| values[&program.buffer(b).name].clone()).collect();
    let mut outputs = machine.call("run", &inputs).expect("it runs").into_iter();
    let mut results = Vec::new();
    for result in graph.results() {
        results.push(match result.role {
            Role::Output => outputs.next().expect("one buffer for each output"),
            Role::Update => machine.read(&result.name).expect("it is kept").clone(),
            Role::Check => continue,
        });
    }
    results
}

/// Asserts that the lowered program computes what the graph does, but for rounding in f64.
#[track_caller]
pub fn assert_lowers(graph: &Graph, values: &Values) {
    assert_close(
        &checked_out(graph, graph_results(graph, values)),
        &program_results(graph, values),
    );
}

/// The results without those that are only checked.
pub fn checked_out(graph: &Graph, results: Vec<Array>) -> Vec<Array> {
    let roles = graph.results().iter().map(|r| r.role);
    results.into_iter().zip(roles).filter(|(_, r)| *r != Role::Check).map(|(a, _)| a).collect()
}

#[track_caller]
pub fn assert_close(a: &[Array], b: &[Array]) {
    assert_eq!(a.len(), b.len());
    for (k, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.shape, b.shape, "result {k}");
        for (i, (x, y)) in a.data.iter().zip(&b.data).enumerate() {
            let same = x == y || (x.is_nan() && y.is_nan());
            let near = (x - y).abs() <= 1e-9 * x.abs().max(y.abs()).max(1.0);
            assert!(same || near, "result {k}, element {i}: {x} and {y}");
        }
    }
}

/// Asserts that of the graph `build` makes of `x: f32[3, 4]` these operations are left, sources
/// aside, and that they mean the same.
#[track_caller]
pub fn check(build: impl Fn(&mut Graph, Value) -> Value, expected: &[&str]) {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[3, 4]);
    let y = build(&mut g, x);
    g.add_result("y", y, Role::Output);
    let simplified = dlc_pass::simplify::simplify(&g);
    let values = random_values(&g, 5);
    assert_close(&graph_results(&g, &values), &graph_results(&simplified, &values));
    let live = simplified.live();
    let left = simplified.values().filter(|v| live[v.0 as usize]).map(|v| simplified.op(v));
    let left = left.filter(|op| !matches!(op, Op::Source(_))).map(|op| op.rules().text().name);
    assert_eq!(left.collect::<Vec<_>>(), expected);
}

/// The forms of the kernels that `graph` becomes at that level, in order.
pub fn forms(graph: &Graph, level: OptLevel) -> Vec<&'static str> {
    let fused = dlc_pass::run(graph, level, &mut |_, _, _| {});
    let program = dlc_pass::lower(&[("run", &fused)]);
    program.entries[0].kernels.iter().map(|k| k.form.name()).collect()
}

/// Asserts that every pass keeps the meaning, that what comes out lowers to it, and that unfused
/// operations do too.
#[track_caller]
pub fn assert_passes_keep(graph: &Graph) {
    let differentiated = dlc_graph::differentiate(graph);
    let values = random_values(&differentiated, 3);
    let expected = graph_results(&differentiated, &values);
    let fused = dlc_pass::run(graph, OptLevel::O2, &mut |_, graph, _| {
        assert_close(&expected, &graph_results(graph, &values));
    });
    assert_lowers(&differentiated, &values);
    assert_lowers(&fused, &values);
}
