//! Text of files that people's programs wrote: UTF-8, with or without a byte order mark.

/// The byte order mark (BOM) that some editors put before UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of these bytes, without a byte order mark.
///
/// # Errors
///
/// A sentence that names UTF-16, or the first byte that is not UTF-8.
pub fn decode(bytes: &[u8]) -> Result<&str, String> {
    let text = bytes.strip_prefix(MARK).unwrap_or(bytes);
    // Without a mark, the first character of UTF-16 is told by its zero byte.
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] = text {
        return Err("the text is UTF-16, as some programs of Windows write it; save it as UTF-8 \
                    (in PowerShell: `Set-Content -Encoding utf8 FILE`)"
            .into());
    }
    str::from_utf8(text).map_err(|error| {
        let at = error.valid_up_to() + (bytes.len() - text.len());
        format!("not UTF-8 text: the byte at {at} is wrong")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(decode(b"\xef\xbb\xbfOnce"), Ok("Once"));
        assert_eq!(decode("\u{e9} \u{65e5}".as_bytes()), Ok("\u{e9} \u{65e5}"));
        assert_eq!(decode(b""), Ok(""));
        assert_eq!(decode(b"\xef\xbb\xbf"), Ok(""));
        // A second mark is a character of the text.
        assert_eq!(decode(b"\xef\xbb\xbf\xef\xbb\xbfa"), Ok("\u{feff}a"));
    }

    #[test]
    fn utf_16_is_told_by_name() {
        let bytes = |unit: fn(u16) -> [u8; 2], text: &str| -> Vec<u8> {
            text.encode_utf16().flat_map(unit).collect()
        };
        for text in ["\u{feff}Once", "Once", "\u{feff}\u{65e5}"] {
            for unit in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
                let told = decode(&bytes(unit, text)).expect_err("not UTF-8");
                assert!(told.contains("UTF-16"), "{text:?}: {told}");
            }
        }
    }

    #[test]
    fn the_wrong_byte_is_counted_from_the_files_beginning() {
        assert_eq!(decode(b"ab\xff"), Err("not UTF-8 text: the byte at 2 is wrong".into()));
        let marked = decode(b"\xef\xbb\xbfab\xff");
        assert_eq!(marked, Err("not UTF-8 text: the byte at 5 is wrong".into()));
    }
}
