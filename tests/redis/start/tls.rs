use std::fs;
use std::path::PathBuf;
use std::process::Command;

use bolna_rate_limit::store::{RedisStoreBuilder, RedisStoreErrorKind as Kind};

use super::{assert_counts, assert_refused, refusal, store};
use crate::servers::{Directory, Server, free_port};

/// A certificate of the tests' own authority. It may not sign other certificates, because clients
/// would not accept such a certificate from a server.
const CONFIG: &str = "
[req]
distinguished_name = name
x509_extensions = extensions
[name]
[extensions]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
";

struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn new(directory: &Directory, name: &str) -> Self {
        let [config, certificate, key] =
            ["cnf", "crt", "key"].map(|kind| directory.path().join(format!("{name}.{kind}")));
        fs::write(&config, CONFIG).unwrap();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-days",
                "2",
                "-nodes",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args(["-subj", &format!("/CN={name}"), "-config"])
            .arg(&config)
            .arg("-out")
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key)
            .output()
            .expect("openssl is missing: `apt-get install openssl`");
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        Self { certificate, key }
    }

    fn pem(&self) -> String {
        fs::read_to_string(&self.certificate).unwrap()
    }

    fn key(&self) -> String {
        fs::read_to_string(&self.key).unwrap()
    }
}

struct TlsServer {
    // Declared before the directory, because the server reads the files there.
    server: Server,
    port: u16,
    own: Certificate,
    client: Certificate,
    stranger: Certificate,
    _directory: Directory,
}

impl TlsServer {
    /// `clients`: whether they need a certificate, `yes` or `no`.
    async fn start(clients: &str) -> Self {
        let port = free_port();
        let directory = Directory::of(port);
        let [own, client, stranger] =
            ["server", "client", "stranger"].map(|name| Certificate::new(&directory, name));
        let [certificate, key, known] =
            [&own.certificate, &own.key, &client.certificate].map(|path| path.to_str().unwrap());
        let args = [
            ["--tls-port", &port.to_string()],
            ["--tls-cert-file", certificate],
            ["--tls-key-file", key],
            ["--tls-ca-cert-file", known],
            ["--tls-auth-clients", clients],
        ];
        let server = Server::with_args(args.as_flattened()).await;
        Self { server, port, own, client, stranger, _directory: directory }
    }

    fn store(&self) -> RedisStoreBuilder {
        store(format!("rediss://127.0.0.1:{}", self.port))
    }

    async fn assert_unreachable(&self, builder: RedisStoreBuilder, words: &[&str]) {
        assert_refused(
            &refusal(builder).await,
            Kind::Unreachable,
            &[words, &[&self.port.to_string()]].concat(),
        );
    }
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let server = TlsServer::start("no").await;
    assert_counts(server.store().root_certificates(server.own.pem())).await;
    server.server.command::<()>(&["FLUSHALL"]).await.unwrap();
    let both = server.stranger.pem() + &server.own.pem();
    assert_counts(server.store().root_certificates(both)).await;

    server.assert_unreachable(server.store(), &["certificate", "UnknownIssuer"]).await;
    let other = server.store().root_certificates(server.stranger.pem());
    server.assert_unreachable(other, &["certificate", "UnknownIssuer"]).await;
    let by_name =
        store(format!("rediss://localhost:{}", server.port)).root_certificates(server.own.pem());
    server.assert_unreachable(by_name, &["certificate not valid for name", "localhost"]).await;
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate_where_the_server_wants_it() {
    let server = TlsServer::start("yes").await;
    let trusting = || server.store().root_certificates(server.own.pem());
    assert_counts(trusting().client_certificate(server.client.pem(), server.client.key())).await;

    server.assert_unreachable(trusting(), &[]).await;
    let stranger = trusting().client_certificate(server.stranger.pem(), server.stranger.key());
    server.assert_unreachable(stranger, &[]).await;
}

#[tokio::test]
async fn without_tls_there_is_no_way_to_a_port_that_wants_it_nor_the_other_way_round() {
    let server = TlsServer::start("no").await;
    let (kind, text) = refusal(store(format!("redis://127.0.0.1:{}", server.port))).await;
    assert!(matches!(kind, Kind::Unreachable | Kind::Other), "{kind:?}: {text}");
    assert!(text.contains(&server.port.to_string()), "{text}");
    let plain = server.server.port();
    let (kind, text) = refusal(store(format!("rediss://127.0.0.1:{plain}"))).await;
    assert_eq!(kind, Kind::Unreachable, "{text}");
    assert!(text.contains(&plain.to_string()), "{text}");
}

#[tokio::test]
async fn certificates_that_are_none_are_a_wrong_setting() {
    let server = TlsServer::start("no").await;
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    for builder in [
        server.store().root_certificates(broken),
        server.store().root_certificates("no PEM at all"),
        server.store().root_certificates(""),
        server.store().client_certificate(broken, server.client.key()),
        server.store().client_certificate("no PEM at all", server.client.key()),
        server.store().client_certificate(server.client.pem(), "no PEM at all"),
    ] {
        assert_refused(&refusal(builder.start_degraded()).await, Kind::Setting, &["certificate"]);
    }
    let others = server.store().client_certificate(server.client.pem(), server.stranger.key());
    assert_refused(&refusal(others.start_degraded()).await, Kind::Setting, &["KeyMismatch"]);
}
