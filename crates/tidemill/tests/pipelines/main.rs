//! Whole pipelines on real servers: a tidemill process, a project folder, a writer, and something that is killed.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

mod access;
mod answers;
mod avro;
mod away;
mod bank;
mod boundaries;
mod cache;
mod continuity;
mod dedup;
mod elasticsearch;
mod elasticsearch_faults;
mod examples;
mod faults;
mod first_steps;
mod formats;
mod history;
mod http_push;
mod http_sink;
mod kafka;
mod kafka_source;
mod kill;
mod large;
mod merge;
mod mirror;
mod nest;
mod node;
mod observe;
mod parked;
mod patterns;
mod process;
mod processing;
mod random;
mod redis;
mod redis_places;
mod repair;
mod rewind;
mod sinks;
mod sqlite_source;
mod targets;
mod two_way;
mod types;
mod verify;
mod verify_topics;
