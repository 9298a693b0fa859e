//! `.npy` files: round trips, files as NumPy writes them, broken files.

use super::*;
use proptest::prelude::*;

/// A file with this header text, as `numpy.lib.format` lays it out.
fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let length = header.len() as u32;
    let length = if version == 1 {
        (length as u16).to_le_bytes().to_vec()
    } else {
        length.to_le_bytes().to_vec()
    };
    [MAGIC, &[version, 0][..], &length, header.as_bytes(), data].concat()
}

fn parse_all(bytes: &[u8]) -> Result<Tensor, FileProblem> {
    parse(&mut &*bytes, Some(bytes.len() as u64))
}

/// `numpy.save(f, numpy.array([[1, 2, 3], [4, 5, 6]], dtype=numpy.float32))`, whole.
const SAVED_BY_NUMPY: &[u8] = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, \
'shape': (2, 3), }                                                          \n\
\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@\x00\x00\xc0@";

#[test]
fn what_numpy_writes_is_read_and_written_to_the_byte() {
    let tensor = parse_all(SAVED_BY_NUMPY).unwrap();
    assert_eq!(tensor, Tensor::f32([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    assert_eq!(encode(&tensor), SAVED_BY_NUMPY);
}

#[test]
fn variants_of_the_header_are_read() {
    let fortran = "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }\n";
    let data: Vec<u8> = [1i32, 4, 2, 5, 3, 6].iter().flat_map(|x| x.to_le_bytes()).collect();
    let expected = Tensor::i32([2, 3], vec![1, 2, 3, 4, 5, 6]);
    assert_eq!(parse_all(&file(1, fortran, &data)).unwrap(), expected);
    let big = "{\"shape\": (2,), 'fortran_order': False, 'descr': '>f8'}";
    let data = [1.5f64.to_be_bytes(), (-2.0f64).to_be_bytes()].concat();
    let expected = Tensor::new(vec![2], Data::F64(vec![1.5, -2.0]));
    assert_eq!(parse_all(&file(2, big, &data)).unwrap(), expected);
    let scalar = "{'descr': '|b1', 'fortran_order': False, 'shape': (), }";
    let expected = Tensor::new(vec![], Data::Bool(vec![1]));
    assert_eq!(parse_all(&file(3, scalar, &[7])).unwrap(), expected);
    let empty = "{'descr': '<i8', 'fortran_order': True, 'shape': (0, 3), }";
    assert_eq!(parse_all(&file(1, empty, &[])).unwrap(), Tensor::zeros(DType::I64, [0, 3]));
}

#[test]
fn every_malformation_has_its_message() {
    let header = |text: &str| file(1, text, &[0; 8]);
    let with = |descr: &str, shape: &str| {
        header(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"))
    };
    let long = [SAVED_BY_NUMPY, &[0]].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "is truncated: 10 bytes expected, 0 found"),
        (SAVED_BY_NUMPY[..9].to_vec(), "is truncated: 10 bytes expected, 9 found"),
        (SAVED_BY_NUMPY[..50].to_vec(), "is truncated: 128 bytes expected, 50 found"),
        (SAVED_BY_NUMPY[..150].to_vec(), "is truncated: 152 bytes expected, 150 found"),
        (long, "is too long: 152 bytes expected"),
        (b"PK\x03\x04abcdefghijk".to_vec(), "is a zip archive"),
        (b"1.0, 2.0, 3.0, 4.0".to_vec(), "is not a NumPy array (.npy)"),
        (file(4, "{}", &[]), "format version 4 is not known"),
        (
            [&SAVED_BY_NUMPY[..6], &[2, 0, 0xff, 0xff, 0xff, 0xff]].concat(),
            "4294967295 bytes of header",
        ),
        (with("'<f2'", "(4,)"), "holds elements of type `<f2`"),
        (with("'<c8'", "(1,)"), "convert with .astype"),
        (with("[('a', '<f4')]", "(1,)"), "structured records"),
        (with("'?f4'", "(2,)"), "byte order `?`"),
        (with("'<f4'", "(-1,)"), "extent `-1`"),
        (with("'<f4'", "(2.0,)"), "extent `2.0`"),
        (with("'<f4'", "(2, 1"), "`shape` does not end"),
        (with("'<f4'", "(1,1,1,1,1,1,1,1,2)"), "9 dims exceed the limit of 8"),
        (with("'<f4'", "(4611686018427387904, 4)"), "exceeds the limit"),
        (with("''", "(2,)"), "holds elements of type ``"),
        (header("{'descr': '<f4', 'shape': (2,)}"), "`fortran_order` is missing"),
        (header("{'descr': '<f4', 'fortran_order': 1, 'shape': (2,)}"), "neither True nor False"),
        (header("{'color': 'red'}"), "key `color` is not known"),
        (header("[]"), "`{` is missing"),
        (header("{'descr': '<f4'"), "missing"),
    ];
    for (bytes, message) in cases {
        let problem = parse_all(&bytes).unwrap_err().to_string();
        assert!(problem.contains(message), "{problem:?} should say {message:?}");
    }
}

#[test]
fn arguments_name_arrays() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let x = Tensor::f32([2], vec![1.0, 2.0]);
    let y = Tensor::i32([1], vec![3]);
    write(path("image.npy").as_ref(), &x).unwrap();
    write_npz(path("both.npz").as_ref(), &[("x", &x), ("y", &y)]).unwrap();
    let names = |arguments: &[String]| {
        let inputs = read_inputs(arguments)?;
        Ok::<_, Error>(inputs.into_iter().map(|(n, _)| n).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(names(&[path("image.npy")]).unwrap(), "image");
    assert_eq!(names(&[format!("a={}", path("image.npy"))]).unwrap(), "a");
    assert_eq!(names(&[path("both.npz")]).unwrap(), "x y");
    assert_eq!(names(&[format!("y={}", path("both.npz"))]).unwrap(), "y");
    let unknown = names(&[format!("z={}", path("both.npz"))]).unwrap_err().to_string();
    assert!(unknown.ends_with("has no array `z`; it has: x, y"), "{unknown}");
    let twice = names(&[path("image.npy"), path("image.npy")]).unwrap_err().to_string();
    assert_eq!(twice, "input `image` is given twice");
}

proptest! {
    #[test]
    fn arrays_survive_the_round_trip(
        shape in prop::collection::vec(0usize..4, 0..5),
        kind in 0..6,
        seed: u64,
    ) {
        let n: usize = shape.iter().product();
        let bits = |i: usize| seed.wrapping_mul(6364136223846793005).wrapping_mul(i as u64 + 1);
        let data = match kind {
            0 => Data::F32((0..n).map(|i| bits(i) as i32 as f32).collect()),
            1 => Data::F64((0..n).map(|i| bits(i) as f64).collect()),
            2 => Data::I64((0..n).map(|i| bits(i) as i64).collect()),
            3 => Data::I32((0..n).map(|i| bits(i) as i32).collect()),
            4 => Data::U8((0..n).map(|i| bits(i) as u8).collect()),
            _ => Data::Bool((0..n).map(|i| bits(i) as u8 & 1).collect()),
        };
        let tensor = Tensor::new(shape, data);
        prop_assert_eq!(parse_all(&encode(&tensor)).unwrap(), tensor);
    }

    #[test]
    fn no_header_makes_it_panic(text in "[{}'\":,() a-z0-9<>|=-]{0,80}", tail: Vec<u8>) {
        let _ = parse_all(&file(1, &text, &tail));
    }

    #[test]
    fn no_flipped_byte_makes_it_panic(position in 0..SAVED_BY_NUMPY.len(), byte: u8) {
        let mut bytes = SAVED_BY_NUMPY.to_vec();
        bytes[position] = byte;
        let _ = parse_all(&bytes);
    }
}
