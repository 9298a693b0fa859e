//! Data sets as the language sees them: their fields and types.

use dlc_graph::Type;
use dlc_kernel::{DType, Size};

use super::value::Val;
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{Arg, ExprId, ExprKind, Subscript};
use crate::diagnostic::{Diagnostic, nearest, sanitize};
use crate::source::Span;

/// A data set as written.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSpec {
    /// Its name: `mnist`, `tensors`.
    pub dataset: String,
    /// Its arguments, in order.
    pub args: Vec<(Option<String>, DataArg)>,
    /// Where it is written.
    pub span: Span,
}

/// An argument of a data set.
#[derive(Clone, Debug, PartialEq)]
pub enum DataArg {
    /// A path, relative to the model's file, or another text.
    Text(String),
    /// A number.
    Number(f64),
    /// The type of a field that the program hands in.
    Type(Type),
}

/// The fields of a data set.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub types: Vec<(String, Type)>,
    pub batch_dim: String,
}

/// The known data sets.
const KNOWN: [&str; 2] = ["mnist", "tensors"];

/// Reads the expression after `data`.
pub(super) fn describe(elab: &mut Elab<'_>, source: ExprId) -> Eval<(DataSpec, Fields)> {
    let ast = elab.ast();
    let span = ast.span(source);
    let (callee, args) = match &ast[source].kind {
        ExprKind::Call { callee, args } => (*callee, args.as_slice()),
        _ => (source, &[][..]),
    };
    let ExprKind::Name(name) = &ast[callee].kind else {
        return Err(unknown(elab, "this", span));
    };
    match &**name {
        "mnist" => {
            let args = args.iter().map(|arg| value_argument(elab, arg)).collect::<Eval<_>>()?;
            let fields = Fields { types: mnist(), batch_dim: "N".into() };
            Ok((DataSpec { dataset: name.to_string(), args, span }, fields))
        }
        "tensors" => {
            let types: Vec<(String, Type)> =
                args.iter().map(|arg| field_argument(elab, arg)).collect::<Eval<_>>()?;
            let batch_dim = batch_dim(elab, &types, span)?;
            let args = types.iter().cloned();
            let args = args.map(|(name, ty)| (Some(name), DataArg::Type(ty))).collect();
            let fields = Fields { types, batch_dim };
            Ok((DataSpec { dataset: name.to_string(), args, span }, fields))
        }
        other => Err(unknown(elab, other, ast.span(callee))),
    }
}

/// MNIST: images from 0 to 1, digits from 0 to 9.
fn mnist() -> Vec<(String, Type)> {
    let n = Size::symbol("N");
    let image = [n.clone(), Size::ONE, 28i64.into(), 28i64.into()];
    vec![
        ("image".into(), Type::new(DType::F32, image)),
        ("label".into(), Type::new(super::training::LABEL, [n])),
    ]
}

fn unknown(elab: &mut Elab<'_>, name: &str, span: Span) -> super::Reported {
    let title = format!("`{}` is not a known data set", sanitize(name));
    let mut diagnostic = Diagnostic::error(Code::UnknownData, title, span, "unknown data set")
        .note(format!("there are: `{}`", KNOWN.join("`, `")));
    if let Some(near) = nearest(name, KNOWN) {
        diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
    }
    elab.fail(diagnostic)
}

fn value_argument(elab: &mut Elab<'_>, arg: &Arg) -> Eval<(Option<String>, DataArg)> {
    let span = elab.ast().span(arg.value);
    let value = elab.eval(arg.value)?;
    let name = arg.name.as_ref().map(|name| name.text.to_string());
    match (&value, value.as_number()) {
        (Val::Str(text), _) => Ok((name, DataArg::Text(text.to_string()))),
        (_, Some(number)) => Ok((name, DataArg::Number(number))),
        _ => {
            let title = format!("a path or number is needed, not {}", value.describe());
            Err(elab.fail(Diagnostic::error(Code::HyperType, title, span, value.describe())))
        }
    }
}

/// `x = f32[N, 4]`.
fn field_argument(elab: &mut Elab<'_>, arg: &Arg) -> Eval<(String, Type)> {
    let ast = elab.ast();
    let span = ast.span(arg.value);
    if let (Some(name), ExprKind::Bracket { base, subscripts }) = (&arg.name, &ast[arg.value].kind)
        && let ExprKind::Name(dtype) = &ast[*base].kind
        && let Some(dtype) = DType::from_name(dtype)
    {
        let dims = subscripts.iter().map(|dim| field_dim(elab, dim, span));
        let dims = dims.collect::<Eval<Vec<Size>>>()?;
        return Ok((name.text.to_string(), Type::new(dtype, dims)));
    }
    let title = "a field is given as `name = type`";
    let diagnostic = Diagnostic::error(Code::UnknownData, title, span, "")
        .help("for example `tensors(x = f32[N, 4], y = i32[N])`");
    Err(elab.fail(diagnostic))
}

fn field_dim(elab: &mut Elab<'_>, dim: &Subscript, span: Span) -> Eval<Size> {
    let Subscript::Expr(id) = dim else {
        let title = "a dim of a field is a name or a number";
        return Err(elab.fail(Diagnostic::error(Code::UnknownData, title, span, "")));
    };
    let ast = elab.ast();
    if let ExprKind::Name(name) = &ast[*id].kind
        && !elab.globals.contains_key(name)
    {
        let bound = elab.bindings.get(&**name).copied();
        return Ok(bound.map_or_else(|| Size::symbol(name), Size::from));
    }
    let value = elab.eval(*id)?;
    let size = elab.expect_size(&value, "a dim", ast.span(*id))?;
    elab.check_size(&size, ast.span(*id))?;
    Ok(size)
}

/// The first dim of all fields.
fn batch_dim(elab: &mut Elab<'_>, types: &[(String, Type)], span: Span) -> Eval<String> {
    let mut firsts = types.iter().map(|(_, ty)| ty.shape.first().and_then(Size::as_symbol));
    let first = firsts.next().flatten();
    match first {
        Some(dim) if firsts.all(|other| other == Some(dim)) => Ok(dim.to_string()),
        _ => {
            let title = "the first dim of every field is the batch";
            let diagnostic = Diagnostic::error(Code::UnknownData, title, span, "")
                .help("for example `tensors(x = f32[N, 4], y = i32[N])`");
            Err(elab.fail(diagnostic))
        }
    }
}
