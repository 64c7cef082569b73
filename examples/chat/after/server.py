"""The chat as it is: a message is stored. That is all; whoever follows the table gets it from there.

    python3 after/server.py [PORT]      by default 8082

    POST /rooms/1   {"author": "Ada", "text": "hello"}
"""

import json
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

port = int((sys.argv[1:] + ["8082"])[0])
folder = Path(__file__).parent.parent


def database():
    connection = sqlite3.connect(folder / "chat.db", timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


class Chat(BaseHTTPRequestHandler):
    def do_POST(self):
        room = int(self.path.rsplit("/", 1)[1])
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with database() as db:
            sql = "INSERT INTO messages (room, author, text) VALUES (?, ?, ?)"
            db.execute(sql, (room, message["author"], message["text"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


with database() as db:
    db.executescript((folder / "chat.sql").read_text())
print(f"http://127.0.0.1:{port}", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), Chat).serve_forever()
