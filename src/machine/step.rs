//! The record of a step: the parameters that change from pass to pass.

/// Words of the step record: position of the first row, and how many rows are real.
///
/// A plan is recorded for a fixed number of rows; a step may fill fewer. Rows beyond are padding:
/// kernels with side effects (the cache) or data-dependent work (experts) skip them.
pub const STEP_LEN: u32 = 4;
