"""A report as one self-contained HTML file: nothing is loaded from elsewhere, and no script runs."""

from __future__ import annotations

from auditor import __version__
from auditor.records.report import Document
from auditor.views.page import environment


def to_html(document: Document) -> str:
    """The whole page. Everything that a model wrote is escaped, control characters shown."""
    return environment().get_template("report.html").render(document=document, foot=f"auditor {__version__}")
