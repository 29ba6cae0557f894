//! Checkpoints: valid ones in every layout, and malformed ones of every kind.

mod derived;
#[path = "../common/failing.rs"]
mod failing;
mod files;
mod header;
mod layouts;
mod memory;
mod pickle;
mod pickles;
mod places;
mod reads;
mod release;
