//! Malformed safetensors files, with the `safetensors` crate as a second opinion.

use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::{
        Synthetic,
        safetensors::{Entry, MAX_HEADER, header_len, parse},
        write::Layout,
    },
    model::config::Config,
};

use crate::memory::{Files, file, open, problems, write};

/// Reads the header of a file as a checkpoint does.
fn entries(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let file_len = bytes.len() as u64;
    let len = header_len(&bytes[..bytes.len().min(512)], file_len)?;
    let end = 8 + usize::try_from(len).expect("no longer than the file");
    parse(&bytes[8..end], file_len)
}

/// The problem with a file of this header and this many bytes of data.
fn refused(header: &str, data: usize) -> String {
    let bytes = file(header.as_bytes(), &vec![0; data]);
    assert!(safetensors::SafeTensors::read_metadata(&bytes).is_err(), "the crate reads {header}");
    entries(&bytes).expect_err(header)
}

fn assert_refused(header: &str, data: usize, reason: &str) {
    let told = refused(header, data);
    assert!(told.contains(reason), "{header}: {told}");
}

/// Files too short for a header.
#[test]
fn short_files() {
    for len in [0, 1, 7] {
        let told = entries(&vec![0; len]).expect_err("too short");
        assert_eq!(told, format!("the file is too short for a safetensors header ({len} bytes)"));
    }
}

/// Impossible header lengths. Nothing is allocated for them.
#[test]
fn header_lengths() {
    for (length, reason) in [
        (0, "malformed header at byte 8: it is 0 bytes long"),
        (1, "malformed header at byte 8: it is 1 bytes long"),
        (u64::MAX, "but the file has only 12 bytes"),
        (1 << 63, "but the file has only 12 bytes"),
        (13, "but the file has only 12 bytes"),
    ] {
        let bytes = [&length.to_le_bytes()[..], b"{          }"].concat();
        let told = entries(&bytes).expect_err("a bad length");
        assert!(told.contains(reason), "{length}: {told}");
    }
    let told = entries(&file(b"{", b"")).expect_err("one byte");
    assert!(told.contains("at byte 8"), "{told}");
    let told = entries(&file(b"{ ", b"")).expect_err("an object without end");
    assert!(told.contains("malformed header at byte"), "{told}");
}

/// A header over the limit, in a file that is long enough.
#[test]
fn a_header_over_the_limit() {
    let start = (MAX_HEADER + 1).to_le_bytes();
    let told = header_len(&start, MAX_HEADER + 1000).expect_err("too large");
    assert_eq!(told, "a header of 100000001 bytes is too large (at most 100000000)");
    assert_eq!(header_len(&MAX_HEADER.to_le_bytes(), MAX_HEADER + 1000), Ok(MAX_HEADER));
}

/// Headers in other encodings than UTF-8.
#[test]
fn encodings() {
    let told = entries(&file(b"{\"a\xff\":1}", b"")).expect_err("not UTF-8");
    assert_eq!(told, "malformed header: not UTF-8 at byte 11");
    for header in ["\u{feff}{}", " {}", "\n{}"] {
        let told = entries(&file(header.as_bytes(), b"")).expect_err(header);
        assert!(told.contains("at byte 8"), "{told}");
    }
    for header in ["{\"a\0\":1}", "{\0}", "{}\0"] {
        assert_refused(header, 0, "malformed header at byte");
    }
    let utf_16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(entries(&file(&utf_16, b"")).is_err());
    assert_eq!(entries(&file(b"{}      ", b"")), Ok(Vec::new()));
}

/// JSON that is not an object of tensors, or far too much of it.
#[test]
fn json_of_the_wrong_kind() {
    for header in ["[]", "12", "null", "\"a\"", "{\"a\":1}", "{\"a\":[]}", "{\"a\":{}}", "{} {}"] {
        let told = entries(&file(header.as_bytes(), b"")).expect_err(header);
        assert!(told.contains("malformed header at byte"), "{told}");
    }
    let deep = "{\"a\":".to_owned() + &"[".repeat(10_000) + &"]".repeat(10_000) + "}";
    assert_refused(&deep, 0, "malformed header");
    let deep = format!("{{\"a\":{{\"dtype\":{}", "[".repeat(10_000));
    assert_refused(&deep, 0, "malformed header");
    let long = format!("{{\"{}\":1}}", "k".repeat(5_000_000));
    let told = refused(&long, 0);
    assert!(told.contains("5000000 bytes is too long") && told.len() < 600, "{told}");
}

/// Many tensors are valid up to a bound, at which the parser stops.
#[test]
fn many_tensors() {
    let header = |count: usize| {
        let mut header = String::from("{");
        for i in 0..count {
            let comma = if i == 0 { "" } else { "," };
            let entry = format!(
                "{{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[{},{}]}}",
                2 * i,
                2 * i + 2
            );
            header.extend([comma, "\"", &i.to_string(), "\":", &entry]);
        }
        header + "}"
    };
    let many = entries(&file(header(20_000).as_bytes(), &vec![0; 40_000])).expect("a good file");
    assert_eq!(many.len(), 20_000);
    assert!(many.windows(2).all(|pair| pair[0].offset + 2 == pair[1].offset));
    let told = entries(&file(header(1_000_000).as_bytes(), &[])).expect_err("too many");
    assert!(told.contains("more than 200000 tensors"), "{told}");
}

/// Duplicate names and fields, and metadata.
#[test]
fn duplicates_and_metadata() {
    const A: &str = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    for other in [A, r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#] {
        let bytes = file(format!("{{\"a\":{A},\"a\":{other}}}").as_bytes(), &[0; 8]);
        assert_eq!(entries(&bytes), Err("duplicate tensor `a`".into()));
        // The same name twice, once with an escape sequence.
        let bytes = file(format!("{{\"a\":{A},\"\\u0061\":{other}}}").as_bytes(), &[0; 8]);
        assert_eq!(entries(&bytes), Err("duplicate tensor `a`".into()));
    }
    let metadata = |text: &str| {
        entries(&file(format!("{{\"__metadata__\":{text},\"a\":{A}}}").as_bytes(), &[0; 4]))
    };
    assert_eq!(metadata(r#"{"format":"pt"}"#).map(|found| found.len()), Ok(1));
    assert_eq!(metadata("null").map(|found| found.len()), Ok(1), "as the safetensors library");
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(5_000_000));
    assert_eq!(metadata(&large).map(|found| found.len()), Ok(1));
    for bad in ["1", "[]", r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":{"b":"c"}}"#] {
        let told = metadata(bad).expect_err(bad);
        assert!(told.contains("malformed header at byte"), "{told}");
    }
    let twice = metadata(r#"{},"__metadata__":{}"#).expect_err("two of them");
    assert!(twice.contains("duplicate `__metadata__`"), "{twice}");
    let field = format!("{{\"a\":{}}}", A.replacen('{', r#"{"dtype":"F16","#, 1));
    assert_refused(&field, 4, "duplicate field `dtype`");
}

/// A header of byte tensors `a`, `b`, ... with these data offsets.
fn offsets(list: &[(u64, u64)]) -> String {
    let entry = |(name, (begin, end)): (char, &(u64, u64))| {
        let len = end.wrapping_sub(*begin);
        format!(
            "\"{name}\":{{\"dtype\":\"U8\",\"shape\":[{len}],\"data_offsets\":[{begin},{end}]}}"
        )
    };
    let list: Vec<String> = ('a'..='z').zip(list).map(entry).collect();
    format!("{{{}}}", list.join(","))
}

/// Tensors that do not cover the data exactly once.
#[test]
fn offsets_that_do_not_cover_the_data() {
    for (list, data, reason) in [
        (&[(0, 4), (2, 6)][..], 6, "`b`: data_offsets begin at 2, wanted 4: there is an overlap"),
        (&[(0, 4), (0, 4)], 4, "there is an overlap"),
        (&[(0, 4), (6, 8)], 8, "`b`: data_offsets begin at 6, wanted 4: there is a hole before it"),
        (&[(1, 4)], 4, "`a`: data_offsets begin at 1, wanted 0"),
        (&[(0, 4)], 6, "the file is longer than its header says: it has 6 bytes of data, needs 4"),
        (&[(0, 4), (4, 8)], 7, "the file is shorter than its header says: it has 7"),
        (&[(0, 4), (4, 8)], 4, "the file is shorter than its header says: it has 4"),
        (&[(0, 4), (4, 8)], 0, "the file is shorter than its header says: it has 0"),
        (&[(0, 1 << 60)], 8, "the file is shorter than its header says"),
        (&[], 1, "the file is longer than its header says"),
    ] {
        assert_refused(&offsets(list), data, reason);
    }
    // Tensors may be in any order in the header.
    let found = entries(&file(offsets(&[(4, 8), (0, 4)]).as_bytes(), &[0; 8])).expect("good");
    assert_eq!(found.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
}

/// The fields of a tensor: type, shape, offsets.
#[test]
fn fields_of_a_tensor() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"x\":{{\"dtype\":{dtype},\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    let f32 = |shape: &str, offsets: &str| one("\"F32\"", shape, offsets);
    for (header, reason) in [
        (f32("[1]", "[4,0]"), "`x`: data_offsets end at 0, before 4"),
        (f32("[1]", "[0,8]"), "hold 8 bytes, but shape [1] of F32 needs 4"),
        (f32("[1]", "[-1,4]"), "`x`: invalid value"),
        (f32("[1]", "[0,1.5]"), "`x`: invalid type"),
        (f32("[1]", "[0,1e3]"), "`x`: invalid type"),
        (f32("[1]", "[0,\"4\"]"), "`x`: invalid type"),
        (f32("[1]", "[0]"), "`x`: invalid length"),
        (f32("[1]", "[0,4,8]"), "malformed header"),
        (f32("[-1]", "[0,4]"), "`x`: invalid value"),
        (f32("[1.0]", "[0,4]"), "`x`: invalid type"),
        (f32("1", "[0,4]"), "`x`: invalid type"),
        (f32("[4294967296,4294967296]", "[0,4]"), "overflows"),
        (f32("[9223372036854775808]", "[0,4]"), "overflows"),
        (f32("[576460752303423488]", "[0,4]"), "overflows"),
        (f32("[18446744073709551616]", "[0,4]"), "malformed header"),
        (one("\"F4\"", "[1]", "[0,1]"), "not a whole number of bytes"),
        (one("\"f32\"", "[1]", "[0,4]"), "unsupported dtype f32 for `x`"),
        (one("\"Q8\"", "[1]", "[0,4]"), "unsupported dtype Q8 for `x`"),
        (one("32", "[1]", "[0,4]"), "`x`: invalid type"),
        (one("null", "[1]", "[0,4]"), "`x`: invalid type"),
        ("{\"x\":{\"dtype\":\"F32\",\"shape\":[1]}}".into(), "missing field `data_offsets`"),
    ] {
        assert_refused(&header, 4, reason);
    }
    // Stricter than the crate: ranks that no model has, and unknown fields.
    let rank = |rank: usize| f32(&format!("[{}]", vec!["1"; rank].join(",")), "[0,4]");
    let told = entries(&file(rank(9).as_bytes(), &[0; 4])).expect_err("rank 9");
    assert!(told.contains("more than 8 axes"), "{told}");
    let more = rank(1).replace("[0,4]", "[0,4],\"more\":1");
    let told = entries(&file(more.as_bytes(), &[0; 4])).expect_err("one field more");
    assert!(told.contains("unknown field `more`"), "{told}");
    // Valid though unusual: a scalar, the highest rank, an empty tensor.
    for (header, data) in [(rank(0), 4), (rank(8), 4), (f32("[0,8192]", "[0,0]"), 0)] {
        let found = entries(&file(header.as_bytes(), &vec![0; data])).expect("legal");
        assert_eq!(found[0].len, data as u64);
    }
}

fn tiny() -> (Config, Files) {
    let mut config = Config::preset("tiny").expect("a preset").with_layers(1);
    config.experts.as_mut().expect("it has some").count = 2;
    let weights = Synthetic::new(&config, DType::BF16, 0).expect("a float type");
    (config.clone(), write(&config, &weights, Layout::Single))
}

/// Valid files that are not of this model.
#[test]
fn strange_shapes_and_types_in_a_model() {
    let (config, files) = tiny();
    for dtype in ["F8_E4M3", "F8_E5M2", "I16", "F64"] {
        let mut files = files.clone();
        files.edit_header("model.safetensors", |header| {
            let entry = &mut header["model.norm.weight"];
            entry["dtype"] = dtype.into();
            entry["shape"] = match dtype {
                "F64" => serde_json::json!([16]),
                "I16" => serde_json::json!([64]),
                _ => serde_json::json!([128]),
            };
        });
        let told = problems(open(&files, &config));
        assert!(told[0].starts_with(&format!("unsupported dtype {dtype} for `model.norm.weight`")));
    }
    for shape in [serde_json::json!([64, 1]), serde_json::json!([1, 64])] {
        let mut files = files.clone();
        files.edit_header("model.safetensors", |header| {
            header["model.norm.weight"]["shape"] = shape.clone();
        });
        let told = problems(open(&files, &config));
        assert!(told[0].contains("has shape"), "{told:?}");
        assert!(told[0].ends_with(", wanted [64]"), "{told:?}");
    }
}

/// A file truncated at every kind of place.
#[test]
fn interrupted_downloads() {
    let (config, files) = tiny();
    let whole = files.clone().bytes("model.safetensors").clone();
    for len in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        let mut files = files.clone();
        files.bytes("model.safetensors").truncate(len);
        let told = problems(open(&files, &config));
        let known = ["too short", "truncated", "shorter than its header says"];
        assert!(known.iter().any(|word| told[0].contains(word)), "{told:?}");
    }
}

/// Files of other formats, which the error names.
#[test]
fn other_kinds_of_file() {
    let (config, files) = tiny();
    for (bytes, word) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"[..],
            "git lfs pull",
        ),
        (b"PK\x03\x04\x00\x00\x08\x08\x00\x00archive/data.pkl", "a PyTorch file (.bin"),
        (b"PK\x03\x04\x14\x00\x00\x00\x00\x00arr_0.npy", "NumPy arrays (.npz)"),
        (b"PK\x03\x04\x14\x00\x00\x00\x00\x00readme", "ZIP archive: unpack it"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "an old PyTorch file"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00", "only those of Grok-1's first"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:", "an ONNX model"),
        (b"\x08\x07\x3a\x84\xf3\x01\x0a\x03\x0a\x01x", "an ONNX model"),
        (b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00", "GGUF"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b"\n<html><head>", "HTML page"),
        (b"<?xml version=\"1.0\"?><Error>", "XML page"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "gzip"),
        (b"{\"error\":\"not found\"}", "JSON text"),
    ] {
        let mut files = files.clone();
        *files.bytes("model.safetensors") = bytes.to_vec();
        let told = problems(open(&files, &config));
        assert!(told[0].contains(word), "{told:?}");
    }
    // A header length that begins with the first bytes of another format is not taken for it.
    for length in [0x0280_usize, 0x0480, 0x0012_0808] {
        let header = format!("{{}}{}", " ".repeat(length - 2));
        assert_eq!(entries(&file(header.as_bytes(), b"")), Ok(Vec::new()));
    }
}

/// Both agree on valid files, and the parser accepts nothing that the crate refuses.
#[test]
fn agrees_with_the_crate() {
    let (_, mut files) = tiny();
    let bytes = files.bytes("model.safetensors");
    let ours = entries(bytes).expect("a good file");
    let (header, theirs) = safetensors::SafeTensors::read_metadata(bytes).expect("a good file");
    assert_eq!(ours.len(), theirs.tensors().len());
    for entry in ours {
        let info = theirs.info(&entry.name).expect("the same names");
        assert_eq!(entry.dtype.name(), info.dtype.to_string());
        assert_eq!(entry.shape, info.shape.iter().map(|&n| n as u64).collect::<Vec<_>>());
        let (begin, end) = info.data_offsets;
        assert_eq!(entry.offset, (8 + header + begin) as u64);
        assert_eq!(entry.len, (end - begin) as u64);
    }
}
