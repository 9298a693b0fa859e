//! Tensors of the host keep room beyond their last element.

use dlc_kernel::{Data, Tensor};

#[test]
fn copies_have_room_too() {
    let data = [
        Data::F32(vec![1.5; 3]),
        Data::F64(vec![1.5; 3]),
        Data::I64(vec![7; 3]),
        Data::I32(vec![7; 3]),
        Data::U8(vec![7; 3]),
        Data::Bool(vec![1; 3]),
    ];
    for data in data {
        let tensor = Tensor::new(vec![3], data);
        let copy = tensor.clone();
        assert!(tensor.has_slack() && copy.has_slack(), "{copy:?}");
        assert_eq!(tensor, copy);
    }
}
