//! A call as its sender makes it.

use bytes::Bytes;
use portcullis::dialect::source::View;
use portcullis::request::{Head, HeadLimits, Request};

use crate::scene::Scene;

/// A call, to be sent to a scene.
#[derive(Clone)]
pub struct Call {
    line: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Call {
    /// With the fields that any caller sends.
    pub fn new(line: &str) -> Call {
        Call { line: line.to_owned(), fields: Vec::new(), body: Vec::new() }
            .with("Host", "pam.example:8080")
            .with("User-Agent", "game-platform/4.2 (production)")
            .with("Accept", "application/json")
            .with("X-Correlation-ID", "0190a6f0-5d2b-7c1e-9a54-3f2e8d7c6b5a")
    }

    pub fn with(mut self, name: &str, value: &str) -> Call {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn json(mut self, body: impl Into<Vec<u8>>) -> Call {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.with("Content-Type", "application/json").with("Content-Length", &length)
    }

    /// With the credential of the caller at an index.
    pub fn authorized(self, scene: &Scene, caller: usize) -> Call {
        let authorization = scene.authorizations[caller].as_ref().unwrap();
        self.with("Authorization", str::from_utf8(authorization.expose()).unwrap())
    }

    /// With the signature of the caller at an index, by its newest key.
    pub fn signed(self, scene: &Scene, caller: usize) -> Call {
        let request = self.clone().sent();
        let scheme = scene.gate.dialect.signature.as_ref().unwrap();
        let key = scene.gate.callers.at(caller).unwrap().keys.last().unwrap();
        let timestamp = scheme.timestamp.as_ref().map_or(String::new(), |rule| rule.stamp(Scene::now()));
        let fields = scheme.sign(&View { request: &request, found: None }, key, &timestamp, "").unwrap();
        fields.iter().fold(self, |call, (name, value)| call.with(name, value))
    }

    /// As it arrives.
    pub fn sent(&self) -> Request {
        let fields: String = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{} HTTP/1.1\r\n{fields}\r\n", self.line);
        let limits = HeadLimits { bytes: 1 << 20, fields: 1000, target: 8 << 10 };
        let head = Head::scan(Bytes::from(head), &limits).unwrap();
        Request { head, body: Bytes::from(self.body.clone()) }
    }
}
