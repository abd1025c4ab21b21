"""Checks that the document of the API is valid, and that answers of a real daemon are as it says: each operation, and each status
that the document names. Arguments: the socket, the socket for reading, the daemon's configuration file, namespace and address of a
client of service `web4`."""

import ctypes
import json
import os
import socket
import sys
import threading
import urllib.parse

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from connection import Unix, document

SOCKET, READING, FILE, CLIENT, VIP, PORT = sys.argv[1:]
# Statuses that this test cannot cause: the daemon is starting or leaving, or busy with as many requests as it takes.
NOT_SEEN = {
    ("events", "503"), ("health", "503"), ("list_flows", "503"), ("count_flows", "503"), ("flush_flows", "503"),
    ("reload", "500"),
}
LINES = "application/x-ndjson"

doc = document(SOCKET)
validate(doc)


def closed(schema, part=False):
    """The schema without room for properties that it does not name: they would be missing in the document."""
    if isinstance(schema, list):
        return [closed(item, part) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: closed(value, key == "allOf") for key, value in schema.items()}
    if "properties" in schema and not part:
        out.setdefault("unevaluatedProperties", False)
    return out


components = doc["components"]
closed_components = {"schemas": {name: closed(schema) for name, schema in components["schemas"].items()}}


def fits(value, schema, strict, what):
    """The document is the root, so that references in `schema` are found."""
    root = {**(closed(schema) if strict else schema), "components": closed_components if strict else components}
    errors = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(root).iter_errors(value)]
    assert not errors, (what, errors[:5], str(value)[:2000])


seen = set()


def call(method, path, status, body=None, query={}, socket=SOCKET, read=None, reply=False, **names):
    """Sends a request that is as the document says, and checks that the answer is. Gives the answer's JSON."""
    operation = doc["paths"][path][method]
    what = f"{method} {path} {names} {query} {str(body)[:500]}"
    declared = {(p["in"], p["name"]): p.get("required", False) for p in operation.get("parameters", [])}
    given = {("path", name) for name in names} | {("query", name) for name in query}
    assert given <= set(declared), (what, declared)
    if status == 200:
        assert {place for place, required in declared.items() if required} <= given, what
        if body is not None:
            fits(body, operation["requestBody"]["content"]["application/json"]["schema"], False, what)
    target = path.format(**{name: urllib.parse.quote(text, safe="") for name, text in names.items()})
    if query:
        target += "?" + urllib.parse.urlencode(query)
    connection = Unix(socket)
    headers = {} if body is None else {"content-type": "application/json"}
    text = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
    connection.request(method.upper(), target, text, headers)
    answer = connection.getresponse()
    content = (read or (lambda answer: answer.read()))(answer)
    connection.close()
    what += f": {answer.status} {content[:2000]}"
    assert answer.status == status, what
    responses = operation["responses"]
    name = str(status) if str(status) in responses else "default"
    kind = answer.headers.get_content_type()
    assert kind in responses[name]["content"], (what, kind)
    described = responses[name]["content"][kind]
    seen.add((operation["operationId"], name))
    if kind == "application/json":
        value = json.loads(content)
        fits(value, described["schema"], True, what)
        return value
    text = content.decode()
    fits(text, described["schema"], True, what)
    if kind == LINES:
        values = [json.loads(line) for line in text.splitlines()]
        assert values, what
        for value in values:
            fits(value, described["x-itemSchema"], True, what)
        return values
    return text


def visit():
    """A client of the service, in its own namespace."""
    here = ctypes.CDLL(None, use_errno=True)
    with open(CLIENT) as namespace:
        assert here.setns(namespace.fileno(), 0x40000000) == 0, os.strerror(ctypes.get_errno())
    while not done.is_set():
        with socket.create_connection((VIP, int(PORT)), timeout=60) as stream:
            stream.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            while stream.recv(4096):
                pass
        done.wait(0.05)


done = threading.Event()
client = threading.Thread(target=visit, daemon=True)
client.start()

SERVICES, SERVICE = "/v1/services", "/v1/services/{service}"
BACKENDS, BACKEND = SERVICE + "/backends", SERVICE + "/backends/{backend}"
REPORT = BACKEND + "/report"
WEB = {"service": "web4"}
NO = {"service": "nothing"}
MOVED = {"revision": 1}

# Changes.
spec = {
    "name": "all", "address": "192.0.2.99", "port": 443, "protocol": "udp", "mode": "nat", "on_empty": "reject", "slow_start": "1s",
    "health": {"kind": "http", "path": "/", "expect_status": [200, "3xx"], "headers": {"x-a": "b"}, "port": 8080},
    "guard": {"deny": ["198.51.100.0/24"]},
}
call("post", SERVICES, 200, spec)
call("post", SERVICES, 409, {**spec, "port": 444})
call("post", SERVICES, 422, {"name": "all"})
call("post", SERVICES, 422, b"{")
call("post", SERVICES, 413, {"name": "x" * (9 << 20), "address": "192.0.2.1"})
call("patch", SERVICE, 200, {"on_empty": "drop", "health": {"interval": "3s"}}, service="all")
call("patch", SERVICE, 404, {"on_empty": "drop"}, **NO)
call("patch", SERVICE, 409, {"on_empty": "drop"}, MOVED, **WEB)
call("patch", SERVICE, 422, {"mode": "wrong"}, **WEB)
backend = {"name": "b9", "address": "10.1.0.250:80", "weight": 3, "backup": True}
call("post", BACKENDS, 200, backend, service="all")
call("post", BACKENDS, 404, backend, **NO)
call("post", BACKENDS, 409, {**backend, "weight": 4}, service="all")
call("post", BACKENDS, 422, {**backend, "weight": -1}, service="all")
changed = call("patch", BACKEND, 200, {"admin": "draining", "deadline_ms": 60000}, service="all", backend="b9")
assert changed["changed"], changed
call("patch", BACKEND, 404, {"weight": 1}, service="all", backend="b8")
call("patch", BACKEND, 409, {"weight": 1}, MOVED, service="all", backend="b9")
call("patch", BACKEND, 422, {"weight": 1 << 40}, service="all", backend="b9")
call("post", SERVICES, 200, {"name": "pushed", "address": "192.0.2.98", "port": 1, "health": {"kind": "push", "ttl": "1m"}})
call("post", BACKENDS, 200, {"name": "p", "address": "10.1.0.251:80"}, service="pushed")
call("post", REPORT, 200, {"health": "down", "ttl_ms": 5000, "detail": "out of memory"}, service="pushed", backend="p")
call("post", REPORT, 404, {"health": "up"}, service="pushed", backend="q")
call("post", REPORT, 422, {"health": "up"}, service="all", backend="b9")

# Reading.
call("get", "/v1/health", 200)
status = call("get", "/v1/status", 200)
assert {service["name"] for service in status["services"]} >= {"web4", "all", "pushed"}, status
call("get", SERVICES, 200)
call("get", SERVICE, 200, **WEB)
call("get", SERVICE, 404, **NO)
call("get", SERVICE, 422, service="no/name")
call("get", BACKENDS, 200, **WEB)
call("get", BACKENDS, 404, **NO)
call("get", BACKEND, 200, service="web4", backend="b0")
call("get", BACKEND, 404, service="web4", backend="b9")
assert 'name = "web4"' in call("get", "/v1/export", 200)
call("get", "/v1/events", 200)
call("get", "/v1/events", 200, query={"since_ms": 3600000, "who": "root"})
call("get", "/v1/events", 422, query={"since_ms": "soon"})
packet = {"protocol": "tcp", "source": "198.51.100.7:4000", "destination": f"{VIP}:{PORT}"}
call("get", "/v1/explain", 200, query=packet)
call("get", "/v1/explain", 422, query={"protocol": "tcp"})
flows = [[], []]
while not (flows[0] and flows[1]):
    # Flows of a client are there once it has connected.
    flows = [call("get", "/v1/flows", 200, query=query) for query in ({"service": "web4"}, {"sort": "age", "limit": 5})]
call("get", "/v1/flows", 404, query={"service": "nothing"})
call("get", "/v1/flows", 422, query={"state": "wrong"})
for query in {}, {"by": "service"}, {"by": "backend"}, {"by": "client", "limit": 3}:
    call("get", "/v1/flows/count", 200, query=query)
call("get", "/v1/flows/count", 404, query={"service": "nothing"})
call("get", "/v1/flows/count", 422, query={"by": "wrong"})


def until_packet(answer):
    """Lines up to the first packet: once a second there is one about lost packets."""
    lines = [answer.readline()]
    while b'"service"' not in lines[-1]:
        lines.append(answer.readline())
    return b"".join(lines)


packets = call("get", "/v1/monitor", 200, query={"service": "web4", "packets": "true"}, read=until_packet)
assert packets[-1]["service"] == "web4", packets
call("get", "/v1/monitor", 404, query={"service": "nothing"})
call("get", "/v1/monitor", 422, query={"client": "wrong"})
call("get", "/v1/monitor", 403, socket=READING)
first = Unix(SOCKET)
first.request("GET", "/v1/monitor?drops=true")
# The end of the first monitor takes a moment, so a second one may be refused for that.
while first.getresponse().status != 200:
    first.close()
    first.request("GET", "/v1/monitor?drops=true")
call("get", "/v1/monitor", 409, query={"drops": "true"})
first.close()
call("delete", "/v1/flows", 200, query={"service": "web4", "dry_run": "true"})
call("delete", "/v1/flows", 404, query={"service": "nothing"})
call("delete", "/v1/flows", 422)
call("get", "/v1/history", 200)
call("get", "/v1/history", 200, query={"revision": status["revision"]})
call("get", "/v1/history", 404, query={"revision": 9999})

# Removals, and whole states.
removal = {"service": "all", "backend": "b9"}
call("delete", BACKEND, 409, query=MOVED, **removal)
call("delete", BACKEND, 200, query={"now": "true"}, **removal)
call("delete", BACKEND, 404, **removal)
call("delete", SERVICE, 409, query=MOVED, service="all")
call("delete", SERVICE, 200, service="all")
call("delete", SERVICE, 404, service="all")
call("post", "/v1/rollback", 200, {"dry_run": True})
call("post", "/v1/rollback", 200, {})
call("post", "/v1/rollback", 404, {"revision": 9999})
call("post", "/v1/rollback", 409, {}, MOVED)
toml = call("get", "/v1/export", 200)
call("post", "/v1/apply", 200, {"file": "a.toml", "toml": toml, "dry_run": True})
call("post", "/v1/apply", 200, {"file": "a.toml", "toml": toml})
call("post", "/v1/apply", 409, {"file": "a.toml", "toml": ""})
errors = call("post", "/v1/apply", 422, {"file": "a.toml", "toml": "[lb]\nwrong = 1\n"})
assert errors["error"]["details"][0]["line"] == 2, errors
call("post", "/v1/apply", 413, b"x" * (65 << 20))
with open(FILE) as file:
    text = file.read()
for content, status in (text, 200), (text + "\nwrong = 1\n", 422), ("", 409), (text, 200):
    with open(FILE, "w") as file:
        file.write(content)
    call("post", "/v1/reload", status)

# What no operation describes is an error of the same form.
for method, target, status in [
    ("GET", "/nothing", 404), ("PUT", "/v1/status", 405), ("POST", "/v1/status", 405), ("GET", "/v1/services/%ff", 422),
    ("GET", "/v1/services/a/backends/%ff", 422), ("GET", "/v1/services?wrong=1", 200), ("GET", "/v1/history?wrong=1", 422),
]:
    connection = Unix(SOCKET)
    connection.request(method, target)
    answer = connection.getresponse()
    assert answer.status == status, (target, answer.status)
    if status != 200:
        fits(json.loads(answer.read()), {"$ref": "#/components/schemas/ErrorBody"}, True, target)

done.set()
client.join()
described = {
    (operation["operationId"], status)
    for item in doc["paths"].values() for operation in item.values() for status in operation["responses"] if status != "default"
}
missing = described - seen - NOT_SEEN
assert not missing, f"described, but never seen: {sorted(missing)}"
needless = NOT_SEEN - described | NOT_SEEN & seen
assert not needless, f"excepted without need: {sorted(needless)}"
print(f"{len(seen)} answers as described")
