//! One message per kind of mistake: the source above what the user reads.

use dlc_front::{Style, Unit};

/// All messages on a text.
fn messages(text: &str) -> String {
    match Unit::parse("model.dl", text.as_bytes()) {
        Ok(unit) => unit.render(&unit.check(), Style::Plain),
        Err(failure) => failure.render(Style::Plain),
    }
}

fn show(texts: &[&str]) -> String {
    let rule = "-".repeat(72);
    let shown = texts.iter().map(|text| {
        let messages = messages(text);
        assert!(!messages.is_empty(), "nothing is wrong with {text}");
        format!("{text}\n\n{messages}")
    });
    shown.collect::<Vec<_>>().join(&format!("{rule}\n"))
}

/// Models with these bodies over `x: f32[N, 3, 8, 8]`.
fn show_bodies(bodies: &[&str]) -> String {
    let texts: Vec<String> =
        bodies.iter().map(|b| format!("model M(x: f32[N, 3, 8, 8]) {{\n  {b}\n}}")).collect();
    show(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn shapes() {
    insta::assert_snapshot!(show_bodies(&[
        "x + (x |> conv(3, 3x3))",
        "x @ x |> linear(3) @ x",
        "x |> as[N, 100]",
        "x |> softmax[4]",
        "mean[u](x)",
        "x[:, 3]",
        "x[:, 1:9]",
    ]));
}

#[test]
fn declared_types() {
    insta::assert_snapshot!(show(&[
        "model M(x: f32[N, 4]) -> f32[N, 3] { x |> linear(2) }",
        "model M(x: f32[N, 4]) -> f32[N] { y = x }",
        "block Half(x: [N, D, D]) -> [N, D] { mean[1](x) }\nmodel M(x: f32[N, 4, 5]) { x |> Half }",
        "model M(x: i32[N, 4]) { x |> linear(2) }",
        "model M(x: f32[N, 4], y: i32[N, 4]) { x + y + 0.5 * y }",
        "model M(x: f23[N, 2^62]) { x }",
        "model M(x: f32[N, -1], y: f32[0.5]) { x }",
        "model M(x: f32[4_000_000_000_000_000_000]) { x }",
        "model M(x) { x }",
    ]));
}

#[test]
fn overwriting() {
    insta::assert_snapshot!(show_bodies(&[
        "overwrite(x, 0, x)",
        "overwrite[1](x, x)",
        "overwrite[4](x, 0, x)",
        "overwrite[1](x, 2, x[:, :2])",
        "overwrite[1](x, 0, concat[1](x, x))",
        "overwrite[1](x, 0, x[:, :, :4])",
        "overwrite[1](x, 0.5, x)",
        "overwrite[1](x, x[0, 0, 0, 0], x)",
        "overwrite[0](x, i32(x[:, 0, 0, 0]), x)",
    ]));
}

#[test]
fn two_vocabularies() {
    let section = |data: &str| {
        format!(
            "model M(source: i32[N, S], ids: i32[N, T]) -> f32[N, T, V] where U >= 1 {{\n  \
               source |> embedding(U, 8)\n  ids |> embedding(V, 8) |> linear(V)\n}}\n\
             train M {{ data {data} batch 8; loss cross_entropy(M(source, ids), next) }}"
        )
    };
    let texts = ["pairs(\"a\", \"b\", joint = 2)", "lines(\"a\", joint = no)"].map(section);
    insta::assert_snapshot!(show(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn convolutions() {
    insta::assert_snapshot!(show_bodies(&[
        "x |> conv(6, 9x9)",
        "x |> conv(6, 3x3, stride = 0)",
        "x |> conv(6, 0)",
        "x |> conv(4, 3x3, groups = 2)",
        "x |> conv(0, 3)",
        "x |> flatten |> conv(6, 3)",
        "x |> conv(6, \"3\")",
        "x |> max_pool(3x3x3)",
    ]));
}

#[test]
fn index_equations() {
    insta::assert_snapshot!(show_bodies(&[
        "y[n, t] = sum[u] x[n, 0, t + u, 0]\n  y",
        "y[n, c] = sum[i] x[n, c, i, i] * x[n, i, c, 0]\n  y",
        "y[n, n] = x[n, n, 0, 0]\n  y",
        "y[n, c] = x[n, c]\n  y",
        "y[n] = x + 1\n  y",
        "y[n, h, w] = x[n, 0, h, w] where h <= w\n  y",
        "y[n] = sum[c] softmax(x[n, c, 0, 0])\n  y",
        "y[n] = x[n, x[n, 0, 0, 0], 0, 0]\n  y",
        "y[n] = x[n, 0, n / 0, 0]\n  y",
    ]));
}

#[test]
fn names() {
    insta::assert_snapshot!(show_bodies(&[
        "x |> liner(3)",
        "y = x |> relu\n  Y + z",
        "param w: [3] = 0\n  param w: [3] = 1\n  x",
        "fc = linear(3)\n  y = x |> fc\n  fc.wieght",
        "x |> conv(6, 3x3, padding = 1)",
        "x |> conv",
        "x(3)",
        "x |> linear(3, yes, 4)",
        "s <- x\n  x",
    ]));
}

#[test]
fn names_that_are_put_together() {
    insta::assert_snapshot!(show_bodies(&[
        "x |> named[\"fc\", -1](linear(2))",
        "x |> named[x](linear(2))",
        "x |> named[\"fc\"](linear(2)) |> named[\"fc\"](linear(2))",
        "param weight: [1] = 0\n  x * weight |> named[\"*\"](linear(2))",
        "x |> named[\"fc\"]",
    ]));
}

#[test]
fn definitions() {
    insta::assert_snapshot!(show(&[
        "block A(x) { x |> B }\nblock B(x) { x |> A }\nmodel M(x: f32[N]) { x |> A }",
        "block A(x) { x }\nblock A(x) { x }\nmodel M(x: f32[N]) { x |> A }",
        "block A(C, C)(x) { x }\nblock Lost(x) { x }\nmodel M(x: f32[N]) { x |> A(1, 2) }",
        "model M(x: f32[N, 2]) { param w: [2] ~ normal\n x + 1\n x |> relu }",
        "model M(x: f32[N, T, 2]) { scan t in T with h = zeros[N, 2] { yield h } }",
    ]));
}

#[test]
fn loops() {
    let body = |body: &str| {
        format!("model M(x: f32[N, T, 2]) {{ scan t in T with h = zeros[N, 2] {{ {body} }} }}")
    };
    let texts = [
        body("h = x[:, t]\n yield h at 7"),
        body("h = sum[n] h[n, 0]"),
        body("h = h + x[:, t]\n h"),
        "model M(x: f32[N, T]) { yield x }".to_owned(),
        "model M(x: f32[N, T]) { scan t in T with h, h = zeros[N] { h = h + 1 } }".to_owned(),
        "model M(x: f32[N, T]) { scan t in T with s = (x[:, 0], 1) { s = x[:, t] } }".to_owned(),
        "model M(x: f32[N, T]) { scan t in T reverse if x with h = 0 { h = h + 1 } }".to_owned(),
        "model M(x: f32[N, T]) { for k in x { x }\n x }".to_owned(),
    ];
    insta::assert_snapshot!(show(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn names_rebound_in_loops() {
    let model = |before: &str, body: &str| {
        format!(
            "model M(x: f32[N, T]) {{\n  {before}\n  \
               scan t in T with h = zeros[N] {{ {body}; h = h + m * x[:, t] }}\n}}"
        )
    };
    let texts = [
        model("m = 0.0", "m = m + 1"),
        model("let m = 1", "n, m = (m, m + 1)"),
        model("m = x[:, 0]", "m[n] = m[n] * m[n]"),
        model("m = x[:, 0]", "for k in 2 { m = m * m }"),
    ];
    insta::assert_snapshot!(show(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
    let own = model("m = x[:, 0]", "let m = 1; for k in 2 { m = 2 * m }");
    assert_eq!(messages(&own), "");
}

#[test]
fn states_that_are_never_set() {
    insta::assert_snapshot!(show_bodies(&[
        "state h = zeros[3]\n  h = h + mean[0, 2, 3](x)\n  h",
        "state h = 0\n  x + h",
        "state h = 0\n  if training { h[] = sum[n] x[n, 0, 0, 0] }\n  h",
    ]));
    let set = "model M(x: f32[N]) { state h = 0; h = h + 1; if training { h <- h }; x + h }";
    assert_eq!(messages(set), "");
}

#[test]
fn numbers() {
    insta::assert_snapshot!(show(&[
        "model M(x: f32[N, 7]) { let H = 7 / 2\n x |> as[N, H, 2] }",
        "model M(x: f32[N, 7]) { x |> split[0] }",
        "model M(x: f32[N, 7]) { if sum(x) > 0 { x } else { -x } }",
        "model M(x: f32[N, 7]) { x |> repeat 10_000_000 { relu } }",
        "model M(x: f32[N, 7]) { x |> dropout(1.5) }",
        "model M(x: f32[N, 7]) { x |> linear(2.5) }",
        "model M(x: f32[N, 7]) { x |> linear(1_000_000_000_000_000) }",
        "model M(x: f32[N, 7]) { 3 % 0 }",
        "model M(x: f32[N, 7]) { param w: [7] ~ relu\n x * w }",
    ]));
}

#[test]
fn limits() {
    let chain = |n: usize| {
        let block = |i: usize| format!("block B{i}(x) {{ x |> B{} }}\n", i + 1);
        let blocks: String = (0..n).map(block).collect();
        format!("{blocks}block B{n}(x) {{ x }}\nmodel M(x: f32[N]) {{ x |> B0 }}")
    };
    assert_eq!(messages(&chain(250)), "");
    let wide = "model M(x: f32[N]) { x |> repeat 1001 { repeat 1000 { tanh } } }";
    insta::assert_snapshot!([chain(300).as_str(), wide].map(messages).join("\n"));
}

#[test]
fn unbound_dims_are_reported_where_they_must_be_numbers() {
    let unit = crate::support::unit("model M(x: f32[N, D]) { x |> linear(3) }");
    let found = unit.check();
    assert!(found.is_empty(), "{}", unit.render(&found, Style::Plain));
    let none = dlc_kernel::Bindings::new();
    let errors = unit.model("M", &none, dlc_front::Mode::Infer).expect_err("D is not bound");
    let known = [("D".to_string(), 8)].into();
    let model = unit.model("M", &known, dlc_front::Mode::Infer).expect("D is bound");
    assert_eq!(model.param_count(), 27);
    let other = [("Q".to_string(), 8)].into();
    let unknown = unit.model("M", &other, dlc_front::Mode::Infer).expect_err("there is no Q");
    let all = [errors, unknown].concat();
    insta::assert_snapshot!(unit.render(&all, Style::Plain));
}

#[test]
fn models_with_sizes_that_data_defines() {
    insta::assert_snapshot!(show(&[
        "
model M(ids: i32[N, T]) -> f32[N, T, V] {
  ids |> embedding(V, 8) |> gru(8, revers = yes) |> linear(V)
}",
        "
model M(ids: i32[N, T]) -> f32[N, T, V] {
  ids |> embedding(V, 48) |> llama_block(8, 96, G = 3) |> linear(V)
}",
    ]));
}

#[test]
fn models_whose_states_have_open_sizes() {
    let signature = "model M(x: f32[N, T, 3], at: i32[]) -> f32[N, 4, 4]";
    insta::assert_snapshot!(show(&[
        &format!("{signature} {{ x |> remember(4, at) }}"),
        &format!("{signature} {{ unused = x * x\n  y = x |> remember(4, at)\n  y + x[:, :, :2] }}"),
        "model M(x: f32[N, D]) { y = x |> linear(D + 1)\n  y @ transpose(x) }",
    ]));
}

/// What is right with some size is no mistake.
#[test]
fn some_sizes_suit() {
    for text in [
        "model M(x: f32[N, D]) where D <= 64, D % 8 == 0 { x |> linear(D / 8) }",
        "model M(x: f32[N, 8], at: i32[]) where N <= 16 { x |> unsqueeze[1] |> remember(4, at) }",
        "model M(x: f32[N, D]) { y = x |> linear(D)\n  y[:, :D / 2] }",
        "model M(ids: i32[N, T]) -> [N, T, V] where V > 6000 { ids |> embedding(V, 8) |> linear(V) }",
    ] {
        let unit = crate::support::unit(text);
        let found = unit.check();
        assert!(found.is_empty(), "{}", unit.render(&found, Style::Plain));
    }
}

#[test]
fn constraints_wait_for_sizes() {
    let text = "block Heads(A)(x: [N, D]) where D % A == 0 { relu(x) }
model M(x: f32[N, D]) { x |> Heads(4) }";
    let unit = crate::support::unit(text);
    let none = dlc_kernel::Bindings::new();
    let model = unit.model("M", &none, dlc_front::Mode::Infer).expect("elaborates");
    let check = |d: i64| {
        let bindings = [("D".to_string(), d)].into();
        let broken = model.constraints.iter().find_map(|c| c.check(&bindings).err());
        broken.map(|diagnostic| unit.render(&[*diagnostic], Style::Plain))
    };
    assert_eq!(check(8), None);
    insta::assert_snapshot!(format!("{text}\n\n{}", check(6).expect("6 is not divisible by 4")));
}

#[test]
fn sections() {
    let model = "model M(x: f32[N, 4]) { x |> linear(2) }";
    let section = |text: &str| format!("{model}\n{text}");
    let data = "data tensors(x = f32[N, 4], y = i32[N])";
    let texts = [
        section("expect M { params == 11; shape(x = [3, 4]) == [3, 3]; params }"),
        section("expect N { params == 10 }\ntrain Q { epochs 1 }"),
        section("train M { epochs 3 }"),
        section(&format!("train M {{ {data}; loss M(x); optim sgd }}")),
        section(&format!("train M {{ {data}; loss mean(x); optim sgd }}")),
        section(&format!("train M {{ {data}; loss mean(f32(argmax(M(x)))); optim sgd }}")),
        section("train M { data cifar(\"d\"); loss 1; optim sgd }"),
        section(&format!("train M {{ {data}; loss cross_entropy(M(x), y); optim relu }}")),
        section(&format!(
            "train M {{ {data}; loss cross_entropy(M(x), y); optim sgd(lr = -1); epochs 0; epochs 1 }}"
        )),
        section(&format!(
            "train M {{ {data}; loss cross_entropy(M(x), label); optim sgd(lr = 0) }}"
        )),
        section(&format!("train M {{ {data}; loss mean(M(x)); optim sgd; accumulate 0 }}")),
        section(&format!("train M {{ {data}; loss mean(M(x)); optim sgd; clip -1.0 }}")),
    ];
    insta::assert_snapshot!(show(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn schedules() {
    let train = |optim: &str| {
        format!(
            "model M(x: f32[N, 4]) {{ mean(x |> linear(2)) }}
train M {{ data tensors(x = f32[N, 4]); loss M(x); optim {optim} }}"
        )
    };
    let with = |schedule: &str, optim: &str| format!("{schedule}\n{}", train(optim));
    let texts = [
        train("adam(lr = cosine)"),
        train("adam(lr = cosine(\"fast\"))"),
        train("adam(lr = cosine(1e-3, warmup = 1))"),
        train("adam(lr = cosine(-1))"),
        train("adam(lr = 2 * cosine(1e-3))"),
        train("adam(beta1 = cosine(0.9))"),
        train("adam(lr = cosine(cosine(1e-3)))"),
        train("cosine(1e-3)"),
        with("schedule wide(peak) { peak * ones[3] }", "adam(lr = wide(1e-3))"),
        with("schedule pair(a, b) { a * b }", "adam(lr = pair(1e-3))"),
        with("schedule late(peak) { peak * stpes }", "adam(lr = late(1e-3))"),
    ];
    insta::assert_snapshot!(show(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn losses() {
    let loss =
        |loss: &str| format!("model M(x: f32[N, 7, 4], y: i32[N, 7], mask: f32[N]) {{ {loss} }}");
    let texts =
        [loss("cross_entropy(x, y, mask = mask)"), loss("cross_entropy(x, y, smoothing = 1.5)")];
    insta::assert_snapshot!(show(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
}
