//! Graphs as a whole: text, binding, verification, differentiation, size.

use dlc_graph::eval::{EvalError, eval};
use dlc_graph::op::{
    Binary, Const, Fused, FusedKind, Grad, Iota, Op, Part, Source, SourceClass, Unary,
};
use dlc_graph::{Graph, Role, Type, Value, differentiate, verify, verify_differentiated};
use dlc_kernel::{Array, BinaryOp, Bindings, DType, FoldOp, Location, Origin, Scalar, UnaryOp};
use std::sync::Arc;

fn source(g: &mut Graph, name: &str, class: SourceClass, ty: Type) -> Value {
    let default = Scalar::new(ty.dtype, 0.0);
    g.push(Source { name: name.into(), class, ty, default }, &[], None)
}

fn scalar_input(g: &mut Graph, name: &str) -> Value {
    source(g, name, SourceClass::Input, Type::scalar(DType::F32))
}

fn parse(text: &str) -> Graph {
    Graph::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

/// Parses, and gives every source the value that its name has in `values`.
fn run(graph: &Graph, values: &[(&str, f64)]) -> Vec<f64> {
    let lookup = |name: &str| values.iter().find(|v| v.0 == name).map(|v| Array::scalar(v.1));
    let results = eval(graph, &lookup).expect("the graph has values");
    results.into_iter().map(|a| a.data[0]).collect()
}

#[test]
fn a_training_step_as_text() {
    let step = parse(
        "graph {
          %0 x: f32[N, 4] = input
          %1 w: f32[3, 4] = param
          %2: f32[N, 3] = contract [n, o] sum [i: 4] %0[n, i] * %1[o, i]
          %3: f32[] = const 0
          %4: f32[N, 3] = view [n, o] %3[]
          %5: f32[N, 3] = max(%2, %4)
          %6: f32[] = reduce_sum{axes = [0, 1]}(%5)
          %7: f32[3, 4] = grad(%6, %1)
          %8 lr: f32[] = scalar 1e-5
          %9: f32[3, 4] = view [o, i] %8[]
          %10: f32[3, 4] = mul(%7, %9)
          %11: f32[3, 4] = sub(%1, %10)
          return loss = %6, check loss = %6, check \"d w\" = %7, update w = %11
        }",
    );
    verify(&step).expect("it is well formed");
    assert!(verify_differentiated(&step).is_err());
    let step = differentiate(&step);
    verify_differentiated(&step).expect("it is well formed");
    insta::assert_snapshot!(step);
}

#[test]
fn names_from_users_are_quoted() {
    let mut g = Graph::new();
    for name in ["a b", "\"", "\n\\", "é", "", "check", "0", "x.1", "#", "\u{7f}\u{301}"] {
        let x = scalar_input(&mut g, name);
        g.add_result(name, x, Role::Output);
        g.add_result(name, x, Role::Check);
    }
    let text = g.to_string();
    assert_eq!(parse(&text), g, "{text}");
}

#[test]
fn every_size_and_index_reads_back() {
    let g = parse(
        "graph {
          %0 x: f32[N/2, (N + 1)//2, 2*(M//N), (i - 1)/(r + 2), 7//N] = input
          %1: f32[4, M*i] = view [a, b] %0[(a - 2*b + N - 1)/3, -a, b - N/2, {N + 1}/2, (N + 1)/2
            | a - b in 0..N/2, -2*a in 0..1]
          return \"r s\" = %1
        }",
    );
    let text = g.to_string();
    assert_eq!(parse(&text), g, "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn origins_are_comments() {
    let mut g = Graph::new();
    let location = Location { file: "lenet.dl".into(), line: 3, column: 5, path: "conv1".into() };
    let origin: Origin = Some(Arc::new(location));
    let x = scalar_input(&mut g, "x");
    g.push(Unary(UnaryOp::Exp), &[x], origin);
    let text = g.to_string();
    assert!(text.contains("%1: f32[] = exp(%0)    # lenet.dl:3 conv1\n"), "{text}");
    assert_eq!(parse(&text), g);
}

#[test]
fn broken_text_is_an_error_with_a_place() {
    for (text, expected) in [
        ("graph {\n  %0 x: f32[N = input }", "2:15: `,` is expected"),
        ("graph { %0: f32[] = const 1 %1: f32[] = exp(%2) }", "1:45: %2 is not defined here"),
        ("graph { %0: i32[] = const 1 %1: i32[] = exp(%0) }", "1:29: `exp` of i32[]"),
        ("graph { %0: f32[2] = const 1 }", "1:9: this is of type f32[], not f32[2]"),
        ("graph { %0: f32[] = frob(%0) }", "1:21: `frob` is no operation"),
        ("graph { } x", "1:11: the graph ends here"),
        ("graph { %0 \"x: f32[] = input }", "1:12: the name has no closing quote"),
    ] {
        let error = Graph::parse(text).expect_err(text);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn truncated_and_nested_text_never_panics() {
    let text = parse("graph { %0 x: f32[(N + 1)//(2)] = input return \"y z\" = %0 }").to_string();
    for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
        let _ = Graph::parse(&text[..end]);
    }
    let deep = format!("graph {{ %0 x: f32[{}", "(".repeat(100_000));
    assert!(Graph::parse(&deep).is_err());
    let deep = format!("graph {{ {}", "%0: f32[] = fused map() { ".repeat(100_000));
    assert!(Graph::parse(&deep).is_err());
}

#[test]
fn binding_replaces_every_size() {
    let g = parse(
        "graph {
          %0 x: f32[N, 2*M] = input
          %1: f32[2*N*M] = reshape(%0)
          %2: f32[2*N*M - N] = view [i] %1[i + N]
          %3: f32[] = extent M
          return y = %2, m = %3
        }",
    );
    assert_eq!(g.symbols().into_iter().collect::<Vec<_>>(), ["M", "N"]);
    let half = g.bind(&Bindings::from([("N".into(), 3)])).expect("it binds");
    assert_eq!(half.symbols().into_iter().collect::<Vec<_>>(), ["M"]);
    let whole = half.bind(&Bindings::from([("M".into(), 2)])).expect("it binds");
    assert!(whole.symbols().is_empty());
    insta::assert_snapshot!(whole);
    let unbound = eval(&half, &|_| None);
    assert_eq!(unbound, Err(EvalError::Unbound("M".into())));
}

#[test]
fn binding_refuses_what_has_no_type() {
    let g = parse("graph { %0 x: f32[N - 5, (N)/(2)] = input }");
    let error = |n| g.bind(&Bindings::from([("N".into(), n)])).expect_err("refused").to_string();
    assert_eq!(error(4), "the result of `input`: an extent is negative: -1");
    assert_eq!(error(7), "the size N/2 has no value: 7 is not divisible by 2");
    assert!(g.bind(&Bindings::from([("N".into(), 6)])).is_ok());
}

#[test]
fn gradients_of_gradients() {
    // y = x^3 * c: y' = 3 x^2 c, y'' = 6 x c, d/dc y'' = 6 x.
    let mut g = Graph::new();
    let (x, c) = (scalar_input(&mut g, "x"), scalar_input(&mut g, "c"));
    let square = g.push(Binary(BinaryOp::Mul), &[x, x], None);
    let cube = g.push(Binary(BinaryOp::Mul), &[square, x], None);
    let y = g.push(Binary(BinaryOp::Mul), &[cube, c], None);
    let first = g.push(Grad, &[y, x], None);
    let second = g.push(Grad, &[first, x], None);
    let mixed = g.push(Grad, &[second, c], None);
    for (name, value) in [("first", first), ("second", second), ("mixed", mixed)] {
        g.add_result(name, value, Role::Output);
    }
    let g = differentiate(&g);
    verify_differentiated(&g).expect("it is well formed");
    assert_eq!(run(&g, &[("x", 2.0), ("c", 5.0)]), [60.0, 60.0, 12.0]);
}

#[test]
fn the_reverse_of_a_loop_computes_nothing_expensive_again() {
    let step = parse(
        "graph {
          %0 x: f32[5, 2, 3] = input
          %1 w: f32[3, 3] = param
          %2 h: f32[2, 3] = input
          %3: f32[6, 2, 3] = scan 5 carry(%2) along(%0) with(%1) {
            %0 0: f32[2, 3] = input
            %1 1: f32[2, 3] = input
            %2 2: f32[3, 3] = input
            %3: f32[2, 3] = contract [i, j] sum [r: 3] %0[i, r] * %2[r, j]
            %4: f32[2, 3] = add(%3, %1)
            %5: f32[2, 3] = sigmoid(%4)
            %6: f32[2, 3] = tanh(%0)
            %7: f32[2, 3] = mul(%5, %6)
            return 0 = %7
          }
          %4: f32[] = reduce_sum{axes = [0, 1, 2]}(%3)
          %5: f32[3, 3] = grad(%4, %1)
          return loss = %4, dw = %5
        }",
    );
    let mut loops: Vec<Graph> = Vec::new();
    for op in differentiate(&step).distinct_ops() {
        if let Op::Scan(scan) = op {
            loops.push((*scan.body).clone());
        }
    }
    let count =
        |body: &Graph, is: &dyn Fn(&Op) -> bool| body.values().filter(|&v| is(body.op(v))).count();
    let function = |op: &Op| matches!(op, Op::Unary(Unary(UnaryOp::Sigmoid | UnaryOp::Tanh)));
    let [forward, reverse] = &loops[..] else { panic!("a loop and its reverse: {loops:?}") };
    assert_eq!(count(forward, &function), 2);
    assert_eq!(count(reverse, &function), 0);
    // What flows back to the state, and to the weights.
    assert_eq!(count(reverse, &|op| matches!(op, Op::Contract(_))), 2);
    // The next state and both functions; not the product, which no derivative needs.
    assert_eq!(forward.results().len(), 3);
}

#[test]
fn by_an_intermediate_value_and_by_its_source() {
    // h = x^2, y = h * x: dy/dh = x with x held, dy/dx = 3 x^2.
    let mut g = Graph::new();
    let x = scalar_input(&mut g, "x");
    let h = g.push(Binary(BinaryOp::Mul), &[x, x], None);
    let y = g.push(Binary(BinaryOp::Mul), &[h, x], None);
    let unrelated = scalar_input(&mut g, "z");
    for at in [h, x, y, unrelated] {
        let grad = g.push(Grad, &[y, at], None);
        g.add_result(at.to_string(), grad, Role::Output);
    }
    let values = [("x", 3.0), ("z", 1.0)];
    assert_eq!(run(&differentiate(&g), &values), [3.0, 27.0, 1.0, 0.0]);
}

#[test]
fn what_nobody_needs_is_dropped_but_for_sources() {
    let mut g = Graph::new();
    let x = scalar_input(&mut g, "x");
    g.push(Unary(UnaryOp::Exp), &[x], None);
    scalar_input(&mut g, "unused");
    let g = differentiate(&g);
    assert_eq!(g.len(), 2);
    assert!(g.source("unused").is_some());
}

#[test]
fn long_chains_overflow_nothing() {
    let mut g = Graph::new();
    let x = scalar_input(&mut g, "x");
    let mut y = x;
    for _ in 0..100_000 {
        y = g.push(Unary(UnaryOp::Sin), &[y], None);
    }
    let grad = g.push(Grad, &[y, x], None);
    g.add_result("dx", grad, Role::Output);
    let differentiated = differentiate(&g);
    verify_differentiated(&differentiated).expect("it is well formed");
    assert_eq!(run(&differentiated, &[("x", 0.0)]), [1.0]);
    assert_eq!(parse(&differentiated.to_string()), differentiated);
    assert!(differentiated.bind(&Bindings::new()).is_ok());
}

#[test]
fn a_fused_operation_is_its_body() {
    let text = "graph {
      %0 x: f32[] = input
      %1: f32[] = fused map(%0) {
        %0 0: f32[] = input
        %1: f32[] = exp(%0)
        %2: i32[] = cast(%1)
        return exp = %1, whole = %2
      }
      %2: i32[] = part{index = 1}(%1)
      %3: f32[] = part{index = 0}(%1)
      return a = %2, b = %3
    }";
    let g = parse(text);
    verify(&g).expect("it is well formed");
    assert_eq!(run(&g, &[("x", 1.0)]), [2.0, std::f64::consts::E]);
    assert_eq!(parse(&g.to_string()), g);
}

#[test]
fn verification_knows_what_each_kind_of_kernel_holds() {
    let body = |text: &str| Arc::new(parse(text));
    let reduce = "graph {
      %0 0: f32[4, 3] = input
      %1: f32[4] = reduce_sum{axes = [1]}(%0)
      %2: f32[3] = reduce_sum{axes = [0]}(%0)
      return a = %1, b = %2
    }";
    let pointwise = "graph {
      %0 0: f32[4, 3] = input
      %1: f32[4, 3] = exp(%0)
      return a = %1
    }";
    let reshaped = "graph {
      %0 0: f32[4, 3] = input
      %1: f32[12] = reshape(%0)
      return a = %1
    }";
    for (kind, text, expected) in [
        (FusedKind::Map, reduce, "%1: fused map: %1: `reduce_sum` has no place here"),
        (FusedKind::Row, reduce, "%1: fused row: its folds are over different domains"),
        (FusedKind::Row, pointwise, "%1: fused row: it folds nothing"),
        (FusedKind::Contract, pointwise, "%1: fused contract: it holds 0 contractions"),
        (FusedKind::Map, reshaped, "%1: fused map: %1: `reshape` has no place here"),
    ] {
        let mut g = Graph::new();
        let x = source(&mut g, "x", SourceClass::Input, Type::known(DType::F32, &[4, 3]));
        g.push(Fused { kind, body: body(text) }, &[x], None);
        assert_eq!(verify(&g), Err(expected.to_string()));
    }
    let mut g = Graph::new();
    let x = scalar_input(&mut g, "x");
    assert!(g.add(Part(0), &[x], None).is_err());
}

#[test]
fn updates_have_the_type_of_what_they_update() {
    let mut g = Graph::new();
    let w = source(&mut g, "w", SourceClass::Param, Type::known(DType::F32, &[2]));
    let sum = g.sum(w, &[0], &None);
    g.add_result("w", sum, Role::Update);
    assert_eq!(verify(&g), Err("`w` is f32[2], its next value f32[]".into()));
}

#[test]
fn equal_operations_are_one_and_sources_are_unique() {
    let mut g = Graph::new();
    let one = g.push(Const(Scalar::new(DType::F32, 1.0)), &[], None);
    assert_eq!(g.push(Const(Scalar::new(DType::F32, 1.0)), &[], None), one);
    assert_ne!(g.push(Const(Scalar::new(DType::F32, -1.0)), &[], None), one);
    scalar_input(&mut g, "x");
    let ty = Type::known(DType::F32, &[2]);
    let default = Scalar::new(DType::F32, 0.0);
    let again = Source { name: "x".into(), class: SourceClass::Input, ty, default };
    let error = g.add(again, &[], None).expect_err("the name is taken");
    assert_eq!(error.message, "`x` is already the name of another input, parameter or state");
}

#[test]
fn a_refused_operation_can_be_added_where_it_fits() {
    let mut g = Graph::new();
    let x = scalar_input(&mut g, "x");
    let n = source(&mut g, "n", SourceClass::Input, Type::scalar(DType::I32));
    assert!(g.add(Binary(BinaryOp::Add), &[x, n], None).is_err());
    let sum = g.push(Binary(BinaryOp::Add), &[x, x], None);
    assert_eq!(g.values().collect::<Vec<_>>(), [x, n, sum]);
}

#[test]
fn a_copy_is_what_would_have_been_added() {
    let mut from = Graph::new();
    let x = scalar_input(&mut from, "x");
    let exp = from.push(Unary(UnaryOp::Exp), &[x], None);
    let mut to = Graph::like(&from);
    let source = to.copy(&from, x, &[]);
    let copied = to.copy(&from, exp, &[source]);
    assert_eq!(to.push(Unary(UnaryOp::Exp), &[source], None), copied);
    let twice = to.copy(&from, exp, &[copied]);
    assert_eq!(to.operands(twice).as_slice(), [copied]);
}

#[test]
fn limits_are_errors_that_name_them() {
    let mut g = Graph::new();
    let error = |found: Result<Value, dlc_graph::ShapeError>| found.expect_err("refused").message;
    let wide = Iota { extent: (1i64 << 46).into() };
    assert!(error(g.add(wide, &[], None)).contains("2^47"));
    let wide = Iota { extent: (1i64 << 50).into() };
    assert!(error(g.add(wide, &[], None)).contains("2^48"));
    let wide = Iota { extent: (-1i64).into() };
    assert!(error(g.add(wide, &[], None)).contains("negative"));
    let deep = Type::known(DType::F32, &[1; 9]);
    let default = Scalar::new(DType::F32, 0.0);
    let deep = Source { name: "x".into(), class: SourceClass::Input, ty: deep, default };
    assert!(error(g.add(deep, &[], None)).contains("the limit of 8"));
}

#[test]
fn splats_are_seen_through_views() {
    let mut g = Graph::new();
    let one = g.constant(Scalar::new(DType::F32, 1.0), &None);
    let ones = g.splat(one, [3i64.into(), 4i64.into()].into_iter().collect(), &None);
    let turned = g.transpose(ones, &[1, 0], &None);
    let padded = |g: &mut Graph, fill| g.pad(turned, 0, (1i64.into(), 0i64.into()), fill, &None);
    let (same, other) = (padded(&mut g, 1.0), padded(&mut g, 2.0));
    assert_eq!(g.as_splat(same).map(Scalar::value), Some(1.0));
    assert_eq!(g.as_splat(other), None);
    let sums = g.reduce(FoldOp::Sum, same, &[0], &None);
    assert_eq!(g.as_splat(sums), None);
}
