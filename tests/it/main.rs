#![allow(dead_code)]
//! One test binary, its modules in the order of a request's way.

mod world;

mod smoke;
