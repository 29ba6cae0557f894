// Slots of an expert's tile, and rows of x of a tile in workgroup memory.
const TILE: u32 = 32u;
