"""An endpoint that writes a thought for any step, in the form that is asked for."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from helpers.lean_files import thought

from research.lean_star.retrospect import HEADINGS


def answer(question: str) -> str:
    """The three parts, from the state and the tactic at the question's end."""
    given = question.rpartition("Given Theorem:\n```lean4\n")[2]
    state, _, tactic = given.partition("\n```\n\nGiven Tactic:\n```lean4\n")
    parts = ("A plan.", thought(state), f"```lean4\n{tactic}\n```")
    return "\n\n".join(f"{h}\n{part}" for h, part in zip(HEADINGS, parts, strict=True))


@contextlib.contextmanager
def endpoint():
    """(url, the requests that came) while it runs."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            text = answer(body["messages"][1]["content"])
            data = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
