// Zero. A program may set it to a zero that compilers do not know: NVIDIA's takes two operations
// for two constants of which one could be a register.
var<private> unknown: u32;
