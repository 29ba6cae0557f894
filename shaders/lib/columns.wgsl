// Rows of x that a workgroup of a matrix-vector product takes at once: each is a column of its
// result. Of these, `count` are real. What is done for one is the same code for all, whatever
// `count` is, so that the bits of one never depend on the others.

const COLUMNS: u32 = 4u;

// Slots of an expert's tile.
const TILE: u32 = COLUMNS;
