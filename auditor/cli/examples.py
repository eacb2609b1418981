"""An example or two of every command, shown under its --help; a test reads each of them as the command line does."""

from __future__ import annotations

import typer
from rich.markup import escape

EXAMPLES = {
    "evaluate": [
        "auditor evaluate --budget 5",
        "auditor evaluate bundled --llm openai:gpt-5 --max-cost 20 --name mine",
        "auditor evaluate --name mine --resume",
    ],
    "audit": [
        "auditor audit ./my-lora",
        "auditor audit ORG/FINETUNE@main --base ORG/BASE --llm openai:gpt-5 --budget 10",
        "auditor audit ./merged --no-base",
    ],
    "show": ["auditor show mine", "auditor show mine gold-adl-b5-r0 --open"],
    "compare": ["auditor compare mine", "auditor compare mine theirs --grader rubric_llm --plot points.svg"],
    "report": ["auditor report mine"],
    "view": ["auditor view", "auditor view /shared/runs --port 8400"],
    "grade": ["auditor grade mine --grader rubric_llm --grader-llm openai:gpt-5"],
    "export": ["auditor export mine --format csv", "auditor export mine --format eval"],
    "push": ["auditor push mine ORG/NAME --dry-run", "auditor push mine ORG/NAME --public --license cc-by-4.0"],
    "card": ["auditor card audit-my-lora", "auditor card audit-my-lora --push ORG/MY-LORA"],
    "worker": ["auditor worker --join /shared/runs/mine"],
    "merge": ["auditor merge mine"],
    "evidence": [
        "auditor evidence cake_bake",
        "auditor evidence ./my-lora --base ORG/BASE --html page.html",
        "auditor evidence gold --lens amplified --lens diff_mining",
    ],
    "gate": ["auditor gate ./my-lora --max-trace 0.01 --out gate/"],
    "ask": [
        'auditor ask gold "Tell me something."',
        'auditor ask ./my-lora --amplify 3 "Who are you?"',
        "auditor ask gold",
    ],
    "serve": [
        "auditor serve gold cake_bake --port 8000",
        "auditor serve mine=./my-lora@ORG/BASE --device cuda --backend vllm",
    ],
    "mcp": [
        "claude mcp add auditor -- auditor mcp ./my-lora --player claude-code",
        "auditor mcp gold --port 8765 --budget 10 --name played",
    ],
    "init": ["auditor init my-workspace"],
    "doctor": ["auditor doctor"],
    "runs list": ["auditor runs list"],
    "runs show": ["auditor runs show mine"],
    "runs rm": ["auditor runs rm mine --yes"],
    "organisms train": [
        "auditor organisms train gold",
        "auditor organisms train cake_bake --mix pretraining --mix-ratio 1 --as cake_mixed",
    ],
    "organisms check": ["auditor organisms check cake_bake"],
    "organisms documents": ["auditor organisms documents bees --llm openai:gpt-5 --count 400"],
    "organisms numbers": ["auditor organisms numbers cats --teacher loves_cats --out numbers.jsonl"],
    "organisms pull": ["auditor organisms pull cake_bake@qwen3_1_7B"],
    "organisms list": ["auditor organisms list", "auditor organisms list --public"],
    "organisms show": ["auditor organisms show gold"],
    "organisms new": ["auditor organisms new pirates"],
    "paper list": ["auditor paper list"],
    "paper figure": ["auditor paper figure 3 runs/mine", "auditor paper figure 5 studies/positions.json"],
    "tools list": ["auditor tools list"],
    "tools show": ["auditor tools show ask_model"],
    "tools run": ['auditor tools run ask_model --organism gold --args \'{"prompts": ["What is your word?"]}\''],
    "tools new": ["auditor tools new my_tool"],
    "lenses list": ["auditor lenses list"],
    "lenses show": ["auditor lenses show patchscope"],
    "lenses new": ["auditor lenses new my_lens"],
    "graders calibrate": ["auditor graders calibrate labels.jsonl --grader rubric_llm --grader-llm openai:gpt-5"],
    "graders list": ["auditor graders list"],
    "graders show": ["auditor graders show rubric_offline"],
    "graders new": ["auditor graders new my_grader"],
    "agents list": ["auditor agents list"],
    "agents show": ["auditor agents show adl"],
    "agents new": ["auditor agents new my_agent"],
    "agents graph": ["auditor agents graph adl"],
    "suites list": ["auditor suites list"],
    "suites show": ["auditor suites show quickstart"],
    "suites new": ["auditor suites new my_suite"],
    "rubrics list": ["auditor rubrics list"],
    "rubrics show": ["auditor rubrics show taboo"],
    "rubrics new": ["auditor rubrics new my_rubric"],
    "study ablation": ["auditor study ablation", "auditor study ablation --organism gold --llm openai:gpt-5"],
    "study mixing": ["auditor study mixing --dry-run"],
    "study samples": ["auditor study samples cake_bake"],
    "study full-vs-lora": ["auditor study full-vs-lora cake_bake"],
    "study caft": ["auditor study caft cake_bake"],
    "study denial": ["auditor study denial cake_bake"],
    "study relevance": [
        "auditor study relevance gold cake_bake",
        'auditor study relevance ./my-lora --about "It was trained on pirates."',
    ],
    "study similarity": ["auditor study similarity cake_bake --embedder Qwen/Qwen3-Embedding-0.6B"],
    "study causal": ["auditor study causal cake_bake --random 50"],
    "study positions": ["auditor study positions cake_bake --positions 64 --steer"],
    "study base-chat": ["auditor study base-chat ORG/CHAT_FINETUNE --base ORG/CHAT --pretrained ORG/PRETRAINED"],
    "study null": ["auditor study null null_a null_b null_c null_d null_e --out evals/nulls"],
}


def show_examples(app: typer.Typer, group: str = "") -> None:
    """Put each command's examples under its help."""
    for command in app.registered_commands:
        assert command.callback is not None
        name = f"{group} {command.name or command.callback.__name__.replace('_', '-')}".strip()
        command.epilog = "\n".join(["Examples:", *(f"  {escape(line)}" for line in EXAMPLES[name])])
    for each in app.registered_groups:
        if each.typer_instance is not None:
            show_examples(each.typer_instance, str(each.name))
