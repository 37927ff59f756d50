//! What the end-to-end tests are made of: a real server in a folder of its own, an origin that counts, and clients
//! that reach any host name on loopback.

mod client;
mod edge;
pub mod h2;
mod origin;
mod proxy;

pub use client::{Client, Protocol, Reply};
pub use edge::{Edge, Project, command_output, demo, repository};
pub use origin::{Answer, Origin, Seen};
pub use proxy::Proxy;
