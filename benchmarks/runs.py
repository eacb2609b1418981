"""What a run costs beside its models: the ledger, resuming a large run, and how much more several hands make.

    python benchmarks/runs.py ledger [AUDITS [ORGANISMS]]  # default: 10,000 finished audits of one organism
    python benchmarks/runs.py workers                      # 1 and 8 audits at once over one pair in this process
    python benchmarks/runs.py ray                          # 16 short audits by one actor, and by two
    python benchmarks/runs.py pages [AUDITS [ORGANISMS]]   # comparing, reporting, opening and viewing so many audits

Each figure stands beside its floor: what the disk needs for a transaction, the audits of one worker, half of the time.
Ratios hold within one call; the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MESSAGES, LETTERS = 12, 3_000  # of a transcript, and of a message that no other transcript has


def auditor(folder: Path, *args: object, **environment: str) -> tuple[float, int, str]:
    """Seconds, peak memory in MiB, and stdout of a command of its own."""
    code = (
        f"import sys; sys.argv = {['auditor', *map(str, args)]!r}; import auditor.cli as c, atexit, resource\n"
        "atexit.register(lambda: print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr))\n"
        "c.main()"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    took = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(done.stderr)
    peak = next(int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("PEAK"))
    return took, peak // 1024, done.stdout


def workspace(folder: Path, audits: int, organisms: int = 1) -> None:
    """A workspace with one suite: gold and as many under other names, the blackbox agent, many repeats."""
    (folder / "auditor.toml").touch()
    names = ["gold", *(f"gold{i:04}" for i in range(1, organisms))]
    for name in names[1:]:
        card = folder / f"evals/organisms/{name}/organism.yaml"
        card.parent.mkdir(parents=True)
        card.write_text(f"name: {name}\nextends: gold\n")
        (card.parent / "adapter").symlink_to(ROOT / "evals/organisms/gold/adapter")
    suite = folder / "evals/suites/many.yaml"
    suite.parent.mkdir(parents=True)
    suite.write_text(
        f"name: many\nextends: quickstart\norganisms: [{', '.join(names)}]\nagents: [blackbox]\nbudgets: [5]\n"
        f"repeats: {audits // organisms}\n"
    )


def ledger(audits: int, organisms: int) -> None:
    """A ledger with so many finished audits: what an event costs, and what resuming takes that has nothing to do."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        workspace(folder, audits, organisms)
        fill(folder, audits)
        size = (folder / "runs/full/ledger.sqlite").stat().st_size / 2**20
        args = ("evaluate", "many", "--name", "full", "--resume", "--json")
        first, *_ = auditor(folder, *args)
        took, peak, out = auditor(folder, *args)
        bare, least, _ = auditor(folder, "organisms", "list", "--json")
        told = json.loads(out)
        assert len(told["audits"]) == audits
        print(f"{audits:,} audits, {size:.0f} MiB: --resume {took:.1f} s ({first:.1f} the first time), {peak} MiB;")
        print(f"  the floor, importing and listing: {bare:.1f} s, {least} MiB")


def fill(folder: Path, audits: int) -> None:
    """Enter the jobs and end each with a record and a transcript; tells what each transaction took."""
    os.chdir(folder)
    from auditor.audits.run import Sitting, begin
    from auditor.ledger.export import mend
    from auditor.ledger.ledger import Ledger

    plan = planned(folder)
    with Ledger.open(folder / "runs/full") as opened:
        clock = time.perf_counter()
        jobs = begin(plan, opened, Sitting())
        print(f"{audits:,} jobs entered in {time.perf_counter() - clock:.1f} s")
        clock, events = time.perf_counter(), 0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i, job in enumerate(jobs):
            events += written(opened, job, i)
        took = time.perf_counter() - clock
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"{events:,} events with what they tell: {took / events * 1e3:.2f} ms each; memory grew by {grown:.0f} MiB"
        )
        print(f"  the floor, a transaction of nothing but a row: {floor(folder) * 1e3:.2f} ms")
        clock = time.perf_counter()
        mend(opened)
        print(f"copies (audits.jsonl, {audits:,} transcripts) written in {time.perf_counter() - clock:.0f} s")


def planned(folder: Path) -> Any:
    from auditor.audits.plan import Plan
    from auditor.config import load_settings
    from auditor.workspace import load_workspace

    ws = load_workspace(folder)
    return Plan(ws, ws.suites["many"], load_settings())


def written(ledger: Any, job: Any, number: int) -> int:
    """An audit that was made, as it comes into a ledger; returns in how many entries."""
    from auditor.audits.audit import identity
    from auditor.records.findings import Grade
    from auditor.records.results import AuditRecord

    ledger.jobs.take(job.name)
    said = [{"type": "ai", "data": {"content": f"{number} {n} " + "y" * LETTERS}} for n in range(MESSAGES)]
    for turn in (4, 8, MESSAGES):
        ledger.transcripts.say(job.name, said[:turn], {"spent": turn}, turns=turn, interactions=0)
    ledger.transcripts.ended(job.name)
    grade = Grade(grader="rubric_offline", score=3, reasoning="x" * 300)
    ledger.jobs.finish(AuditRecord(**identity(job), status="done", hypothesis="z" * 900, grades=(grade,), grade=3.0))
    return 5


def floor(folder: Path) -> float:
    """Seconds of a transaction in WAL mode that is on the disk when it returns."""
    import sqlite3

    db = sqlite3.connect(folder / "floor.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE t (a)")
    begun = time.perf_counter()
    for i in range(300):
        db.execute("INSERT INTO t VALUES (?)", (i,))
    return (time.perf_counter() - begun) / 300


def workers(repeats: int = 8) -> None:
    """Audits a minute, one at a time and eight at once; every hypothesis is the same to the letter."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        workspace(folder, repeats)
        common = ("evaluate", "many", "--agent", "adl", "--json")
        auditor(folder, *common, "--repeats", 1, "--name", "warm")  # evidence into the cache
        said, pace = {}, {}
        for count in (1, 8):
            _, _, out = auditor(folder, *common, "--workers", count, "--name", f"w{count}")
            told = json.loads(out)
            said[count] = {audit["id"]: audit["hypothesis"] for audit in told["audits"]}
            pace[count] = len(said[count]) / told["seconds"]["agents"] * 60
            print(f"{count} at once: {pace[count]:.1f} audits a minute ({told['seconds']})")
        print(f"ratio {pace[8] / pace[1]:.2f}; the same hypotheses: {said[1] == said[8]}")


def pages(audits: int, organisms: int) -> None:
    """Comparing so many audits, writing their report, opening it in Chromium, and the view's pages."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        workspace(folder, audits, organisms)
        fill(folder, audits)
        for what in ("compare", "report"):
            runs = [auditor(folder, what, "full") for _ in range(3)]
            told = ", ".join(f"{took:.1f}" for took, _, _ in runs)
            print(f"{what}: {told} s; {max(peak for _, peak, _ in runs)} MiB")
        report = folder / "runs/full/report.html"
        print(f"report: {report.stat().st_size / 2**20:.0f} MiB; to open it, and then one audit: {opened(report)} s")
        print(f"view, the slowest of 10 each: {viewed(folder)}")


def opened(report: Path) -> str:
    """Seconds until its audits can be chosen, and until one is shown, three times."""
    import shutil

    from playwright.sync_api import sync_playwright

    took = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(3):
            page, begun = browser.new_page(), time.perf_counter()
            page.goto(report.as_uri())
            page.wait_for_selector("tr.audit-row")
            there = time.perf_counter()
            page.locator("tr.audit-row").nth(3).click()
            page.wait_for_selector(".panel .message")
            took.append(f"{there - begun:.2f} + {time.perf_counter() - there:.2f}")
    return ", ".join(took)


def viewed(folder: Path) -> str:
    """Seconds of the view's answers once the run is put together, by page."""
    import httpx

    code = "import sys; sys.argv = ['auditor', 'view', 'runs', '--port', '0']; import auditor.cli as c; c.main()"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http"))
        with httpx.Client(base_url=url, timeout=60) as client:
            while "Being put together" in client.get("/runs/full/").text:
                time.sleep(0.2)
            told = []
            for path in ("", "runs/full/", "runs/full/audits.json", "runs/full/status.json", "runs/full/audit/7"):
                slowest = max(client.get(path).elapsed.total_seconds() for _ in range(10))
                told.append(f"/{path} {slowest:.3f} s")
        return ", ".join(told)
    finally:
        process.terminate()
        process.wait(10)


def ray(repeats: int = 16) -> None:
    """So many short audits by one local actor and by two; the ideal is half of the time."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        workspace(folder, repeats)
        common = ("evaluate", "many", "--json")
        auditor(folder, *common, "--repeats", 1, "--name", "warm")  # evidence into the cache
        took, program = {}, str(Path(sys.executable).with_name("ray"))
        for cpus in (1, 2):
            env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "benchmark" * 4, "OMP_NUM_THREADS": "1"}
            start = [
                program,
                "start",
                "--head",
                "--port",
                "6390",
                "--num-cpus",
                str(cpus),
                "--include-dashboard",
                "false",
            ]
            subprocess.run(start, env=env, check=True, capture_output=True)
            try:
                told = {**env, "RAY_ADDRESS": "127.0.0.1:6390"}
                _, _, out = auditor(folder, *common, "--engine", "ray", "--name", f"r{cpus}", **told)
            finally:
                subprocess.run([program, "stop", "--force"], env=env, capture_output=True)
            took[cpus] = json.loads(out)["seconds"]["total"]
            print(f"{cpus} actors: {took[cpus]:.1f} s")
        print(f"ratio {took[2] / took[1]:.2f} (ideal 0.5)")


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("what", choices=("ledger", "workers", "ray", "pages"))
    given.add_argument("audits", nargs="?", type=int, default=10_000)
    given.add_argument("organisms", nargs="?", type=int, default=1)
    asked = given.parse_args()
    if asked.what in ("ledger", "pages"):
        (ledger if asked.what == "ledger" else pages)(asked.audits, asked.organisms)
    else:
        (workers if asked.what == "workers" else ray)()
