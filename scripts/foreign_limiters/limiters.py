"""The limiters, each with the least time that any client needs for a number of calls."""

import dataclasses
import math

from servers import Failure


@dataclasses.dataclass(frozen=True)
class Rate:
    """`limit` requests in `window` seconds. Where a limiter has a burst of its own, `burst`."""

    limit: int
    window: float
    burst: int


def windows(rate, calls):
    """Fixed windows, the first of which begins with the first request, and sliding logs: as many
    requests as are allowed at once, then those of the next window."""
    return (math.ceil(calls / rate.limit) - 1) * rate.window


def bucket(rate, calls):
    """Token buckets, GCRA and leaky buckets: the burst at once, then one in each interval."""
    return max(0, calls - rate.burst) * rate.window / rate.limit


@dataclasses.dataclass(frozen=True)
class Limiter:
    """How to start it, its least time, its burst where it has one of its own, and what the job has
    to be told."""

    name: str
    start: object
    least: object = windows
    burst: int = 1
    options: dict = dataclasses.field(default_factory=dict)
    # Whether it admits two requests only if they are a whole interval apart, in whole milliseconds.
    exact: bool = False


# nginx sends 503 without Retry-After unless it is told otherwise.
UNAVAILABLE = {"METHOD": "GET", "UNAVAILABLE": "any"}
WITH_RETRY_AFTER = {"METHOD": "GET", "UNAVAILABLE": "1"}
RETRY_AFTER = "add_header Retry-After 1 always;"
BURST = " burst=20 nodelay"

LIMITERS = [
    *(
        Limiter(
            f"express-rate-limit {headers}",
            lambda server, headers=headers: server.node("express", HEADERS=headers),
        )
        for headers in ["legacy", "draft-6", "draft-7", "draft-8"]
    ),
    Limiter("@fastify/rate-limit", lambda server: server.node("fastify")),
    Limiter("rate-limiter-flexible", lambda server: server.node("flexible")),
    Limiter("hono-rate-limiter", lambda server: server.node("hono")),
    Limiter("slowapi", lambda server: server.uvicorn("slowapi_app")),
    Limiter("slowapi fields", lambda server: server.uvicorn("slowapi_app", HEADERS="1")),
    Limiter("Flask-Limiter", lambda server: server.gunicorn("flask_app", 4)),
    Limiter("Flask-Limiter fields", lambda server: server.gunicorn("flask_app", 4, HEADERS="1")),
    # Its throttle counts wrong with several threads.
    Limiter("DRF", lambda server: server.gunicorn("django_app", 1)),
    Limiter("nginx 429", lambda server: server.nginx(429), bucket, exact=True),
    Limiter("nginx 429 burst", lambda server: server.nginx(429, burst=BURST), bucket, 21),
    Limiter("nginx 503", lambda server: server.nginx(503), bucket, 1, UNAVAILABLE, exact=True),
    Limiter(
        "nginx 503 burst", lambda server: server.nginx(503, burst=BURST), bucket, 21, UNAVAILABLE
    ),
    Limiter(
        "nginx 503 Retry-After",
        lambda server: server.nginx(503, RETRY_AFTER, BURST),
        bucket,
        21,
        WITH_RETRY_AFTER,
    ),
    Limiter("tower_governor", lambda server: server.rust("tower_governor"), bucket, 5),
    Limiter(
        "tower_governor fields", lambda server: server.rust("tower_governor-headers"), bucket, 5
    ),
    Limiter("actix-governor", lambda server: server.rust("actix-governor"), bucket, 5),
    Limiter(
        "actix-governor fields", lambda server: server.rust("actix-governor-headers"), bucket, 5
    ),
]
# Its Retry-After is true only at one request in a second.
NGINX_IN_SECONDS = Limiter(
    "nginx 503", lambda server: server.nginx(503, RETRY_AFTER), bucket, 1, WITH_RETRY_AFTER
)
# This crate's own: its burst is the limit.
BOLNA = Limiter("this crate", lambda server: server.rust("bolna"), bucket, 0)


def named(name):
    limiters = {limiter.name: limiter for limiter in [*LIMITERS, BOLNA]}
    if name not in limiters:
        raise Failure(f"there is no {name!r}, but {', '.join(limiters)}")
    return limiters[name]
