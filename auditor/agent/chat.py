"""The chat model that plays the agent: any that LangChain can make, or the offline investigator."""

from __future__ import annotations

import os

from langchain_core.language_models import BaseChatModel

from auditor.errors import UsageError
from auditor.lens.words import Background
from auditor.models.embed import Embedder

OFFLINE = "offline"
OPENROUTER = "https://openrouter.ai/api/v1"


def make_chat(name: str, embed: Embedder, background: Background) -> BaseChatModel:
    """`offline`, or what `init_chat_model` takes, such as `openai:gpt-5` or `openrouter:vendor/model`.

    OPENAI_BASE_URL and OPENAI_API_KEY, or OPENROUTER_API_KEY, are read from the environment. Raises
    UsageError if the model, its package or its key is missing.
    """
    if name == OFFLINE:
        from auditor.agent.offline import OfflineInvestigator

        return OfflineInvestigator(embed=embed, background=background)
    from langchain.chat_models import init_chat_model

    try:
        if name.startswith("openrouter:"):
            key = os.environ.get("OPENROUTER_API_KEY")
            if not key:
                raise UsageError(f"--llm {name} needs OPENROUTER_API_KEY in the environment")
            return init_chat_model(
                name.removeprefix("openrouter:"), model_provider="openai", base_url=OPENROUTER, api_key=key
            )
        return init_chat_model(name)
    except ImportError as error:
        raise UsageError(f"--llm {name}: {error}") from error
    except UsageError:
        raise
    except Exception as error:  # each provider has its own error for a missing key or an unknown name
        raise UsageError(f"--llm {name}: {str(error).splitlines()[0]}") from error


def endpoint_problem(error: BaseException) -> str | None:
    """One line for an endpoint that cannot be used (unreachable, wrong key, no such model), else None."""
    import openai

    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return "the LLM endpoint refuses the key; check OPENAI_API_KEY (or OPENROUTER_API_KEY)"
    if isinstance(error, openai.NotFoundError):
        return "the LLM endpoint knows no such model; check --llm"
    if isinstance(error, openai.APIConnectionError):
        url = getattr(getattr(error, "request", None), "url", "")
        return f"the LLM endpoint cannot be reached ({url}); check OPENAI_BASE_URL and the network"
    return None
