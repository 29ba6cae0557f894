//! Matrices that the invocations of a subgroup multiply together, which `wgpu` calls experimental:
//! whether an adapter has them, and the token that a device with them is asked for with. One of the
//! few modules with `unsafe`.

use wgpu::{CooperativeMatrixProperties, CooperativeScalarType as Scalar, Features};

/// What shaders with such matrices need.
pub(super) const MATRICES: Features =
    Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(Features::SHADER_F16).union(Features::SUBGROUP);

/// Whether an adapter has these features, and lists matrices of 16 x 16 halves with sums in f32.
/// Those of a browser list none.
pub(super) fn multiplies_matrices(adapter: &wgpu::Adapter) -> bool {
    adapter.features().contains(MATRICES)
        && adapter.cooperative_matrix_properties().iter().any(is_wanted)
}

/// Sums that saturate would make an infinity finite.
fn is_wanted(one: &CooperativeMatrixProperties) -> bool {
    (one.m_size, one.n_size, one.k_size) == (16, 16, 16)
        && (one.ab_type, one.cr_type) == (Scalar::F16, Scalar::F32)
        && !one.saturating_accumulation
}

/// The token for a device with these features: a plain one, unless they are experimental.
pub(super) fn token(features: Features) -> wgpu::ExperimentalFeatures {
    if !features.intersects(Features::all_experimental_mask()) {
        return wgpu::ExperimentalFeatures::disabled();
    }
    // SAFETY: what is agreed to is that the code of such features in wgpu may have undefined
    // behavior. `MATRICES` has one, and what this engine uses of it is little: three operations in
    // one shader, on workgroup memory alone, at indices that are constants but for the number of
    // the subgroup. wgpu turns each into one instruction of SPIR-V, and does not check its bounds.
    // So `tools/tests/races` interprets that shader with all its rows, and fails on an access out
    // of bounds or by part of a subgroup. Only the self-test runs the shader, the measurement of a
    // device that has passed its rows, and who names it.
    #[expect(unsafe_code, reason = "wgpu gives the token to nobody who does not agree")]
    unsafe {
        wgpu::ExperimentalFeatures::enabled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: CooperativeMatrixProperties = CooperativeMatrixProperties {
        m_size: 16,
        n_size: 16,
        k_size: 16,
        ab_type: Scalar::F16,
        cr_type: Scalar::F32,
        saturating_accumulation: false,
    };

    #[test]
    fn other_matrices_are_not_wanted() {
        assert!(is_wanted(&WANTED));
        for other in [
            CooperativeMatrixProperties { m_size: 8, n_size: 8, k_size: 8, ..WANTED },
            CooperativeMatrixProperties { k_size: 8, ..WANTED },
            CooperativeMatrixProperties { ab_type: Scalar::F32, ..WANTED },
            CooperativeMatrixProperties { cr_type: Scalar::F16, ..WANTED },
            CooperativeMatrixProperties { saturating_accumulation: true, ..WANTED },
        ] {
            assert!(!is_wanted(&other), "{other:?}");
        }
    }

    #[test]
    fn plain_devices_are_asked_for_without_the_token() {
        let plain = Features::TIMESTAMP_QUERY | Features::SUBGROUP | Features::SHADER_F16;
        assert!(!token(plain).is_enabled());
        assert!(token(plain | MATRICES).is_enabled());
    }
}
