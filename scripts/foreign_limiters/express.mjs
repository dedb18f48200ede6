// Express with express-rate-limit. HEADERS says which fields it sends: legacy, draft-6, draft-7 or
// draft-8.
import express from "express";
import { rateLimit } from "express-rate-limit";

const { PORT, LIMIT, WINDOW_MS, HEADERS } = process.env;
const legacy = HEADERS === "legacy";
const app = express();
app.use(
  rateLimit({
    windowMs: Number(WINDOW_MS),
    limit: Number(LIMIT),
    standardHeaders: legacy ? false : HEADERS,
    legacyHeaders: legacy,
  }),
);
app.all("/call", (request, response) => response.send("queued"));
app.listen(Number(PORT), "127.0.0.1");
