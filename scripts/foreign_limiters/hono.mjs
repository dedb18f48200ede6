// Hono with hono-rate-limiter.
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { rateLimiter } from "hono-rate-limiter";

const { PORT, LIMIT, WINDOW_MS } = process.env;
const app = new Hono();
app.use(
  rateLimiter({
    windowMs: Number(WINDOW_MS),
    limit: Number(LIMIT),
    keyGenerator: (context) => context.req.header("authorization") ?? "",
  }),
);
app.all("/call", (context) => context.text("queued"));
serve({ fetch: app.fetch, hostname: "127.0.0.1", port: Number(PORT) });
