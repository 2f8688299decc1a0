//! Types generated from `proto/broker/v1/*.proto`, and nothing else.

#![expect(clippy::missing_errors_doc, clippy::large_enum_variant, reason = "generated code")]

tonic::include_proto!("broker.v1");

/// The compiled descriptors of the package, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/broker_v1.bin"));
