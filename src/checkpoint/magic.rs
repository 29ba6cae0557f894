//! Recognizes the format of a file that is not safetensors.

/// Bytes at the start of a file that are enough to recognize it.
pub(crate) const LOOK: usize = 512;

/// The format of the file that begins with `start`, worded for the user.
pub(crate) fn recognize(start: &[u8]) -> Option<&'static str> {
    const KNOWN: &[(&[u8], &str)] = &[
        (
            b"version https://git-lfs",
            "this is a Git LFS pointer, not the file itself: run `git lfs pull`",
        ),
        (b"GGUF", "this is a GGUF file; safetensors files are wanted"),
        (b"FUGG", "this is a big-endian GGUF file; safetensors files are wanted"),
        (b"\x1f\x8b", "this is gzip-compressed: decompress it first"),
        (b"(\xb5/\xfd", "this is Zstandard-compressed: decompress it first"),
        (b"BZh", "this is bzip2-compressed: decompress it first"),
        (b"\xfd7zXZ\0", "this is xz-compressed: decompress it first"),
    ];
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(what);
    }
    if let Some(what) = other_model(start) {
        return Some(what);
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let begins = |word: &str| {
        text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word.as_bytes()))
    };
    if begins("<!doctype html") || begins("<html") {
        return Some("this is an HTML page, perhaps the error page of a failed download");
    }
    if begins("<?xml") {
        return Some("this is an XML page, perhaps the error page of a failed download");
    }
    if text.starts_with(b"{") && start.get(8) != Some(&b'{') {
        return Some("this is JSON text; safetensors files are wanted");
    }
    None
}

/// What weights the file holds that begins with `start`, if they are in a format that is not read.
pub(crate) fn other_model(start: &[u8]) -> Option<&'static str> {
    if start.starts_with(b"PK\x03\x04") {
        return Some(zip(start));
    }
    if let [0x80, 2..=5, rest @ ..] = start
        && pickle_opcode(rest)
    {
        return Some(pickle(rest));
    }
    if is_onnx(start) {
        return Some(
            "this is an ONNX model, which is a program, not weights alone; get the model that it \
             was made of, as safetensors or GGUF",
        );
    }
    if start.starts_with(b"\x93NUMPY") {
        return Some("this is a NumPy array; safetensors files are wanted");
    }
    if start.starts_with(b"\x89HDF") {
        return Some("this is an HDF5 file; safetensors files are wanted");
    }
    None
}

/// A safetensors header of 0x0280 bytes begins with the same two bytes as a pickle, but goes on
/// with zeros.
fn pickle_opcode(rest: &[u8]) -> bool {
    rest.first().is_some_and(|&op| op != 0)
}

/// A ZIP archive, by the name of its first file.
fn zip(start: &[u8]) -> &'static str {
    let has = |name: &[u8]| start.windows(name.len()).any(|part| part == name);
    if has(b"/data.pkl") || has(b"/version") || has(b"/byteorder") {
        return "this is a PyTorch file (.bin, .pt or .pth), a ZIP archive with a pickle, which \
                could run any program and is not read: get the model as safetensors, or write it \
                with save_file of the Python package safetensors";
    }
    if has(b".npy") {
        return "this is a ZIP archive of NumPy arrays (.npz); safetensors files are wanted";
    }
    "this is a ZIP archive: unpack it, if it holds a model; safetensors files are wanted"
}

/// A pickle, by what comes after its protocol.
fn pickle(rest: &[u8]) -> &'static str {
    /// `PyTorch`'s files began with this number until it wrote ZIP archives.
    const TORCH: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    if rest.starts_with(TORCH) {
        return "this is an old PyTorch file (.bin, .pt or .pth), a Python pickle, which could run \
                any program and is not read: get the model as safetensors, or write it with \
                save_file of the Python package safetensors";
    }
    "this is a Python pickle, which could run any program; only those of Grok-1's first release \
     are read, as ckpt-0/tensor00000_000 and on; safetensors files are wanted"
}

/// Whether this is an ONNX model: a message that begins with a version and then another field. In a
/// safetensors file the length comes there, which is below 2^32, and then JSON.
fn is_onnx(start: &[u8]) -> bool {
    /// Bytes that begin the fields 2 (producer), 7 (graph) and 8 (operators).
    const NEXT: [u8; 3] = [0x12, 0x3a, 0x42];
    let length_follows = start.get(4..8) == Some(&[0; 4]);
    matches!(start, [0x08, 1..=32, next, ..] if NEXT.contains(next)) && !length_follows
}
