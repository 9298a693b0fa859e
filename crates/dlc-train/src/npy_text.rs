//! Arrays as text, as NumPy prints them.

use dlc_kernel::{Data, Tensor};

/// Tensors of more elements are shown by their edges.
const WHOLE: usize = 1000;
/// Elements shown at each end of an axis that is cut.
const EDGE: usize = 3;

/// The elements in nested brackets; of long axes the first and last three.
pub fn show(tensor: &Tensor) -> String {
    let mut text = String::new();
    let cut = tensor.data.len() > WHOLE;
    let width = if tensor.shape.is_empty() { 0 } else { column_width(tensor, cut) };
    let printer = Printer { tensor, cut, width };
    printer.axis(&mut text, 0, 0);
    text
}

struct Printer<'a> {
    tensor: &'a Tensor,
    cut: bool,
    width: usize,
}

impl Printer<'_> {
    /// Prints the part of axis `depth` and the following ones that starts at element `start`.
    fn axis(&self, text: &mut String, depth: usize, start: usize) {
        let shape = &self.tensor.shape;
        let Some(&extent) = shape.get(depth) else {
            let number = element(&self.tensor.data, start);
            *text += &format!("{number:>width$}", width = self.width);
            return;
        };
        let last = depth + 1 == shape.len();
        let stride: usize = shape[depth + 1..].iter().product();
        text.push('[');
        for (k, position) in shown(extent, self.cut).enumerate() {
            if k > 0 {
                *text += if last { " " } else { ",\n" };
                let indent = if last { 0 } else { depth + 1 };
                text.extend(std::iter::repeat_n(' ', indent));
            }
            match position {
                Some(i) => self.axis(text, depth + 1, start + i * stride),
                None => *text += "...",
            }
        }
        text.push(']');
    }
}

/// The positions to show of an axis; `None` stands for those left out.
fn shown(extent: usize, cut: bool) -> impl Iterator<Item = Option<usize>> {
    let cut = cut && extent > 2 * EDGE;
    let head = if cut { EDGE } else { extent };
    let tail = if cut { extent - EDGE..extent } else { 0..0 };
    (0..head).map(Some).chain(cut.then_some(None)).chain(tail.map(Some))
}

fn column_width(tensor: &Tensor, cut: bool) -> usize {
    let n = tensor.data.len();
    let sample: Vec<usize> = if cut {
        (0..100.min(n)).chain(n.saturating_sub(100)..n).collect()
    } else {
        (0..n).collect()
    };
    sample.into_iter().map(|i| element(&tensor.data, i).len()).max().unwrap_or(0)
}

fn element(data: &Data, i: usize) -> String {
    match data {
        Data::F32(v) => format!("{:?}", v[i]),
        Data::F64(v) => format!("{:?}", v[i]),
        Data::I64(v) => v[i].to_string(),
        Data::I32(v) => v[i].to_string(),
        Data::U8(v) => v[i].to_string(),
        Data::Bool(v) => (v[i] != 0).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_readable() {
        assert_eq!(show(&Tensor::f32([], vec![0.5])), "0.5");
        assert_eq!(show(&Tensor::f32([0], vec![])), "[]");
        assert_eq!(show(&Tensor::i32([2, 2], vec![1, -20, 3, 4])), "[[  1 -20],\n [  3   4]]");
        let long = Tensor::i32([2, 600], (0..1200).collect());
        let expected =
            "[[   0    1    2 ...  597  598  599],\n [ 600  601  602 ... 1197 1198 1199]]";
        assert_eq!(show(&long), expected);
    }
}
