//! What the end-to-end tests are made of: a real server in a folder of its own, an origin that counts, an ACME
//! server with its DNS, and clients that reach any host name on loopback.

mod acme_proxy;
mod client;
mod dns;
mod edge;
mod encoder;
pub mod h2;
pub mod h3;
mod large;
mod loopback;
mod low_latency;
mod nginx;
mod origin;
mod pebble;
mod program;
mod proxy;
mod relay;
mod s3;

pub use acme_proxy::{AcmeCall, AcmeProxy, Before, CAA_IDENTITY, Call, HeldCall};
pub use client::{Client, Protocol, Reply};
pub use dns::Dns;
pub use edge::{Edge, Output, Project, command_output, demo, repository};
pub use encoder::{Encoder, EncoderOptions, FRAME_RATE, Packaging};
pub use large::Large;
pub use loopback::{own_address, own_ip};
pub use low_latency::{
    Asked, LowLatencyEncoder, LowLatencyOptions, LowLatencyServer, LowLatencySource, Media, Pace, PushTarget, Stamp,
};
pub use nginx::{Nginx, Served};
pub use origin::{Answer, Origin, Seen};
pub use pebble::{Pebble, PebbleOptions};
pub use proxy::Proxy;
pub use relay::Relay;
pub use s3::S3;
