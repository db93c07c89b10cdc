"""A small Hub on this machine, for huggingface_hub's own client: what it is sent is kept, with commits, in memory.

It speaks as much of the Hub's HTTP API as pushing and loading a model takes: tokens, private repositories, commits on
branches, large files in a store of their own (git LFS), and files by revision with the headers that the client's cache
needs. Clients find it by `LoopbackHub.environment`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


TOKEN = "hf_loopback"
LARGE = (".safetensors", ".bin", ".pt", ".pth")


class RefusalError(Exception):
    """What is answered in place of a result."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Repository:
    """Commits by hash, each with the whole content, and the hashes of branches."""

    name: str
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        """Make these the files of a branch."""
        self.messages.append(message)
        sha = hashlib.sha1(f"{self.name} {len(self.messages)} {message}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str:
        """Return the hash of a commit or branch."""
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha


class LoopbackHub:
    """The server; runs until `close`."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}  # by SHA-256, before and after they are committed
        self.lock = Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        # Another host, as large files have on the Hub: the client follows redirects within one host by itself.
        self.storage = f"http://localhost:{self.server.server_port}/lfs"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Return environment variables of a client that keeps its files in `home`."""
        found = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return found | ({} if token is None else {"HF_TOKEN": token})

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return what a repository holds."""
        repository = self.repositories[name]
        return repository.commits[repository.resolve(revision)]


class _Handler(BaseHTTPRequestHandler):
    """One request; `hub` is set by the server."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def log_message(self, *arguments: Any) -> None:
        """Keep the tests' output free of requests."""

    def _answer(self, handle: Callable[[list[str], bytes], None]) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        try:
            with self.hub.lock:
                handle(parts, body)
        except RefusalError as refusal:
            code = {"X-Error-Code": refusal.code} if refusal.code else {}
            self._send({"error": str(refusal)}, refusal.status, {"X-Error-Message": str(refusal), **code})

    def _send(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Length": str(len(data)), "Content-Type": "application/json", **(headers or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _knows_caller(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, parts: list[str], write: bool = False) -> Repository:
        repository = self.hub.repositories.get("/".join(parts))
        if repository is None or ((repository.private or write) and not self._knows_caller()):
            raise RefusalError(401, "Repository not found", "RepoNotFound")  # the Hub tells neither which nor why
        return repository

    def _get(self, parts: list[str], body: bytes) -> None:
        match parts:
            case ["api", "whoami-v2"]:
                if not self._knows_caller():
                    raise RefusalError(401, "Invalid username or password.")
                self._send({"type": "user", "name": "tester", "orgs": [{"type": "org", "name": "org"}]})
            case ["api", "models", organisation, name, *rest]:
                self._describe(self._repository([organisation, name]), rest)
            case ["lfs", sha256]:
                self._send(self.hub.large_files[sha256], headers={"ETag": f'"{sha256}"'})
            case [organisation, name, "resolve", revision, *path]:
                self._serve(self._repository([organisation, name]), revision, "/".join(path))
            case _:
                raise RefusalError(404, f"Nothing at {self.path}")

    def _describe(self, repository: Repository, rest: list[str]) -> None:
        """Tell about a repository or revision, or list a folder."""
        match rest:
            case [] | ["revision", _]:
                sha = repository.resolve(rest[1] if rest else "main")
                names = [{"rfilename": name} for name in repository.commits[sha]]
                about = {"id": repository.name, "modelId": repository.name, "private": repository.private, "tags": []}
                self._send(about | {"sha": sha, "siblings": names, "gated": False, "disabled": False})
            case ["tree", revision, *folder]:
                files = repository.commits[repository.resolve(revision)]
                top = "/".join(folder)
                inside = {name: data for name, data in files.items() if PurePosixPath(name).is_relative_to(top)}
                if folder and not inside:
                    raise RefusalError(404, f"{top} does not exist", "EntryNotFound")
                if "recursive" not in parse_qs(urlsplit(self.path).query):
                    inside = {name: data for name, data in inside.items() if name.count("/") == len(folder)}
                self._send([_entry(name, data) for name, data in inside.items()])
            case _:
                raise RefusalError(404, f"Nothing at {self.path}")

    def _serve(self, repository: Repository, revision: str, path: str) -> None:
        """Send a file, or say where a large one lies."""
        sha = repository.resolve(revision)
        if path not in repository.commits[sha]:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        data = repository.commits[sha][path]
        entry, headers = _entry(path, data), {"X-Repo-Commit": sha}
        if "lfs" in entry:
            oid = entry["lfs"]["oid"]
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data))}
            self._send(b"", 302, headers | {"Location": f"{self.hub.storage}/{oid}"})
        else:
            self._send(data, headers=headers | {"ETag": f'"{entry["oid"]}"', "Content-Type": "text/plain"})

    def _put(self, parts: list[str], body: bytes) -> None:
        sha256 = hashlib.sha256(body).hexdigest()
        if parts != ["lfs", sha256]:
            raise RefusalError(400, "The content isn't what was announced")
        self.hub.large_files[sha256] = body
        self._send(b"")

    def _post(self, parts: list[str], body: bytes) -> None:
        match parts:
            case ["api", "validate-yaml"]:
                self._send({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "models", organisation, name, "preupload", revision]:
                files = self._repository([organisation, name], write=True)
                self._send({"files": self._preupload(files, revision, json.loads(body))})
            case [organisation, name, "info", "lfs", "objects", "batch"]:
                self._repository([organisation, name.removesuffix(".git")], write=True)
                objects = [{"oid": item["oid"], "size": item["size"]} for item in json.loads(body)["objects"]]
                for item in objects:
                    if item["oid"] not in self.hub.large_files:
                        item["actions"] = {"upload": {"href": f"{self.hub.storage}/{item['oid']}"}}
                self._send({"transfer": "basic", "objects": objects})
            case ["api", "models", organisation, name, "branch", branch]:
                repository = self._repository([organisation, name], write=True)
                if branch in repository.branches:
                    raise RefusalError(409, "Reference already exists")
                repository.branches[branch] = repository.branches["main"]
                self._send({})
            case ["api", "models", organisation, name, "commit", branch]:
                self._commit(self._repository([organisation, name], write=True), branch, body)
            case _:
                raise RefusalError(404, f"Nothing at {self.path}")

    def _create(self, wanted: dict[str, Any]) -> None:
        if not self._knows_caller():
            raise RefusalError(401, "Invalid username or password.")
        name = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        url = f"{self.hub.endpoint}/{name}"
        if name in self.hub.repositories:
            self._send({"error": "You already created this model repo", "url": url}, 409)
            return
        repository = Repository(name, private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.hub.repositories[name] = repository
        self._send({"url": url, "name": name})

    def _preupload(self, repository: Repository, revision: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Say of each file whether it is large, whether `.gitignore` names it, and what is there already."""
        present = repository.commits[repository.resolve(revision)]
        ignored = asked.get("gitIgnore") or present.get(".gitignore", b"").decode()
        answers = []
        for file in asked["files"]:
            path = file["path"]
            there = _entry(path, present[path]) if path in present else {}
            answers.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if path.endswith(LARGE) else "regular",
                    "shouldIgnore": any(fnmatch(PurePosixPath(path).name, line) for line in ignored.split()),
                    "oid": there.get("lfs", there).get("oid"),
                }
            )
        return answers

    def _commit(self, repository: Repository, branch: str, body: bytes) -> None:
        """Apply a commit: one line of JSON a file."""
        files, message = dict(repository.commits[repository.resolve(branch)]), ""
        for line in body.splitlines():
            item = json.loads(line)
            kind, value = item["key"], item["value"]
            match kind:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.large_files[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
                case _:
                    raise RefusalError(400, f"Unknown operation {kind}")
        sha = repository.commit(branch, files, message)
        self._send(
            {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.endpoint}/{repository.name}/commit/{sha}"}
        )


def _entry(path: str, data: bytes) -> dict[str, Any]:
    """Describe a file as the Hub does in listings."""
    oid = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry
