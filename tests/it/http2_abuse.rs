//! HTTP/2 as an attacker speaks it: whatever comes, the PAM gets no more than it may get, memory stays flat, and the next
//! caller is served. What a header block may say is in [`crate::wire`].

mod blocks;
mod bodies;
mod floods;
pub mod frames;
mod leaving;
mod resets;
mod stalls;
mod streams;
