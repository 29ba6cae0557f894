//! Quantized blocks against the values of `PyPI`'s `gguf` (`data/gguf/make_blocks.py`).

use grok_wgpu::lab::{
    base::{quant, tensor::DType},
    checkpoint::gguf::{
        blocks::{Format, common, convert_row, dequantize},
        header::{self, Header},
    },
};

const FILE: &[u8] = include_bytes!("../data/gguf/blocks.gguf");

fn parsed() -> Header {
    header::parse(FILE, FILE.len() as u64).expect("a good file")
}

/// The two rows of a tensor, of 512 elements each.
fn rows(header: &Header, name: &str) -> Vec<Vec<u8>> {
    let info = header.tensors.iter().find(|info| info.name == name).expect("the tensor is there");
    assert_eq!(info.shape, [2, 512], "{name}");
    let [start, len] = [info.offset, info.len].map(|n| usize::try_from(n).expect("small"));
    FILE[start..start + len].chunks_exact(len / 2).map(<[u8]>::to_vec).collect()
}

fn floats(row: &[u8]) -> Vec<f32> {
    row.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_type_has_the_numbers_of_the_python_package() {
    let header = parsed();
    for (name, format) in [
        ("Q8_0", Format::Q8_0),
        ("Q4_0", Format::Q4_0),
        ("Q4_K", Format::Q4K),
        ("Q6_K", Format::Q6K),
        ("F16", Format::F16),
        ("BF16", Format::BF16),
    ] {
        let wanted = rows(&header, &format!("{name}.values"));
        for (row, wanted) in rows(&header, name).iter().zip(&wanted) {
            assert_eq!(row.len() as u64, format.row_bytes(512));
            let values = dequantize(format, row);
            assert_eq!(bits(&values), bits(&floats(wanted)), "{name}");
            assert!(values.iter().any(|value| value.to_bits() != values[0].to_bits()));
            // Decoding the converted rows as F32 gives the same values.
            let mut wide = Vec::new();
            convert_row(format, row, DType::F32, &mut wide);
            assert_eq!(wide, *wanted);
        }
    }
}

#[test]
fn repacking_loses_nothing() {
    let header = parsed();
    for (name, format, dtypes) in
        [("Q8_0", Format::Q8_0, &[DType::Q8][..]), ("Q4_0", Format::Q4_0, &[DType::Q4, DType::Q8])]
    {
        for (row, wanted) in
            rows(&header, name).iter().zip(rows(&header, &format!("{name}.values")))
        {
            for &dtype in dtypes {
                let mut packed = Vec::new();
                convert_row(format, row, dtype, &mut packed);
                let values = quant::decode_rows(dtype, 512, &packed);
                // Zero times a negative scale may be a negative zero on one side only.
                assert_eq!(values, floats(&wanted), "{name} as {dtype}");
            }
        }
    }
}

/// The error that `Q8` adds, relative to the values: its step is 1/127 of the largest in a block of
/// 32.
#[test]
fn what_eight_bits_make_of_k_quants_is_near() {
    let header = parsed();
    for (name, format, most) in [("Q4_K", Format::Q4K, 0.005), ("Q6_K", Format::Q6K, 0.007)] {
        let (mut error, mut size) = (0.0, 0.0);
        for row in rows(&header, name) {
            let values = dequantize(format, &row);
            let mut packed = Vec::new();
            convert_row(format, &row, DType::Q8, &mut packed);
            for (a, b) in values.iter().zip(quant::decode_rows(DType::Q8, 512, &packed)) {
                error += f64::from(a - b).powi(2);
                size += f64::from(*a).powi(2);
            }
        }
        let relative = (error / size).sqrt();
        eprintln!("{name} as Q8: relative error {relative:.5}");
        assert!(relative < most, "{name}: {relative}");
    }
}

#[test]
fn common_types_hold_both() {
    for (formats, wanted) in [
        (&[Format::Q8_0, Format::Q4_0][..], DType::Q8),
        (&[Format::Q4_0, Format::Q4_0], DType::Q4),
        (&[Format::Q6K, Format::Q4K, Format::Q8_0], DType::Q8),
        (&[Format::F16, Format::BF16], DType::F32),
        (&[Format::F16, Format::F16], DType::F16),
        (&[Format::Q8_0, Format::BF16], DType::F32),
    ] {
        assert_eq!(common(formats), wanted, "{formats:?}");
    }
}

#[test]
fn metadata_of_the_python_package() {
    let header = parsed();
    let metadata = &header.metadata;
    assert_eq!(metadata.text("general.architecture"), Ok(Some("grok")));
    assert_eq!(metadata.unsigned("test.unsigned"), Ok(Some(4_000_000_000)));
    assert_eq!(metadata.number("test.signed"), Ok(Some(-5.0)));
    assert_eq!(metadata.number("test.number"), Ok(Some(1e-5)));
    assert_eq!(metadata.text("test.text"), Ok(Some("größer")));
    assert_eq!(metadata.texts("test.texts"), Ok(Some(vec!["a", "", "Ġthe", "你好"])));
    assert_eq!(metadata.integers("test.integers"), Ok(Some(vec![1, -2, 3])));
    assert_eq!(metadata.text("test.none"), Ok(None));
    for told in [
        metadata.unsigned("test.signed").expect_err("negative"),
        metadata.number("test.flag").expect_err("a flag"),
        metadata.texts("test.text").expect_err("one text"),
        metadata.text("test.number").expect_err("a number"),
    ] {
        assert!(told.starts_with("test.") && told.contains(", wanted "), "{told}");
    }
}
