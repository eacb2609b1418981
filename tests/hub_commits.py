"""What a hub of ours takes: repositories, commits, pull requests, as the client's `_commit_api.py` sends them."""

import base64
import hashlib
import json
from urllib.parse import parse_qs

import yaml

LICENCES = {"mit", "apache-2.0", "cc-by-4.0", "cc0-1.0", "other"}  # some of those that the real one knows
LFS = (".parquet", ".safetensors", ".bin")  # what the real one's .gitattributes say
TEXT = 10 * 2**20  # bytes from which everything is LFS


class Takes:
    """The part of the handler that writes. `tokens`: who they are of; `most`: bytes that a commit may have."""

    tokens: dict
    private: set
    blobs: dict
    written: list
    most: int

    def who(self):
        """Whose token was sent; None if none, or nobody's."""
        return self.tokens.get((self.headers["Authorization"] or "").removeprefix("Bearer "))

    def may_see(self, name):
        who = self.who()
        return name not in self.private or (who is not None and name.split("/")[0] in (who["name"], *who["orgs"]))

    def whoami(self):
        if (who := self.who()) is None:
            return self.say(401, {"error": "Invalid username or password."}, "Invalid username or password.")
        token = {"displayName": "a token", "role": who["role"]}
        orgs = [{"name": org, "roleInOrg": "write"} for org in who["orgs"]]
        return self.say(200, {"type": "user", "name": who["name"], "orgs": orgs, "auth": {"accessToken": token}})

    def do_PUT(self):
        body = self.body()  # read whatever comes of it: the connection is used again
        oid = self.path.removeprefix("/lfs/")
        if hashlib.sha256(body).hexdigest() != oid:
            return self.say(400, {"error": "another content"})
        self.blobs[oid] = body
        return self.say(200, {})

    def write(self, path, query):
        """Whatever is posted that is no question. None if it is none of these."""
        self.written.append(path)
        if path == "/api/validate-yaml":
            return self.validated()
        if path.startswith("/lfs/"):  # the check after an upload
            return self.say(200 if path.removeprefix("/lfs/") in self.blobs else 404, {})
        if path != "/api/repos/create" and not self.place(path):
            return self.say(404, {"error": "Repository not found"}, code="RepoNotFound")
        if (who := self.who()) is None:
            return self.say(401, {"error": "Invalid username or password."}, "Invalid username or password.")
        if who["role"] == "read":
            told = "you must use a write token to upload to a repository."
            return self.say(403, {"error": told}, told)
        if path == "/api/repos/create":
            return self.created(who)
        repos, name, rest = self.place(path)
        pull = "1" in parse_qs(query).get("create_pr", ())
        if rest.endswith("info/lfs/objects/batch"):
            return self.batch()
        if not pull and name.split("/")[0] not in (who["name"], *who["orgs"]):
            told = "Authorization error."
            return self.say(403, {"error": told}, told)
        step, _, revision = rest.strip("/").partition("/")
        files = self.versions_of(repos, name).get(revision)
        if files is None:
            return self.say(404, {"error": f"Invalid rev id: {revision}"}, code="RevisionNotFound")
        if step == "preupload":
            return self.preupload(files[1])
        return self.commit(repos, name, revision, pull=pull)

    def place(self, path):
        """(repositories, name, what follows) of a path of the API or of git."""
        heads = {"/api/models/": self.repos, "/api/datasets/": self.datasets, "/datasets/": self.datasets,
                 "/": self.repos}  # fmt: skip
        for head, repos in heads.items():
            parts = path.removeprefix(head).split("/") if path.startswith(head) else ()
            name = "/".join(parts[:2]).removesuffix(".git")
            if name in repos and self.may_see(name):
                return repos, name, "/".join(parts[2:])
        return None

    def created(self, who):
        asked = json.loads(self.posted)
        space, repos = asked["organization"] or who["name"], self.datasets if asked["type"] == "dataset" else self.repos
        name = f"{space}/{asked['name']}"
        url = f"{self.url}/{'datasets/' if repos is self.datasets else ''}{name}"
        if space not in (who["name"], *who["orgs"]):
            told = f'You don\'t have the rights to create a {asked["type"]} under the namespace "{space}"'
            return self.say(403, {"error": told}, told)
        if name in repos:
            return self.say(409, {"error": "You already created this repo", "url": url})
        repos[name] = {".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"}
        if asked.get("visibility") == "private" or asked.get("private"):
            self.private.add(name)
        return self.say(200, {"url": url, "name": name})

    def validated(self):
        asked = json.loads(self.posted)
        wrong = problem_of(asked["content"], asked["repoType"])
        told = {"errors": [{"message": wrong}] if wrong else [], "warnings": []}
        return self.say(400 if wrong else 200, told)

    def preupload(self, files):
        told = []
        for file in json.loads(self.posted)["files"]:
            lfs = file["path"].endswith(LFS) or file["size"] > TEXT
            there = files.get(file["path"])
            oid = None if there is None else hashlib.sha256(there).hexdigest() if lfs else git_oid(there)
            mode = "lfs" if lfs else "regular"
            told.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self.say(200, {"files": told})

    def batch(self):
        objects = []
        for each in json.loads(self.posted)["objects"]:
            link = {"href": f"{self.url}/lfs/{each['oid']}"}
            there = {} if each["oid"] in self.blobs else {"actions": {"upload": link, "verify": link}}
            objects.append({**each, **there})
        return self.say(200, {"transfer": "basic", "objects": objects})

    def commit(self, repos, name, revision, *, pull):
        raw = self.posted
        if len(raw) > self.most:
            return self.say(413, {"error": "Payload too large"}, "Payload too large")
        header, *steps = [json.loads(line) for line in raw.splitlines()]
        assert header["key"] == "header"
        assert header["value"]["summary"]
        now, there = self.versions_of(repos, name)[revision]
        if header["value"].get("parentCommit", now) != now and not pull:
            return self.say(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = dict(there)
        for step in steps:
            path, value = step["value"]["path"], step["value"]
            match step["key"]:
                case "file":
                    files[path] = base64.b64decode(value["content"])
                case "lfsFile" if value["oid"] in self.blobs:
                    files[path] = self.blobs[value["oid"]]
                case "deletedFile" if path in files:
                    del files[path]
                case other:
                    return self.say(400, {"error": f"{other} of {path}: no such file"})
        oid = hashlib.sha1(raw).hexdigest()
        url = f"{self.url}/{'datasets/' if repos is self.datasets else ''}{name}"
        pull_url = self.keep(repos, name, "" if pull else revision, oid, files, url)
        told = {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", "hookOutput": ""}
        return self.say(200, {**told, "pullRequestUrl": pull_url} if pull else told)

    def keep(self, repos, name, revision, oid, files, url):
        """A new version; without a revision, as a pull request, whose address is returned."""
        versions = self.versions.setdefault((id(repos), name), {})
        number = 1 + sum(known.startswith("refs/pr/") for known in versions)
        branch = revision or f"refs/pr/{number}"
        if branch == "main":
            for known, version in self.versions_of(repos, name).items():
                versions.setdefault(known, (version[0], dict(version[1])))  # what it was before
            repos[name].clear()
            repos[name].update(files)
        versions[branch] = (oid, repos[name] if branch == "main" else files)
        versions[oid] = (oid, files)
        return f"{url}/discussions/{number}"

    def body(self):
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def say(self, status, told, message="", code=""):
        body = json.dumps(told).encode()
        self.send_response(status)
        for header, value in (("X-Error-Message", message), ("X-Error-Code", code)):
            if value:
                self.send_header(header, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def problem_of(card, kind):
    """What is wrong with a card's metadata, in the way of the real one's `validate-yaml`; empty if nothing is."""
    if not card.startswith("---\n"):
        return ""
    try:
        told = yaml.safe_load(card.split("---\n")[1])
    except yaml.YAMLError as error:
        return f"not YAML: {error}"
    if "license" in told and told["license"] not in LICENCES:
        return f'"license" must be one of {sorted(LICENCES)}'
    if kind == "dataset" and not all({"config_name", "data_files"} <= each.keys() for each in told.get("configs", ())):
        return '"configs" must name their data files'
    return ""


def git_oid(content):
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
