//! Spans, as a receiver of OTLP gets and decodes them: with OpenTelemetry's own messages, and no code of Portcullis.

use std::collections::BTreeMap;
use std::io::Read;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use tokio::time::timeout;

use crate::binary::{Running, output, portcullis};
use crate::certificates::Authority;
use crate::leaks::spellings;
use crate::world::{
    Folder, PATIENCE, Pam, Request, Seen, World, answer, basic, breath, load_with, operator, valkyrie, wallet,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A receiver of OTLP, which records what it gets.
struct Collector(Pam);

impl Collector {
    async fn start() -> Collector {
        let collector = Collector(Pam::start().await);
        collector.0.answer_with(|_| answer(200, ""));
        collector
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// A world that tells it of requests, with more variables.
    async fn world(&self, config: &str, set: &[&str], more: &[(&str, &str)]) -> World {
        let url = self.url();
        world(config, set, &[&[("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())], more].concat()).await
    }

    fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        self.0.requests().iter().map(|seen| ExportTraceServiceRequest::decode(seen.body.as_slice()).unwrap()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.exports().into_iter().flat_map(|export| export.resource_spans);
        resources.flat_map(|one| one.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// Waits until it has so many spans, and gives them.
    async fn until(&self, world: &World, count: usize) -> Vec<Span> {
        let reached = async {
            while self.spans().len() < count {
                world.portcullis.spans().unwrap().flush(PATIENCE).await;
                breath().await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{:#?}", self.spans()));
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

async fn world(config: &str, set: &[&str], variables: &[(&str, &str)]) -> World {
    let pam = Pam::start().await;
    let settings = load_with(config, &pam.address.to_string(), set, variables).unwrap_or_else(|c| panic!("{c:?}"));
    World::of_settings(settings, pam).await
}

fn debit() -> Request {
    wallet::signed("debit", &wallet::body("t"))
}

fn call() -> Request {
    valkyrie::call("GET", "/players/session?provider=x")
}

fn traced(flags: &str) -> Request {
    call().with("traceparent", &format!("00-{TRACE}-{PARENT}-{flags}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Trace-id, parent-id and flags of what the PAM got last.
fn sent_to_pam(world: &World) -> (String, String, String) {
    let seen = world.pam.requests().pop().unwrap();
    let parts: Vec<&str> = seen.values("traceparent")[0].split('-').collect();
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

fn of_kind(spans: &[Span], kind: SpanKind) -> &Span {
    let of_kind: Vec<&Span> = spans.iter().filter(|span| span.kind() == kind).collect();
    assert_eq!(of_kind.len(), 1, "{spans:#?}");
    of_kind[0]
}

fn shown(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let value = |pair: &KeyValue| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => panic!("{other:?}"),
    };
    let map: BTreeMap<&str, String> = attributes.iter().map(|pair| (pair.key.as_str(), value(pair))).collect();
    assert_eq!(map.len(), attributes.len(), "an attribute is there twice");
    map
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

#[tokio::test]
async fn a_request_is_a_server_span_and_its_exchange_a_client_span_which_the_pam_is_told_as_its_parent() {
    let collector = Collector::start().await;
    let world = collector.world("config/wallet.toml", &[], &[]).await;
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let request = debit().with("traceparent", &format!("00-{TRACE}-{PARENT}-01")).with("X-Correlation-ID", "c-1");
    assert_eq!(world.send(&request).await.status, 200);
    let spans = collector.until(&world, 2).await;
    let after = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let (server, client) = (of_kind(&spans, SpanKind::Server), of_kind(&spans, SpanKind::Client));

    let (trace_id, parent_id, flags) = sent_to_pam(&world);
    assert_eq!((trace_id.as_str(), flags.as_str()), (TRACE, "01"));
    assert_eq!((hex(&server.trace_id), hex(&client.trace_id)), (TRACE.to_owned(), TRACE.to_owned()));
    assert_eq!(hex(&client.span_id), parent_id);
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(hex(&server.parent_span_id), PARENT);
    assert_eq!(server.span_id.len(), 8);
    assert_ne!(server.span_id, client.span_id);
    assert_eq!((server.flags, client.flags), (0x301, 0x101));
    assert!(server.links.is_empty() && client.links.is_empty());
    let order = [
        before,
        server.start_time_unix_nano,
        client.start_time_unix_nano,
        client.end_time_unix_nano,
        server.end_time_unix_nano,
        after,
    ];
    assert!(order.is_sorted(), "{order:?}");

    assert_eq!((server.name.as_str(), client.name.as_str()), ("POST /api/wallet/debit", "POST /api/wallet/debit"));
    assert!(!is_error(server) && !is_error(client));
    let expected = [
        ("client.address", "127.0.0.1"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/api/wallet/debit"),
        ("network.protocol.version", "1.1"),
        ("portcullis.caller", "fantasy-goal"),
        ("portcullis.correlation_id", "c-1"),
        ("portcullis.decision", "admitted"),
        ("portcullis.dialect", "wallet"),
        ("portcullis.route", "debit"),
        ("url.path", "/api/wallet/debit"),
        ("url.scheme", "http"),
    ];
    assert_eq!(shown(&server.attributes), expected.map(|(name, value)| (name, value.to_owned())).into());
    let port = world.pam.address.port().to_string();
    let expected = [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("server.address", "127.0.0.1"),
        ("server.port", port.as_str()),
        ("url.template", "/api/wallet/debit"),
    ];
    assert_eq!(shown(&client.attributes), expected.map(|(name, value)| (name, value.to_owned())).into());
}

#[tokio::test]
async fn the_receiver_is_told_who_speaks_in_the_way_it_asks_for() {
    let collector = Collector::start().await;
    let url = format!("{}/ingest?to=traces", collector.url());
    let more = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "X-Ignored=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Api-Key=a%20secret%2C%20really, X-Tenant = casino "),
        ("OTEL_SERVICE_NAME", "gate"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=a%2Cb"),
    ];
    let world = collector.world("config/wallet.toml", &[], &more).await;
    world.send(&debit()).await;
    collector.until(&world, 2).await;
    let Seen { method, target, fields, .. } = collector.0.only_request();
    assert_eq!((method.as_str(), target.as_str()), ("POST", "/ingest?to=traces"));
    let value = |name: &str| fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    assert_eq!(value("Host"), Some(collector.0.address.to_string().as_str()));
    assert_eq!(value("Content-Type"), Some("application/x-protobuf"));
    assert_eq!((value("Api-Key"), value("X-Tenant")), (Some("a secret, really"), Some("casino")));
    assert_eq!((value("X-Ignored"), value("Content-Encoding")), (None, None));
    let export = collector.exports().remove(0);
    let resource = export.resource_spans[0].resource.as_ref().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        ("deployment.environment.name", "a,b"),
        ("service.name", "gate"),
        ("service.version", version),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "portcullis"),
        ("telemetry.sdk.version", version),
    ];
    assert_eq!(shown(&resource.attributes), expected.map(|(name, value)| (name, value.to_owned())).into());
    let scope = export.resource_spans[0].scope_spans[0].scope.clone().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("portcullis", version));
}

#[tokio::test]
async fn a_request_without_a_trace_begins_one_that_is_recorded() {
    let collector = Collector::start().await;
    let world = collector.world("config/valkyrie.toml", &[], &[]).await;
    assert_eq!(world.send_h2(&valkyrie::call("GET", "/players/17/balance?provider=x")).await.status, 200);
    let spans = collector.until(&world, 2).await;
    let (server, client) = (of_kind(&spans, SpanKind::Server), of_kind(&spans, SpanKind::Client));
    let (trace_id, parent_id, flags) = sent_to_pam(&world);
    assert_eq!((hex(&client.trace_id), hex(&client.span_id), flags.as_str()), (trace_id, parent_id, "03"));
    assert!(server.parent_span_id.is_empty());
    assert_eq!(server.flags, 0x103);
    let attributes = shown(&server.attributes);
    assert_eq!(attributes["network.protocol.version"], "2");
    // What stands where the template has a variable is nobody's business.
    let template = attributes["http.route"].clone();
    assert!(template.contains('{') && !template.contains("17"), "{template}");
    assert!(!attributes.contains_key("url.path"));
    assert_eq!(server.name, format!("GET {template}"));
}

#[tokio::test]
async fn a_refusal_is_one_span_which_says_why_and_is_no_error_of_the_servers() {
    let collector = Collector::start().await;
    let world = collector.world("config/wallet.toml", &[], &[]).await;
    for (request, status, name, check, reason) in [
        (debit().without("Authorization"), 401, "POST /api/wallet/debit", "credential", "credential_missing"),
        (Request { target: "/nowhere".to_owned(), ..debit() }, 404, "POST", "route", "no_route"),
        (Request { method: "TRACE".to_owned(), ..debit() }, 405, "HTTP", "route", "method"),
    ] {
        let before = collector.spans().len();
        assert_eq!(world.send(&request).await.status, status);
        let span = collector.until(&world, before + 1).await.pop().unwrap();
        assert_eq!((span.kind(), span.name.as_str(), is_error(&span)), (SpanKind::Server, name, false));
        let attributes = shown(&span.attributes);
        assert_eq!(attributes["http.response.status_code"], status.to_string());
        assert_eq!(
            (attributes["portcullis.check"].as_str(), attributes["portcullis.reason"].as_str()),
            (check, reason)
        );
        assert_eq!(
            (attributes["portcullis.decision"].as_str(), attributes["portcullis.caller"].as_str()),
            ("refused", "none")
        );
        assert!(!attributes.contains_key("error.type"));
        let method = if name == "HTTP" { "_OTHER" } else { "POST" };
        assert_eq!(attributes["http.request.method"], method);
    }
    world.pam.assert_untouched();
}

#[tokio::test]
async fn what_goes_wrong_at_the_pam_is_an_error_of_both_spans_and_what_it_refuses_of_the_clients_alone() {
    let collector = Collector::start().await;
    let world = collector.world("config/wallet.toml", &[], &[]).await;
    let rows = [
        (Some(answer(500, "{}")), 500, ("500", true), ("500", true)),
        (Some(answer(404, "{}")), 404, ("", false), ("404", true)),
        (None, 502, ("closed", true), ("closed", true)),
        (Some(b"nonsense\r\n\r\n".to_vec()), 502, ("malformed", true), ("malformed", true)),
    ];
    for (at_pam, status, server_error, client_error) in rows {
        let before = collector.spans().len();
        world.pam.answer_in_turn(vec![at_pam.clone()]);
        assert_eq!(world.send(&debit()).await.status, status);
        let spans = collector.until(&world, before + 2).await.split_off(before);
        for (kind, (error, failed)) in [(SpanKind::Server, server_error), (SpanKind::Client, client_error)] {
            let span = of_kind(&spans, kind);
            let attributes = shown(&span.attributes);
            let found = attributes.get("error.type").map_or("", String::as_str);
            assert_eq!((found, is_error(span)), (error, failed), "{at_pam:?} {span:#?}");
        }
        let answered = at_pam.is_some_and(|bytes| bytes.starts_with(b"HTTP/"));
        let client = of_kind(&spans, SpanKind::Client);
        assert_eq!(shown(&client.attributes).contains_key("http.response.status_code"), answered);
    }
}

/// What the PAM is told is what the sampler has decided, and nothing else is recorded.
#[tokio::test]
async fn the_sampler_decides_what_is_recorded_and_what_the_pam_is_told() {
    type Expected = [(Option<&'static str>, bool); 3];
    let rows: [(&str, &str, Expected); 7] = [
        ("", "", [(None, true), (Some("01"), true), (Some("00"), false)]),
        ("always_on", "", [(None, true), (Some("01"), true), (Some("00"), true)]),
        ("always_off", "", [(None, false), (Some("01"), false), (Some("00"), false)]),
        ("traceidratio", "0", [(None, false), (Some("01"), false), (Some("00"), false)]),
        ("parentbased_always_off", "", [(None, false), (Some("01"), true), (Some("00"), false)]),
        ("parentbased_traceidratio", "0", [(None, false), (Some("01"), true), (Some("00"), false)]),
        ("parentbased_traceidratio", "1", [(None, true), (Some("01"), true), (Some("00"), false)]),
    ];
    for (sampler, share, expected) in rows {
        let collector = Collector::start().await;
        let more = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", share)];
        let world = collector.world("config/valkyrie.toml", &[], &more).await;
        let mut recorded = 0;
        for (flags, sampled) in expected {
            let request = flags.map_or_else(call, traced);
            assert_eq!(world.send(&request).await.status, 200);
            let (trace_id, _, sent) = sent_to_pam(&world);
            let own = if flags.is_none() { 2 } else { 0 };
            assert_eq!(sent, format!("{:02x}", own + u8::from(sampled)), "{sampler} {flags:?}");
            recorded += 2 * usize::from(sampled);
            let spans = collector.until(&world, recorded).await;
            assert_eq!(spans.iter().any(|span| hex(&span.trace_id) == trace_id && sampled), sampled);
        }
    }
}

#[tokio::test]
async fn a_share_of_all_traces_is_what_it_says() {
    let collector = Collector::start().await;
    let more = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
    let world = collector.world("config/valkyrie.toml", &[], &more).await;
    let mut caller = world.connect().await;
    for (low, sampled) in [("7fffffffffffffff", true), ("8000000000000001", false)] {
        let request = call().with("traceparent", &format!("00-{}{low}-{PARENT}-00", "a".repeat(16)));
        assert_eq!(caller.send(&request).await.status, 200);
        assert_eq!(sent_to_pam(&world).2, if sampled { "01" } else { "00" });
    }
    collector.until(&world, 2).await;
}

// threat: F8
#[tokio::test]
async fn a_caller_whose_traces_are_not_trusted_gets_a_new_one_with_a_link_and_strangers_what_is_said_for_all() {
    // The word for all, the caller's, and whose trace a proven and an unproven request are then part of.
    let rows = [
        ("continue", None, true, true),
        ("link", None, false, false),
        ("continue", Some("link"), false, true),
        ("link", Some("continue"), true, false),
    ];
    let folder = Folder::new("spans-trust");
    for (all, own, proven_continues, unproven_continues) in rows {
        let own = own.map_or_else(String::new, |own| format!("trace = \"{own}\"\n"));
        let caller = format!("[[caller]]\nname = \"v\"\n{own}bearer = {{ env = \"PAM_API_TOKEN\" }}\n");
        let config = folder.config(&format!("\"valkyrie\"\ntrace = \"{all}\""), &caller, &[]);
        let collector = Collector::start().await;
        // Not sampled, says the caller; of a trace that is not its own, that counts for nothing.
        let world = collector.world(&config, &[], &[]).await;
        for (flags, told) in [("01", "01"), ("00", "00")] {
            let before = collector.spans().len();
            let request = traced(flags).with("tracestate", "vendor=1");
            assert_eq!(world.send(&request).await.status, 200);
            let seen = world.pam.requests().pop().unwrap();
            let (trace_id, parent_id, sent) = sent_to_pam(&world);
            if proven_continues {
                assert_eq!((trace_id.as_str(), sent.as_str()), (TRACE, told));
                assert_eq!(seen.values("tracestate"), ["vendor=1"]);
            } else {
                assert_ne!(trace_id, TRACE);
                assert_eq!((sent.as_str(), seen.values("tracestate").len()), ("03", 0));
            }
            if proven_continues && flags == "00" {
                continue;
            }
            let spans = collector.until(&world, before + 2).await.split_off(before);
            let (server, client) = (of_kind(&spans, SpanKind::Server), of_kind(&spans, SpanKind::Client));
            assert_eq!((hex(&server.trace_id), hex(&client.span_id)), (trace_id, parent_id));
            assert_belongs(server, proven_continues, flags);
            assert!(client.links.is_empty());
        }
        let before = collector.spans().len();
        let stranger = traced("01").replacing("Authorization", "Bearer nobody-knows-this-key");
        assert_eq!(world.send(&stranger).await.status, 401);
        let span = collector.until(&world, before + 1).await.pop().unwrap();
        assert_belongs(&span, unproven_continues, "01");
        let span_trace = hex(&span.trace_id);
        let lines = world.finish().await;
        assert_eq!(lines.last().unwrap()["trace_id"], serde_json::json!(span_trace));
    }
}

/// To the caller's trace, or to a new one that links to it.
fn assert_belongs(server: &Span, continues: bool, flags: &str) {
    if continues {
        assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
        assert!(server.links.is_empty());
    } else {
        assert_ne!(hex(&server.trace_id), TRACE);
        assert!(server.parent_span_id.is_empty());
        assert_eq!(server.links.len(), 1);
        let link = &server.links[0];
        assert_eq!((hex(&link.trace_id), hex(&link.span_id)), (TRACE.to_owned(), PARENT.to_owned()));
        assert_eq!(link.flags, 0x300 | u32::from_str_radix(flags, 16).unwrap());
    }
}

#[tokio::test]
async fn a_caller_is_not_trusted_also_where_nothing_is_recorded() {
    let world = World::of("config/valkyrie.toml", &["trace=link"]).await;
    assert_eq!(world.send(&traced("01").with("tracestate", "vendor=1")).await.status, 200);
    let (trace_id, _, flags) = sent_to_pam(&world);
    assert_ne!(trace_id, TRACE);
    assert_eq!((flags.as_str(), world.pam.only_request().values("tracestate").len()), ("02", 0));
}

#[tokio::test]
async fn a_receiver_that_is_away_costs_spans_which_are_counted_and_no_request() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "300"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    let world = world("config/wallet.toml", &[], &variables).await;
    for _ in 0..5 {
        assert_eq!(world.send(&debit()).await.status, 200);
    }
    world.until("portcullis_spans_dropped_total", 10.0).await;
    assert_eq!(world.metric("portcullis_spans_exported_total").await, 0.0);
    let lines = world.finish().await;
    let failing: Vec<_> = lines.iter().filter(|line| line["event"] == "span_export_failing").collect();
    // Told once, not for each batch.
    assert_eq!(failing.len(), 1);
    assert_eq!(failing[0]["about"]["fault"], "connect");
}

#[tokio::test]
async fn behind_a_receiver_that_is_slow_as_many_spans_wait_as_may_and_requests_go_on() {
    let collector = Collector::start().await;
    let release = collector.0.hold(answer(200, ""));
    let more =
        [("OTEL_BSP_MAX_QUEUE_SIZE", "8"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let world = collector.world("config/wallet.toml", &[], &more).await;
    assert_eq!(world.send(&debit()).await.status, 200);
    collector.0.arrived(1).await;
    for _ in 0..10 {
        assert_eq!(world.send(&debit()).await.status, 200);
    }
    // Two are on their way, eight wait.
    world.until("portcullis_spans_dropped_total", 12.0).await;
    assert_eq!(world.metric("portcullis_spans_exported_total").await, 0.0);
    release.send_replace(true);
    world.until("portcullis_spans_exported_total", 10.0).await;
    assert_eq!(world.metric("portcullis_spans_dropped_total").await, 12.0);
    assert_eq!(collector.0.requests().len(), 5);
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_tried_again_and_given_up_when_the_time_for_all_tries_is_over() {
    for (one, all) in [("100", "3600000"), ("3600000", "100")] {
        let collector = Collector::start().await;
        let _held = collector.0.hold(answer(200, ""));
        let more =
            [("OTEL_BSP_SCHEDULE_DELAY", "10"), ("OTEL_EXPORTER_OTLP_TIMEOUT", one), ("OTEL_BSP_EXPORT_TIMEOUT", all)];
        let world = collector.world("config/wallet.toml", &[], &more).await;
        assert_eq!(world.send(&debit()).await.status, 200);
        if one == "100" {
            collector.0.arrived(3).await;
            assert_eq!(world.metric("portcullis_spans_dropped_total").await, 0.0);
        } else {
            world.until("portcullis_spans_dropped_total", 2.0).await;
        }
    }
}

#[tokio::test]
async fn a_full_batch_goes_at_once_and_a_smaller_one_when_its_time_has_come() {
    let collector = Collector::start().await;
    let more = [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"), ("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
    let world = collector.world("config/wallet.toml", &[], &more).await;
    for _ in 0..2 {
        assert_eq!(world.send(&debit()).await.status, 200);
    }
    collector.0.arrived(1).await;
    assert_eq!(collector.spans().len(), 4);

    let collector = Collector::start().await;
    let world = collector.world("config/wallet.toml", &[], &[("OTEL_BSP_SCHEDULE_DELAY", "20")]).await;
    assert_eq!(world.send(&debit()).await.status, 200);
    collector.0.arrived(1).await;
    assert_eq!(collector.spans().len(), 2);
}

#[tokio::test]
async fn what_the_receiver_will_take_later_is_sent_again_and_what_it_will_not_is_dropped() {
    let told_to_wait = |time: &str| {
        format!("HTTP/1.1 429 Too Many Requests\r\nRetry-After: {time}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    };
    let response = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess { rejected_spans: 1, error_message: "one of them".to_owned() }),
    };
    let mut partial = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", response.encoded_len()).into_bytes();
    response.encode(&mut partial).unwrap();
    type Answers = Vec<Option<Vec<u8>>>;
    let rows: [(Answers, usize, f64, f64); 8] = [
        (vec![Some(answer(503, "")), Some(answer(502, "")), Some(answer(200, ""))], 3, 2.0, 0.0),
        (vec![Some(answer(504, "")), Some(told_to_wait("0")), Some(answer(202, ""))], 3, 2.0, 0.0),
        (vec![None, Some(answer(200, ""))], 2, 2.0, 0.0),
        (vec![Some(answer(400, ""))], 1, 0.0, 2.0),
        (vec![Some(answer(500, ""))], 1, 0.0, 2.0),
        (vec![Some(answer(301, ""))], 1, 0.0, 2.0),
        // Longer than all tries may take.
        (vec![Some(told_to_wait("18446744073709551615"))], 1, 0.0, 2.0),
        (vec![Some(partial)], 1, 1.0, 1.0),
    ];
    for (answers, tries, exported, dropped) in rows {
        let collector = Collector::start().await;
        collector.0.answer_in_turn(answers);
        let world = collector.world("config/wallet.toml", &[], &[("OTEL_BSP_SCHEDULE_DELAY", "10")]).await;
        assert_eq!(world.send(&debit()).await.status, 200);
        world.until("portcullis_spans_exported_total", exported).await;
        world.until("portcullis_spans_dropped_total", dropped).await;
        let exports = collector.exports();
        assert_eq!(exports.len(), tries);
        assert!(exports.iter().all(|export| *export == exports[0]));
    }
}

#[tokio::test]
async fn spans_go_compressed_and_over_tls_where_that_is_wanted() {
    let folder = Folder::new("spans-tls");
    let (authority, other) = (Authority::new("collector"), Authority::new("other"));
    let (ca, wrong) = (folder.write("ca.pem", &authority.pem), folder.write("wrong.pem", &other.pem));
    let client = authority.issue(&["portcullis"]);
    let certificate = folder.write("client.pem", &client.certificate);
    let key = folder.write("client.key", &client.key);
    let collector = Collector(Pam::over_tls(authority.issue(&["127.0.0.1"]).server(Some(&authority))).await);
    let url = format!("https://{}", collector.0.address);
    let variables = |ca| {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate.as_str()),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.as_str()),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "50"),
        ]
    };
    let trusting = world("config/wallet.toml", &[], &variables(ca.as_str())[..6]).await;
    assert_eq!(trusting.send(&debit()).await.status, 200);
    trusting.until("portcullis_spans_exported_total", 2.0).await;
    let seen = collector.0.only_request();
    assert_eq!(seen.values("Content-Encoding"), ["gzip"]);
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(seen.body.as_slice()).read_to_end(&mut plain).unwrap();
    let export = ExportTraceServiceRequest::decode(plain.as_slice()).unwrap();
    assert_eq!(export.resource_spans[0].scope_spans[0].spans.len(), 2);

    let strange = world("config/wallet.toml", &[], &variables(wrong.as_str())).await;
    assert_eq!(strange.send(&debit()).await.status, 200);
    strange.until("portcullis_spans_dropped_total", 2.0).await;
    assert_eq!(collector.0.requests().len(), 1);
}

/// Not in a span, and what the receiver is shown of headers stands in no log.
#[tokio::test]
async fn no_secret_and_no_token_is_exported() {
    const TOKEN: &str = "canary-player+token/of-a-session-000001";
    const WRONG: &str = "canary-wrong-proof";
    const API_KEY: &str = "canary-key-of-the-receiver";
    let collector = Collector::start().await;
    let headers = format!("Api-Key={API_KEY}");
    let more = [("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str())];
    let set = [operator::SET];
    let wallet_world = collector.world("config/wallet.toml", &set, &more).await;
    let good = || wallet::signed("debit", &wallet::body(TOKEN)).with("tracestate", "canary=canary");
    let requests = [
        good(),
        good().with("traceparent", &format!("00-{TRACE}-{PARENT}-01")),
        good().replacing("Authorization", &basic(wallet::USER, WRONG)),
        good().replacing("Authorization", &basic(WRONG, wallet::PASSWORD)),
        good().replacing("X-Request-Signature", WRONG),
        good().replacing("Host", WRONG),
        Request { target: format!("/api/wallet/{TOKEN}"), ..good() },
        Request { target: format!("/api/wallet/debit?token={TOKEN}&key={}", wallet::KEY), ..good() },
        Request { method: "CANARY".to_owned(), ..good() },
        good().with("X-Correlation-ID", &format!("\"{TOKEN}\"")).with("Cookie", TOKEN).with("User-Agent", WRONG),
    ];
    for request in &requests {
        wallet_world.send(request).await;
    }
    wallet_world.pam.answer_with(|_| b"HTTP/1.1 200 canary\r\nContent-Length: canary\r\n\r\n".to_vec());
    wallet_world.send(&good()).await;
    let valkyrie_world = collector.world("config/valkyrie.toml", &[], &more).await;
    for target in [format!("/players/{TOKEN}/balance?provider={TOKEN}"), format!("/players/session?provider={TOKEN}")] {
        valkyrie_world.send(&valkyrie::call("GET", &target)).await;
    }
    for world in [&wallet_world, &valkyrie_world] {
        let all = requests.len() + 1;
        let told = async {
            let logged = |world: &World| world.log_text().matches("\"event\":\"request\"").count();
            while logged(world) < if std::ptr::eq(world, &wallet_world) { all } else { 2 } {
                breath().await;
            }
        };
        timeout(PATIENCE, told).await.unwrap();
        assert!(world.portcullis.spans().unwrap().flush(PATIENCE).await);
    }
    let decoded = format!("{:?}", collector.exports());
    assert!(decoded.contains("\"no_route\"") && decoded.contains("\"credential_wrong\""), "{decoded}");
    let mut secrets = vec![TOKEN, WRONG, API_KEY, wallet::PASSWORD, wallet::KEY, valkyrie::KEY, valkyrie::TOKEN];
    secrets.extend([valkyrie::PASSWORD, operator::TOKEN, "canary", "CANARY"]);
    let needles = spellings(&secrets, &[]);
    let bodies: Vec<Vec<u8>> = collector.0.requests().into_iter().map(|seen| seen.body).collect();
    assert_ne!(bodies.len(), 0);
    let log = [wallet_world.log_text(), valkyrie_world.log_text()].concat().into_bytes();
    for place in bodies.iter().chain([&log]) {
        for needle in &needles {
            let found = place.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{needle}: {}", String::from_utf8_lossy(place));
        }
    }
    assert!(collector.0.requests().iter().all(|seen| seen.values("Api-Key") == [API_KEY]));
}

// ---- the variables ----

#[test]
fn nothing_is_recorded_unless_somebody_asks_for_it() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let rows: [(&[(&str, &str)], bool); 10] = [
        (&[], false),
        (&[("OTEL_SERVICE_NAME", "gate"), ("OTEL_TRACES_SAMPLER", "always_on")], false),
        (&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:1")], false),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], false),
        (&[endpoint], true),
        (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")], true),
        (&[("OTEL_TRACES_EXPORTER", "otlp")], true),
        (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], false),
        (&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")], false),
        (&[endpoint, ("OTEL_SDK_DISABLED", "false")], true),
    ];
    for (variables, wanted) in rows {
        let settings = load_with("config/wallet.toml", "127.0.0.1:9", &[], variables).unwrap();
        assert_eq!(settings.spans.is_some(), wanted, "{variables:?}");
    }
}

#[test]
fn an_endpoint_is_a_base_for_all_signals_or_the_very_one_for_traces() {
    let rows = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", "collector:4318", "/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/", "collector:4318", "/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector/otlp/", "collector:80", "/otlp/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:1", "collector:1", "/"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]:2/x/?y", "[::1]:2", "/x/?y"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]/x", "[::1]:80", "/x"),
        ("OTEL_TRACES_EXPORTER", "otlp", "localhost:4318", "/v1/traces"),
    ];
    for (name, value, address, target) in rows {
        let settings = load_with("config/wallet.toml", "127.0.0.1:9", &[], &[(name, value)]).unwrap();
        let endpoint = settings.spans.unwrap().endpoint;
        assert_eq!((endpoint.address.as_str(), endpoint.target.as_str()), (address, target), "{value}");
    }
    let ca = Folder::new("spans-endpoint");
    let ca = ca.write("ca.pem", &Authority::new("collector").pem);
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", &*ca)];
    let endpoint = load_with("config/wallet.toml", "127.0.0.1:9", &[], &variables).unwrap().spans.unwrap().endpoint;
    assert_eq!((endpoint.address.as_str(), endpoint.tls.is_some()), ("collector:443", true));
}

#[test]
fn a_variable_that_makes_no_sense_is_named_and_its_value_is_not_shown() {
    let rows = [
        ("OTEL_SDK_DISABLED", "canary", "must be true or false"),
        ("OTEL_TRACES_EXPORTER", "canary", "must be otlp or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "must be http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "canary:4318", "neither http:// nor https://"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:canary@a", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "it has no host"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://::1", "it has no host"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:canary", "its port is no number"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a/b c", "no path can carry"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a?canary", "a query can stand in OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "canary", "NAME=VALUE"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=canary%2", "percent-encoded"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=canary%+a", "percent-encoded"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=canary%0d%0ab:c", "no header can carry"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=canary", "no header can carry"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Host=canary", "`host` is not to be chosen"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "must be a number from 1 to 3600000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0", "must be a number from 1 to 3600000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "canary", "must be gzip or none"),
        ("OTEL_TRACES_SAMPLER", "canary", "must be always_on, always_off or traceidratio"),
        ("OTEL_TRACES_SAMPLER", "parentbased_canary", "must be always_on, always_off or traceidratio"),
        ("OTEL_RESOURCE_ATTRIBUTES", "canary", "NAME=VALUE"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%ff", "not UTF-8"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=canary", "without a name"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "must be a number from 1 to 1000000"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "must be at most OTEL_BSP_MAX_QUEUE_SIZE, which is 2048"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "must be a number from 1 to 3600000"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "canary", "must be a number from 1 to 3600000"),
    ];
    for (name, value, part) in rows {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        let found = complaints(&[(name, value), endpoint]);
        let [complaint] = &found[..] else { panic!("{name}={value}: {found:?}") };
        assert!(complaint.starts_with(&format!("{name}: ")) && complaint.contains(part), "{complaint}");
        assert!(!complaint.contains("canary"), "{complaint}");
    }
    for share in ["canary", "-0.1", "1.1", "NaN"] {
        let sampler = ("OTEL_TRACES_SAMPLER", "traceidratio");
        let found = complaints(&[("OTEL_TRACES_EXPORTER", "otlp"), sampler, ("OTEL_TRACES_SAMPLER_ARG", share)]);
        assert_eq!(found, ["OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1, such as 0.25"]);
    }
    let https = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector");
    let found = complaints(&[https, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")]);
    assert!(found.len() == 1 && found[0].starts_with("OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read /nowhere/ca.pem"));
    let found = complaints(&[https, ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/nowhere/key.pem")]);
    assert!(found.len() == 1 && found[0].contains("comes together with OTEL_EXPORTER_OTLP_CLIENT_KEY"), "{found:?}");
    // All of them at once.
    let two = [("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_BSP_SCHEDULE_DELAY", "x"), ("OTEL_TRACES_SAMPLER", "x")];
    assert_eq!(complaints(&two).len(), 2);
}

fn complaints(variables: &[(&str, &str)]) -> Vec<String> {
    let loaded = load_with("config/wallet.toml", "127.0.0.1:9", &[], variables);
    loaded.unwrap_err().iter().map(ToString::to_string).collect()
}

// ---- the process ----

#[test]
fn check_names_a_bad_variable() {
    let mut command = portcullis();
    command.args(["check", "--config", "config/wallet.toml"]);
    command.env("OTEL_TRACES_EXPORTER", "otlp").env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let done = command.output().unwrap();
    let text = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(78));
    assert!(text.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf"), "{text}");
    assert_eq!(output(&["check", "--config", "config/wallet.toml"]).0, 0);
}

#[tokio::test]
async fn what_waits_is_handed_over_when_the_process_stops_and_a_receiver_that_hangs_does_not_hold_it() {
    for hangs in [false, true] {
        let collector = Collector::start().await;
        let release = hangs.then(|| collector.0.hold(answer(200, "")));
        let pam = Pam::start().await;
        let mut command = portcullis();
        command.args(["run", "--config", "config/wallet.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--upstream", &pam.address.to_string()]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
        let mut running = Running::spawn(command);
        assert_eq!(running.send(&debit()).await, 200);
        running.signal("TERM");
        let stopped = tokio::task::spawn_blocking(move || {
            let left = std::iter::from_fn(|| Some(running.next_event()))
                .find(|line| ["spans_left", "stopped"].iter().any(|event| line["event"] == **event));
            (left.unwrap()["event"].as_str().unwrap().to_owned(), running.exit_code())
        });
        let (event, code) = timeout(PATIENCE, stopped).await.unwrap().unwrap();
        assert_eq!((event.as_str(), code), (if hangs { "spans_left" } else { "stopped" }, 0));
        assert_eq!(collector.spans().len(), 2);
        drop(release);
    }
}
