//! The mesh among those who break the rules: clients that speak something else, and servers that lie.
//!
//! A binary of its own, and one test at a time: the bytes of leased buffers are counted for the whole process, and each
//! test wants to see them at 0 again.

mod client;
mod frames;
mod garbage;
mod liar;
mod lies;
mod shared;
mod yard;
