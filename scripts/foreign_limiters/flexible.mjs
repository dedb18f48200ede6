// Express with rate-limiter-flexible, and the header fields of its README, where Retry-After has
// fractions of a second.
import express from "express";
import { RateLimiterMemory } from "rate-limiter-flexible";

const { PORT, LIMIT, WINDOW_MS } = process.env;
const opts = { points: Number(LIMIT), duration: Number(WINDOW_MS) / 1000 };
const limiter = new RateLimiterMemory(opts);
const app = express();

app.use(async (request, response, next) => {
  let result;
  let admitted = true;
  try {
    result = await limiter.consume(request.ip);
  } catch (refusal) {
    result = refusal;
    admitted = false;
  }
  response.set({
    "Retry-After": result.msBeforeNext / 1000,
    "X-RateLimit-Limit": opts.points,
    "X-RateLimit-Remaining": result.remainingPoints,
    "X-RateLimit-Reset": Math.ceil((Date.now() + result.msBeforeNext) / 1000),
  });
  if (admitted) next();
  else response.status(429).send("Too Many Requests");
});
app.all("/call", (request, response) => response.send("queued"));
app.listen(Number(PORT), "127.0.0.1");
