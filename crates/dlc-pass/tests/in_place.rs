//! States of which a part is overwritten: in place where nobody can tell, and never wrong.

mod common;

use common::*;
use dlc_graph::op::{Cast, Gather, Iota, Overwrite, SourceClass};
use dlc_graph::{Graph, Role, Type, Value};
use dlc_kernel::eval::Machine;
use dlc_kernel::{Array, BinaryOp, Class, DType, Form, Kernel, OptLevel, Program, RunError};
use dlc_kernel::{ScatterMode, UnaryOp};

/// The next value of a state of two sequences of six rows: `part`, of two rows each, stands where an
/// input says.
fn append(g: &mut Graph, state: &str, part: Value) -> Value {
    let rows = source(g, state, SourceClass::State, Type::known(DType::F32, &[2, 6, 3]));
    let start = match g.source("start") {
        Some(start) => start,
        None => source(g, "start", SourceClass::Input, Type::known(DType::I32, &[2])),
    };
    let places = g.push(Iota { extent: 5i64.into() }, &[], None);
    let start = g.push(Gather { axis: 0, batch: 0 }, &[places, start], None);
    let op = Overwrite { axis: 1, batch: 1, in_place: false };
    let next = g.push(op, &[rows, start, part], None);
    g.add_result(state, next, Role::Update);
    next
}

/// A graph with such a state `rows`, whose next value is read.
fn appending() -> (Graph, Value) {
    let mut g = Graph::new();
    let part = input(&mut g, "part", &[2, 2, 3]);
    let next = append(&mut g, "rows", part);
    let read = g.unary(UnaryOp::Exp, next, &None);
    g.add_result("y", read, Role::Output);
    (g, next)
}

fn programs(graph: &Graph) -> Vec<Program> {
    let lowered =
        |level| dlc_pass::lower(&[("run", &dlc_pass::run(graph, level, &mut |_, _, _| {}))]);
    [OptLevel::O0, OptLevel::O2].map(lowered).into()
}

fn overwrites(kernel: &Kernel) -> bool {
    matches!(kernel.form, Form::Scatter { mode: ScatterMode::Overwrite, .. })
}

/// Checks that the programs of `graph` do what it means, and how many states they overwrite in place.
#[track_caller]
fn assert_overwrites(graph: &Graph, count: usize) {
    let values = random_values(graph, 3);
    let wanted = checked_out(graph, graph_results(graph, &values));
    for program in programs(graph) {
        let found = program.entries[0].kernels.iter().filter(|k| overwrites(k)).count();
        assert_eq!(found, count, "{program}");
        assert_close(&wanted, &run_program(&program, graph, &values));
    }
}

#[test]
fn only_the_part_is_written() {
    let (graph, _) = appending();
    assert_overwrites(&graph, 1);
    for program in programs(&graph) {
        let entry = &program.entries[0];
        let first = entry.kernels.iter().position(overwrites).unwrap();
        assert_eq!(first, entry.commit);
        assert!(entry.kernels[first..].iter().all(|k| !k.may_fail()));
        // Part and starts are read, the part is written: nothing of the state's size.
        assert_eq!(entry.kernels[first].bytes(&program), 4 * (12 + 2 + 12));
        let copies = |b: &&dlc_kernel::Buffer| b.class == Class::Temp && b.elements() == Some(36);
        assert_eq!(program.buffers.iter().filter(copies).count(), 0, "{program}");
    }
}

#[test]
fn a_bad_place_changes_nothing() {
    let (graph, _) = appending();
    for program in programs(&graph) {
        for start in [[0.0, 5.0], [-1.0, 0.0]] {
            let mut machine = Machine::new(&program);
            let before = Array::full(vec![2, 6, 3], 0.5);
            machine.write("rows", &before).unwrap();
            let given = |id: &dlc_kernel::BufferId| match program.buffer(*id).name.as_str() {
                "start" => Array::new(vec![2], start.to_vec()),
                _ => Array::full(vec![2, 2, 3], 7.0),
            };
            let inputs: Vec<Array> = program.entries[0].inputs.iter().map(given).collect();
            let error = machine.call("run", &inputs).unwrap_err();
            assert!(matches!(error, RunError::Index { extent: 5, .. }), "{error}");
            assert_eq!(*machine.read("rows").unwrap(), before);
        }
    }
}

#[test]
fn states_that_depend_on_one_another() {
    let (mut g, next) = appending();
    let part = g.slice(next, 1, 1i64.into(), 2i64.into(), &None);
    let part = g.unary(UnaryOp::Neg, part, &None);
    let other = append(&mut g, "more", part);
    let sum = g.binary(BinaryOp::Add, next, other, &None);
    g.add_result("sum", sum, Role::Output);
    assert_overwrites(&g, 2);
}

#[test]
fn the_old_value_is_read_elsewhere() {
    let (mut g, next) = appending();
    let old = g.source("rows").unwrap();
    let change = g.binary(BinaryOp::Sub, next, old, &None);
    g.add_result("change", change, Role::Output);
    assert_overwrites(&g, 0);
}

#[test]
fn what_may_fail_depends_on_it() {
    let (mut g, next) = appending();
    g.add_result("next", next, Role::Check);
    assert_overwrites(&g, 0);

    let (mut g, next) = appending();
    let ids = g.push(Cast(DType::I32), &[next], None);
    let (first, last) = (g.splat_like(ids, 0.0, &None), g.splat_like(ids, 3.0, &None));
    let ids = g.binary(BinaryOp::Max, ids, first, &None);
    let ids = g.binary(BinaryOp::Min, ids, last, &None);
    let table = param(&mut g, "table", &[4]);
    let found = g.push(Gather { axis: 0, batch: 0 }, &[table, ids], None);
    g.add_result("found", found, Role::Output);
    assert_overwrites(&g, 0);
}

/// A second state whose places depend on the first one's value is not in place, and so neither is
/// the first.
#[test]
fn a_place_depends_on_it() {
    let (mut g, next) = appending();
    let row = g.slice(next, 1, 0i64.into(), 1i64.into(), &None);
    let row = g.slice(row, 2, 0i64.into(), 1i64.into(), &None);
    let row = g.reshape(row, models::shape(&[2]), &None);
    let start = g.push(Cast(DType::I32), &[row], None);
    let rows = source(&mut g, "more", SourceClass::State, Type::known(DType::F32, &[2, 6, 3]));
    let part = g.source("part").unwrap();
    let places = g.push(Iota { extent: 5i64.into() }, &[], None);
    let start = g.push(Gather { axis: 0, batch: 0 }, &[places, start], None);
    let op = Overwrite { axis: 1, batch: 1, in_place: false };
    let other = g.push(op, &[rows, start, part], None);
    g.add_result("more", other, Role::Update);
    assert_overwrites(&g, 1);
}

#[test]
fn two_states_have_one_next_value() {
    let (mut g, next) = appending();
    source(&mut g, "twin", SourceClass::State, Type::known(DType::F32, &[2, 6, 3]));
    g.add_result("twin", next, Role::Update);
    assert_overwrites(&g, 0);
}

/// What looks up something for a later layer is computed before the first write, whatever it is added
/// to.
#[test]
fn a_lookup_is_added_to_what_was_written() {
    let (mut g, next) = appending();
    let ids = source(&mut g, "ids", SourceClass::Input, Type::known(DType::I32, &[2, 6, 3]));
    let table = param(&mut g, "table", &[4]);
    let found = g.push(Gather { axis: 0, batch: 0 }, &[table, ids], None);
    let sum = g.binary(BinaryOp::Add, next, found, &None);
    g.add_result("sum", sum, Role::Output);
    assert_overwrites(&g, 1);
}
