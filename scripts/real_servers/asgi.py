"""Starlette as it comes. Each handler counts its calls."""

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

counts = dict.fromkeys("cael", 0)


def answers(letter, path):
    async def handler(_):
        counts[letter] += 1
        return Response(headers={"Route": letter})

    return Route(path, handler)


async def report(_):
    return JSONResponse(counts)


app = Starlette(
    routes=[
        answers("c", "/call"),
        answers("l", "/v2/agent/all"),
        answers("a", "/v2/agent/{id}"),
        answers("e", "/v2/agent/{id}/executions"),
        Route("/counts", report),
    ]
)
