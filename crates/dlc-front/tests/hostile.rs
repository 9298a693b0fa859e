//! No text may make the front end panic or hang.

mod common;

use common::{examples, parse, parse_good};
use dlc_front::ast::{print::print, tree::tree};
use dlc_front::{Sources, Style, render};
use proptest::prelude::*;

/// Parses and renders; what is good prints and parses again to the same tree.
fn survive(text: &str) {
    let (ast, diagnostics, sources) = parse(text);
    for style in [Style::Plain, Style::Coloured] {
        let rendered = render(&diagnostics, &sources, style);
        assert_eq!(rendered.is_empty(), diagnostics.is_empty());
    }
    let printed = print(&ast);
    let (again, diagnostics, sources) = parse(&printed);
    let problems = render(&diagnostics, &sources, Style::Plain);
    assert!(diagnostics.is_empty(), "{text}\n-- printed as\n{printed}\n{problems}");
    assert_eq!(tree(&again), tree(&ast), "{text}\n-- printed as\n{printed}");
}

/// Words that mean something, so that random texts get far into the grammar.
const TOKENS: &[&str] = &[
    "model",
    "block",
    "optimizer",
    "init",
    "expect",
    "train",
    "search",
    "let",
    "param",
    "state",
    "yield",
    "for",
    "in",
    "scan",
    "repeat",
    "with",
    "at",
    "if",
    "else",
    "where",
    "and",
    "or",
    "not",
    "yes",
    "no",
    "dyn",
    "sum",
    "max",
    "mean",
    "data",
    "loss",
    "metric",
    "optim",
    "stop",
    "after",
    "epochs",
    "without",
    "improving",
    "batch",
    "shuffle",
    "x",
    "y",
    "f",
    "N",
    "i",
    "1",
    "2.5",
    "5x5",
    "61_706",
    "\"s\"",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "=",
    "==",
    "!=",
    "<",
    "<=",
    "<-",
    "->",
    "|>",
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "@",
    ",",
    ":",
    "..",
    ".",
    ";",
    "~",
    "#",
    "\n",
    "\n",
    "\n ",
    "x",
    "y",
    "?",
    "é",
    "5x",
    "\t",
    "\r\n",
    "\"",
];

fn token_soup() -> impl Strategy<Value = String> {
    let token = prop::sample::select(TOKENS);
    prop::collection::vec(token, 0..60).prop_map(|tokens| tokens.join(" "))
}

/// Expressions that are mostly well-formed: operands and operators in turn.
fn expression_soup() -> impl Strategy<Value = String> {
    let leaf =
        prop::sample::select(&["a", "2", "5x5", "yes", "\"s\"", "sum", "repeat", "yield"][..]);
    leaf.prop_map(String::from).prop_recursive(6, 60, 3, |inner| {
        let pair = (inner.clone(), inner.clone());
        let forms = &[
            "({a} + {b})",
            "{a} - {b}",
            "{a} * {b}",
            "{a} @ {b}",
            "{a} < {b}",
            "{a} and {b}",
            "{a} or {b}",
            "(not {a})",
            "not {a}",
            "-{a}",
            "(-{a})",
            "sum[i] {a}",
            "(sum[i] {a})",
            "sum[i, j < ({a})]({b})",
            "(sum[i])({a})",
            "max[2]({a})",
            "max[{a}]",
            "f({a}, k = {b})",
            "({a})({b})",
            "({a})[{b}]",
            "({a})[({a}):({b})]",
            "({a}).w",
            "({a}, {b})",
            "({a},)",
            "[{a}, {b}]",
            "({a} where {b})",
            "({a} where {b} else {a})",
            "({a} if {b} else {a})",
            "{a} if {b} else {a}",
            "({a} |> f |> g[{b}])",
            "x |> ({a})",
            "x |> sum[i]({b})",
            "if {a} {{ {b} }}",
            "(if {a} {{ {b} }})",
            "if {a} {{ {b} }} else {{ {a} }}",
            "repeat 2 {{ {a} }}",
            "(repeat ({a}) {{ {b} }})",
            "l: repeat n {{ x = {a}\n {b} }}",
            "for k in [{a}] {{ {b} }}",
            "scan t in ({a}) with h = ({b}) {{ yield ({a}) }}",
        ][..];
        (prop::sample::select(forms), pair).prop_map(|(form, (a, b))| {
            form.replace("{a}", &a).replace("{b}", &b).replace("{{", "{").replace("}}", "}")
        })
    })
}

/// An example with some of its bytes changed.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..4_u8, prop::sample::select(TOKENS));
    let edits = prop::collection::vec(edit, 1..5);
    (prop::sample::select(examples()), edits).prop_map(|(example, edits)| {
        let mut text = example.to_owned();
        for (at, how, token) in edits {
            let at = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.ceil_char_boundary((at + 1).min(text.len())).max(at);
            match how {
                0 => text.insert_str(at, token),
                1 => text.replace_range(at..end, ""),
                2 => text.replace_range(at..end, token),
                _ => text.truncate(at),
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut sources = Sources::new();
        match sources.add_bytes("random.dl", &bytes) {
            Ok(file) => survive(sources.file(file).text()),
            Err(diagnostic) => assert!(!render(&[*diagnostic], &sources, Style::Plain).is_empty()),
        }
    }

    #[test]
    fn random_characters(text in any::<String>()) {
        survive(&text);
    }

    #[test]
    fn random_tokens(text in token_soup()) {
        survive(&text);
        survive(&format!("block f(x) {{ {text} }}"));
        survive(&format!("train f {{ {text} }}"));
    }

    #[test]
    fn random_expressions(text in expression_soup()) {
        survive(&format!("block f(x) {{\n{text}\ny = {text}\n}}"));
    }

    #[test]
    fn mutated_examples(text in mutated()) {
        survive(&text);
    }
}

#[test]
fn long_texts() {
    let line = "  y = x |> conv(6, 5x5, pad = 2) |> relu # comment\n";
    parse_good(&format!("block f(x) {{\n{}}}\n", line.repeat(4000)));
    survive(&format!("block f(x) {{ x{} }}", " + x * 2 - y".repeat(20_000)));
    survive(&"{\n".repeat(100_000));
    survive(&"(".repeat(1_000_000));
    survive(&"\n".repeat(1_000_000));
    survive(&"block f(x) { + }\n".repeat(10_000));
    survive(&format!("block f(x) {{ {} }}", "x x;".repeat(50_000)));
}
