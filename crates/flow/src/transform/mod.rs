//! What happens to a row between the journal and the sink.
