//! Checkpoints: good ones in every layout, and bad ones of every kind.

mod files;
mod header;
mod layouts;
mod memory;
