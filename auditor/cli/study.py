"""`auditor study`: the paper's measurements, on organisms whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from auditor.cli.ablation import ablation
from auditor.cli.judges import RolesOption, roles_of
from auditor.cli.measuring import evidence_of, run_study
from auditor.cli.pairs import MODEL, BaseOption, on_machine
from auditor.cli.shared import CorpusOption, err, out, settings, stages, workspace
from auditor.cli.studied import STUDIES
from auditor.cli.sweeps import SWEEPS
from auditor.errors import UsageError

app = typer.Typer(help="Measurements on organisms: JSON and a plot each.", no_args_is_help=True)
app.command()(on_machine(ablation))
for _name, _sweep in SWEEPS.items():
    app.command(_name)(on_machine(_sweep))

Models = Annotated[list[str], typer.Argument(metavar="MODEL…", help=MODEL)]
About = Annotated[
    str, typer.Option(help="What models that are no organisms were finetuned for, for who judges their tokens.")
]
Suite = Annotated[str, typer.Option(help="Suite whose evidence settings are used.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for NAME.json and the plot.")]
Plot = Annotated[bool, typer.Option(help="Draw the plot too.")]
Judge = Annotated[str | None, typer.Option("--lens-llm", help="The judge of tokens and scales; default: offline.")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="ORGANISM=WHERE",
        help="What one was trained on, if its card does not say: JSON lines, a dataset by name, or OWNER/NAME.",
    ),
]


@app.command()
@on_machine
def relevance(
    models: Models,
    base: BaseOption = None,
    about: About = "",
    suite: Suite = "quickstart",
    corpus: CorpusOption = None,
    data: Data = None,
    to: Out = STUDIES,
    plot: Plot = True,
    lens_llm: Judge = None,
    llm_role: RolesOption = None,
) -> None:
    """How many tokens that δ reads as belong to the finetune, beside both models' means (paper figure 2a)."""
    from auditor.studies.relevance import relevance_study
    from auditor.studies.subject import relevance_judge

    conf = settings(lens_llm=lens_llm, llm_roles=roles_of(llm_role))
    chosen = evidence_of(suite, corpus)
    run_study(
        "relevance",
        models,
        chosen,
        conf,
        relevance_study,
        to,
        plot=plot,
        judge=relevance_judge(conf),
        data=data,
        needs_data=False,
        base=base,
        about=about,
    )


@app.command()
@on_machine
def similarity(
    models: Models,
    base: BaseOption = None,
    about: About = "",
    suite: Suite = "quickstart",
    corpus: CorpusOption = None,
    chat: Annotated[
        str | None,
        typer.Option(help="Ordinary chats: a dataset by name or OWNER/NAME, or JSON lines; default: the bundled ones."),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="Which embeds the texts (paper: Qwen/Qwen3-Embedding-0.6B); default: the offline parts' own."
        ),
    ] = None,
    data: Data = None,
    to: Out = STUDIES,
    plot: Plot = True,
    lens_llm: Judge = None,
    llm_role: RolesOption = None,
) -> None:
    """How near steering brings the answers to the finetuning data and to ordinary chat (paper figure 2b)."""
    from auditor.studies.similarity import similarity_study
    from auditor.studies.subject import reference_chats

    conf = settings(lens_llm=lens_llm, llm_roles=roles_of(llm_role), similarity_embedder=embedder)
    ordinary = reference_chats(workspace(), conf, chat)
    run_study(
        "similarity", models, evidence_of(suite, corpus), conf,
        lambda subjects, report: similarity_study(subjects, ordinary, report), to, plot=plot,
        more={"embedder": conf.similarity_embedder or conf.embedder, "chat": chat or "chats"},
        notes=lambda details: [f"{name}: {told['cut']}" for name, told in details.items() if told["cut"]],
        data=data, base=base, about=about,
    )  # fmt: skip


@app.command()
@on_machine
def causal(
    models: Models,
    base: BaseOption = None,
    about: About = "",
    suite: Suite = "quickstart",
    corpus: CorpusOption = None,
    texts: Annotated[int, typer.Option(min=2, help="Texts of the finetuning data, and of the corpus.")] = 32,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of each text.")] = 96,
    random: Annotated[int, typer.Option(min=2, help="Random vectors, and random differences (paper: 50).")] = 16,
    data: Data = None,
    to: Out = STUDIES,
    plot: Plot = True,
) -> None:
    """What swapping δ's component between the two models does to their loss (paper section 5, figure 6)."""
    from auditor.studies.causal import causal_study

    conf = settings()
    run_study(
        "causal", models, evidence_of(suite, corpus), conf,
        lambda subjects, report: causal_study(subjects, texts, tokens, random, report), to, plot=plot,
        more={"texts": texts, "tokens": tokens, "random": random}, data=data, base=base, about=about,
    )  # fmt: skip


@app.command()
@on_machine
def positions(
    models: Models,
    base: BaseOption = None,
    about: About = "",
    suite: Suite = "quickstart",
    count: Annotated[int, typer.Option("--positions", min=2, max=128, help="The first so many tokens.")] = 32,
    corpus: CorpusOption = None,
    steer: Annotated[bool, typer.Option("--steer", help="Steer from each position too.")] = False,
    data: Data = None,
    to: Out = STUDIES,
    plot: Plot = True,
    lens_llm: Judge = None,
    llm_role: RolesOption = None,
) -> None:
    """Where in a text the trace is: the first five positions, then powers of two (paper section 4.3, figure 5)."""
    from auditor.studies.positions import position_study
    from auditor.studies.subject import relevance_judge

    conf = settings(lens_llm=lens_llm, llm_roles=roles_of(llm_role))
    chosen = evidence_of(suite, corpus).over({"differences": {"positions": count}})
    run_study(
        "positions", models, chosen, conf,
        lambda subjects, report: position_study(subjects, steer=steer, report=report), to, plot=plot,
        judge=relevance_judge(conf), more={"steer": steer}, data=data, needs_data=steer, base=base, about=about,
    )  # fmt: skip


@app.command("base-chat")
@on_machine
def base_chat(
    model: Annotated[str, typer.Argument(help=f"A finetune of a chat model. {MODEL}")],
    pretrained: Annotated[str, typer.Option(help="What the chat model was trained from: hub id or folder.")],
    base: BaseOption = None,
    about: About = "",
    data: Data = None,
    suite: Suite = "quickstart",
    corpus: CorpusOption = None,
    to: Out = STUDIES,
    plot: Plot = True,
    lens_llm: Judge = None,
    llm_role: RolesOption = None,
) -> None:
    """Whether the trace is still there when chat training lies between the two models (paper section 4.2)."""
    from auditor.audits.bench import Bench
    from auditor.audits.named import card_named
    from auditor.models.local import LocalPair
    from auditor.records.results import Target
    from auditor.studies.base_chat import base_chat_study
    from auditor.studies.subject import relevance_judge

    conf = settings(lens_llm=lens_llm, llm_roles=roles_of(llm_role))
    card = card_named(workspace(), conf, model, base, about)
    target = Target(
        name=card.name, base=pretrained, finetuned=card.finetuned, adapter_base=card.base, variant=card.variant
    )
    pair = Bench(workspace(), conf).pair(target)
    assert isinstance(pair, LocalPair)
    if pair.note:
        err.print(f"[yellow]note:[/] {escape(pair.note)}", highlight=False)
    run_study(
        "base-chat", [model], evidence_of(suite, corpus), conf,
        lambda subjects, report: base_chat_study(next(iter(subjects)), pair, report), to, plot=plot,
        judge=relevance_judge(conf), more={"pretrained": pretrained}, data=data, needs_data=False,
        base=base, about=about,
    )  # fmt: skip


@app.command()
@on_machine
def null(
    models: Models,
    to: Annotated[Path, typer.Option("--out", help="Folder for BASE.LENS.safetensors: a workspace's evals/nulls.")],
    lenses: Annotated[list[str] | None, typer.Option("--lens", help="Repeat it; default: all that can be.")] = None,
    suite: Annotated[str, typer.Option(help="Suite whose corpus and settings of lenses are used.")] = "quickstart",
) -> None:
    """Write what lenses read in finetunes on mixed text: `auditor evidence` then holds its readings against them.

    The organisms must be finetunes of one base that have no narrow subject; five or more.
    """
    from auditor.methods.nulls import ENOUGH_PAIRS, write_nulls
    from auditor.studies.null import leaving_traces, nulls_of

    ws, names = workspace(), list(dict.fromkeys(models))
    if len(names) < ENOUGH_PAIRS:
        raise UsageError(f"{len(names)} organisms cannot tell what is usual; give {ENOUGH_PAIRS} or more")
    if not to.is_dir():
        raise UsageError(f"--out {to}: give a folder that exists, such as evals/nulls")
    if narrow := next((name for name in names if ws.organisms[name].family != "null"), None):
        raise UsageError(f"{narrow} is of family {ws.organisms[narrow].family}; broad finetunes are of family null")
    with stages("null") as tell:
        found = nulls_of(ws, settings(), names, lenses or leaving_traces(ws), suite, tell)
    base = ws.organisms[names[0]].base.rstrip("/").rpartition("/")[2]
    for nulls in found:
        write_nulls(to / f"{base}.{nulls.lens}.safetensors", nulls)
        out.print(f"{escape(str(to / base))}.{nulls.lens}.safetensors: {len(nulls)} finetunes", highlight=False)
