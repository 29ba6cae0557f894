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
        (
            b"PK\x03\x04",
            "this is a ZIP archive, perhaps a PyTorch .bin or .pt file; safetensors files are \
             wanted",
        ),
        (b"\x1f\x8b", "this is gzip-compressed: decompress it first"),
        (b"(\xb5/\xfd", "this is Zstandard-compressed: decompress it first"),
        (b"BZh", "this is bzip2-compressed: decompress it first"),
        (b"\xfd7zXZ\0", "this is xz-compressed: decompress it first"),
        (b"\x93NUMPY", "this is a NumPy array; safetensors files are wanted"),
        (b"\x89HDF", "this is an HDF5 file; safetensors files are wanted"),
    ];
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(what);
    }
    if let [0x80, 2..=5, rest @ ..] = start
        && pickle_opcode(rest)
    {
        return Some(
            "this is a Python pickle, perhaps a PyTorch or JAX file; safetensors files are wanted",
        );
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

/// A safetensors header of 0x0280 bytes begins with the same two bytes as a pickle, but goes on
/// with zeros.
fn pickle_opcode(rest: &[u8]) -> bool {
    rest.first().is_some_and(|&op| op != 0)
}
