"""The chat as it was: a message is stored, and published for whoever listens at that moment.

    python3 before/server.py [PORT [REDIS_PORT]]      by default 8081 and 6379

    POST /rooms/1   {"author": "Ada", "text": "hello"}
    GET  /rooms/1   the messages that come, as server-sent events
"""

import json
import socket
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

port, redis_port = [int(word) for word in (sys.argv[1:] + ["8081", "6379"][len(sys.argv) - 1 :])]
folder = Path(__file__).parent.parent


def database():
    connection = sqlite3.connect(folder / "chat.db", timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


def redis(*words):
    """Sends a command; the answer is read from what is returned."""
    link = socket.create_connection(("127.0.0.1", redis_port))
    words = [word.encode() for word in words]
    link.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    return link, link.makefile("rb")


def reply(answers):
    """One answer of Redis: a number, a text, or a list of answers."""
    kind, rest = (line := answers.readline().rstrip(b"\r\n"))[:1], line[1:]
    if kind == b"*":
        return [reply(answers) for _ in range(int(rest))]
    if kind == b"$":
        return answers.read(int(rest) + 2)[:-2].decode()
    return rest.decode()


class Chat(BaseHTTPRequestHandler):
    def do_POST(self):
        room = int(self.path.rsplit("/", 1)[1])
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with database() as db:
            sql = "INSERT INTO messages (room, author, text) VALUES (?, ?, ?) RETURNING id"
            (message["id"],) = db.execute(sql, (room, message["author"], message["text"])).fetchone()
        # Two writes, and no transaction around them: what dies here was stored, and nobody hears of it.
        link, answers = redis("PUBLISH", f"room:{room}", json.dumps(message))
        reply(answers)
        link.close()
        self.send_response(204)
        self.end_headers()

    def do_GET(self):
        room = int(self.path.rsplit("/", 1)[1])
        link, answers = redis("SUBSCRIBE", f"room:{room}")
        reply(answers)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b": listening\n\n")
        try:
            while message := reply(answers):
                self.wfile.write(f"data: {message[2]}\n\n".encode())
        except (BrokenPipeError, ConnectionResetError):
            link.close()

    def log_message(self, *_):
        pass


with database() as db:
    db.executescript((folder / "chat.sql").read_text())
print(f"http://127.0.0.1:{port}", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), Chat).serve_forever()
