//! Every operation's rules, on all of its samples. A new operation is tested by existing.

use dlc_graph::eval::{EvalError, eval, eval_values};
use dlc_graph::op::{Binary, Cast, Grad, Lowering, Op, Sample, Source, SourceClass};
use dlc_graph::{Graph, Role, Type, Value, differentiate};
use dlc_kernel::{Array, BinaryOp, DType, FoldOp, Scalar, UnaryOp};

/// A sample as a graph, with values for all of its sources.
struct Case {
    graph: Graph,
    operands: Vec<Value>,
    result: Value,
    values: Vec<(String, Array)>,
    random: Lcg,
}

/// Knuth's MMIX generator: tests need numbers without structure, not good ones.
struct Lcg(u64);

impl Lcg {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        low + (high - low) * (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn array(&mut self, ty: &Type, (low, high): (f64, f64)) -> Array {
        let shape: Vec<usize> =
            ty.shape.iter().map(|s| s.as_const().expect("known") as usize).collect();
        let count = shape.iter().product();
        let element = |_| match ty.dtype.is_float() {
            true => self.uniform(low, high),
            false => self.uniform(low, high + 1.0).floor().min(high),
        };
        Array::new(shape, (0..count).map(element).collect())
    }
}

impl Case {
    fn new(sample: &Sample) -> Case {
        let mut case = Case {
            graph: Graph::new(),
            operands: Vec::new(),
            result: Value(0),
            values: Vec::new(),
            random: Lcg(7),
        };
        for (k, (ty, &range)) in sample.operands.iter().zip(&sample.ranges).enumerate() {
            let operand = case.source(&format!("x{k}"), ty, range);
            case.operands.push(operand);
        }
        case.result = case.graph.push(sample.op.clone(), &case.operands, None);
        if let Op::Source(source) = &sample.op {
            let value = case.random.array(&source.ty, (-1.0, 1.0));
            case.values.push((source.name.to_string(), value));
        }
        case
    }

    /// A source with a value.
    fn source(&mut self, name: &str, ty: &Type, range: (f64, f64)) -> Value {
        self.values.push((name.to_string(), self.random.array(ty, range)));
        let default = Scalar::new(ty.dtype, 0.0);
        let source =
            Source { name: name.into(), class: SourceClass::Input, ty: ty.clone(), default };
        self.graph.push(source, &[], None)
    }

    /// The sum over all elements of `tanh(x/4)` times random weights: with it every operation sits
    /// mid-graph, below a cotangent without symmetry.
    fn loss(&mut self, name: &str, x: Value) -> Value {
        let x = self.graph.cast(x, DType::F32, &None);
        let ty = self.graph.ty(x).clone();
        let weights = self.source(name, &ty, (0.5, 2.0));
        let g = &mut self.graph;
        let quarter = g.splat_like(x, 0.25, &None);
        let small = g.binary(BinaryOp::Mul, x, quarter, &None);
        let bent = g.unary(UnaryOp::Tanh, small, &None);
        let product = g.binary(BinaryOp::Mul, bent, weights, &None);
        let axes: Vec<u32> = (0..ty.rank() as u32).collect();
        g.reduce(FoldOp::Sum, product, &axes, &None)
    }

    /// [`Case::loss`] of every result of the sample.
    fn whole_loss(&mut self) -> Value {
        let Op::Scan(scan) = self.graph.op(self.result) else {
            return self.loss("w", self.result);
        };
        let parts = scan.body.results().len();
        let mut sum = self.loss("w", self.result);
        for k in 0..parts {
            let part = self.graph.part(self.result, k, &None);
            let term = self.loss(&format!("w{k}"), part);
            sum = self.graph.binary(BinaryOp::Add, sum, term, &None);
        }
        sum
    }

    fn floats(&self) -> Vec<Value> {
        let is_float = |v: &Value| self.graph.ty(*v).dtype.is_float();
        self.operands.iter().copied().filter(is_float).collect()
    }

    fn lookup(&self, name: &str) -> Option<Array> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, a)| a.clone())
    }

    /// Compares `d loss / d x` with central differences, for every float operand.
    fn check_gradient(&self, loss: Value, what: &str) {
        let mut graph = self.graph.clone();
        for (k, &x) in self.floats().iter().enumerate() {
            let grad = graph.push(Grad, &[loss, x], None);
            graph.add_result(format!("{k}"), grad, Role::Output);
        }
        let graph = differentiate(&graph);
        let grads = eval(&graph, &|name| self.lookup(name)).expect("gradients have values");
        let mut losses = self.graph.clone();
        losses.add_result("loss", loss, Role::Output);
        let losses = differentiate(&losses);
        for (x, grad) in self.floats().iter().zip(grads) {
            let Op::Source(source) = self.graph.op(*x) else { panic!("operands are sources") };
            for at in 0..grad.data.len() {
                let expected = self.slope(&losses, &source.name, at);
                let error = (grad.data[at] - expected).abs();
                assert!(
                    error <= 1e-7 * (1.0 + expected.abs()),
                    "{what}: d/d{}[{at}] is {}, by differences {expected}",
                    source.name,
                    grad.data[at]
                );
            }
        }
    }

    /// Central difference of the graph's one result by element `at` of source `name`.
    fn slope(&self, graph: &Graph, name: &str, at: usize) -> f64 {
        let h = 1e-5;
        let moved = |by: f64| {
            let value = eval(graph, &|n| {
                let mut array = self.lookup(n)?;
                if n == name {
                    array.data[at] += by;
                }
                Some(array)
            });
            value.expect("the loss has a value")[0].data[0]
        };
        (moved(h) - moved(-h)) / (2.0 * h)
    }
}

/// The samples that have a gradient: fusion comes after differentiation, and a stopped gradient is
/// meant to disagree.
fn differentiable() -> impl Iterator<Item = (String, Case)> {
    let samples = Op::samples().into_iter();
    let samples = samples.filter(|s| {
        !matches!(s.op, Op::StopGradient(_)) && !matches!(s.op.rules().lower(), Lowering::Fused(_))
    });
    samples.map(|s| (format!("{:?} of {:?}", s.op, s.operands), Case::new(&s)))
}

#[test]
fn shape_agrees_with_evaluation() {
    for sample in Op::samples() {
        let case = Case::new(&sample);
        let found = eval_values(&case.graph, &[case.result], &|name| case.lookup(name));
        let found = found.expect("samples have values");
        let expected: Vec<i64> =
            case.graph.ty(case.result).shape.iter().map(|s| s.as_const().expect("known")).collect();
        let shape: Vec<i64> = found[0].shape.iter().map(|&n| n as i64).collect();
        assert_eq!(shape, expected, "{:?}", sample.op);
        assert_eq!(found[0].data.len() as i64, expected.iter().product::<i64>());
    }
}

#[test]
fn gradient_agrees_with_central_differences() {
    for (what, mut case) in differentiable() {
        let loss = case.whole_loss();
        case.check_gradient(loss, &what);
    }
}

#[test]
fn second_gradient_agrees_with_central_differences() {
    for (what, mut case) in differentiable() {
        let loss = case.whole_loss();
        let mut sum = case.graph.constant(Scalar::new(DType::F32, 0.0), &None);
        for (k, x) in case.floats().into_iter().enumerate() {
            let grad = case.graph.push(Grad, &[loss, x], None);
            let term = case.loss(&format!("v{k}"), grad);
            sum = case.graph.binary(BinaryOp::Add, sum, term, &None);
        }
        case.check_gradient(sum, &format!("second order, {what}"));
    }
}

#[test]
fn printed_graphs_read_back_equal() {
    for sample in Op::samples() {
        let mut case = Case::new(&sample);
        if !matches!(sample.op.rules().lower(), Lowering::Fused(_)) {
            let loss = case.whole_loss();
            for x in case.floats() {
                let grad = case.graph.push(Grad, &[loss, x], None);
                case.graph.add_result(format!("d/d{x}"), grad, Role::Output);
            }
            let differentiated = differentiate(&case.graph);
            assert_reads_back(&differentiated);
        }
        case.graph.add_result("update", case.result, Role::Check);
        assert_reads_back(&case.graph);
    }
}

fn assert_reads_back(graph: &Graph) {
    let text = graph.to_string();
    let read = Graph::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(read, *graph, "{text}\n{read}");
}

#[test]
fn wrong_operands_are_refused_not_a_panic() {
    let pool = [
        Type::known(DType::F32, &[]),
        Type::known(DType::F32, &[2, 3]),
        Type::known(DType::I32, &[2, 3]),
        Type::known(DType::Bool, &[4]),
        Type::known(DType::F32, &[0]),
    ];
    let mut refused = 0;
    for sample in Op::samples() {
        for count in 0..=3 {
            for first in 0..pool.len() {
                let types: Vec<&Type> = (0..count).map(|k| &pool[(first + k) % 5]).collect();
                refused += usize::from(sample.op.rules().shape(&types).is_err());
            }
        }
    }
    assert!(refused > 1000, "only {refused} uses were refused");
}

#[test]
fn an_index_outside_is_an_error_with_its_value() {
    for id in [-1.0, 4.0] {
        let mut g = Graph::new();
        let mut source = |name: &str, ty: Type| {
            let default = Scalar::new(ty.dtype, 0.0);
            g.push(Source { name: name.into(), class: SourceClass::Input, ty, default }, &[], None)
        };
        let x = source("x", Type::known(DType::F32, &[4]));
        let ids = source("ids", Type::known(DType::I32, &[2]));
        let y = g.push(dlc_graph::op::Gather { axis: 0, batch: 0 }, &[x, ids], None);
        g.add_result("y", y, Role::Output);
        let found = eval(&g, &|name| {
            Some(match name {
                "x" => Array::new([4], vec![0.0; 4]),
                _ => Array::new([2], vec![0.0, id]),
            })
        });
        assert_eq!(found, Err(EvalError::Index { origin: None, index: id as i64, extent: 4 }));
    }
}

#[test]
fn the_tie_of_a_maximum_goes_as_documented() {
    // relu'(0) = 0, written as max(x, 0).
    let mut g = Graph::new();
    let ty = Type::known(DType::F32, &[]);
    let default = Scalar::new(DType::F32, 0.0);
    let x = g.push(Source { name: "x".into(), class: SourceClass::Input, ty, default }, &[], None);
    let zero = g.constant(default, &None);
    let y = g.push(Binary(BinaryOp::Max), &[x, zero], None);
    let dx = g.push(Grad, &[y, x], None);
    g.add_result("dx", dx, Role::Output);
    let found = eval(&differentiate(&g), &|_| Some(Array::scalar(0.0))).expect("a value");
    assert_eq!(found[0].data, [0.0]);
}

#[test]
fn a_cast_to_an_integer_stops_gradients() {
    let mut g = Graph::new();
    let ty = Type::known(DType::F32, &[]);
    let default = Scalar::new(DType::F32, 0.0);
    let x = g.push(Source { name: "x".into(), class: SourceClass::Input, ty, default }, &[], None);
    let rounded = g.push(Cast(DType::I32), &[x], None);
    let y = g.push(Cast(DType::F32), &[rounded], None);
    let y = g.binary(BinaryOp::Mul, y, x, &None);
    let dx = g.push(Grad, &[y, x], None);
    g.add_result("dx", dx, Role::Output);
    let found = eval(&differentiate(&g), &|_| Some(Array::scalar(2.5))).expect("a value");
    assert_eq!(found[0].data, [2.0]);
}

fn f32_input(g: &mut Graph, name: &str, shape: &[i64]) -> Value {
    let (ty, default) = (Type::known(DType::F32, shape), Scalar::new(DType::F32, 0.0));
    g.push(Source { name: name.into(), class: SourceClass::Input, ty, default }, &[], None)
}

/// The gradient, by `x`, of the sum over `fold(x, axis 1)` times `weights`.
fn fold_gradient(op: FoldOp, x: Array, weights: &[f64]) -> Vec<f64> {
    let mut g = Graph::new();
    let shape: Vec<i64> = x.shape.iter().map(|&n| n as i64).collect();
    let input = f32_input(&mut g, "x", &shape);
    let w = f32_input(&mut g, "w", &shape[..1]);
    let y = g.reduce(op, input, &[1], &None);
    let product = g.binary(BinaryOp::Mul, y, w, &None);
    let loss = g.sum(product, &[0], &None);
    let dx = g.push(Grad, &[loss, input], None);
    g.add_result("dx", dx, Role::Output);
    let w = Array::new([weights.len()], weights.to_vec());
    let found =
        eval(&differentiate(&g), &|name| Some(if name == "x" { x.clone() } else { w.clone() }));
    found.expect("a value").remove(0).data
}

#[test]
fn a_product_has_gradients_at_zeros() {
    let x = Array::new([3, 3], vec![2.0, 0.0, 3.0, 0.0, 0.0, 5.0, 1.0, 2.0, 3.0]);
    let dx = fold_gradient(FoldOp::Prod, x, &[1.0, 1.0, 10.0]);
    assert_eq!(dx, [0.0, 6.0, 0.0, 0.0, 0.0, 0.0, 60.0, 30.0, 20.0]);
}

#[test]
fn the_first_of_equal_maxima_takes_the_gradient() {
    let x = Array::new([3, 3], vec![1.0, 7.0, 7.0, 0.0, 0.0, 0.0, 1.0, f64::NAN, 9.0]);
    let dx = fold_gradient(FoldOp::Max, x.clone(), &[1.0, 2.0, 3.0]);
    assert_eq!(dx, [0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0, 0.0]);
    let dx = fold_gradient(FoldOp::Min, x, &[1.0, 2.0, 3.0]);
    assert_eq!(dx, [1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0, 0.0]);
}
