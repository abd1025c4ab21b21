"""HTTP over a Unix socket, as the other scripts beside this one use it."""

import http.client
import json
import socket


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("lb", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def document(path):
    connection = Unix(path)
    connection.request("GET", "/openapi.json")
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    return json.loads(answer.read())
