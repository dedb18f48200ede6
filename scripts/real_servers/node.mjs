// Node as it comes, routing by the path of a URL. Each handler counts its calls.
import { createServer } from "node:http";

const counts = { c: 0, a: 0, e: 0, l: 0 };

function route(path) {
  if (path === "/call") return "c";
  if (path === "/v2/agent/all") return "l";
  if (/^\/v2\/agent\/[^/]+$/.test(path)) return "a";
  if (/^\/v2\/agent\/[^/]+\/executions$/.test(path)) return "e";
}

const server = createServer((request, response) => {
  if (request.url === "/counts") return response.end(JSON.stringify(counts));
  if (!URL.canParse(request.url, "http://localhost")) return response.writeHead(400).end();
  const letter = route(new URL(request.url, "http://localhost").pathname);
  if (!letter) return response.writeHead(404).end();
  counts[letter] += 1;
  response.setHeader("Route", letter);
  response.end();
});
server.listen(Number(process.env.PORT), "127.0.0.1");
