"""Uses a generated client against a real daemon. Arguments: the generated package's directory, what to do, and where the API is: the
socket, or the address with the files of certificate, key and authority."""

import json
import ssl
import sys

DIRECTORY, WORK, *WHERE = sys.argv[1:]
sys.path.append(DIRECTORY)

import httpx
from lbclient import Client
from lbclient.api.backends import add_backend, list_backends, remove_backend, set_backend, show_backend
from lbclient.api.daemon import apply, events, export, health, history, rollback, status
from lbclient.api.services import add_service, list_services, remove_service, set_service, show_service
from lbclient.api.traffic import count_flows, explain
from lbclient.models import (
    ApplyRequest, BackendPatch, BackendPatchAdmin, BackendSpec, Changed, ErrorBody, ErrorCode, Event, Explanation, FlowCount, Health,
    HealthPatch, HealthSpec, HealthSpecKind, PastRevision, Readiness, RollbackRequest, Service, ServicePatch, ServicePatchOnEmpty,
    ServiceSpec, ServiceSpecMode, ServiceSpecProtocol, Status,
)

if len(WHERE) == 1:
    client = Client(base_url="http://lb", httpx_args={"transport": httpx.HTTPTransport(uds=WHERE[0])})
else:
    address, certificate, key, authority = WHERE
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    client = Client(base_url=f"https://{address}", verify_ssl=context)


def ask(operation, kind, *names, code=None, **arguments):
    """The answer, which must be of this type; of an error, with this code."""
    answer = operation.sync_detailed(*names, client=client, **arguments)
    assert type(answer.parsed) is kind, (operation.__name__, names, answer.status_code, answer.parsed)
    if kind is ErrorBody:
        assert answer.parsed.error.code is code, answer.parsed
        assert answer.parsed.error.message, answer.parsed
    return answer.parsed


def read():
    running = ask(status, Status)
    assert running.ready and running.interfaces and running.version, running
    web = ask(show_service, Service, "web4")
    assert [backend.name for backend in web.backends] == ["b0", "b1"], web
    assert web.backends[0].health in list(Health)
    answer = events.sync_detailed(client=client)
    heard = [Event.from_dict(json.loads(line)) for line in answer.content.splitlines()]
    assert any(event.kind == "started" for event in heard), heard
    assert ask(health, Readiness).ready
    assert [service.name for service in ask(list_services, list)] == [service.name for service in running.services]
    ask(show_service, ErrorBody, "nothing", code=ErrorCode.NOT_FOUND)


def change():
    before = ask(status, Status).revision
    # Everything that the client fills in by itself must be what a service of each kind of check may have.
    for number, kind in enumerate(HealthSpecKind):
        needs = {"dns": {"name": "example.com"}, "exec": {"command": ["/bin/true"]}}
        check = HealthSpec(kind=kind, **needs.get(kind.value, {}))
        spec = ServiceSpec(name=f"s-{kind}", address="192.0.2.77", port=1000 + number, health=check)
        added = operation_of(add_service, spec)
        assert added.changed, added
        assert not operation_of(add_service, spec).changed, "the same again changes nothing"
    spec = ServiceSpec(
        name="new", address="192.0.2.78", port=53, protocol=ServiceSpecProtocol.UDP, mode=ServiceSpecMode.DNAT, ring_size="auto",
    )
    assert operation_of(add_service, spec).services == ["new"]
    spec.port = 54
    ask(add_service, ErrorBody, body=spec, code=ErrorCode.CONFLICT)
    patch = ServicePatch(on_empty=ServicePatchOnEmpty.REJECT, health=HealthPatch(interval="5s"))
    assert ask(set_service, Changed, "s-tcp", body=patch).changed
    shown = ask(show_service, Service, "s-tcp")
    assert (shown.on_empty, shown.port) == ("reject", 1000 + list(HealthSpecKind).index(HealthSpecKind.TCP)), shown

    assert ask(add_backend, Changed, "new", body=BackendSpec(name="one", address="10.1.0.77:53", weight=9)).changed
    assert ask(show_backend, object_of("Backend"), "new", "one").weight == 9
    ask(add_backend, ErrorBody, "new", body=BackendSpec(name="two", address="nowhere"), code=ErrorCode.INVALID)
    drain = BackendPatch(admin=BackendPatchAdmin.DRAINING, deadline_ms=60_000)
    assert ask(set_backend, Changed, "new", "one", body=drain).changed
    shown = ask(list_backends, list, "new")[0]
    assert (shown.admin.value, shown.weight, shown.effective_weight) == ("draining", 9, 0), shown
    moved_on = ask(set_backend, ErrorBody, "new", "one", body=BackendPatch(weight=1), revision=before, code=ErrorCode.CONFLICT)
    assert moved_on.error.hint, moved_on
    assert ask(remove_backend, Changed, "new", "one", now=True).changed
    ask(remove_backend, ErrorBody, "new", "one", code=ErrorCode.NOT_FOUND)
    assert ask(remove_service, Changed, "new").changed

    past = ask(history, list)
    assert type(past[0]) is PastRevision and past[0].present, past
    ask(rollback, Changed, body=RollbackRequest(dry_run=True))
    toml = export.sync_detailed(client=client).content.decode()
    same = ask(apply, Changed, body=ApplyRequest(file="a.toml", toml=toml))
    assert not same.changed, same
    wrong = ask(apply, ErrorBody, body=ApplyRequest(file="a.toml", toml="port = 1\n"), code=ErrorCode.INVALID)
    assert wrong.error.details[0].line == 1, wrong
    ask(count_flows, FlowCount)
    packet = {"protocol": "udp", "source": "198.51.100.1:9", "destination": "192.0.2.77:1000"}
    assert ask(explain, Explanation, **packet).steps


def operation_of(operation, body):
    return ask(operation, Changed, body=body)


def object_of(name):
    import lbclient.models as models
    return getattr(models, name)


def refused():
    spec = ServiceSpec(name="new", address="192.0.2.78")
    ask(add_service, ErrorBody, body=spec, code=ErrorCode.FORBIDDEN)


def large():
    """A request that is too large is refused with an answer that says so, also to a client that sends all of it before it reads."""
    size, piece = 100 << 20, bytes(1 << 16)
    for headers in {"content-length": str(size)}, {}:
        pieces = (piece for _ in range(size // len(piece)))
        answer = client.get_httpx_client().post("/v1/apply", content=pieces, headers=headers)
        assert answer.status_code == 413, answer
        error = ErrorBody.from_dict(answer.json()).error
        assert error.code is ErrorCode.TOO_LARGE and "at most 64 MiB" in error.message, error


for work in WORK.split(","):
    {"read": read, "change": change, "refused": refused, "large": large}[work]()
