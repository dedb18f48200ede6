"""Flask with Flask-Limiter. HEADERS=1 makes it send its header fields."""

import os

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

seconds = int(os.environ["WINDOW_MS"]) // 1000
app = Flask(__name__)
limiter = Limiter(
    get_remote_address,
    app=app,
    default_limits=[f"{os.environ['LIMIT']} per {seconds} seconds"],
    storage_uri="memory://",
    headers_enabled=os.environ.get("HEADERS") == "1",
)


@app.route("/call", methods=["GET", "POST"])
def call():
    return "queued"
