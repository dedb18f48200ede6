//! The servers that are compared.

use std::io::{Error, Write, stdin, stdout};
use std::time::Duration;
use std::{fmt, thread};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
use governor::middleware::StateInformationMiddleware;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower::util::{MapRequestLayer, MapResponseLayer};
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::KeyExtractor;
use tower_governor::{GovernorError, GovernorLayer};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Bare,
    /// A layer that does nothing: what axum itself asks for one more.
    Idle,
    Bolna,
    TowerGovernor,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Admit,
    Refuse,
}

const ORGANIZATION: &str = "28f9c34b-8eb0-4af5-8689-c2f6c4daec22";

/// An agent, as the API describes one.
const ANSWER: &str = r#"{
  "id": "5bc97541-e320-4d95-a3a5-242cfe45621d",
  "agent_name": "Front desk",
  "agent_type": "other",
  "agent_status": "processed",
  "created_at": "2026-01-15T09:30:00Z",
  "updated_at": "2026-02-20T16:05:00Z",
  "tasks": [{"task_type": "conversation", "task_config": {"hangup_after_silence": 10}}]
}"#;

/// Answers on a port of the loopback interface, which it prints, until `lifetime` is over or
/// standard input ends.
pub fn serve(subject: Subject, case: Case, lifetime: Duration) -> Result<(), Error> {
    thread::spawn(|| {
        // The parent holds the other end, and never writes: it ends when the parent does.
        let _ = stdin().read_line(&mut String::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        stdout().flush()?;
        timeout(lifetime, async { axum::serve(listener, subject.app(case)).await })
            .await
            .unwrap_or(Ok(()))
    })
}

impl Subject {
    pub fn named(name: &str) -> Result<Self, String> {
        [Self::Bare, Self::Idle, Self::Bolna, Self::TowerGovernor]
            .into_iter()
            .find(|subject| subject.to_string() == name)
            .ok_or_else(|| format!("{name} is no server"))
    }

    fn app(self, case: Case) -> Router {
        let app = Router::new().route("/v2/agent/{agent_id}", get(agent));
        let limited = match self {
            Self::Bare => app,
            Self::Idle => app.layer(MapResponseLayer::new(|response: Response| response)),
            Self::Bolna => app.layer(bolna(case)),
            Self::TowerGovernor => app.layer(tower_governor(case)),
        };
        limited.layer(MapRequestLayer::new(authenticate))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "axum alone",
            Self::Idle => "with a layer that does nothing",
            Self::Bolna => "with bolna-rate-limit",
            Self::TowerGovernor => "with tower_governor",
        })
    }
}

impl Case {
    pub fn named(name: &str) -> Result<Self, String> {
        [Self::Admit, Self::Refuse]
            .into_iter()
            .find(|case| case.to_string() == name)
            .ok_or_else(|| format!("{name} is no case"))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admit => "admit",
            Self::Refuse => "refuse",
        })
    }
}

async fn agent() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], ANSWER)
}

/// Stands for authentication, in all servers: says who calls, to either limiter.
fn authenticate(mut request: Request) -> Request {
    let key = ORGANIZATION.as_bytes().try_into().map(Key).expect("an id has 36 bytes");
    request.extensions_mut().insert(key);
    request.extensions_mut().insert(Account::user("u").in_organization(ORGANIZATION));
    request
}

/// An admitting quota refills faster than a server can be asked. A refusing one admits one a
/// second, so the wait is less than that, as it is under Bolna's limits and most others.
fn bolna(case: Case) -> BolnaRateLimitLayer {
    let quota = match case {
        Case::Admit => Quota::per_second(100_000_000).burst(500),
        Case::Refuse => Quota::per_second(1),
    };
    BolnaRateLimitLayer::with_policy(
        Policy::bolna().quota("agent", quota).build().expect("the quota is valid"),
    )
}

fn tower_governor(case: Case) -> GovernorLayer<FromExtensions, StateInformationMiddleware, Body> {
    let mut builder = GovernorConfigBuilder::default().key_extractor(FromExtensions);
    match case {
        Case::Admit => builder.period(Duration::from_nanos(10)).burst_size(500),
        Case::Refuse => builder.period(Duration::from_secs(1)).burst_size(1),
    };
    GovernorLayer::new(builder.use_headers().finish().expect("the quota is valid"))
}

/// An organization's id, which costs nothing to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key([u8; 36]);

#[derive(Clone, Copy)]
struct FromExtensions;

impl KeyExtractor for FromExtensions {
    type Key = Key;

    fn extract<T>(&self, request: &axum::http::Request<T>) -> Result<Key, GovernorError> {
        request.extensions().get().copied().ok_or(GovernorError::UnableToExtractKey)
    }
}
