"""A hub of our own: models and datasets by name, served over the protocol that the real clients speak."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from huggingface_hub import constants

from tests.hub_commits import Takes

MAIN, OLD = "a" * 40, "b" * 40
REVISIONS = {"main": MAIN, MAIN: MAIN, "v1": OLD, "feature/x": OLD, OLD: OLD}
KINDS = {"/api/models/": "/", "/api/datasets/": "/datasets/"}


class Hub(Takes, BaseHTTPRequestHandler):
    """Repositories by name: {path: content}; `doors` by name: the error code and status that guard its files;
    `safetensors` by name: what the hub has counted, numbers by kind; `versions`: what a revision holds, if not the
    same as all others, by `(id(repos or datasets), name)` and revision.
    """

    protocol_version = "HTTP/1.1"
    repos: dict
    datasets: dict
    doors: dict
    safetensors: dict
    versions: dict
    asked: list

    def versions_of(self, repos, name):
        """(commit, files) by revision."""
        usual = {revision: (commit, repos[name]) for revision, commit in REVISIONS.items()}
        return usual | self.versions.get((id(repos), name), {})

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        """Which of some paths there are (`paths-info`), or something to be taken."""
        path, _, query = self.path.partition("?")
        path, self.posted = path.replace("%2F", "/"), self.body()
        if "/paths-info/" not in path:
            return self.write(path, query)
        wanted = json.loads(self.posted)["paths"]
        for name, files in self.datasets.items():
            if path.startswith(f"/api/datasets/{name}/paths-info/") and self.may_see(name):
                found = [entry(p, files[p]) for p in wanted if p in files]
                found += [{"type": "directory", "path": p, "oid": "0" * 40} for p in wanted if below(files, p)]
                return self.answer(json.dumps(found).encode(), MAIN, "application/json")
        return self.refuse(404, "RepoNotFound")

    def do_GET(self):
        path = self.path.split("?")[0].replace("%2F", "/")
        self.asked.append(path)
        if self.headers["Authorization"] and self.who() is None:
            told = "Invalid credentials in Authorization header"
            return self.say(401, {"error": told}, told)
        if path == "/api/whoami-v2":
            return self.whoami()
        for repos, api in ((self.repos, "/api/models/"), (self.datasets, "/api/datasets/")):
            for name in sorted(repos, key=lambda each: -len(each)):
                status, code = self.doors.get(name, (0, "") if self.may_see(name) else (401, "RepoNotFound"))
                if path == f"{api}{name}" or path.startswith(f"{api}{name}/"):
                    if path.endswith("/auth-check"):
                        return self.refuse(status, code) if status else self.answer(b"{}", MAIN)
                    if status and code != "GatedRepo":
                        return self.refuse(status, code)
                    return self.listing(path.removeprefix(api + name), repos, name, gated=bool(status))
                for revision, (commit, files) in self.versions_of(repos, name).items():
                    file = path.removeprefix(f"{KINDS[api]}{name}/resolve/{revision}/")
                    if file != path:
                        if status:
                            return self.refuse(status, code)
                        return self.answer(files[file], commit) if file in files else self.refuse(404, "EntryNotFound")
                if path.startswith(f"{KINDS[api]}{name}/resolve/") and not status:
                    return self.refuse(404, "RevisionNotFound")
        return self.refuse(401, "RepoNotFound")

    def listing(self, rest, repos, name, *, gated):
        known = self.versions_of(repos, name)
        tree = rest.startswith("/tree/")
        revision = rest.removeprefix("/tree/").removeprefix("/revision/") or "main"
        revision = next((each for each in known if revision == each or revision.startswith(f"{each}/")), "")
        if not revision:
            return self.refuse(404, "RevisionNotFound")
        (commit, files), folder = known[revision], rest.removeprefix(f"/tree/{revision}").strip("/") if tree else ""
        if tree:
            if folder and not below(files, folder):
                return self.refuse(404, "EntryNotFound")
            content = tree_of(files, folder, recursive="recursive=true" in self.path.lower())
        else:
            siblings = [{"rfilename": p, "size": len(b)} for p, b in files.items()]
            content = {"id": name, "sha": commit, "siblings": siblings, "gated": "manual" if gated else False,
                       "private": name in self.private}  # fmt: skip
            if kinds := self.safetensors.get(name):
                content["safetensors"] = {"parameters": kinds, "total": sum(kinds.values())}
        return self.answer(json.dumps(content).encode(), commit, "application/json")

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, body, commit, kind="application/octet-stream"):
        etag, whole, span = f'"{abs(hash(body)):x}"', len(body), self.headers["Range"]
        if span and self.command == "GET":
            first, _, last = span.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last or whole - 1), whole - 1)
            body = body[begin : end + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end}/{whole}")
        else:
            self.send_response(200)
        for header in (("Content-Type", kind), ("Content-Length", str(len(body))), ("ETag", etag)):
            self.send_header(*header)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "GET":
            self.sent[0] += len(body)
            self.wfile.write(body)

    def log_message(self, *_args):
        pass


def entry(path, content):
    return {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}


def tree_of(files, folder, *, recursive):
    """What lies in a folder: files and folders, those inside of these too if `recursive`."""
    inside = {p: b for p, b in files.items() if not folder or p.startswith(f"{folder}/")}
    depth = len(folder.split("/")) if folder else 0
    folders = {"/".join(p.split("/")[:n]) for p in inside for n in range(depth + 1, len(p.split("/")))}
    found = [{"type": "directory", "path": p, "oid": "0" * 40} for p in sorted(folders)]
    found += [entry(p, b) for p, b in inside.items()]
    return found if recursive else [each for each in found if len(each["path"].split("/")) == depth + 1]


def below(files, folder):
    return any(path.startswith(f"{folder}/") for path in files)


@contextmanager
def serving(repos=None, datasets=None):
    """The handler's class of a running hub: `url`, what was `asked`, how many bytes were `sent`."""
    own = {"repos": {} if repos is None else repos, "datasets": {} if datasets is None else datasets, "asked": [],
           "sent": [0], "tokens": {}, "private": set(), "written": [], "most": 2**30,
           **{name: {} for name in ("doors", "safetensors", "versions", "blobs")}}  # fmt: skip
    handler = type("Served", (Hub,), own)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.url = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()


def asked_by_this_process(monkeypatch, served, cache):
    """Whatever in this process asks the hub asks `served`, and keeps it in `cache`."""
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
