"""Starlette with slowapi. HEADERS=1 makes it send its header fields."""

import os

from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

seconds = int(os.environ["WINDOW_MS"]) // 1000
limiter = Limiter(
    key_func=get_remote_address, headers_enabled=os.environ.get("HEADERS") == "1"
)


@limiter.limit(f"{os.environ['LIMIT']} per {seconds} seconds")
async def call(request):
    return PlainTextResponse("queued")


app = Starlette(routes=[Route("/call", call, methods=["GET", "POST"])])
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
