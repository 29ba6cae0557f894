//! Files of a page: read in ranges through JavaScript, wherever they are.

use std::{io, path::Path};

use js_sys::{Date, Function, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::Source;
use crate::base::error::{Error, Result};

#[wasm_bindgen]
extern "C" {
    /// A file that JavaScript reads: in the private file system, on a server, or on a disk.
    #[wasm_bindgen(typescript_type = "SourceFile")]
    pub type JsFile;

    #[wasm_bindgen(method, getter)]
    fn name(this: &JsFile) -> String;

    /// Bytes in the file; exact up to 2^53.
    #[wasm_bindgen(method, getter)]
    fn size(this: &JsFile) -> f64;

    #[wasm_bindgen(method, catch)]
    fn read(this: &JsFile, offset: f64, length: u32) -> Result<Promise, JsValue>;

    #[wasm_bindgen(method, catch, js_name = readInto)]
    fn read_into(this: &JsFile, offset: f64, into: &mut [u8]) -> Result<bool, JsValue>;

    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(then: &Function, milliseconds: i32) -> JsValue;
}

#[wasm_bindgen(typescript_custom_section)]
const SOURCE_FILE: &str = "
/** A file of a checkpoint. */
export interface SourceFile {
    readonly name: string;
    readonly size: number;
    /** Exactly these bytes, or a rejection. */
    read(offset: number, length: number): Promise<Uint8Array>;
    /** Fills `into` at once; `false` if the file is not open for that, which `read` may change. */
    readInto?(offset: number, into: Uint8Array): boolean;
}
";

/// A file of a page.
pub(crate) struct FileSource {
    name: String,
    len: u64,
    file: JsFile,
    /// Whether it has `readInto`.
    direct: bool,
}

impl FileSource {
    /// The file behind a JavaScript object.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float becomes the nearest size there is"
    )]
    pub(crate) fn new(file: JsFile) -> Self {
        let direct = Reflect::has(&file, &"readInto".into()).unwrap_or(false);
        Self { name: file.name(), len: file.size() as u64, file, direct }
    }
}

impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let wanted = into.len();
        let fail = |what: String| {
            let what = format!("reading {wanted} bytes at offset {offset}: {what}");
            Error::io(Path::new(&self.name), io::Error::other(what))
        };
        let fails = |error: JsValue| fail(describe(&error));
        if self.direct && self.file.read_into(offset as f64, into).map_err(fails)? {
            return Ok(());
        }
        let length = u32::try_from(wanted).map_err(|_| fail("too many at once".into()))?;
        let promise = self.file.read(offset as f64, length).map_err(fails)?;
        let bytes = JsFuture::from(promise).await.map_err(fails)?;
        let bytes: Uint8Array =
            bytes.dyn_into().map_err(|_| fail("what came are no bytes".into()))?;
        if bytes.length() != length {
            return Err(fail(format!("{} came", bytes.length())));
        }
        bytes.copy_to(into);
        Ok(())
    }
}

/// The message of a thrown value.
fn describe(thrown: &JsValue) -> String {
    Reflect::get(thrown, &"message".into())
        .ok()
        .and_then(|message| message.as_string())
        .unwrap_or_else(|| format!("{thrown:?}"))
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    Date::now() / 1e3
}

/// Waits this long, while the event loop runs.
pub(crate) async fn pause(milliseconds: i32) {
    let promise = Promise::new(&mut |resolve, _| {
        set_timeout(&resolve, milliseconds);
    });
    // Timers do not fail.
    let _ = JsFuture::from(promise).await;
}
