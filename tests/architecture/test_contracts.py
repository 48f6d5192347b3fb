"""What is generated is current, what was stored stays readable, and code and topics say the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from openapi_spec_validator import validate

from codeagent.broker import topics as names
from codeagent.broker.topics import AGENT_INPUTS, load_topics
from codeagent.cli.schemas import write_schemas
from codeagent.messages import checkpoints
from codeagent.messages.catalog import COMMANDS, CURRENT, RUN_EVENTS, UPCASTERS, decode_data, encode_data
from codeagent.settings import Settings
from codeagent.settings.reference import bounds, markdown, unit
from codeagent.transparency.checkpoints import open_checkpoint
from codeagent.transparency.notes import SigningKey

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "schemas"
EXAMPLES = sorted((SCHEMAS / "examples").glob("*.json"))


def test_schemas_regenerate_to_themselves(tmp_path: Path) -> None:
    written = write_schemas(tmp_path)
    stale = [path.name for path in written if (SCHEMAS / path.name).read_text() != path.read_text()]
    assert stale == [], "run `make schemas`"
    assert {path.name for path in SCHEMAS.glob("*.json")} == {path.name for path in written}


def test_every_message_has_a_golden_example_of_every_version() -> None:
    wanted = {f"{name}.v{version}.json" for name, item in CURRENT.items() for version in range(1, item.VERSION + 1)}
    assert {path.name for path in EXAMPLES} == wanted


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_golden_example_still_decodes_and_fits_its_schema(path: Path) -> None:
    name, version = path.stem.rsplit(".v", 1)
    payload = decode_data(name, int(version), path.read_bytes())
    assert payload.NAME == name
    schema = json.loads((SCHEMAS / f"{name}.v{CURRENT[name].VERSION}.json").read_text())
    jsonschema.validate(json.loads(encode_data(payload)), schema)
    if int(version) == CURRENT[name].VERSION:
        assert json.loads(encode_data(payload)) == json.loads(path.read_text())


def test_the_golden_example_of_a_checkpoint_verifies_and_fits_its_schema() -> None:
    note = (SCHEMAS / "examples" / f"{checkpoints.MESSAGE}.checkpoint").read_text()
    jsonschema.validate(note, json.loads((SCHEMAS / f"{checkpoints.MESSAGE}.json").read_text()))
    key = SigningKey("log.example/audit", bytes(32)).verifier
    assert open_checkpoint(note, key.name, [key]).size == 302


def test_every_older_version_can_be_lifted() -> None:
    wanted = {(name, version) for name, item in CURRENT.items() for version in range(1, item.VERSION)}
    assert set(UPCASTERS) == wanted


def test_the_openapi_document_is_valid() -> None:
    validate(json.loads((SCHEMAS / "openapi.json").read_text()))


def test_every_topic_in_code_is_defined_and_the_reverse() -> None:
    in_code = {value for name, value in vars(names).items() if name.isupper() and str(value).startswith("codeagent.")}
    assert {topic.name for topic in load_topics(ROOT / "topics")} == in_code


def test_what_topics_carry_is_what_the_catalogue_has() -> None:
    carried = {message for topic in load_topics(ROOT / "topics") for message in topic.messages}
    deltas = {"message.delta", "tool.output.delta"}
    texts = {checkpoints.MESSAGE}
    known = {f"{item.NAME}.v{item.VERSION}" for item in CURRENT.values()}
    assert carried - deltas - texts <= known
    assert {f"{item.NAME}.v{item.VERSION}" for item in (*COMMANDS, *RUN_EVENTS)} <= carried


def test_the_agents_inputs_have_equal_partition_counts() -> None:
    counts = {str(topic.partitions) for topic in load_topics(ROOT / "topics") if topic.name in AGENT_INPUTS}
    assert len(counts) == 1


def test_every_setting_is_explained_and_every_number_has_a_unit_and_bounds() -> None:
    fields = Settings.model_fields
    assert [name for name, field in fields.items() if not field.description] == []
    numbers = {name: field for name, field in fields.items() if field.annotation in {int, float}}
    assert [name for name, field in numbers.items() if not (unit(name, field) and bounds(field))] == []


def test_the_configuration_reference_is_what_the_settings_say() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == markdown(), "run `make schemas`"


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-3_000:]
