//! Helpers: units from text, and values of tensors by name.

use dlc_front::{Mode, Model, Style, Unit};
use dlc_graph::Graph;
use dlc_graph::eval::eval;
use dlc_kernel::{Array, Bindings};
use std::collections::BTreeMap;

/// A unit from a text that parses.
pub fn unit(text: &str) -> Unit {
    Unit::parse("model.dl", text.as_bytes())
        .unwrap_or_else(|failure| panic!("{}", failure.render(Style::Plain)))
}

/// The first model of a text.
pub fn model(text: &str, mode: Mode) -> Model {
    let unit = unit(text);
    let name = unit.models()[0].to_string();
    unit.model(&name, &Bindings::new(), mode)
        .unwrap_or_else(|errors| panic!("{}", unit.render(&errors, Style::Plain)))
}

/// The values of a tensor by name, as `reference/make.py` has them: sin(1.3*i + k), k the sum of the
/// name's bytes; variances and sums of squares are those squared plus 0.5.
pub fn fill(name: &str, shape: &[usize]) -> Array {
    let k = name.bytes().map(u32::from).sum::<u32>() % 100;
    let positive = ["var", "square", "total"].iter().any(|end| name.ends_with(end));
    let count: usize = shape.iter().product();
    let value = |i: usize| {
        let v = (1.3 * i as f64 + f64::from(k)).sin();
        if positive { v * v + 0.5 } else { v }
    };
    Array::new(shape, (0..count).map(value).collect())
}

/// Values of a graph's sources: those given, else filled by name.
pub fn values(graph: &Graph, given: &BTreeMap<String, Array>) -> BTreeMap<String, Array> {
    let mut all = given.clone();
    for (_, source) in graph.sources() {
        let shape: Option<Vec<usize>> =
            source.ty.shape.iter().map(|s| s.as_const().map(|n| n as usize)).collect();
        let shape = shape.expect("sizes are numbers");
        let is_scalar = source.class == dlc_graph::op::SourceClass::Scalar;
        if !all.contains_key(&*source.name) && !is_scalar {
            all.insert(source.name.to_string(), fill(&source.name, &shape));
        }
    }
    all
}

/// All results of a graph, by name and in order.
pub fn results(graph: &Graph, sources: &BTreeMap<String, Array>) -> Vec<(String, Array)> {
    let arrays = eval(graph, &|name| sources.get(name).cloned()).expect("the graph evaluates");
    graph.results().iter().map(|r| r.name.clone()).zip(arrays).collect()
}

/// The numbers of a case in a file of reference numbers: a line with the case's name before them.
pub fn numbers(text: &str, case: &str) -> Vec<f64> {
    let line = text.lines().find(|line| line.split(' ').next() == Some(case));
    let numbers = line.unwrap_or_else(|| panic!("no numbers for {case}")).split(' ').skip(1);
    numbers.map(|n| n.parse().expect("a number")).collect()
}
