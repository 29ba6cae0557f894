//! An OpenAI-compatible server in front of one engine.
//!
//! Connections are tasks on a few threads of their own; the engine is one thread, the caller's.
//! Between them is [`engine`]: texts that wait for the engine go one way through a queue of bounded
//! length, and what becomes of each comes back by a bounded channel of its own. So the protocol
//! does not know how the engine divides its time, and the engine knows nothing of HTTP.

pub mod driver;
pub mod engine;
pub mod load;

mod answer;
mod ask;
mod calls;
mod chat;
mod completions;
mod connection;
mod echo;
mod form;
mod guard;
mod histogram;
mod http;
mod metrics;
mod page;
mod sse;
mod tokens;
mod wire;

pub use self::{
    guard::Key,
    http::{Log, Model, Ready, Server, Settings, Times},
};
