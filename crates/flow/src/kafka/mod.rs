//! What a Kafka source and a Kafka sink share: the URL and the login, connections to brokers, and records as they are fetched.

pub mod login;
pub mod records;
pub mod wire;
