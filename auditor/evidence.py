"""What evidence is made of, by name, and its content-addressed cache."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import secrets
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from shutil import rmtree

from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from auditor.config import Settings
from auditor.errors import BadFile
from auditor.files import flaw, replacing, seal, take_place, write_atomically
from auditor.lens.broad import BroadFinetunes, read_broad
from auditor.lens.corpus import Corpus, fetch_corpus, read_corpus, sampled_corpus
from auditor.llm.caller import open_caller
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.models.blind import BlindPair
from auditor.models.embed import load_embedder
from auditor.models.identity import first_line
from auditor.models.pair import ModelPair
from auditor.plugins import Dataset, Grader, GraderContext
from auditor.sheet import Lens, Report, compute_evidence
from auditor.types import Evidence, EvidenceSettings
from auditor.workspace import Workspace

log = logging.getLogger("auditor.evidence")

SHEET, DELTAS = "evidence.json", "deltas.safetensors"  # in an entry's folder of the cache


class _Prompts(BaseModel):
    calibration: tuple[str, ...]
    chat: tuple[str, ...]


def grading_for(ws: Workspace, conf: Settings, pair: ModelPair) -> GraderContext:
    """What graders of the lens need, with the LLM that the settings name for them."""
    judge = None if conf.lens_llm == OFFLINE else open_caller(parse_spec(conf.lens_llm))
    background = read_corpus(ws.corpora["openings"]).texts
    return GraderContext(load_embedder(conf.embedder), conf, pair, background, judge, ws.prompts.by_name())


def make_lens(ws: Workspace, pair: ModelPair, settings: EvidenceSettings, grading: GraderContext) -> Lens:
    """Resolve the names in `settings`: corpus, graders, prompts."""
    prompts = _Prompts.model_validate_json((_find(ws, "evals/corpora/chat_prompts.json")).read_text("utf-8"))
    return Lens(
        corpus=named_corpus(ws, settings.corpus, pair, settings),
        settings=settings,
        prompts=prompts.chat[: settings.steering.prompts],
        calibration_prompts=prompts.calibration,
        coherence=ws.graders[settings.coherence_grader],
        scale=ws.graders[settings.scale_grader],
        grading=replace(grading, pair=BlindPair(pair)),
        broad=_broad_finetunes(ws, pair),
    )


def _broad_finetunes(ws: Workspace, pair: ModelPair) -> BroadFinetunes | None:
    """The directions in `evals/nulls` that belong to the pair's base and last layer, if there are any."""
    for shelved in ws.nulls:
        found = read_broad(shelved.value)
        if found.holds_for(pair.base_sources) and found.layer == pair.n_layers - 1:
            return found
    return None


def named_corpus(ws: Workspace, name: str, pair: ModelPair, settings: EvidenceSettings) -> Corpus:
    """A corpus of the workspace, a file, a dataset of the hub, or texts sampled from the base model."""
    if name == "sampled":
        return sampled_corpus(pair, settings.texts, 32, settings.seed)
    path = Path(name)
    if name in ws.corpora.items or ("/" not in name and not path.suffix):
        path = ws.corpora[name]
    elif not path.exists() and name.count("/") >= 1 and not name.startswith((".", "/", "~")):
        path = fetch_corpus(name)
    return read_corpus(path).take(settings.texts, settings.seed)


def _find(ws: Workspace, relative: str) -> Path:
    for _, root in reversed(ws.roots):
        if (root / relative).is_file():
            return root / relative
    raise BadFile(ws.roots[0][1] / relative, "is missing from the built-in workspace")


def evidence_for(pair: ModelPair, lens: Lens, report: Report = lambda stage: None) -> Dataset:
    """The evidence of `pair`, from the cache if it was computed before with all the same inputs.

    An entry of the cache is whole, or it is made anew and that is said.
    """
    if (kept := kept_evidence(pair, lens)) is not None:
        return kept
    evidence, deltas = compute_evidence(pair, lens, report)
    try:
        _keep(_folder(pair, lens), evidence, deltas)
    except BadFile as error:
        log.warning("%s; the sheet will have to be made again", error)
    return Dataset(evidence, deltas)


def kept_evidence(pair: ModelPair, lens: Lens) -> Dataset | None:
    """What the cache holds of it; None if that is nothing, or not whole, which is said."""
    folder = _folder(pair, lens)
    if folder.exists():
        try:
            return _kept(folder, pair, lens)
        except BadFile as error:
            log.warning("%s; the sheet is made anew", error)
            _set_aside(folder)
    return None


def _folder(pair: ModelPair, lens: Lens) -> Path:
    return lens.grading.settings.cache_dir / "evidence" / cache_key(pair, lens)


def _kept(folder: Path, pair: ModelPair, lens: Lens) -> Dataset:
    """An entry of the cache. Raises BadFile if it is not as it was written, or is of something else."""
    if problem := flaw(folder):
        raise BadFile(folder, problem)
    try:
        found = Evidence.model_validate_json((folder / SHEET).read_bytes())
        deltas = {int(layer): delta for layer, delta in load_file(folder / DELTAS).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise BadFile(folder, f"cannot be read ({first_line(error)})") from error
    known = (found.fingerprint, found.corpus_sha256, found.settings)
    shape = (lens.settings.positions, pair.d_model)
    if known != (pair.fingerprint, lens.corpus.sha256, lens.settings) or sorted(deltas) != sorted(
        layer.layer for layer in found.layers
    ):
        raise BadFile(folder, "is the sheet of another pair, corpus or settings")
    if any(delta.shape != shape or not bool(delta.isfinite().all()) for delta in deltas.values()):
        raise BadFile(folder / DELTAS, f"does not hold finite tensors of shape {shape}")
    # The name is not in the key: the same weights may be asked for under another one.
    return Dataset(found.model_copy(update={"pair": pair.name}), deltas)


def _set_aside(folder: Path) -> None:
    """Take an entry away, however it looks: a whole one of something else would stand in the way for ever."""
    aside = _beside(folder)
    with suppress(OSError):  # another process has done it
        os.replace(folder, aside)
    rmtree(aside, ignore_errors=True)
    aside.unlink(missing_ok=True)


def _beside(folder: Path) -> Path:
    """A name that is this call's own."""
    return folder.with_name(f".{folder.name[:16]}.{os.getpid()}-{secrets.token_hex(4)}.part")


def _keep(folder: Path, evidence: Evidence, deltas: dict[int, Tensor]) -> None:
    """Write an entry: it is there whole, or not at all. Raises BadFile if it cannot be written."""
    part = _beside(folder)
    try:
        part.mkdir(parents=True)
        with replacing(part / DELTAS) as path:
            save_file({str(layer): delta for layer, delta in deltas.items()}, path)
        write_atomically(part / SHEET, evidence.model_dump_json(indent=1))
        seal(part)
        take_place(part, folder)
    except OSError as error:
        raise BadFile(folder, f"cannot be written ({error.strerror or error})") from error
    finally:
        rmtree(part, ignore_errors=True)


def cache_key(pair: ModelPair, lens: Lens) -> str:
    """Changes whenever the evidence could."""
    parts = {
        "pair": pair.fingerprint,
        "corpus": lens.corpus.sha256,
        "settings": lens.settings.model_dump(mode="json"),
        "prompts": [lens.prompts, lens.calibration_prompts],
        "graders": [_source(lens.coherence), _source(lens.scale), lens.grading.settings.embedder],
        "judge": _judge(lens),
        "dtype": pair.dtype,
        "broad": lens.broad.digest if lens.broad else None,
        "code": code_version(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _judge(lens: Lens) -> list[str]:
    prompts = lens.grading.prompts
    if lens.grading.llm is None:
        return []
    told = [prompts[name].source for name in sorted(prompts) if name.startswith("grade_")]
    return [lens.grading.llm.name, *told]


def _source(grader: Grader) -> str:
    try:
        return inspect.getsource(inspect.getmodule(grader.run) or grader.run)
    except (OSError, TypeError):
        return grader.name


@lru_cache(maxsize=1)
def code_version() -> str:
    """Hash of the code that computes evidence: a change there makes old cache entries unreachable."""
    here = Path(__file__).parent
    read = [*here.glob("lens/**/*.py"), *here.glob("models/**/*.py"), here / "chat_template.py", here / "sheet.py"]
    files = sorted([*read, Path(__file__)])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
