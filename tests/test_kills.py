"""A run that is killed, or whose disk fills up, is finished by `--resume`: nothing is lost, nothing is paid twice.

What plays the endpoint and starts the runs is in campaigns/kills.py, which makes more trials of them.
"""

import os
import random
import shutil
from collections import Counter
from math import log2

import pytest

from auditor.lines import read_lines
from auditor.llm.spec import ModelSpec
from tests.campaigns.kills import BUDGET, CHECK, Moment, Shop, little_room

TRIALS = os.environ.get("AUDITOR_KILLS")
AT_ONCE = ModelSpec.model_fields["concurrency"].default  # calls that an endpoint is asked
KILLS, FILLS = (int(TRIALS), max(1, int(TRIALS) // 5)) if TRIALS else (1, 1)


class Trial:
    """One run that is cut off, once or several times, and resumed until it ends by itself."""

    def __init__(self, shop, workers, *, cold=False):
        self.shop, self.workers, self.cold, self.cuts, self.wrong, self.said = shop, workers, cold, [], [], []
        shop.clear()
        self.cache = shop.folder / "cold" if cold else shop.warm

    def killed(self, rng, times):
        """Kill it `times` times, each mostly while it has a ledger."""
        first, last = self.shop.seconds[self.cold]
        for number in range(times):
            process = self.shop.start(self.workers, self.cache, *["--resume"] * (number > 0))
            if rng.random() < 0.3:
                self.aimed(process, rng.randint(1, 12))
            else:
                process.wait(rng.uniform(0.0 if rng.random() < 0.15 else first, last))
            if process.returncode is None and process.kill():
                self.cut(self.shop.moment())
            else:
                self.expect(process.returncode == 0, f"ended with {process.returncode}: {self.shop.told()[-600:]}")
        return self

    def aimed(self, process, changes):
        """Wait until its checkpoints have changed that many times: between two of them lie milliseconds."""
        path, seen = self.shop.run / "checkpoints.sqlite-wal", 0
        while changes and not process.wait(0.0005):
            size = path.stat().st_size if path.exists() else 0
            changes, seen = changes - (size != seen), size

    def filled(self, limit):
        """Run it where there is room for `limit` bytes and no more, and once more before any is made."""
        with little_room(self.shop.out, limit) as most:
            for more in ((), ("--resume",)):
                process = self.shop.start(self.workers, self.cache, *more, limit=most)
                process.wait(300)
                if process.returncode == 0:
                    break
                lines = self.shop.told().splitlines()
                told = [line for line in lines if line.startswith("error:")]
                clear = process.returncode in (1, 2) and told == lines[-1:] and "Traceback" not in self.shop.told()
                self.expect(clear, f"{process.returncode} with room for {limit}: " + "\n    ".join(lines[-30:]))
                moment = self.shop.moment()
                moment.place = f"disk full {moment.place}"
                self.cut(moment)
                self.said.append(f"{limit}: {told[-1:]}")
        return self

    def cut(self, moment):
        before = self.cuts[-1] if self.cuts else Moment(0, 0)
        self.sitting(before, moment)
        lost = {
            "calls": moment.asked - before.asked - (moment.usable - before.usable).total()
            - self.shop.desk.asked[before.asked : moment.asked].count(CHECK),
            "batches": moment.computed - before.computed - len(moment.kept.keys() - before.kept.keys()),
        }  # fmt: skip
        most = {"calls": AT_ONCE, "batches": self.workers}  # an audit's judges are asked at once
        for what, count in lost.items():
            self.expect(count <= most[what], f"{count} {what} are lost, {most[what]} can be under way")
        self.cuts.append(moment)

    def expect(self, right, told):
        if not right:
            self.wrong.append(told)

    def sitting(self, before, after):
        """Nothing is done again between two moments that was kept at the first one, and nothing is gone."""
        asked = Counter(self.shop.desk.asked[before.asked : after.asked])
        again = +(asked - (self.shop.bodies - before.usable))
        known = [body for body in again if body in before.usable]
        self.expect(not known, f"asked again though the answer is kept: {len(known)} calls")
        odd = [body for body in again if body not in before.usable]
        self.expect(not odd, f"{len(odd)} requests that a whole run does not make, or makes once")
        lines = self.shop.computed.read_text().splitlines() if after.computed else []
        computed = {tuple(line.split()) for line in lines[before.computed : after.computed]} & before.kept.keys()
        self.expect(not computed, f"computed again though the answers are kept: {computed}")
        for what, was, now in (("audits", before.done, after.done), ("answers", before.kept, after.kept)):
            lost = [name for name in was if now.get(name) != was[name]]
            self.expect(not lost, f"{what} that were kept are gone, or others: {lost}")
        self.expect(not before.usable - after.usable, "calls that were kept are gone")

    def finished(self):
        """Resume it, and look at everything; returns what is wrong."""
        process = self.shop.start(self.workers, self.cache, "--resume")
        process.wait(300)
        told = self.shop.told()
        self.expect(process.returncode == 0 and "Traceback" not in told, f"resumed: {process.returncode} {told[-900:]}")
        end = self.shop.moment()
        self.sitting(self.cuts[-1] if self.cuts else Moment(0, 0), end)
        self.expect(end.outcome() == self.shop.right, f"another outcome: {differing(end.outcome(), self.shop.right)}")
        for record in end.records:
            spent = end.spends[record.id]
            counted = f"{record.id}: {spent} spent, {record.interactions_used} in its record"
            self.expect(spent == record.interactions_used <= BUDGET, counted)
        lines = sorted((line for _, line in read_lines(self.shop.run / "audits.jsonl")), key=lambda line: line["id"])
        records = sorted((record.model_dump(mode="json") for record in end.records), key=lambda line: line["id"])
        self.expect(lines == records, f"audits.jsonl holds {[line['id'] for line in lines]}, or others' content")
        if self.cold:
            shutil.rmtree(self.cache, ignore_errors=True)
        return self.wrong


def differing(one, other):
    return {name: (one.get(name), other.get(name)) for name in {**one, **other} if one.get(name) != other.get(name)}


def campaign(shop, kills, fills, say=print):
    """`kills` and then `fills` trials; returns what went wrong."""
    rng, outcomes, wrong = random.Random(0), Counter(), []
    try:
        for number in range(kills + fills):
            trial = Trial(shop, (1, 4)[number % 2], cold=number < kills and rng.random() < 0.25)
            if number < kills:
                trial.killed(rng, rng.choice((1, 1, 1, 2, 3)))
            else:
                trial.filled(int(2 ** rng.uniform(13, log2(shop.size))))
            found = trial.finished()
            told = f"{'wrong' if found else 'right'}, workers {trial.workers}"
            outcomes.update(f"{place}: {told}" for place in [cut.place for cut in trial.cuts] or ["not cut off"])
            outcomes[f"trials: {told}"] += 1
            wrong += [
                f"trial {number} ({', '.join(cut.place for cut in trial.cuts)}; {told}): {each}" for each in found
            ]
            for line in trial.said:
                say(f"       room for {line}")
            if found:
                say("\n".join(wrong[-len(found) :]))
                shutil.copytree(shop.run, shop.folder / f"wrong-{number}")
    finally:  # of a campaign that is broken off, too
        for kind, count in sorted(outcomes.items()):
            say(f"{count:5d}  {kind}")
    return wrong


@pytest.mark.timeout(36_000)
def test_runs_that_are_cut_off(workspace_folder, capsys):
    shop = Shop(workspace_folder)
    try:
        with capsys.disabled():
            say = (lambda line: print(line, flush=True)) if TRIALS else (lambda line: None)
            wrong = campaign(shop, KILLS, FILLS, say)
    finally:
        shop.close()
    assert not wrong
