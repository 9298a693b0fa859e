//! Data sets as the language sees them: their fields and types.

use std::ops::RangeInclusive;
use std::sync::Arc;

use dlc_graph::Type;
use dlc_kernel::{Bindings, DType, Size};

use super::scope::Frame;
use super::value::Val;
use super::{Elab, Eval, Mode};
use crate::Code;
use crate::ast::{Arg, ExprId, ExprKind, Subscript, Train, TrainKind};
use crate::diagnostic::{Diagnostic, nearest, sanitize};
use crate::source::Span;
use crate::unit::Unit;

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
    /// Yes or no.
    Flag(bool),
    /// The type of a field that the program hands in.
    Type(Type),
}

/// The fields of a data set.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub types: Vec<(String, Type)>,
    pub batch_dim: String,
    /// The size that is bound to it. The dim stays open all the same: the last batch of an epoch may
    /// be smaller.
    pub batch: Option<i64>,
}

/// A data set that is read from files.
struct Kind {
    name: &'static str,
    /// How many paths it is given; one that needs none has a place of its own.
    paths: RangeInclusive<usize>,
    /// The whole numbers it may be given by name.
    numbers: &'static [&'static str],
    /// What it may be told by name with `yes` or `no`.
    flags: &'static [&'static str],
    /// Whether it may be given a `vocabulary`, a path, instead of learning one as it is told.
    takes_vocabulary: bool,
    /// The numbers that it must be given.
    required: &'static [&'static str],
    fields: &'static [(&'static str, DType, &'static [Extent])],
}

/// A dim of a field.
enum Extent {
    Known(i64),
    /// A number the data set is given or finds out itself, or the batch, `N`.
    Named(&'static str),
}

use Extent::{Known, Named};

/// The batch of a data set that is read from files.
const BATCH: &str = "N";
const N: Extent = Named(BATCH);
const S: Extent = Named("S");
const T: Extent = Named("T");
const IDS: DType = super::training::LABEL;

const KINDS: [Kind; 6] = [
    Kind {
        name: "mnist",
        paths: 0..=1,
        numbers: &[],
        flags: &[],
        takes_vocabulary: false,
        required: &[],
        fields: &[
            ("image", DType::F32, &[N, Known(1), Known(28), Known(28)]),
            ("label", IDS, &[N]),
        ],
    },
    Kind {
        name: "text",
        paths: 1..=1,
        numbers: &["T", "stride", "bpe"],
        flags: &[],
        takes_vocabulary: true,
        required: &["T"],
        fields: &[("ids", IDS, &[N, T]), ("next", IDS, &[N, T])],
    },
    Kind {
        name: "lines",
        paths: 1..=1,
        numbers: &["T", "bpe", "bucket"],
        flags: &[],
        takes_vocabulary: true,
        required: &[],
        fields: &[
            ("ids", IDS, &[N, T]),
            ("next", IDS, &[N, T]),
            ("mask", DType::F32, &[N, T]),
            ("length", IDS, &[N]),
        ],
    },
    Kind {
        name: "pairs",
        paths: 2..=2,
        numbers: &["S", "T", "bpe", "bucket"],
        flags: &["joint"],
        takes_vocabulary: true,
        required: &[],
        fields: &[
            ("source", IDS, &[N, S]),
            ("source_length", IDS, &[N]),
            ("ids", IDS, &[N, T]),
            ("next", IDS, &[N, T]),
            ("mask", DType::F32, &[N, T]),
            ("length", IDS, &[N]),
        ],
    },
    Kind {
        name: "sequences",
        paths: 1..=1,
        numbers: &["T"],
        flags: &[],
        takes_vocabulary: true,
        required: &[],
        fields: &[("ids", IDS, &[N, T]), ("length", IDS, &[N]), ("label", IDS, &[N])],
    },
    Kind {
        name: "chorales",
        paths: 1..=1,
        numbers: &["T"],
        flags: &[],
        takes_vocabulary: false,
        required: &["T"],
        fields: &[
            ("notes", DType::F32, &[N, T, Known(88)]),
            ("next", DType::F32, &[N, T, Known(88)]),
            ("mask", DType::F32, &[N, T]),
        ],
    },
];

/// The name of the vocabulary that a data set is given.
const VOCABULARY: &str = "vocabulary";
/// What says how a vocabulary is learned.
const LEARNING: [&str; 2] = ["bpe", "joint"];

/// The data set whose fields a program hands in.
const TENSORS: &str = "tensors";

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
    if &**name == TENSORS {
        return describe_tensors(elab, args, span);
    }
    let Some(kind) = KINDS.iter().find(|kind| kind.name == &**name) else {
        return Err(unknown(elab, name, ast.span(callee)));
    };
    let args = args.iter().map(|arg| value_argument(elab, kind, arg)).collect::<Eval<Vec<_>>>()?;
    let spec = DataSpec { dataset: name.to_string(), args, span };
    kind.check(elab, &spec)?;
    let batch = elab.bindings.remove(BATCH);
    let types = kind.fields.iter().map(|(name, dtype, extents)| {
        let shape = extents.iter().map(|extent| extent.size(elab, &spec));
        ((*name).to_string(), Type::new(*dtype, shape))
    });
    let types = types.collect();
    Ok((spec, Fields { types, batch_dim: BATCH.into(), batch }))
}

/// The data sets that a section reads: its own, then that for validation if it names one.
pub(crate) fn sources(unit: &Unit, section: &Train) -> Result<Vec<DataSpec>, Vec<Diagnostic>> {
    let mut elab = Elab::new(unit, Mode::Train, Bindings::new());
    elab.frames.push(Frame::new(0, None, "".into()));
    elab.bind_globals();
    let sources = section.stmts.iter().filter_map(|stmt| match &stmt.kind {
        TrainKind::Data { source, .. } => Some((0, *source)),
        TrainKind::Validation(source) => {
            matches!(unit.ast(0)[*source].kind, ExprKind::Call { .. }).then_some((1, *source))
        }
        _ => None,
    });
    let mut sources: Vec<(u8, ExprId)> = sources.collect();
    sources.sort_by_key(|(order, _)| *order);
    let specs: Eval<Vec<DataSpec>> =
        sources.iter().map(|(_, source)| Ok(describe(&mut elab, *source)?.0)).collect();
    specs.map_err(|_| elab.diagnostics)
}

fn describe_tensors(elab: &mut Elab<'_>, args: &[Arg], span: Span) -> Eval<(DataSpec, Fields)> {
    let first = args.first().and_then(|arg| first_dim(elab, arg));
    let batch = first.and_then(|dim| elab.bindings.remove(&*dim));
    let types: Vec<(String, Type)> =
        args.iter().map(|arg| field_argument(elab, arg)).collect::<Eval<_>>()?;
    let batch_dim = batch_dim(elab, &types, span)?;
    let args = types.iter().cloned();
    let args = args.map(|(name, ty)| (Some(name), DataArg::Type(ty))).collect();
    Ok((DataSpec { dataset: TENSORS.into(), args, span }, Fields { types, batch_dim, batch }))
}

impl DataSpec {
    /// The number given under that name.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.args.iter().find_map(|(given, arg)| match arg {
            DataArg::Number(value) if given.as_deref() == Some(name) => Some(*value as i64),
            _ => None,
        })
    }

    /// What is said under that name.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.args.iter().find_map(|(given, arg)| match arg {
            DataArg::Flag(value) if given.as_deref() == Some(name) => Some(*value),
            _ => None,
        })
    }

    /// The error for files of it that cannot be read, at the line that names them.
    pub fn unreadable(&self, problem: impl Into<String>) -> Diagnostic {
        Diagnostic::error(Code::UnreadableData, problem, self.span, "read for this")
    }

    /// The paths of its files, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.texts().filter(|(name, _)| name.is_none()).map(|(_, text)| text)
    }

    /// The path of the weights' file whose vocabulary it has, if it is given one.
    #[must_use]
    pub fn vocabulary(&self) -> Option<&str> {
        self.texts().find(|(name, _)| *name == Some(VOCABULARY)).map(|(_, text)| text)
    }

    fn texts(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        self.args.iter().filter_map(|(name, arg)| match arg {
            DataArg::Text(text) => Some((name.as_deref(), text.as_str())),
            _ => None,
        })
    }
}

impl Kind {
    /// Whether it is given what it needs.
    fn check(&self, elab: &mut Elab<'_>, spec: &DataSpec) -> Eval<()> {
        let missing = self.required.iter().find(|name| spec.number(name).is_none());
        let paths = spec.paths().count();
        let given = |name: &&&str| spec.args.iter().any(|(n, _)| n.as_deref() == Some(**name));
        let learned = spec.vocabulary().and_then(|_| LEARNING.iter().find(given));
        let title = match (missing, learned) {
            (Some(name), _) => format!("`{}` needs the number `{name}`", self.name),
            (None, Some(how)) => {
                format!("`{how}` says how a vocabulary is learned, but `{VOCABULARY}` gives one")
            }
            _ if !self.paths.contains(&paths) => {
                let (least, most) = (self.paths.start(), self.paths.end());
                let wanted = if least == most { most.to_string() } else { "one at most".into() };
                format!("`{}` is given {paths} paths, not {wanted}", self.name)
            }
            _ => return Ok(()),
        };
        let diagnostic = Diagnostic::error(Code::Arguments, title, spec.span, "")
            .note(format!("it is written {}", self.usage()));
        Err(elab.fail(diagnostic))
    }

    /// `text("FILE", T = .., stride = .., bpe = ..)`.
    fn usage(&self) -> String {
        let paths = std::iter::repeat_n("\"PATH\"".to_string(), *self.paths.end());
        let numbers = self.numbers.iter().map(|name| format!("{name} = .."));
        let flags = self.flags.iter().map(|name| format!("{name} = yes"));
        let words = self.takes_vocabulary.then(|| format!("{VOCABULARY} = \"PATH\""));
        let all: Vec<String> = paths.chain(numbers).chain(flags).chain(words).collect();
        format!("`{}({})`", self.name, all.join(", "))
    }
}

impl Extent {
    /// What is bound, else what the data set is given, else a symbol.
    fn size(&self, elab: &Elab<'_>, spec: &DataSpec) -> Size {
        match self {
            Known(size) => Size::from(*size),
            Named(name) => {
                let bound = elab.bindings.get(*name).copied();
                bound.or_else(|| spec.number(name)).map_or_else(|| Size::symbol(name), Size::from)
            }
        }
    }
}

fn known() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name).chain([TENSORS])
}

fn unknown(elab: &mut Elab<'_>, name: &str, span: Span) -> super::Reported {
    let title = format!("`{}` is not a known data set", sanitize(name));
    let mut diagnostic = Diagnostic::error(Code::UnknownData, title, span, "unknown data set")
        .note(format!("there are: `{}`", known().collect::<Vec<_>>().join("`, `")));
    if let Some(near) = nearest(name, known()) {
        diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
    }
    elab.fail(diagnostic)
}

/// A path, or a whole number, yes or no, or a vocabulary under one of the names that the data set knows.
fn value_argument(elab: &mut Elab<'_>, kind: &Kind, arg: &Arg) -> Eval<(Option<String>, DataArg)> {
    let span = elab.ast().span(arg.value);
    let value = elab.eval(arg.value)?;
    let name = arg.name.as_ref().map(|name| name.text.to_string());
    let is_number = |name: &String| kind.numbers.contains(&name.as_str());
    let is_flag = |name: &String| kind.flags.contains(&name.as_str());
    let is_vocabulary = |name: &str| kind.takes_vocabulary && name == VOCABULARY;
    let title = match (&name, &value, value.as_number()) {
        (None, Val::Str(text), _) => return Ok((None, DataArg::Text(text.to_string()))),
        (Some(name), Val::Str(text), _) if is_vocabulary(name) => {
            return Ok((Some(name.clone()), DataArg::Text(text.to_string())));
        }
        (Some(name), _, _) if is_vocabulary(name) => {
            format!("`{name}` is the path of a weights' file, not {}", value.describe())
        }
        (Some(flag), Val::Bool(value), _) if is_flag(flag) => {
            return Ok((name, DataArg::Flag(*value)));
        }
        (Some(name), _, _) if is_flag(name) => {
            format!("`{name}` is `yes` or `no`, not {}", value.describe())
        }
        (Some(name), _, _) if !is_number(name) => {
            format!("`{}` has no argument `{}`", kind.name, sanitize(name))
        }
        (Some(_), _, Some(number)) if number >= 1.0 && number.fract() == 0.0 => {
            return Ok((name, DataArg::Number(number)));
        }
        (Some(name), _, _) => {
            format!("`{name}` is a whole number from 1 on, not {}", value.describe())
        }
        (None, _, _) => format!("a path is needed, not {}", value.describe()),
    };
    let diagnostic = Diagnostic::error(Code::HyperType, title, span, value.describe())
        .note(format!("the data set is written {}", kind.usage()));
    Err(elab.fail(diagnostic))
}

/// The `N` of `x = f32[N, 4]`.
fn first_dim(elab: &Elab<'_>, arg: &Arg) -> Option<Arc<str>> {
    let ast = elab.ast();
    let ExprKind::Bracket { subscripts, .. } = &ast[arg.value].kind else { return None };
    let Some(Subscript::Expr(dim)) = subscripts.first() else { return None };
    match &ast[*dim].kind {
        ExprKind::Name(name) => Some(name.clone()),
        _ => None,
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
