// Express as it comes. Each handler counts its calls.
import express from "express";

const counts = { c: 0, a: 0, e: 0, l: 0 };
const app = express();

function answers(letter, path) {
  app.get(path, (request, response) => {
    counts[letter] += 1;
    response.set("Route", letter).send("");
  });
}

answers("c", "/call");
answers("l", "/v2/agent/all");
answers("a", "/v2/agent/:id");
answers("e", "/v2/agent/:id/executions");
app.get("/counts", (request, response) => response.json(counts));
app.listen(Number(process.env.PORT), "127.0.0.1");
