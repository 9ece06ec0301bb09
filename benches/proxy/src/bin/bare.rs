//! A proxy that is nothing but pingora: every request goes on as it came.
//!
//! ```sh
//! bare LISTEN UPSTREAM [CERTIFICATE KEY]
//! ```

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::services::listening::Service;

struct Bare {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&self.upstream, false, String::new())))
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, tls @ ..] = arguments.as_slice() else {
        eprintln!("bare LISTEN UPSTREAM [CERTIFICATE KEY]");
        std::process::exit(64);
    };
    let conf = ServerConf { threads: 2, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy(&server.configuration, Bare { upstream: upstream.clone() });
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    proxy.server_options = Some(options);
    let mut service = Service::new("bare".to_owned(), proxy);
    match tls {
        [certificate, key] => {
            let mut settings = TlsSettings::intermediate(certificate, key)?;
            settings.enable_h2();
            service.add_tls_with_settings(listen, None, settings);
        }
        _ => service.add_tcp(listen),
    }
    server.add_service(service);
    server.run_forever();
}
