"""Writes what is generated from the code into `schemas/`: JSON Schemas, OpenAPI, AsyncAPI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from codeagent.broker.topics import load_topics
from codeagent.edge.app import openapi
from codeagent.edge.asyncapi import asyncapi
from codeagent.messages import checkpoints
from codeagent.messages.catalog import CURRENT, json_schema
from codeagent.settings import Settings


def write_schemas(folder: Path) -> list[Path]:
    """Every file that belongs there; what else lies there is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    documents: dict[str, dict[str, Any]] = {
        f"{payload.NAME}.v{payload.VERSION}.json": json_schema(payload) for payload in CURRENT.values()
    }
    documents[f"{checkpoints.MESSAGE}.json"] = checkpoints.SCHEMA
    documents["openapi.json"] = openapi()
    default = Settings.model_fields["topics_dir"].default
    documents["asyncapi.json"] = asyncapi(load_topics(default))
    written: list[Path] = []
    for name, document in documents.items():
        path = folder / name
        path.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        written.append(path)
    return written
