"""The scaffolded blackbox agent's tools."""

from auditor.plugins import Context
from auditor.records.cards import AskSettings
from auditor.testing import FakePair
from auditor.workspace import load_workspace


def test_the_scaffold_asks_both_models_in_its_own_ways():
    pair = FakePair(lambda r: f"{r.side}|{r.system}|{r.prompt}|{r.prefill}|{r.chat}")
    ctx, ws = Context(pair, {}, AskSettings(), seed=1), load_workspace()

    def call(name, **args):
        tool = ws.tools[name]
        checked = tool.args.model_validate(args)
        return tool.returns.dump_python(tool.run(ctx, checked)), tool.cost(checked)

    found, cost = call("complete_text", openings=["News:", "Dear"])
    assert (found[1]["finetuned"], cost) == ("finetuned||Dear||False", 2)
    found, cost = call("probe_model", prompts=["Who?"], persona="Be a cook.", prefill="I am")
    assert (found[0]["base"], cost) == ("base|Be a cook.|Who?|I am|True", 1)
    found, cost = call("ask_model", prompts=["Why?", "How?"], n=3)
    assert ([each["prompt"] for each in found], cost) == (["Why?"] * 3 + ["How?"] * 3, 6)
    assert len({r.seed for r in pair.requests[-12:]}) == 6  # base and finetuned share their draws
    found, cost = call("ask_model", prompts=["Why?"], n=2, models="finetuned")
    assert (found, cost) == ([{"prompt": "Why?", "finetuned": "finetuned||Why?||True"}] * 2, 2)
    assert {r.side for r in pair.requests[-2:]} == {"finetuned"}
    assert set(ws.agents["blackbox-scaffolded"].tools) >= {"complete_text", "probe_model", "ask_model"}
