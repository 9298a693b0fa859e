//! What each form is read as: source and tree side by side.

mod common;

use common::{BASIC, GPT, LENET, LSTM, REST, examples, parse_good};
use dlc_front::ast::{print::print, tree::tree};

/// The source above its tree.
fn show(text: &str) -> String {
    format!("{}\n\n{}", text.trim(), tree(&parse_good(text)))
}

#[test]
fn lenet() {
    insta::assert_snapshot!(show(LENET));
}

#[test]
fn residual_block() {
    insta::assert_snapshot!(show(BASIC));
}

#[test]
fn lstm() {
    insta::assert_snapshot!(show(LSTM));
}

#[test]
fn gpt() {
    insta::assert_snapshot!(show(GPT));
}

#[test]
fn all_other_forms() {
    insta::assert_snapshot!(show(REST));
}

#[test]
fn printed_source() {
    let printed: Vec<String> = [LENET, GPT, REST].iter().map(|it| print(&parse_good(it))).collect();
    insta::assert_snapshot!(printed.join("\n"));
}

#[test]
fn printed_source_parses_to_the_same_tree() {
    for text in examples() {
        let ast = parse_good(text);
        let printed = print(&ast);
        assert_eq!(tree(&parse_good(&printed)), tree(&ast), "{printed}");
        assert_eq!(print(&parse_good(&printed)), printed);
    }
}

/// The tree of one expression.
fn expr(text: &str) -> String {
    let body = tree(&parse_good(&format!("block f(x) {{ {text}\n}}")));
    body.lines().last().expect("the body has a line").trim().to_owned()
}

#[test]
fn precedence() {
    let cases = [
        ("a + b * c", "(+ a (* b c))"),
        ("(a + b) * c", "(* (+ a b) c)"),
        ("a - b - c", "(- (- a b) c)"),
        ("a / b // c % d @ e", "(@ (% (// (/ a b) c) d) e)"),
        ("-a * b", "(* (- a) b)"),
        ("-a.b[c]", "(- (at a.b c))"),
        ("not a == b and c or d", "(or (and (not (== a b)) c) d)"),
        ("a or b and c", "(or a (and b c))"),
        ("a + b < c * d", "(< (+ a b) (* c d))"),
        ("a + b |> f |> g(2)", "(pipe (+ a b) f (call g 2))"),
        ("a |> f if c else d |> g", "(select (pipe a f) c (pipe d g))"),
        ("a if b else c if d else e", "(select a b (select c d e))"),
        ("sum[i] a * b + c", "(+ (sum[i] (* a b)) c)"),
        ("2 * sum[i] a * b", "(* 2 (sum[i] (* a b)))"),
        ("-sum[i] a / b - c", "(- (- (sum[i] (/ a b))) c)"),
        ("sum[i] max[j < J] a", "(sum[i] (max[j<J] a))"),
        ("sum[i] (a + b) * c", "(sum[i] (* (+ a b) c))"),
        ("sum[i](a + b) * c", "(* (sum[i] (+ a b)) c)"),
        ("sum[i] a < b", "(< (sum[i] a) b)"),
        ("mean[2, 3](x) * 2", "(* (call (at mean 2 3) x) 2)"),
        ("mean[u](x)", "(mean[u] x)"),
        ("x |> mean[u] |> f", "(pipe x (at mean u) f)"),
        ("max(a, b)", "(call max a b)"),
        ("x[1:n, :, .., 2]", "(at x 1:n : .. 2)"),
        ("(a where b else c)", "(where a b else=c)"),
        ("a\n + b\n |> f\n |> g", "(pipe (+ a b) f g)"),
        ("a if b\n else c", "(select a b c)"),
        ("f(\n a,\n b,\n)", "(call f a b)"),
        ("f # no argument\n |> g # second", "(pipe f g)"),
    ];
    for (source, tree) in cases {
        assert_eq!(expr(source), tree, "{source}");
    }
}

#[test]
fn newlines_end_statements_except_where_a_line_continues() {
    let lines = |text: &str| {
        let ast = parse_good(&format!("block f(x) {{\n{text}\n}}"));
        ast.def("f").expect("the block").body.stmts.len()
    };
    assert_eq!(lines("a\nb"), 2);
    assert_eq!(lines("a\n\n  # comment\n+ b"), 1);
    assert_eq!(lines("a\n- b"), 2);
    assert_eq!(lines("a =\n  - b\nc <-\n  d"), 2);
    assert_eq!(lines("a\n|> b"), 1);
    assert_eq!(lines("repeat 2\n{\n a\n}"), 1);
    assert_eq!(lines("a\nand b\nor c\n== d"), 1);
    assert_eq!(lines("android\norange\nelsewhere = 1\nwhereas"), 4);
    assert_eq!(lines("a; b;\n;c"), 3);
    assert_eq!(lines("f(a,\n b)"), 1);
    assert_eq!(lines("repeat 2 {\n a\n b\n}\nc"), 2);
    assert_eq!(lines("(x |> repeat 2 {\n a\n b\n})"), 1);
}

#[test]
fn keywords_are_names_where_none_is_expected() {
    let text = "block f(param, state, data, model, sum, repeat, scan, yield, at, dyn) {
        let let = param + state
        yield = data(model, train = 3) |> block
        scan = for + at[repeat, yield]
        sum = max
        formula = iffy + notable + yes_sir + organic + android + sums[i]
        paramount: repeat 2 { params }
        sum + repeat
    }";
    let ast = parse_good(text);
    assert_eq!(ast.def("f").expect("the block").body.stmts.len(), 7);
    assert_eq!(tree(&parse_good(&print(&ast))), tree(&ast));
}

#[test]
fn byte_order_mark_crlf_tabs_and_a_missing_final_newline_are_fine() {
    let plain = "block f(x) {\n  y = x\n  y |> g\n}\nlet a = 1";
    let other = format!("\u{FEFF}{}", plain.replace('\n', "\r\n").replace("  ", "\t"));
    assert_eq!(tree(&parse_good(&other)), tree(&parse_good(plain)));
    assert_eq!(tree(&parse_good("")), "");
    assert_eq!(tree(&parse_good("# only a comment, with 字 in it")), "");
}

#[test]
fn spans_cover_their_text() {
    let text = "block f(x) {\n  (a + b) * c(d)  # e\n  where g\n}\n";
    let (ast, diagnostics, sources) = common::parse(text);
    assert!(diagnostics.is_empty());
    let spans: Vec<&str> = ast.exprs.iter().map(|expr| sources.text(expr.span)).collect();
    let whole = "(a + b) * c(d)  # e\n  where g";
    assert_eq!(spans, ["a", "b", "a + b", "c", "d", "c(d)", "(a + b) * c(d)", "g", whole]);
    assert_eq!(sources.text(ast.def("f").expect("the block").span), text.trim());
}
