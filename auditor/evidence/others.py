"""Models beside the pair that a lens holds the finetune against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from auditor.config import Settings
from auditor.errors import UsageError
from auditor.evidence.counted import Counted
from auditor.evidence.mapping import NEUTRAL
from auditor.models.pair import ModelPair


class Others:
    """Loads each of `known` when a lens asks for it, in the pair's thread, and counts the tokens that it reads."""

    def __init__(
        self, pair: ModelPair, known: Sequence[str], settings: Settings, report: Callable[[str], None]
    ) -> None:
        from auditor.models.local import LocalPair  # slow to import, as all that loads models

        self._known, self._settings, self._report = known, settings, report
        self._worker = pair.worker if isinstance(pair, LocalPair) else None
        self.loaded: dict[str, Counted] = {}

    def __call__(self, model: str) -> ModelPair:
        """Raises BadModel; and UsageError for one that no setting names: the reading's key would not know of it."""
        from auditor.models.load import load_alone

        if model not in self._known:
            raise UsageError(f"the model {model} is named by no setting that is marked as `Compared`")
        if model not in self.loaded:
            self._report(f"loading {model}")
            loaded = load_alone(model, self._settings, name=NEUTRAL, worker=self._worker)
            self.loaded[model] = Counted(loaded)
        return self.loaded[model]

    @property
    def tokens(self) -> int:
        return sum(each.tokens.total() for each in self.loaded.values())
