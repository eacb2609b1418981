"""What servers that people run themselves say, what is to be done then, and whether they read all they were sent.

Each was read in the server's own source, its documentation or its issues; tests/stand_ins.py names where.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

_ADVICE = tuple((re.compile(said), advice) for said, advice in {
    r"--jinja": "start llama-server with --jinja",
    r"--enable-auto-tool-choice": "start vLLM with --enable-auto-tool-choice and --tool-call-parser NAME",
    r"registry\.ollama\.ai/\S+ does not support tools": "take a model that ollama.com tags with tools",
    r"no endpoints found that support tool use": "take a model that OpenRouter lists with tools",
    r"system role not supported|only user and assistant roles": "take a model whose chat template has a system role",
    r"model '\S+' not found": "get it with `ollama pull`, or see `ollama list`",
    r"no models loaded": "load it with `lms load MODEL --context-length N`",
}.items())  # fmt: skip
LONGER = (
    "start it with a longer context: OLLAMA_CONTEXT_LENGTH=N for Ollama, -c N for llama-server, --max-model-len N for "
    "vLLM, `lms load MODEL --context-length N` for LM Studio"
)
_PLAUSIBLE = 1000  # tokens: no server is run with so small a context; what tells fewer counts something else
_ALIKE = 0.8  # of the tokens: behind a router another provider may write tools and turns more tersely
_OPENING = 32  # tokens, at most, with which a template begins the answer, and which it may leave out later


def advice(words: str) -> str:
    """`; and what to do`, if `words`, in small letters, are what one of these servers says."""
    return next((f"; {advice}" for said, advice in _ADVICE if said.search(words)), "")


def cut_short(sent: Sequence[BaseMessage], tools: Sequence[Any], usage: Any, at_least: int = 0) -> str:
    """Why an endpoint cannot have read all of `sent` and `tools`; empty if it may have.

    `usage`: LangChain's, of the answer. `at_least`: tokens that this prompt has, by what earlier ones had. Ollama, and
    others in their manner, answer a prompt that is longer than their context after dropping its middle or its first
    messages, and say so nowhere but in the number of tokens.
    """
    details = (usage or {}).get("input_token_details") or {}
    told = (usage or {}).get("input_tokens") or 0
    # Some count what was cached apart, others among the rest: nobody is accused for it.
    told += sum(details.get(kind) or 0 for kind in ("cache_read", "cache_creation")) if told >= _PLAUSIBLE else 0
    words = sum(word_count(message) for message in sent) + _described(tools)
    if told < _PLAUSIBLE or told >= max(words, at_least):
        return ""
    least = f"at least {max(words, at_least):,}"
    return f"the endpoint cut what it was sent: it read {told:,} tokens of {least}; {LONGER}"


def at_least(before: Sequence[BaseMessage], protocol: str) -> int:
    """How many tokens a conversation has at least, by what its last turn in the same protocol had; 0 if unknown.

    A fifth less is allowed.
    """
    for i in range(len(before) - 1, -1, -1):
        took = before[i].response_metadata.get("call") if isinstance(before[i], AIMessage) else None
        if took is not None:
            if took["protocol"] != protocol or (took["tokens"][0] or 0) < _PLAUSIBLE:
                return 0
            since = sum(word_count(message) for message in before[i + 1 :])  # of the answer, templates drop thoughts
            return int((int(took["tokens"][0]) + since) * _ALIKE) - _OPENING
    return 0


def word_count(message: BaseMessage) -> int:
    """Words between spaces. No usual tokenizer writes two of them in one token: there are as many tokens at least."""
    return len(str(message.text).split())


def _described(value: Any) -> int:
    """Words in the descriptions of tools, which every chat template writes out, in whatever notation."""
    if isinstance(value, dict):
        words = value.get("description")
        own = len(words.split()) if isinstance(words, str) else 0
        return own + sum(map(_described, value.values()))
    return sum(map(_described, value)) if isinstance(value, (list, tuple)) else 0
