//! Each customer has the limits of its plan, which a database knows. The database here is a file
//! that belongs to [redb](https://docs.rs/redb); any other one is asked at the same place.
//!
//! ```sh
//! rm -f /tmp/plans.redb
//! cargo run --example plans -- /tmp/plans.redb
//! # listening on http://127.0.0.1:3000
//! ```
//!
//! Then, in another terminal:
//!
//! ```sh
//! # A customer that the database does not know has Bolna's limits.
//! curl -si -X POST -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/call \
//!     | grep ratelimit-policy
//! # ratelimit-policy: "call";q=500;w=60
//!
//! # It buys a plan. The next request has the new limits; what was spent stays spent, in time.
//! curl -s -X PUT -d enterprise http://127.0.0.1:3000/plans/acme
//! # acme: enterprise
//! curl -si -X POST -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/call \
//!     | grep ratelimit-policy
//! # ratelimit-policy: "call";q=5000;w=60
//!
//! # A plan that is not known is a mistake, which is seen where it is made.
//! curl -s -X PUT -d gold http://127.0.0.1:3000/plans/acme
//! # there is no plan "gold": the plans are enterprise, trial
//! ```

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{post, put};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
use redb::{Database, ReadableDatabase, TableDefinition};
use tokio::net::TcpListener;

/// The name of the plan of each organization.
const PLANS: TableDefinition<'_, &str, &str> = TableDefinition::new("plans");

struct Customers {
    database: Database,
    /// The policies of all plans. They are built once, at the start: a mistake in one is an error
    /// there, and a clone copies a pointer.
    plans: BTreeMap<&'static str, Policy>,
}

impl Customers {
    fn open(path: &str) -> Result<Self, Box<dyn Error>> {
        let database = Database::create(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(PLANS)?;
        transaction.commit()?;
        let plan = |calls| Policy::bolna().quota("call", Quota::per_minute(calls)).build();
        let plans = BTreeMap::from([("trial", plan(10)?), ("enterprise", plan(5000)?)]);
        Ok(Self { database, plans })
    }

    /// The policy of an organization, or `None` if it has no plan. In memory, as redb has it, this
    /// takes microseconds; keep the answers of a database beyond a network for some seconds.
    fn policy_of(&self, organization: &str) -> Result<Option<&Policy>, redb::Error> {
        let plans = self.database.begin_read()?.open_table(PLANS)?;
        Ok(plans.get(organization)?.and_then(|plan| self.plans.get(plan.value())))
    }

    fn set_plan(&self, organization: &str, plan: &str) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(PLANS)?.insert(organization, plan)?;
        Ok(transaction.commit()?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("usage: plans FILE")?;
    let customers = Arc::new(Customers::open(&path)?);
    let app = Router::new()
        .route("/call", post("queued\n"))
        .layer(BolnaRateLimitLayer::new())
        .layer(from_fn_with_state(Arc::clone(&customers), authenticate))
        // For operators only: in your application, behind authentication of its own.
        .route("/plans/{organization}", put(set_plan))
        .with_state(customers);
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// A DEMO: it believes any token, `Bearer <user>@<organization>`.
async fn authenticate(
    State(customers): State<Arc<Customers>>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let names = token.and_then(|token| token.strip_prefix("Bearer ")?.split_once('@'));
    if let Some((user, organization)) = names {
        let account = Account::user(user).in_organization(organization);
        // If the database can't be read, Bolna's limits are better than none.
        let plan = customers.policy_of(organization).unwrap_or_else(|error| {
            eprintln!("the plan of a customer can't be read: {error}");
            None
        });
        let account = match plan {
            Some(policy) => account.with_policy(policy.clone()),
            None => account,
        };
        request.extensions_mut().insert(account);
    }
    next.run(request).await
}

async fn set_plan(
    State(customers): State<Arc<Customers>>,
    Path(organization): Path<String>,
    plan: String,
) -> Result<String, (StatusCode, String)> {
    if !customers.plans.contains_key(&*plan) {
        let known = customers.plans.keys().copied().collect::<Vec<_>>().join(", ");
        let error = format!("there is no plan {plan:?}: the plans are {known}\n");
        return Err((StatusCode::UNPROCESSABLE_ENTITY, error));
    }
    match customers.set_plan(&organization, &plan) {
        Ok(()) => Ok(format!("{organization}: {plan}\n")),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
    }
}
