"""Who a source of Google Cloud Storage is to Google, and who signs its links: each kind of credentials against a
server that gives tokens, lets only their bearers in, and signs as IAM does."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.auth import _regional_access_boundary_utils, iam
from google.auth.compute_engine import _metadata

from deploy.services import Service
from pipeline.config import Source
from pipeline.errors import UnavailableError, UsageError
from pipeline.stores import SMALL_BYTES
from pipeline.stores.gcs import GcsStore, open_store
from tests.google_front import ACCOUNT, Answer, Asked, Front, check_signature, federation_file, front_of, key_file, said
from tests.servers import gcs_client
from tests.stores.contract import listed

pytestmark = pytest.mark.usefixtures("google")
Open = Callable[[str], GcsStore]
KEYS = ["a b+ü%.txt", "k//l"]
LARGE = 12 * SMALL_BYTES


@pytest.fixture
def front(fakegcs: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """A server that demands tokens, and is token server, IAM and metadata server to Google's libraries."""
    with front_of(fakegcs.url) as front:
        front.guarded = True
        account = f"{front.url}/v1/projects/-/serviceAccounts/{{}}"
        monkeypatch.setattr(iam, "_IAM_ENDPOINT", f"{account}:generateAccessToken")
        monkeypatch.setattr(iam, "_IAM_SIGN_ENDPOINT", f"{account}:signBlob")
        # Where an account may be used from is looked up in the background: in vain here.
        monkeypatch.setattr(_regional_access_boundary_utils, "_get_domain", lambda: "127.0.0.1:1")
        monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", front.url.removeprefix("http://"))
        yield front


@pytest.fixture
def bucket(fakegcs: Service, unique: str) -> str:
    """A bucket with two small objects."""
    gcs_client(fakegcs).create_bucket(unique)
    for key in KEYS:
        gcs_client(fakegcs).bucket(unique).blob(key).upload_from_string(key.encode())
    return unique


@pytest.fixture
def opened(front: Front, bucket: str, tmp_path: Path) -> Iterator[Open]:
    """Open stores on the bucket through the front, with tokens, by the options of their URL; files are in `tmp_path`.

    All are closed at the end.
    """
    stores: list[GcsStore] = []

    def opened(options: str) -> GcsStore:
        url = f"gs://{bucket}?anonymous=false&{options}"
        stores.append(open_store(Source(name="s", project="p", url=url, endpoint=front.url), tmp_path))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


def works(store: GcsStore, front: Front) -> None:
    """Listing, looks and bytes work, by both libraries, and each request bears a token that was given."""
    assert [entry.key for entry in listed(store)] == KEYS
    for key in KEYS:
        with store.open(key) as reading:
            assert (reading.content, reading.entry) == (key.encode(), store.head(key))
    assert {one.token for one in front.store_requests()} <= {*front.tokens, None if not front.guarded else ""}


def test_a_service_accounts_key(opened: Open, front: Front, tmp_path: Path) -> None:
    """A key's file, relative to the configuration, or absolute."""
    path = key_file(tmp_path / "key.json", front)
    works(opened("credentials_file=key.json"), front)
    works(opened(f"credentials_file={path}"), front)

    assert len(front.tokens) == 2, "both libraries share a token"


def test_workload_identity_federation(opened: Open, front: Front, tmp_path: Path) -> None:
    """The token of another issuer buys one of Google."""
    federation_file(tmp_path / "pool.json", front)
    works(opened("credentials_file=pool.json"), front)
    (bought,) = [one for one in front.asked if one.path == "/sts"]

    assert b"subject-token" in bought.body


def test_the_default_of_the_environment(
    opened: Open, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GOOGLE_APPLICATION_CREDENTIALS names a file, as everywhere."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file(tmp_path / "key.json", front)))
    works(opened(""), front)


@pytest.fixture
def machine(google: None, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine or a pod with an identity of its own."""
    monkeypatch.delenv("NO_GCE_CHECK")
    monkeypatch.setenv("GCE_METADATA_IP", front.url.removeprefix("http://"))


@pytest.mark.usefixtures("machine")
def test_the_identity_of_the_machine(opened: Open, front: Front) -> None:
    """Workload identity of a pod, or a machine's service account: its metadata server gives tokens."""
    works(opened(""), front)


def test_acting_as_another_account(opened: Open, front: Front, tmp_path: Path) -> None:
    """The key's account gets tokens of the one that is named last, through those before it."""
    key_file(tmp_path / "key.json", front)
    through = "through@test.iam.gserviceaccount.com"
    works(opened(f"credentials_file=key.json&impersonate={through},{ACCOUNT}"), front)
    (asked,) = [one for one in front.asked if one.path.endswith(":generateAccessToken")]

    assert ACCOUNT in asked.path
    assert json.loads(asked.body)["delegates"] == [f"projects/-/serviceAccounts/{through}"]
    assert asked.token == "google-token-0"
    assert {one.token for one in front.store_requests()} == {"google-token-1"}


def test_anonymous(fakegcs: Service, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is looked for, and no request bears anything; a plain HTTP endpoint never gets a token unasked."""
    with front_of(fakegcs.url) as front:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file(tmp_path / "key.json", front)))
        for options in ("", "?anonymous=true"):
            store = open_store(Source(name="s", project="p", url=f"gs://{bucket}{options}", endpoint=front.url), Path())
            works(store, front)
            store.close()

        assert {one.headers.get("authorization") for one in front.asked} == {None}
        assert not front.tokens


def test_a_key_for_plain_http_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its tokens may go without TLS a person has to say; an emulator of the environment gets none anyway."""
    url = "gs://b?credentials_file=key.json"
    with pytest.raises(UsageError, match="anonymous=false"):
        open_store(Source(name="s", project="p", url=url, endpoint="http://127.0.0.1:1"), tmp_path)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    store = open_store(Source(name="s", project="p", url=url), tmp_path)

    assert store.options.unsigned
    store.close()


# --- tokens that end -------------------------------------------------------------------------------------------------


def test_a_token_that_ends_in_mid_pass_is_replaced(
    opened: Open, front: Front, tmp_path: Path, fakegcs: Service, bucket: str
) -> None:
    """One that Google refuses before its time is asked for anew, by both libraries, in listings and ranges too."""
    gcs_client(fakegcs).bucket(bucket).blob("large").upload_from_string(b"x" * LARGE)
    key_file(tmp_path / "key.json", front)
    store = opened("credentials_file=key.json")
    page = store.list(None, 1)
    front.tokens.append("revoked")
    rest = store.list(page.entries[-1].key, 1000)
    front.tokens.append("revoked")
    with store.open(KEYS[0]) as reading:
        assert reading.content == KEYS[0].encode()
    front.tokens.append("revoked")
    with store.open("large") as reading:
        front.tokens.append("revoked")
        assert reading.stream().read() == b"x" * LARGE

    assert [entry.key for entry in [*page.entries, *rest.entries]] == sorted([*KEYS, "large"])


def test_a_token_is_renewed_before_its_end(
    opened: Open, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends within minutes is not used for bytes that may take as long."""
    short: dict[str, object] = {"access_token": "short", "expires_in": 300, "token_type": "Bearer"}
    key_file(tmp_path / "key.json", front)
    store = opened("credentials_file=key.json")
    front.rules.append(lambda one: said(short) if one.path == "/token" else None)
    with pytest.raises(UnavailableError), store.open(KEYS[0]):
        pass
    front.rules.clear()

    with store.open(KEYS[0]) as reading:
        assert reading.content == KEYS[0].encode()
    assert front.asked[-1].token == front.tokens[-1]


def grant_refused(request: Asked) -> Answer | None:
    """What the token server says of a key that was deleted, or of an assertion of another time."""
    if request.path != "/token":
        return None
    text = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. hunter2"
    return said({"error": "invalid_grant", "error_description": text}, 400)


def test_wrong_credentials_are_said_without_them(opened: Open, front: Front, tmp_path: Path) -> None:
    """A deleted key, or a clock that is wrong by 20 minutes: no fault of the object, it may end, no secret is told."""
    key_file(tmp_path / "key.json", front)
    store = opened("credentials_file=key.json")
    front.rules.append(grant_refused)

    def read(key: str) -> None:
        with store.open(key):
            pass

    for use in (lambda: store.list(None, 10), lambda: store.head("k"), lambda: read("k"), lambda: read("k//l")):
        with pytest.raises(UnavailableError, match=r"invalid_grant.*clock") as caught:
            use()
        assert caught.value.code == "permission"
        assert "hunter2" not in f"{caught.value} {caught.value.__cause__} {caught.value.args}"


def test_a_token_that_google_refuses_for_good(opened: Open, front: Front, tmp_path: Path) -> None:
    """A disabled account: another token is tried once, and then it is said."""
    key_file(tmp_path / "key.json", front)
    store = opened("credentials_file=key.json")
    refusal = Answer(401, b"<Error><Code>InvalidSecurity</Code></Error>")
    front.rules.append(lambda one: None if one.path == "/token" else refusal)

    for use in (lambda: store.list(None, 10), lambda: store.head("k"), lambda: store.open("k").__enter__()):
        with pytest.raises(UnavailableError, match="refuses our token") as caught:
            use()
        assert caught.value.code == "permission"
    assert len(front.tokens) < 10


def test_without_credentials_a_person_is_asked(opened: Open, tmp_path: Path) -> None:
    """None anywhere, a file that is not there, or one of another kind: an error of the configuration."""
    (tmp_path / "other.json").write_text('{"type": "authorized_user", "refresh_token": "hunter2"}')
    (tmp_path / "broken.json").write_text('{"type": "service_account", "private_key": "hunter2"}')
    (tmp_path / "no.json").write_text("hunter2")

    for options, word in (
        ("", "anonymous=true"),
        ("credentials_file=missing.json", "FileNotFoundError"),
        ("credentials_file=other.json", "service_account or external_account"),
        ("credentials_file=broken.json", "cannot be read"),
        ("credentials_file=no.json", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=word) as caught:
            opened(options)
        assert "hunter2" not in str(caught.value)


# --- signing ---------------------------------------------------------------------------------------------------------


def check_link(store: GcsStore, front: Front) -> None:
    """A link is signed as V4 wants it, and reads the object."""
    front.guarded = False
    for key in KEYS:
        link = store.sign(key, 60)
        check_signature(link)
        with urllib.request.urlopen(link) as answer:
            assert answer.read() == key.encode()


def test_a_key_signs_by_itself(opened: Open, front: Front, tmp_path: Path) -> None:
    """No request is needed for a link."""
    key_file(tmp_path / "key.json", front)
    store = opened("credentials_file=key.json")
    link = store.sign("k", 60)

    assert not front.asked
    check_signature(link)
    check_link(store, front)


@pytest.mark.usefixtures("machine")
def test_without_a_key_iam_signs(opened: Open, front: Front) -> None:
    """A machine's or a pod's account signs by IAM's signBlob."""
    check_link(opened(""), front)

    assert [one.token for one in front.asked if one.path.endswith(f"{ACCOUNT}:signBlob")] == [front.tokens[-1]] * 2


def test_iam_signs_for_federated_identities(opened: Open, front: Front, tmp_path: Path) -> None:
    """They are no service account: `signer` names one, and without it a person is asked for it."""
    federation_file(tmp_path / "pool.json", front)
    check_link(opened(f"credentials_file=pool.json&signer={ACCOUNT}"), front)

    with pytest.raises(UsageError, match="signer="):
        opened("credentials_file=pool.json").sign("k", 60)


def test_iam_signs_for_the_account_that_we_act_as(opened: Open, front: Front, tmp_path: Path) -> None:
    """Acting as another account, links are in its name."""
    federation_file(tmp_path / "pool.json", front)
    check_link(opened(f"credentials_file=pool.json&impersonate={ACCOUNT}"), front)


def test_iam_may_refuse_to_sign(opened: Open, front: Front, tmp_path: Path) -> None:
    """The message says what to grant."""
    federation_file(tmp_path / "pool.json", front)
    front.rules.append(lambda one: said({"error": {"code": 403}}, 403) if one.path.endswith(":signBlob") else None)
    with pytest.raises(UnavailableError, match="serviceAccountTokenCreator") as caught:
        opened(f"credentials_file=pool.json&signer={ACCOUNT}").sign("k", 60)

    assert caught.value.code == "permission"


def test_nobody_signs_for_the_anonymous_nor_for_weeks(opened: Open, front: Front, tmp_path: Path) -> None:
    """What cannot be signed is an error of the configuration."""
    key_file(tmp_path / "key.json", front)
    with pytest.raises(UsageError, match="seven days"):
        opened("credentials_file=key.json").sign("k", 8 * 86400)
    store = open_store(Source(name="s", project="p", url="gs://b?anonymous=true"), Path())
    with pytest.raises(UsageError, match="cannot sign"):
        store.sign("k", 60)
    store.close()
