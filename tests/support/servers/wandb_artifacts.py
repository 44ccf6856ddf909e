"""The loopback W&B server with artifacts: what logging one asks for, and ways to leave it uncommitted."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from servers.wandb_server import API_KEY, WandbServer, _Handler

ArtifactFault = Literal["none", "put_403", "not_committed", "silent_commit", "other_digest"]


@dataclass
class ServerArtifact:
    """One artifact version: its name, state, digest, and the uploaded files by name."""

    id: str
    collection: str
    type: str
    digest: str
    project: str
    run: str
    state: str = "PENDING"
    files: dict[str, bytes] = field(default_factory=dict)
    md5s: dict[str, str] = field(default_factory=dict)


class WandbArtifactServer(WandbServer):
    """`artifacts` is what arrived; `artifact_fault` may change at any time.

    Faults: `put_403` refuses every upload, `not_committed` confirms a commit and leaves the artifact pending,
    `silent_commit` never answers the commit, `other_digest` keeps something else than was sent.
    """

    def __init__(self, artifact_fault: ArtifactFault = "none", api_key: str = API_KEY) -> None:
        super().__init__(api_key=api_key)
        self.artifact_fault: ArtifactFault = artifact_fault
        self.artifacts: dict[str, ServerArtifact] = {}
        self._server.RequestHandlerClass = _ArtifactHandler

    def answer(self, name: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The data of an operation on artifacts; None for all others."""
        if name == "ArtifactType":
            return {"project": {"artifact": None}}
        if name == "CreateArtifact":
            return self._create(variables["input"])
        if name == "CreateArtifactManifest":
            return self._manifest(variables)
        if name == "CreateArtifactFiles":
            return self._create_files(variables["input"]["artifactFiles"])
        if name == "CommitArtifact":
            return self._commit(self.artifacts[variables["artifactID"]])
        if name == "ArtifactByID":
            return {"artifact": _fragment(self.artifacts[variables["id"]])}
        return None

    def store(self, artifact_id: str, name: str, content: bytes) -> None:
        """Takes an uploaded file."""
        self.artifacts[artifact_id].files[name] = content

    def _create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        (collection,) = wanted.get("artifactCollectionNames") or [wanted.get("artifactCollectionName")]
        artifact = ServerArtifact(
            f"artifact-{len(self.artifacts)}",
            collection,
            wanted["artifactTypeName"],
            wanted["digest"],
            wanted["projectName"],
            wanted["runName"],
        )
        self.artifacts[artifact.id] = artifact
        sequence = {"latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": artifact.id, "state": "PENDING", "artifactSequence": sequence}}}

    def _manifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/artifact-upload/{variables['artifactID']}/{variables['name']}"
        with_url = {"uploadUrl": url, "uploadHeaders": []} if variables.get("includeUpload") else {}
        manifest = {"id": f"manifest-{variables['artifactID']}", "file": {"id": "f", **with_url}}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def _create_files(self, specs: list[dict[str, Any]]) -> dict[str, Any]:
        edges = []
        for spec in specs:
            self.artifacts[spec["artifactID"]].md5s[spec["name"]] = spec["md5"]
            url = f"{self.url}/artifact-upload/{spec['artifactID']}/{spec['name']}"
            node = {"storagePath": f"store/{spec['name']}", "uploadUrl": url, "uploadHeaders": []}
            edges.append({"node": {**node, "uploadMultipartUrls": None, "artifact": {"id": spec["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit(self, artifact: ServerArtifact) -> dict[str, Any]:
        for name, md5 in artifact.md5s.items():
            found = base64.b64encode(hashlib.md5(artifact.files.get(name, b"")).digest()).decode()
            if found != md5:
                return {"commitArtifact": None}
        if self.artifact_fault == "other_digest":
            artifact.digest = "0" * 32
        if self.artifact_fault != "not_committed":
            artifact.state = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}


class _ArtifactHandler(_Handler):
    _content = b""

    def _serve(self, method: str) -> None:
        owner = self.server.owner
        assert isinstance(owner, WandbArtifactServer)
        self._content = super()._body()
        if owner.fault == "none" and (match := re.fullmatch(r"/artifact-upload/([^/]+)/(.+)", self.path)):
            if owner.artifact_fault == "put_403":
                return self._reply(403, {"error": "expired"})
            with owner.lock:
                owner.store(match.group(1), match.group(2), self._content)
            return self._reply(200, {})
        if owner.fault == "none" and self.path == "/graphql":
            request = json.loads(self._content)
            found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            name = found.group(1) if found else ""
            if name == "CommitArtifact" and owner.artifact_fault == "silent_commit":
                owner.hang()
                return None
            with owner.lock:
                answer = owner.answer(name, request.get("variables") or {})
                if answer is not None:
                    owner.operations.append(name)
                    return self._reply(200, {"data": answer})
        return super()._serve(method)

    def _body(self) -> bytes:
        return self._content


def _fragment(artifact: ServerArtifact) -> dict[str, Any]:
    project = {
        "__typename": "Project",
        "id": "p1",
        "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ==",
        "name": artifact.project,
    }
    project["entity"] = {"__typename": "Entity", "id": "e1", "name": "tester"}  # type: ignore[assignment]
    collection = {"__typename": "ArtifactSequence", "id": "c1", "name": artifact.collection, "project": project}
    return {
        "__typename": "Artifact",
        "id": artifact.id,
        "artifactSequence": collection,
        "versionIndex": 0,
        "artifactType": {"name": artifact.type},
        "description": None,
        "metadata": "{}",
        "ttlDurationSeconds": -1,
        "ttlIsInherited": True,
        "tags": [],
        "historyStep": None,
        "state": artifact.state,
        "size": sum(map(len, artifact.files.values())),
        "digest": artifact.digest,
        "digestAlgorithm": "MANIFEST_MD5",
        "commitHash": None,
        "fileCount": len(artifact.md5s),
        "createdAt": "2025-01-01T00:00:00Z",
        "updatedAt": None,
        "aliases": [],
    }
