//! The driver's pipeline cache, as bytes that can be stored. One of the few modules with `unsafe`.

use sha2::{Digest, Sha256};

/// First bytes of sealed data; the last of them is the version of the layout.
const MAGIC: [u8; 16] = *b"grok-wgpu pipes\x01";

/// Bytes of a digest.
const DIGEST: usize = 32;

/// Creates a pipeline cache. Also returns whether `sealed` was used.
///
/// Data that is damaged, or of another adapter, driver or version of this program, is ignored.
/// `None` if the device has no pipeline cache.
pub(super) fn open(
    device: &wgpu::Device,
    info: &wgpu::AdapterInfo,
    sealed: Option<&[u8]>,
) -> Option<(wgpu::PipelineCache, bool)> {
    if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
        return None;
    }
    let data = sealed.and_then(|sealed| unseal(&identity(info), sealed));
    let descriptor = wgpu::PipelineCacheDescriptor { label: None, data, fallback: true };
    // SAFETY: `data` must have come from `PipelineCache::get_data`. `seal` is the only function
    // that makes sealed bytes, and `data` of this module is the only caller that gives it any: with
    // what `get_data` returned. `unseal` gives them back only if both digests agree: that of the
    // bytes, so that no byte has changed since, and that of the adapter, its driver and this
    // version, so that they are for this driver. wgpu and the driver check their own headers
    // besides, and begin with nothing if those differ. Whoever forges both digests can write to
    // the user's own folders.
    #[expect(unsafe_code, reason = "wgpu has no safe way to give a driver its bytes back")]
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    Some((cache, data.is_some()))
}

/// The data of the cache, sealed.
pub(super) fn data(cache: &wgpu::PipelineCache, info: &wgpu::AdapterInfo) -> Option<Vec<u8>> {
    cache.get_data().map(|data| seal(&identity(info), &data))
}

/// What must be the same for the data to be usable: the program's version, adapter and driver.
fn identity(info: &wgpu::AdapterInfo) -> String {
    format!("{} {info:?}", env!("CARGO_PKG_VERSION"))
}

fn seal(identity: &str, data: &[u8]) -> Vec<u8> {
    let (identity, digest) = (Sha256::digest(identity), Sha256::digest(data));
    [MAGIC.as_slice(), identity.as_slice(), digest.as_slice(), data].concat()
}

fn unseal<'a>(identity: &str, sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (magic, rest) = sealed.split_at_checked(MAGIC.len())?;
    let (whose, rest) = rest.split_at_checked(DIGEST)?;
    let (digest, data) = rest.split_at_checked(DIGEST)?;
    let same = magic == MAGIC
        && whose == Sha256::digest(identity).as_slice()
        && digest == Sha256::digest(data).as_slice();
    same.then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_bytes_of_the_same_driver_come_back() {
        let sealed = seal("driver 1", b"compiled");
        assert_eq!(unseal("driver 1", &sealed), Some(&b"compiled"[..]));
        assert_eq!(unseal("driver 1", &seal("driver 1", b"")), Some(&b""[..]));
        assert_eq!(unseal("driver 2", &sealed), None);
    }

    #[test]
    fn changed_bytes_do_not() {
        let sealed = seal("driver", b"compiled");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(unseal("driver", &changed), None, "byte {at}");
            assert_eq!(unseal("driver", &sealed[..at]), None, "cut at {at}");
        }
        let longer = [sealed.as_slice(), &[0]].concat();
        assert_eq!(unseal("driver", &longer), None);
    }
}
