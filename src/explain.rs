//! Why a captured request is, or would be, refused: what `portcullis explain` knows, without any input or output.
//!
//! ```text
//! explain/capture.rs   a request as a `.http` text
//! explain/curl.rs      a request as a curl command line
//! explain/shell.rs     the words of a command line
//! explain/veil.rs      what is shown of a message: no token, no credential, no secret
//! gate/walk.rs         the gate's own checks, each for itself
//! credential/signature/mistakes.rs   why a signature does not match
//! ```

pub mod capture;
pub mod curl;
mod shell;
pub mod veil;
