// Fastify as it comes. Each handler counts its calls.
import fastify from "fastify";

const counts = { c: 0, a: 0, e: 0, l: 0 };
const app = fastify();

function answers(letter, path) {
  app.get(path, async (request, reply) => {
    counts[letter] += 1;
    return reply.header("Route", letter).send("");
  });
}

answers("c", "/call");
answers("a", "/v2/agent/:id");
answers("e", "/v2/agent/:id/executions");
answers("l", "/v2/agent/all");
app.get("/counts", async () => counts);
await app.listen({ host: "127.0.0.1", port: Number(process.env.PORT) });
