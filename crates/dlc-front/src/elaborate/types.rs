//! Types as written: element types and dims.

use dlc_graph::Shape;
use dlc_kernel::DType;

use super::value::{DEFAULT_FLOAT, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{Dim, TypeExpr};
use crate::diagnostic::{Diagnostic, nearest, sanitize};

impl Elab<'_> {
    /// The element type that is written, if one is.
    pub(super) fn declared_dtype(&mut self, ty: &TypeExpr) -> Eval<Option<DType>> {
        let Some(name) = &ty.dtype else { return Ok(None) };
        if let Some(dtype) = DType::from_name(&name.text) {
            return Ok(Some(dtype));
        }
        let title = format!("`{}` is not an element type", sanitize(&name.text));
        let known = DType::ALL.map(DType::name);
        let mut diagnostic = Diagnostic::error(Code::UnknownName, title, name.span, "unknown type")
            .note(format!("there are: {}", known.join(", ")));
        if let Some(near) = nearest(&name.text, known) {
            diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
        }
        Err(self.fail(diagnostic))
    }

    /// The element type (a float by default) and the extents.
    pub(super) fn eval_type(&mut self, ty: &TypeExpr) -> Eval<(DType, Shape)> {
        let dtype = self.declared_dtype(ty)?.unwrap_or(DEFAULT_FLOAT);
        let mut shape = Shape::new();
        for dim in &ty.dims {
            match dim {
                Dim::Rest { name: Some(name), span } => {
                    let sizes = self.lookup(&name.text, *span)?;
                    shape.extend(self.expect_sizes(&sizes, *span)?);
                }
                Dim::Rest { name: None, span } => {
                    let title = "`..` without a name has no sizes here";
                    let diagnostic = Diagnostic::error(Code::BadSize, title, *span, "")
                        .help("name the dims in the signature: `x: [..B, I]`");
                    return Err(self.fail(diagnostic));
                }
                Dim::Size(size) => {
                    let span = self.ast().span(*size);
                    let value = self.eval(*size)?;
                    if let Val::List(_) = value {
                        shape.extend(self.expect_sizes(&value, span)?);
                        continue;
                    }
                    let size = self.expect_size(&value, "a dim", span)?;
                    self.check_size(&size, span)?;
                    shape.push(size);
                }
            }
        }
        Ok((dtype, shape))
    }

    /// A list of whole numbers; one number counts as a list.
    pub(super) fn expect_sizes(&mut self, val: &Val, span: crate::Span) -> Eval<Shape> {
        match val {
            Val::List(items) | Val::Tuple(items, _) => {
                items.iter().map(|item| self.expect_size(item, "a size", span)).collect()
            }
            other => Ok([self.expect_size(other, "a size", span)?].into_iter().collect()),
        }
    }
}
