// Fastify with @fastify/rate-limit.
import fastify from "fastify";
import rateLimit from "@fastify/rate-limit";

const { PORT, LIMIT, WINDOW_MS } = process.env;
const app = fastify();
await app.register(rateLimit, { max: Number(LIMIT), timeWindow: Number(WINDOW_MS) });
app.all("/call", async () => "queued");
await app.listen({ host: "127.0.0.1", port: Number(PORT) });
