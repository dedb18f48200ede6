// Uploads with fetch, got and axios, as python_clients.py does.
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import axios from "axios";
import got from "got";

const PIECE = 16384;
const MILLISECONDS = 10000;

function* pieces(body) {
  for (let start = 0; start < body.length; start += PIECE) {
    yield body.subarray(start, start + PIECE);
  }
}

const LIBRARIES = {
  async fetch(url, headers, body, chunked) {
    const response = await fetch(url, {
      method: "POST",
      headers,
      signal: AbortSignal.timeout(MILLISECONDS),
      ...(chunked ? { body: ReadableStream.from(pieces(body)), duplex: "half" } : { body }),
    });
    return [response.status, await response.text()];
  },

  async got(url, headers, body, chunked) {
    const response = await got.post(url, {
      headers,
      body: chunked ? Readable.from(pieces(body)) : body,
      throwHttpErrors: false,
      timeout: { request: MILLISECONDS },
    });
    return [response.statusCode, response.body];
  },

  async axios(url, headers, body, chunked) {
    const response = await axios.post(url, chunked ? Readable.from(pieces(body)) : body, {
      headers,
      responseType: "text",
      signal: AbortSignal.timeout(MILLISECONDS),
      validateStatus: null,
    });
    return [response.status, response.data];
  },
};

function told(error) {
  const causes = [];
  for (let it = error; it; it = it.cause) causes.push(`${it.name} ${it.code ?? ""} ${it.message}`);
  return [...new Set(causes)].join(": ").replaceAll(/\s+/g, " ");
}

async function outcome(library, expected, ...request) {
  try {
    const [status, text] = await library(...request);
    if (status === expected && text.includes(`"status":${expected}`)) return "read";
    return `status ${status}: ${text.slice(0, 80)}`.replaceAll(/\s+/g, " ");
  } catch (error) {
    return told(error);
  }
}

const library = LIBRARIES[process.argv[2]];
for await (const line of createInterface({ input: process.stdin })) {
  const [url, token, expected, framing, size, count] = line.split(" ");
  const headers = token === "-" ? {} : { Authorization: `Bearer ${token}` };
  const body = Buffer.alloc(Number(size), "x");
  for (let number = 0; number < Number(count); number += 1) {
    console.log(
      await outcome(library, Number(expected), url, headers, body, framing === "chunked"),
    );
  }
  console.log();
}
