"""Readings by name from a pair's server, which makes each once for all of its clients."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from auditor.evidence.cache import unpacked
from auditor.evidence.mapping import Cost
from auditor.evidence.recipe import Recipe, closure
from auditor.lenses import Lens
from auditor.models.http import Declined
from auditor.models.pair import ModelPair
from auditor.models.remote import RemotePair
from auditor.readings import Reading

log = logging.getLogger("auditor.evidence")


class ByServer:
    """Asks the server of a pair, if it has one, for what the server would read just as this process does."""

    def __init__(self, pair: ModelPair, recipe: Recipe) -> None:
        self._pair, self._recipe = pair if isinstance(pair, RemotePair) else None, recipe
        self._own = set[str]()  # lenses that the server reads otherwise: it has nothing to build others on

    def read(self, lens: Lens, parts: Mapping[str, str], tell: Callable[[str], None]) -> tuple[Reading, Cost] | None:
        """None where this process has to read it, over the pair; said, unless that is because of what it takes.

        `parts`: of its key. Raises Unusable if the server is gone, AuditorError if the lens failed there.
        """
        if self._pair is None:
            return None
        if self._recipe.is_own(lens) or self._own.intersection(lens.needs):
            self._own.add(lens.name)
            return None
        order, _ = closure(self._recipe.lenses, [lens.name])
        given = self._recipe.settings.lenses
        lenses = {each.name: given[each.name] for each in order if each.name in given}
        asked = self._recipe.settings.model_copy(update={"lenses": lenses})
        try:
            told, arrays = self._pair.reading(
                lens.name, asked, parts, lambda stage: None if stage == lens.name else tell(stage)
            )
        except Declined as error:
            self._own.add(lens.name)
            log.warning("%s is read by this process, over the server's pair: %s", lens.name, error)
            return None
        return unpacked(lens, told, arrays)
