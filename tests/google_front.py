"""What emulators of Google leave out, as a real HTTP server before fake-gcs-server: it demands tokens and gives them,
signs like IAM, answers as a machine's metadata server, and enforces conditions on generations."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.serving import Handler, serving

ACCOUNT = "feeder@test.iam.gserviceaccount.com"
LIFE_SECONDS = 3600
_OF_IDENTITY = ("/token", "/sts")
_FLAVOR = "metadata-flavor"
_PRIVATE = ("connection", "keep-alive", "transfer-encoding", "content-length")


class Asked(NamedTuple):
    """A request: `target` is path and query as they came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        """The target's query."""
        return parse_qs(urlsplit(self.target).query)

    @property
    def token(self) -> str | None:
        """The bearer's token."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token if kind == "Bearer" else None


class Answer(NamedTuple):
    """What is answered."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Rule = Callable[[Asked], Answer | None]


def said(document: Any, status: int = 200) -> Answer:
    """An answer in JSON."""
    return Answer(status, json.dumps(document).encode(), (("content-type", "application/json"),))


def refused(status: int, reason: str, message: str = "no", **headers: str) -> Answer:
    """An error as Google's JSON interface words it."""
    told = {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}}
    more = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return said(told, status)._replace(headers=(("content-type", "application/json"), *more))


def refused_xml(status: int, code: str) -> Answer:
    """An error as Google's XML interface words it."""
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    return Answer(status, body.encode(), (("content-type", "application/xml"),))


@dataclass
class Front:
    """The server at work. `rules` answer requests in the store's place, the first that has an answer.

    `tokens` are those that it gave; with `guarded` it lets only the bearer of the last of them through.
    """

    upstream: str
    url: str
    asked: list[Asked] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    guarded: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Asked) -> Answer:
        """What to say to a request."""
        with self.lock:
            self.asked.append(request)
        for rule in (*self.rules, self._of_identity, self._guard, self._condition):
            found = rule(request)
            if found is not None:
                return found
        return self._passed_on(request)

    def store_requests(self) -> list[Asked]:
        """The requests to the store itself."""
        return [
            one for one in self.asked
            if one.path not in _OF_IDENTITY and _FLAVOR not in one.headers and ":" not in one.path
        ]  # fmt: skip

    # --- identities --------------------------------------------------------------------------------------------

    def _of_identity(self, request: Asked) -> Answer | None:
        path = request.path
        if path in _OF_IDENTITY:
            return said({**self._token(), "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"})
        if path.endswith(":generateAccessToken"):
            end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + LIFE_SECONDS))
            return said({"accessToken": self._token()["access_token"], "expireTime": end})
        if path.endswith(":signBlob"):
            payload = base64.b64decode(json.loads(request.body)["payload"])
            return said({"keyId": "k", "signedBlob": base64.b64encode(signature(payload)).decode()})
        if _FLAVOR in request.headers:
            return self._of_machine(path)
        return None

    def _token(self) -> dict[str, Any]:
        with self.lock:
            self.tokens.append(f"google-token-{len(self.tokens)}")
            return {"access_token": self.tokens[-1], "expires_in": LIFE_SECONDS, "token_type": "Bearer"}

    def _of_machine(self, path: str) -> Answer:
        flavor, plain = ((_FLAVOR, "Google"),), (("content-type", "text/plain"),)
        if path.endswith("/token"):
            found = said(self._token())
        elif "/service-accounts/" in path:
            found = said({"email": ACCOUNT, "aliases": ["default"], "scopes": []})
        elif path.endswith("project-id"):
            found = Answer(200, b"test", plain)
        elif path.endswith(("universe-domain", "universe_domain")):
            found = Answer(200, b"googleapis.com", plain)
        else:
            found = Answer(200, b"")
        return found._replace(headers=found.headers + flavor)

    # --- the store ---------------------------------------------------------------------------------------------

    def _guard(self, request: Asked) -> Answer | None:
        if not self.guarded or (self.tokens and request.token == self.tokens[-1]):
            return None
        xml = not request.path.startswith(("/storage/", "/download/"))
        return refused_xml(401, "AuthenticationRequired") if xml else refused(401, "authError")

    def _condition(self, request: Asked) -> Answer | None:
        """What fake-gcs-server doesn't enforce on downloads: 412 where the object is of another generation."""
        wanted = request.query.get("ifGenerationMatch")
        if wanted is None or not request.path.startswith("/download/"):
            return None
        target = request.path.removeprefix("/download")
        found = self._passed_on(Asked("GET", target, {}, b""))
        if found.status == 200 and json.loads(found.body)["generation"] not in wanted:
            return refused(412, "conditionNotMet")
        return None

    def _passed_on(self, request: Asked) -> Answer:
        place = urlsplit(self.upstream)
        connection = HTTPConnection(place.hostname or "", place.port, timeout=30)
        try:
            headers = {name: value for name, value in request.headers.items() if name != "host"}
            connection.request(request.method, request.target, request.body, headers)
            got = connection.getresponse()
            return Answer(got.status, got.read(), tuple(got.getheaders()))
        finally:
            connection.close()


@contextmanager
def front_of(upstream: str) -> Iterator[Front]:
    """A server before the one at `upstream`."""

    class Fronting(Handler):
        def answered(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length") or 0))
            answer = made.answer(Asked(self.command, self.path, headers, body))
            self.send_response_only(answer.status)
            length = str(len(answer.body))
            for name, value in answer.headers:
                if self.command == "HEAD" and name.lower() == "content-length":
                    length = value
                elif name.lower() not in _PRIVATE:
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

    with serving(Fronting) as url:
        made = Front(upstream, url)
        yield made


# --- keys ------------------------------------------------------------------------------------------------------


@cache
def private_key() -> rsa.RSAPrivateKey:
    """The service account's key: one for all tests, as making it takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signature(message: bytes) -> bytes:
    """The service account's signature of some bytes."""
    return private_key().sign(message, padding.PKCS1v15(), hashes.SHA256())


def key_file(path: Path, front: Front) -> Path:
    """A service account's key as Google gives it, whose tokens come from the front."""
    pem = private_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    info = {
        "type": "service_account", "project_id": "test", "private_key_id": "k", "private_key": pem.decode(),
        "client_email": ACCOUNT, "client_id": "1", "token_uri": f"{front.url}/token",
    }  # fmt: skip
    path.write_text(json.dumps(info))
    return path


def federation_file(path: Path, front: Front) -> Path:
    """A workload identity federation's configuration: a token of another issuer, in a file, buys one of Google."""
    (path.parent / "subject").write_text("subject-token")
    info = {
        "type": "external_account", "token_url": f"{front.url}/sts",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "credential_source": {"file": str(path.parent / "subject")},
    }  # fmt: skip
    path.write_text(json.dumps(info))
    return path


def check_signature(url: str) -> None:
    """Check a URL's V4 signature as Google does, by the service account's key; raises InvalidSignature."""
    parts = urlsplit(url)
    asked = [pair for pair in parts.query.split("&") if not pair.startswith("X-Goog-Signature=")]
    query = parse_qs(parts.query)
    canonical = f"GET\n{parts.path}\n{'&'.join(sorted(asked))}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    (stamp,), (credential,) = query["X-Goog-Date"], query["X-Goog-Credential"]
    email, _, scope = credential.partition("/")
    assert email == ACCOUNT, email
    assert quote(scope, safe="/") == scope
    digest = hashes.Hash(hashes.SHA256())
    digest.update(canonical.encode())
    message = f"GOOG4-RSA-SHA256\n{stamp}\n{scope}\n{digest.finalize().hex()}"
    found = bytes.fromhex(query["X-Goog-Signature"][0])
    private_key().public_key().verify(found, message.encode(), padding.PKCS1v15(), hashes.SHA256())
