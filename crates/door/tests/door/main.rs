//! The door as clients know it: real drivers, hostile bytes, and what they send recorded.

mod chatter;
mod clients;
mod drivers;
mod hostile;
mod house;
mod rights;
mod servers;
