"""Clients for endpoints that speak OpenAI's protocol more or less."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatResult
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from langchain_openai.chat_models.base import BaseChatOpenAI

from auditor.llm.failures import Malformed


class ToldInside(Exception):
    """An error that stood where the answer should be, in a reply of HTTP 200."""

    def __init__(self, error: Any) -> None:
        super().__init__(str(error))
        self.body = error if isinstance(error, dict) else {"message": str(error)}
        code = str(self.body.get("code") or self.body.get("status") or self.body.get("type"))
        self.status_code = int(code) if code.isdecimal() else _STATUS.get(code, 502)


_STATUS = {
    "rate_limit_exceeded": 429, "insufficient_quota": 429, "invalid_request_error": 400, "authentication_error": 401,
    "permission_error": 403, "not_found_error": 404, "invalid_api_key": 401, "model_not_found": 404,
    "context_length_exceeded": 400, "content_filter": 400,
}  # fmt: skip


class _Compatible(BaseChatOpenAI):
    """Reads tool arguments that are objects or encoded twice, takes thoughts apart from what is said, and raises errors
    that came as an answer."""

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        if isinstance(response, str):
            raise Malformed(response)
        body = response if isinstance(response, dict) else response.model_dump(warnings=False)
        if body.get("error"):
            raise ToldInside(body["error"])
        thoughts = []
        for choice in body["choices"]:
            if choice.get("error") or choice.get("finish_reason") == "error":
                raise ToldInside(choice.get("error") or "the model's provider broke off")
            _mend_calls(choice["message"])
            thoughts.append(_thought(choice["message"]))
        usage = body.get("usage") or {}
        if None in (usage.get("prompt_tokens"), usage.get("completion_tokens")):
            body["usage"] = None  # else they would count as 0
        made = super()._create_chat_result(body, generation_info)
        for generation, thought in zip(made.generations, thoughts, strict=True):
            if thought and isinstance(generation.message, AIMessage):
                generation.message.additional_kwargs["reasoning_content"] = thought  # kept, and not sent back
        return made


class CompatibleChat(_Compatible, ChatOpenAI):
    """OpenAI's own, and whoever has the same routes."""


class CompatibleAzure(_Compatible, AzureChatOpenAI):
    """Azure's, whose addresses and keys differ."""


CHATS: Mapping[str, type[BaseChatOpenAI]] = {  # by provider
    "openai": CompatibleChat, "openrouter": CompatibleChat, "azure_openai": CompatibleAzure,
}  # fmt: skip


def _thought(message: dict[str, Any]) -> str:
    """What the model thought, taken out of what it said where its server left it there."""
    told = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content")
    if isinstance(content, str) and "think>" in content:
        head, _, rest = content.partition("</think>")
        opened = head.lstrip().startswith("<think>")
        by_template = content.count("think>") == 1 and head.endswith("\n") and rest[:1] in ("", "\n")
        if opened or by_template:  # which is an end alone on its line, where the chat template wrote the beginning
            message["content"] = rest.lstrip()
            told = told or head.strip().removeprefix("<think>").strip()
    return told if isinstance(told, str) else ""


def _mend_calls(message: dict[str, Any]) -> None:
    calls = message.get("tool_calls") or []
    if not calls and message.get("function_call"):  # as it was called before there were tools
        calls = [{"type": "function", "id": None, "function": message.pop("function_call")}]
    calls = [call for call in calls if isinstance(call.get("function"), dict)]
    for call in calls:
        function = call["function"]
        function["name"] = function.get("name") or ""
        function["arguments"] = _arguments(function.get("arguments"))
    message["tool_calls"] = calls or None


def _arguments(given: Any) -> str:
    """JSON text of an object; text that cannot be read stays what it is."""
    value: Any = given
    for _ in range(3):
        if not isinstance(value, str):
            break
        try:
            value = json.loads(value, strict=False)
        except (ValueError, RecursionError):
            return str(value)
    if value is None or isinstance(value, dict):
        return json.dumps(value or {})
    return json.dumps({"arguments": value})  # a tool refuses it, and says what would be right
