//! One folder per outside system that we write.
