"""A Hub on this machine: the routes that the real `huggingface_hub` client speaks, with faults on request.

    with HubServer() as hub:
        hub.push("org/name", {"config.json": b"{}"}, tags=["v1"])
        ...                                     # HF_ENDPOINT=hub.url, set before the client is imported

*.safetensors are large files as on the Hub: `resolve` redirects to another host, which gets no token. Commits
go the Hub's way too: preupload, LFS batch, PUT, commit.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"
Access = Literal["public", "gated", "private"]


@dataclass
class Repo:
    """Commits by hash, each a dict of files; branches and tags by name; `access` as its owner set it."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    access: Access = "public"


@dataclass
class Fault:
    """What happens to requests whose path holds `where`, `times` times over.

    status: answered with the code `amount`. drop: the body's connection closes after `amount` bytes.
    cut: a body of `amount` bytes, as if it were whole. hang: no answer. slow: `amount` bytes of the body
    every 20 ms. alter: one bit of the body is another, at `amount`. endless: a body without end or length.
    """

    kind: Literal["status", "drop", "cut", "hang", "slow", "alter", "endless"]
    where: str
    amount: int = 0
    times: int = 1_000_000


class HubServer:
    """Serves on 127.0.0.1 until `stop`.

    `requests` are (method, path, had a token) in their order; `sent` counts the bytes of bodies; `uploads`
    are large files by SHA-256, in a commit or not.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.uploads: dict[str, bytes] = {}
        self.sent = 0
        self.requests: list[tuple[str, str, bool]] = []
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port; connections to it are refused from now on."""
        if not self.closing.is_set():
            self.closing.set()
            self._server.shutdown()
            self._server.server_close()

    def push(
        self, name: str, files: dict[str, bytes], *, tags: Sequence[str] = (), access: Access = "public"
    ) -> str:
        """A new commit on main (and `tags`); its hash."""
        repo = self.repos.setdefault(name, Repo())
        repo.access = access
        text = json.dumps([name, len(repo.commits), {path: _sha256(data) for path, data in files.items()}])
        commit = hashlib.sha1(text.encode()).hexdigest()
        repo.commits[commit] = dict(files)
        repo.refs |= dict.fromkeys(("main", *tags), commit)
        return commit

    def fault(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.where in path and fault.times > 0:
                fault.times -= 1
                return fault
        return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that was killed: its test looks at what is on stderr."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "")
        self.hub.requests.append((self.command, path, bool(token)))
        self.fault = self.hub.fault(path)
        if self.fault and self.fault.kind == "hang":
            self.hub.closing.wait(30)
            self.close_connection = True
        elif self.fault and self.fault.kind == "status":
            self._refuse(self.fault.amount, "", "out of order")
        elif path.startswith("/cdn/"):
            self._large(path.removeprefix("/cdn/"), token)
        elif path.startswith("/storage/"):
            self.hub.uploads[path.removeprefix("/storage/")] = self.body
            self._send(200, b"", {})
        elif token and token != f"Bearer {TOKEN}":
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif self.command == "POST":
            self._post(path, known=bool(token))
        else:
            self._route(path, known=bool(token))

    def _route(self, path: str, *, known: bool) -> None:
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        repo = self.hub.repos.get("/".join(parts[:2]))
        verb, revision = [*parts[2:4], "revision", "main"][:2] if len(parts) != 3 else (parts[2], "main")
        if repo is None or (repo.access == "private" and not known):
            self._refuse(404 if known else 401, "RepoNotFound", "Repository not found")
        elif (commit := repo.refs.get(revision, revision)) not in repo.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif api and verb == "revision":
            names = [_sibling(name, data) for name, data in repo.commits[commit].items()]
            about = {"id": "/".join(parts[:2]), "sha": commit, "private": repo.access == "private"}
            self._json({**about, "siblings": names, "tags": []})
        elif api and verb == "tree":
            self._json([_entry(name, data) for name, data in repo.commits[commit].items()])
        elif verb == "resolve" and repo.access == "gated":
            self._refuse(403 if known else 401, "GatedRepo", "Access to this model is restricted")
        elif verb == "resolve" and (name := "/".join(parts[4:])) in repo.commits[commit]:
            self._file(name, repo.commits[commit][name], commit)
        else:
            self._refuse(404, "EntryNotFound", "Entry not found")

    def _post(self, path: str, *, known: bool) -> None:
        """The routes of a commit, which all want a token; who it is may not write to "theirs/..."."""
        values = [json.loads(line) for line in self.body.splitlines()] if self.body else []
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4]) if parts[0] == "api" else "/".join(parts[:2]).removesuffix(".git")
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(values[0], known=known)
        elif not known:
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif "preupload" in parts:
            modes = [_mode(file["path"]) for file in values[0]["files"]]
            self._json({"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            self._json({"transfer": "basic", "objects": [self._batch(o) for o in values[0]["objects"]]})
        elif "commit" in parts:
            self._commit(name, values)
        else:
            self._refuse(404, "", path)

    def _create(self, wanted: dict[str, Any], *, known: bool) -> None:
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        if not known:
            self._refuse(401, "", "Invalid username or password.")
        elif name.startswith("theirs/"):
            self._refuse(403, "", "You do not have the rights to create a model here")
        elif name in self.hub.repos:
            self._json({"url": f"{self.hub.url}/{name}", "error": "You already created this model repo"}, 409)
        else:
            self.hub.push(name, {}, access=_wish(wanted))
            self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _batch(self, wanted: dict[str, Any]) -> dict[str, Any]:
        there = wanted["oid"] in self.hub.uploads
        place = {"href": f"{self.hub.url}/storage/{wanted['oid']}"}
        return {**wanted, **({} if there else {"actions": {"upload": place}})}

    def _commit(self, name: str, operations: list[dict[str, Any]]) -> None:
        repo = self.hub.repos[name]
        files = dict(repo.commits[repo.refs["main"]])
        for operation in operations:
            kind, value = operation["key"], operation["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        commit = self.hub.push(name, files, access=repo.access)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def _file(self, name: str, data: bytes, commit: str) -> None:
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if name.endswith(".safetensors"):
            large = {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{_sha256(data)}"'}
            place = f"http://localhost:{self.hub.port}/cdn/{_sha256(data)}"
            self._send(302, b"", {**headers, **large, "Location": place})
        else:
            self._ranged(data, {**headers, "ETag": f'"{_blob(data)}"'})

    def _large(self, sha256: str, token: str) -> None:
        commits = [files for repo in self.hub.repos.values() for files in repo.commits.values()]
        found = next((data for files in commits for data in files.values() if _sha256(data) == sha256), None)
        if token or found is None:
            self._refuse(400, "", "a token is not for this host" if token else "no such file")
        else:
            self._ranged(found, {"ETag": f'"{sha256}"'})

    def _ranged(self, data: bytes, headers: dict[str, str]) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], headers)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        if code:
            headers["X-Error-Code"] = code
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        kind, amount = (self.fault.kind, self.fault.amount) if self.fault else ("", 0)
        if kind == "cut":
            body = body[:amount]
        if kind == "alter" and len(body) > amount:
            body = body[:amount] + bytes([body[amount] ^ 1]) + body[amount + 1 :]
        if kind == "endless" and self.command != "HEAD":
            self._pour(status)
            return
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            step = amount if kind == "slow" else max(1, len(body))
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step][: amount if kind == "drop" else None])
                self.hub.sent += step
                if kind == "slow":
                    time.sleep(0.02)
        if kind == "drop":
            self.wfile.flush()
            time.sleep(0.05)
            self.close_connection = True

    def _pour(self, status: int) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Connection", "close")
        self.end_headers()
        while not self.hub.closing.is_set():
            self.wfile.write(bytes(2**16))
            self.hub.sent += 2**16

    def log_message(self, *_: object) -> None:
        pass


def _wish(wanted: dict[str, Any]) -> Access:
    """What a new repository is to be, as clients of different years ask for it."""
    return "private" if wanted.get("private") or wanted.get("visibility") == "private" else "public"


def _mode(path: str) -> dict[str, Any]:
    kind = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": kind, "shouldIgnore": False}


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    """A file as the Hub's revision route tells of it with blobs=true."""
    entry = _entry(name, data)
    facts = {"rfilename": name, "size": entry["size"], "blobId": entry["oid"]}
    if "lfs" in entry:
        large = entry["lfs"]
        facts["lfs"] = {"sha256": large["oid"], "size": large["size"], "pointerSize": 134}
    return facts


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": _blob(data)}
    if name.endswith(".safetensors"):
        entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 134}
    return entry
