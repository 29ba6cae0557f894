//! Pickles of tensors: good ones of every protocol, and hostile and broken ones.

use std::{cell::Cell, rc::Rc};

use grok_wgpu::lab::checkpoint::pickle::{Element, Pickled, read};
use pollster::block_on;

use crate::pickles::{Array, Part, Sparse, joined, plain, quantized};

fn parsed(bytes: &[u8]) -> Result<Pickled, String> {
    let parts = vec![Part::Bytes(bytes.into())];
    let source = Sparse { name: "tensor00000_000".into(), parts, read: Rc::new(Cell::new(0)) };
    block_on(read(&source)).expect("a file in memory is read")
}

fn refused(bytes: &[u8]) -> String {
    let told = parsed(bytes).expect_err("it is refused");
    assert!(!told.is_empty() && told.len() < 500 && !told.contains('\x1b'), "{told:?}");
    told
}

/// An array of two rows of three, in opcodes of protocol 3, without a memo.
struct Old {
    begin: &'static [u8],
    reconstruct: &'static [u8],
    version: &'static [u8],
    shape: &'static [u8],
    dtype: &'static [u8],
    state: &'static [u8],
    by_columns: &'static [u8],
    data: &'static [u8],
    end: &'static [u8],
}

impl Default for Old {
    fn default() -> Self {
        Self {
            begin: b"\x80\x03",
            reconstruct:
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R",
            version: b"K\x01",
            shape: b"K\x02K\x03\x86",
            dtype: b"cnumpy\ndtype\nX\x02\0\0\0i1\x89\x88\x87R",
            state: b"(K\x03X\x01\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
            by_columns: b"\x89",
            data: b"C\x06abcdef",
            end: b"tb.",
        }
    }
}

impl Old {
    fn bytes(&self) -> Vec<u8> {
        let Self { begin, reconstruct, version, shape, dtype, state, by_columns, data, end } =
            *self;
        [begin, reconstruct, b"(".as_slice(), version, shape, dtype, state, by_columns, data, end]
            .concat()
    }
}

#[test]
fn arrays_of_every_protocol() {
    let find = |bytes: &[u8]| {
        let at = bytes.windows(6).position(|part| part == b"abcdef").expect("it is there");
        match parsed(bytes).expect("a good file") {
            Pickled::Array(array) => {
                assert_eq!((array.offset, array.len), (at as u64, 6));
                (array.element, array.shape)
            }
            other @ Pickled::Quantized { .. } => panic!("{other:?}"),
        }
    };
    let wanted = (Element::I8, vec![2, 3]);
    assert_eq!(find(&Old::default().bytes()), wanted);
    for begin in [&b"\x80\x02"[..], b"\x80\x04", b"\x80\x05\x95\x20\0\0\0\0\0\0\0"] {
        assert_eq!(find(&Old { begin, ..Old::default() }.bytes()), wanted);
    }
    let lengths: [&'static [u8]; 3] =
        [b"B\x06\0\0\0abcdef", b"\x8e\x06\0\0\0\0\0\0\0abcdef", b"\x96\x06\0\0\0\0\0\0\0abcdef"];
    for data in lengths {
        assert_eq!(find(&Old { data, ..Old::default() }.bytes()), wanted);
    }
    // NumPy 2's name, and numbers in the memo.
    let reconstruct = b"cnumpy._core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\n\
        r\x09\0\0\0K\0\x850C\x01b\x87R";
    let reconstruct: Vec<u8> = reconstruct.iter().copied().filter(|&byte| byte != b'0').collect();
    let reconstruct: &'static [u8] = reconstruct.leak();
    assert_eq!(find(&Old { reconstruct, ..Old::default() }.bytes()), wanted);
    // The data as a bytearray of protocol 5.
    let five = |order: &[u8]| {
        let Old { dtype, state, shape, .. } = Old::default();
        let head = b"\x80\x05cnumpy.core.numeric\n_frombuffer\n(\x96\x06\0\0\0\0\0\0\0abcdef";
        [head, dtype, state, shape, b"\x8c\x01", order, b"tR."].concat()
    };
    assert_eq!(find(&five(b"C")), wanted);
    assert!(refused(&five(b"F")).contains("Fortran order"));
    // As written with a memo and frames.
    assert_eq!(find(&joined(&plain(&Array::new("i1", &[2, 3], b"abcdef".into())))), wanted);
    for (code, element) in [("f4", Element::F32), ("f2", Element::F16), ("bfloat16", Element::BF16)]
    {
        let size = usize::try_from(element.bytes()).expect("small");
        let file = joined(&plain(&Array::new(code, &[2, 2, 1, 3], vec![9; 12 * size])));
        match parsed(&file).expect("a good file") {
            Pickled::Array(array) => {
                assert_eq!((array.element, array.shape), (element, vec![2, 2, 1, 3]));
            }
            other @ Pickled::Quantized { .. } => panic!("{other:?}"),
        }
    }
}

fn weights() -> Vec<u8> {
    let weight = Array::new("i1", &[2, 3], b"abcdef".into());
    let scales = Array::new("bfloat16", &[1, 3], b"ABCDEF".into());
    joined(&quantized("__main__", &weight, &scales))
}

#[test]
fn weights_with_scales() {
    let file = weights();
    let Ok(Pickled::Quantized { weight, scales }) = parsed(&file) else { panic!("a good file") };
    for (array, bytes, element, shape) in
        [(weight, b"abcdef", Element::I8, [2, 3]), (scales, b"ABCDEF", Element::BF16, [1, 3])]
    {
        let at = usize::try_from(array.offset).expect("small");
        assert_eq!((&file[at..at + 6], array.len), (&bytes[..], 6));
        assert_eq!((array.element, array.shape), (element, shape.to_vec()));
    }
    let edited = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = file.windows(from.len()).position(|part| part == from.as_bytes());
        let mut file = file.clone();
        file[at.expect("it is there")..][..to.len()].copy_from_slice(to.as_bytes());
        refused(&file)
    };
    assert!(edited("scales", "bcales").contains("other fields"));
    assert!(edited("weight", "scales").contains("other fields"));
    assert!(edited("QuantizedWeight8bit", "QuantizedWeight4bit").contains("Weight4bit`, which is"));
    assert!(edited("__main__", "builtins").contains("`builtins.QuantizedWeight8bit`"));
    assert!(edited("ml_dtypes", "ml_dtypez").contains("`ml_dtypez.bfloat16`"));
}

/// Every beginning of a file, every file with a byte more, and each byte changed: no panic, and no
/// other tensor.
#[test]
fn cut_and_changed_files() {
    for file in [weights(), Old::default().bytes()] {
        let good = parsed(&file).expect("a good file");
        for len in 0..file.len() {
            refused(&file[..len]);
        }
        let more = [&file[..], b"."].concat();
        assert!(refused(&more).contains("1 more bytes follow"));
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut file = file.clone();
                file[at] ^= 1 << bit;
                // What is still accepted has the same length of data.
                if let (Ok(Pickled::Array(now)), Pickled::Array(then)) = (parsed(&file), &good) {
                    assert_eq!(now.len, then.len);
                }
            }
        }
    }
}

#[test]
fn programs_are_refused_by_name() {
    for (bytes, told) in [
        (
            &b"\x80\x04cos\nsystem\nX\x02\0\0\0id\x85R."[..],
            "byte 2: it names `os.system`, which is",
        ),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "byte 17: it names `posix.system`"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01x\x85R.", "`builtins.eval`"),
        (b"\x80\x04c__builtin__\nexec\n.", "`__builtin__.exec`"),
        (b"\x80\x04cnumpy\nload\n.", "`numpy.load`"),
        (b"\x80\x04cnumpy.core.multiarray\nscalar\n.", "`numpy.core.multiarray.scalar`"),
        (b"\x80\x04cos\nsys\x1b[31mtem\n.", "`os.sys\\u{1b}[31mtem`"),
        (b"\x80\x04c\xff\nx\n.", "not UTF-8"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n.", "convert it to safetensors"),
        (b"\x80\x04cjax._src.array\n_reconstruct_array\n.", "stored with numpy.asarray"),
        (b"\x80\x02c_codecs\nencode\n.", "write it again with protocol 4"),
        (b"\x80\x04(ios\nsystem\n.", "opcode 0x69 (INST) is refused"),
        (b"\x80\x04(cnumpy\ndtype\no.", "opcode 0x6f (OBJ)"),
        (b"\x80\x04]\x94.", "opcode 0x5d (EMPTY_LIST)"),
        (b"\x80\x04P0\n.", "opcode 0x50 (PERSID)"),
        (b"\x80\x04\x82\x01.", "opcode 0x82 (EXT1)"),
        (b"\x80\x04}\x92.", "opcode 0x92 (NEWOBJ_EX)"),
        (b"\x80\x05\x97.", "opcode 0x97 (NEXT_BUFFER)"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "opcode 0x8a (LONG1)"),
        (b"\x80\x04\xff.", "opcode 0xff is refused"),
        // What is known, called as nobody does.
        (b"\x80\x04cnumpy\nndarray\n)R.", "Array is not called"),
        (b"\x80\x04c__main__\nQuantizedWeight8bit\n)R.", "is not called"),
        (b"\x80\x04cnumpy\nndarray\n)\x81.", "not a QuantizedWeight8bit"),
        (b"\x80\x04c__main__\nQuantizedWeight8bit\nN\x85\x81.", "not a QuantizedWeight8bit"),
        (b"\x80\x04c__main__\nQuantizedWeight8bit\n)\x81}b.", "other fields"),
        (b"\x80\x04c__main__\nQuantizedWeight8bit\n)\x81)b.", "does not fit"),
        (b"\x80\x04c__main__\nQuantizedWeight8bit\n)\x81.", "neither an array"),
        (b"\x80\x04N)R.", "not a function"),
        (b"\x80\x04NNb.", "for a value that has none"),
        (b"\x80\x04N.", "neither an array"),
    ] {
        let text = refused(bytes);
        assert!(text.contains(told), "{told}: {text}");
        assert!(text.starts_with("malformed pickle at byte "), "{text}");
    }
}

#[test]
fn stacks_marks_and_memos_that_make_no_sense() {
    let many = |opcodes: &[u8]| [b"\x80\x04".to_vec(), opcodes.repeat(2_000_000)].concat();
    // A dictionary that holds itself.
    let own = b"\x80\x04}\x94\x8c\x01ah\0s.";
    for (bytes, told) in [
        (many(b"("), "more than 1000 opcodes"),
        (many(b"N"), "more than 1000 opcodes"),
        (many(b"}\x94"), "more than 1000 opcodes"),
        ([b"\x80\x04)".to_vec(), b"\x85".repeat(9), b".".to_vec()].concat(), "deeper ones"),
        (many(b"N\x94\x86"), "needs more values"),
        ([b"\x80\x04(".to_vec(), b"N".repeat(17), b"t.".to_vec()].concat(), "more values"),
        (b"\x80\x04h\0.".to_vec(), "the memo has no number 0"),
        (b"\x80\x04N\x94h\x01.".to_vec(), "the memo has no number 1"),
        (b"\x80\x04Nq\x03h\x02.".to_vec(), "the memo has no number 2"),
        (b"\x80\x04j\xff\xff\xff\xff.".to_vec(), "the memo has no number 4294967295"),
        (b"\x80\x04Nr\xff\xff\xff\xff.".to_vec(), "number 4294967295 of the memo is too large"),
        (b"\x80\x04\x94.".to_vec(), "needs a value"),
        (b"\x80\x04.".to_vec(), "needs a value"),
        (b"\x80\x04t.".to_vec(), "needs a mark"),
        (b"\x80\x04u.".to_vec(), "needs a mark"),
        (b"\x80\x04N(\x85.".to_vec(), "needs more values"),
        (b"\x80\x04N(R.".to_vec(), "needs a value"),
        (b"\x80\x04N(.".to_vec(), "needs a value"),
        (b"\x80\x04NN.".to_vec(), "left over"),
        (b"\x80\x04(N.".to_vec(), "left over"),
        (b"\x80\x04NNNs.".to_vec(), "no dictionary"),
        (b"\x80\x04}(Nu.".to_vec(), "a key has no value"),
        (b"\x80\x04}((u.".to_vec(), "no dictionary"),
        (own.to_vec(), "neither an array"),
        (b"\x80\x04\x80\x04.".to_vec(), "protocol 4 begins there"),
        (b"\x80\x06N.".to_vec(), "does not begin as a pickle of protocol 2 to 5"),
        (b"\x80\x01N.".to_vec(), "does not begin as a pickle"),
        (b"(dp0\n.".to_vec(), "does not begin as a pickle"),
        (b"NN\x93.".to_vec(), "does not begin as a pickle"),
        (b"\x80\x04NN\x93.".to_vec(), "a name is not text"),
        (b"PK\x03\x04\0\0\0\0archive/data.pkl".to_vec(), "PyTorch"),
    ] {
        let text = refused(&bytes);
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn lengths_that_are_not_there() {
    for (bytes, told) in [
        (
            &b"\x80\x04B\xff\xff\xff\xffab"[..],
            "4294967295 bytes are to follow, but the file has only 2",
        ),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xffab", "18446744073709551615 bytes"),
        (b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7fab", "9223372036854775807 bytes"),
        (b"\x80\x04C\xffab", "255 bytes"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.", "interrupted download"),
        (b"\x80\x04X\xff\xff\xff\xffab", "a text of 4294967295 bytes"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffab", "a text of 18446744073709551615"),
        (b"\x80\x04\x8c\xffab", "a text of 255 bytes"),
        (b"\x80\x04\x8c\x03ab", "truncated"),
        (b"\x80\x04\x8c\x02\xff\xff.", "not UTF-8"),
        (b"\x80\x04J\xff", "truncated"),
    ] {
        let text = refused(bytes);
        assert!(text.contains(told), "{told}: {text}");
    }
    let name = [b"\x80\x04c".to_vec(), b"x".repeat(100_000)].concat();
    assert!(refused(&name).contains("a name does not end"));
}

#[test]
fn arrays_that_are_not_read() {
    const DTYPE: &[u8] = b"cnumpy\ndtype\nX\x02\0\0\0";
    let dtype = |code: &[u8], rest: &[u8]| -> &'static [u8] {
        [DTYPE, code, b"\x89\x88\x87R", rest].concat().leak()
    };
    let old = Old::default;
    for (file, told) in [
        (Old { by_columns: b"\x88", ..old() }, "Fortran order"),
        (Old { by_columns: b"K\0", ..old() }, "the state of an array is not NumPy's"),
        (Old { version: b"K\x02", ..old() }, "the state of an array is not NumPy's"),
        (Old { version: b"", ..old() }, "the state of an array is not NumPy's"),
        (Old { dtype: dtype(b"O8", b""), ..old() }, "Python objects"),
        (Old { dtype: dtype(b"f8", b""), ..old() }, "dtype `f8` is not read: float32"),
        (Old { dtype: dtype(b"i4", b""), ..old() }, "dtype `i4` is not read"),
        (Old { dtype: dtype(b"u1", b""), ..old() }, "dtype `u1` is not read"),
        (Old { dtype: dtype(b"c8", b""), ..old() }, "dtype `c8` is not read"),
        (Old { dtype: dtype(b"V2", b""), ..old() }, "dtype `V2` is not read"),
        (Old { dtype: dtype(b"f4", b""), ..old() }, "byte order of an array is unknown"),
        (
            Old {
                dtype: dtype(b"f4", b""),
                state: b"(K\x03X\x01\0\0\0>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
                ..old()
            },
            "big-endian",
        ),
        (Old { state: b"", ..old() }, "element type of an array is unknown"),
        (
            Old { state: b"(K\x03X\x01\0\0\0|N}NJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb", ..old() },
            "it has fields",
        ),
        (Old { dtype: b"N", state: b"", ..old() }, "element type of an array is unknown"),
        (Old { shape: b"K\x02K\x04\x86", ..old() }, "has 6 bytes, wanted 8"),
        (Old { shape: b"K\x02K\x02\x86", ..old() }, "has 6 bytes, wanted 4"),
        (Old { shape: b")", ..old() }, "has 6 bytes, wanted 1"),
        (Old { shape: b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", ..old() }, "not a few numbers"),
        (
            Old { shape: b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7ft", ..old() },
            "wanted far more",
        ),
        (Old { shape: b"(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x02K\x03t", ..old() }, "more values"),
        (Old { shape: b"NK\x03\x86", ..old() }, "not a few numbers"),
        (Old { data: b"X\x06\0\0\0abcdef", ..old() }, "the state of an array is not NumPy's"),
        (Old { data: b"N", ..old() }, "the state of an array is not NumPy's"),
        (Old { end: b"tbtb.", ..old() }, "needs a mark"),
        (Old { end: b"tb", ..old() }, "truncated"),
    ] {
        let text = refused(&file.bytes());
        assert!(text.contains(told), "{told}: {text}");
    }
}
