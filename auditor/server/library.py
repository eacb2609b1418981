"""What a server has: pairs by name, those of one base on one set of weights, adapters loaded when asked for."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from auditor.audits.bench import Bench
from auditor.config import Settings
from auditor.errors import AuditorError, BadModel, UnknownName, UsageError
from auditor.evidence.compute import evidence_for
from auditor.evidence.mapping import Evidence
from auditor.evidence.recipe import (
    PAIR,
    SAMPLED,
    Recipe,
    closure,
    key_of,
    keys_of,
    named_by,
    named_corpus,
)
from auditor.evidence.sources import source_hash
from auditor.llm.spec import OFFLINE
from auditor.methods.diff import Difference, differences
from auditor.methods.steering import Direction
from auditor.models.adapters import rank_of
from auditor.models.blind import BlindPair
from auditor.models.generate import Side
from auditor.models.host import Host
from auditor.models.load import EngineName, load_host, pair_on, plain_adapter
from auditor.models.local import LocalPair
from auditor.models.variants import demand_rank, suffix
from auditor.models.vllm_batch import demand_vllm
from auditor.models.weights import Weights, is_adapter, resolve
from auditor.models.wire import Read
from auditor.models.worker import Worker
from auditor.records.cards import AdapterVariant
from auditor.workspace import Workspace

ADAPTER_SHARE = 0.25  # of the base's bytes: what all loaded adapters may take together
SUITE = "quickstart"  # whose evidence settings say what δ is


class Full(AuditorError):
    """All memory for adapters is taken by adapters that are in use now."""


class Unservable(AuditorError):
    """A model that is served cannot be loaded: not the client's fault."""


class Otherwise(AuditorError):
    """What is asked for would be another reading here; `pair`: because the pair is another one now."""

    def __init__(self, reason: str, *, pair: bool = False) -> None:
        super().__init__(reason)
        self.pair = pair


@dataclass(frozen=True, slots=True)
class Plan:
    """What evidence is made of: lenses, of which `wanted` are asked for, under a key of all that it depends on."""

    recipe: Recipe
    wanted: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Served:
    """A pair that can be asked for."""

    name: str
    base: str
    finetuned: str
    variant: AdapterVariant | None = None
    adapter_base: str | None = None  # what an adapter belongs to, if not `base`


class Library:
    """Pairs by name. Blocking: its methods load weights, wait for the worker, and compute."""

    def __init__(
        self, served: Mapping[str, Served], workspace: Workspace, settings: Settings, engine: EngineName = "hooks"
    ) -> None:
        self.served, self.workspace, self.settings, self.engine = dict(served), workspace, settings, engine
        self.worker = Worker()
        self.hosts: dict[str, tuple[Host, Weights]] = {}  # by the base's hash
        self._pairs: OrderedDict[str, LocalPair] = OrderedDict()  # the one used last at the end
        self._users: Counter[str] = Counter()
        self._loading = threading.RLock()  # held while weights are read
        self._counting = threading.Lock()  # never held for long
        self.read: dict[tuple[str, int], Difference] = {}  # by the pair's name and the layer
        self._code = {lens.name: source_hash(lens.path) for lens in workspace.lenses.by_name().values()}

    def check(self) -> None:
        """Find every model's files, and vLLM if it is to be used. Raises BadModel, UsageError."""
        if self.engine == "vllm":
            demand_vllm()
        for served in self.served.values():
            tuned = resolve(served.finetuned, self.settings)
            if served.variant is not None and is_adapter(tuned) and (rank := rank_of(tuned.folder)):
                demand_rank(served.variant, rank, served.name)
            resolve(served.base, self.settings)

    def warm(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Load every base and every whole finetune, so that requests wait for plain adapters only. Raises BadModel.

        Building a model changes torch's default precision for a while, for all threads: nobody may compute then.
        """
        with self._loading:
            for name, served in self.served.items():
                if not wanted():  # the server is about to stop
                    return
                host, base = self._host(served.base)
                tuned = resolve(served.finetuned, self.settings)
                if served.adapter_base or not is_adapter(tuned) or plain_adapter(host, base, tuned) is None:
                    self._pairs[name] = self._load(served)

    @property
    def loaded(self) -> list[str]:
        """Names of the pairs in memory."""
        return list(self._pairs)

    @contextmanager
    def using(self, name: str) -> Iterator[LocalPair]:
        """The pair called `name`, which stays in memory inside. Raises UnknownName, Unservable, or Full."""
        if name not in self.served:
            raise UnknownName("organism", name, self.served)
        if (pair := self._take(name)) is None:  # who asks for what is there never waits for what is being read
            with self._loading:
                if (pair := self._take(name)) is None:
                    try:
                        self._pairs[name] = self._load(self.served[name])
                    except BadModel as error:
                        raise Unservable(str(error)) from error
                    pair = self._take(name)
        assert pair is not None
        try:
            yield pair
        finally:
            with self._counting:
                self._users[name] -= 1

    def _take(self, name: str) -> LocalPair | None:
        """The pair, if it is in memory, where it stays until it is counted as let go."""
        with self._counting:
            if name in self._pairs:
                self._pairs.move_to_end(name)
                self._users[name] += 1
            return self._pairs.get(name)

    def direction(self, name: str, layer: int, position: int) -> Direction:
        """δ of a pair at any layer and position. Raises UsageError if there is no such layer or position."""
        self.demand_position(position)
        found = self.difference(name, layer)
        return Direction(layer, position, found.delta[position], found.eta)

    def demand_position(self, position: int) -> None:
        """Raises UsageError unless δ is read there."""
        if not 0 <= position < (read := self._delta_settings.positions):
            raise UsageError(f"position {position} is not read; there are positions 0 to {read - 1}")

    def difference(self, name: str, layer: int) -> Difference:
        """δ of a pair after a layer, read once, as the suite `quickstart` says. Raises UsageError."""
        settings, suite = self._delta_settings, self.workspace.suites[SUITE].evidence
        with self.using(name) as pair:
            if not 0 <= layer < pair.n_layers:
                raise UsageError(f"layer {layer} is not there; {name} has layers 0 to {pair.n_layers - 1}")
            if (name, layer) not in self.read:
                corpus = named_corpus(self.workspace, suite.corpus, pair, suite, self.settings.cache_dir)
                k, norms, tokens = settings.positions, settings.norm_texts, settings.norm_tokens
                self.read[name, layer] = differences(pair, corpus, k, [layer], norms, tokens)[layer]
        return self.read[name, layer]

    @property
    def _delta_settings(self) -> Any:
        """Of the lens `differences`, as the suite says."""
        given = self.workspace.suites[SUITE].evidence.lenses.get("differences", {})
        return self.workspace.lenses["differences"].fitting(given)

    def plan(self, name: str, suite: str, lens: str | None) -> Plan:
        """What a suite's evidence on a pair, or one of its lenses, is made of. Raises UnknownName, Otherwise."""
        ws = self.workspace
        wanted = (ws.lenses[lens].name,) if lens else named_by(ws, [ws.agents[a] for a in ws.suites[suite].agents])
        with self.using(name) as pair:
            recipe = Bench(ws, self.settings).recipe(pair, ws.suites[suite].evidence)
            try:
                key = " ".join(sorted(map(key_of, self._keys(recipe, pair, wanted).values())))
            except UsageError:  # of one lens, which the evidence tells
                key = repr((pair.fingerprint, suite, wanted))
            return Plan(recipe, wanted, key)

    def plan_for(self, name: str, asked: Read) -> Plan:
        """The same for what a client would read itself. Raises Otherwise unless it is the same reading."""
        ws = self.workspace
        if asked.lens not in ws.lenses.items:
            raise Otherwise(f"it has no lens {asked.lens}")
        if asked.settings.corpus not in (*ws.corpora.items, SAMPLED):  # nor is it ever a path or a hub's name
            raise Otherwise(f"it has no corpus {asked.settings.corpus}")
        offline = self.settings.model_copy(
            update={"lens_llm": OFFLINE, "llm_roles": ()}
        )  # whoever has an LLM judge asks it himself
        with self.using(name) as pair:
            recipe = Bench(ws, offline).recipe(pair, asked.settings)
            order, failed = closure(recipe.lenses, [asked.lens])
            if failed:
                raise Otherwise(failed[asked.lens])
            try:
                if any(map(recipe.is_own, order)):
                    raise Otherwise("it loads no model beside its pairs")
                parts = self._keys(recipe, pair, (asked.lens,))[asked.lens]
            except UsageError as error:
                raise Otherwise(str(error)) from error
        if apart := [part for part in {**parts, **asked.parts} if parts.get(part) != asked.parts.get(part)]:
            if PAIR in apart:
                raise Otherwise(f"{name} has other weights now than when it was first asked", pair=True)
            raise Otherwise(f"it differs in {', '.join(apart)}")
        return Plan(recipe, (asked.lens,), key_of(parts))

    def _keys(self, recipe: Recipe, pair: LocalPair, wanted: Sequence[str]) -> dict[str, dict[str, str]]:
        order, _ = closure(recipe.lenses, wanted)
        if changed := [lens.name for lens in order if source_hash(lens.path) != self._code.get(lens.name)]:
            raise Otherwise(f"the code of {changed[0]} was changed since the server began; start it again")
        return keys_of(recipe, pair, order)

    def kept(self, name: str, plan: Plan) -> Evidence | None:
        """The evidence of a pair, if all of it was computed before."""
        with self.using(name) as pair:
            found = evidence_for(pair, plan.recipe, plan.wanted, compute=False)
            return None if found.failed else found

    def evidence(self, name: str, plan: Plan, tell: Callable[[str], None]) -> Evidence:
        """The evidence of a pair, from the cache what was computed before; `tell`: of each stage as it starts."""
        with self.using(name) as pair:  # which may have been loaded again since the plan was made
            recipe = replace(plan.recipe, grading=replace(plan.recipe.grading, pair=BlindPair(pair)))
            return evidence_for(pair, recipe, plan.wanted, tell)

    def _host(self, base: str) -> tuple[Host, Weights]:
        with self._loading:
            weights = resolve(base, self.settings)
            if weights.sha256 not in self.hosts:
                same = [s for s in self.served.values() if resolve(s.base, self.settings).sha256 == weights.sha256]
                tuned = [resolve(served.finetuned, self.settings) for served in same]
                adapters = [finetune for finetune in tuned if is_adapter(finetune)]
                host = load_host(weights, self.settings, self.worker, self.engine, adapters)
                self.hosts[weights.sha256] = (host, weights)
            return self.hosts[weights.sha256]

    def _load(self, served: Served) -> LocalPair:
        tuned = resolve(served.finetuned, self.settings)
        host, weights = self._host(served.base)
        if (
            is_adapter(tuned) and tuned.sha256 + suffix(served.variant) not in host.bank
        ):  # perhaps it is there under another name
            bound = ADAPTER_SHARE * sum(p.nbytes for p in host.engine.decoder.model.parameters())
            needed = (tuned.folder / "adapter_model.safetensors").stat().st_size
            while host.bank.nbytes and host.bank.nbytes + needed > bound:
                self._make_room(host)
        return pair_on(
            host, weights, tuned, self.settings, name=served.name, engine=self.engine, variant=served.variant,
            adapter_base=served.adapter_base,
        )  # fmt: skip

    def _make_room(self, host: Host) -> None:
        """Take off the adapter that was not used for longest. Raises Full if all are in use."""
        for name, pair in list(self._pairs.items()):
            tuned = pair.models[Side.FINETUNED]
            with self._counting:
                if tuned.host is not host or not tuned.adapter or self._users[name]:
                    continue
                del self._pairs[name]
            if not any(other.models[Side.FINETUNED] == tuned for other in list(self._pairs.values())):
                self.worker.call(lambda adapter=tuned.adapter: host.take_off(adapter))  # type: ignore[misc]
            return
        raise Full("every adapter that is loaded is in use; ask again in a moment")
