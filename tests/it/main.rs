//! One test binary, its modules in the order of a request's way.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod binary;
mod certificates;
mod redis_server;
mod relay;
mod world;

mod cli;
mod config;
mod fuzz;
mod tidy;

mod disagreement;
mod trace;
mod wire;
mod wire_cases;

mod betstack;
mod credential;
mod valkyrie;
mod vectors;
mod wallet;

mod announcement;
mod caller_tls;
mod chaos;
mod exhaustion;
mod failover;
mod grace;
mod http2_abuse;
mod journal;
mod learning;
mod limits;
mod model;
mod operate;
mod origin;
mod pam_http2;
mod pam_tls;
mod panic;
mod rates;
mod reload;
mod revocation;
mod rolling;
mod settlement;
mod shadow;
mod sharing;
mod store_access;
mod store_faults;
mod unserved;
mod upstream;

mod alerts;
mod canaries;
mod cost;
mod leaks;
mod lines;
mod page;
mod prometheus;
mod sight;
mod spans;

mod demo;
mod doctor;
mod drain;
mod explain;
mod guides;
mod image;
mod manual;
mod readme;
mod reference;
