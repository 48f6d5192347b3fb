"""The built-in model's moves, decided from the conversation alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from codeagent.messages.conversation import (
    AssistantMessage,
    ChatMessage,
    FinishReason,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from codeagent.providers.protocol import ModelReply, ModelRequest, ProviderError
from codeagent.providers.repair import bundle, findings
from codeagent.providers.repair.provider import RepairProvider
from tests.unit.providers.workspace import TOOLS

EDIT = {"path": "a.py", "old": "x < y\n", "new": "x <= y\n"}
CHANGE = {"path": "a.py", "line": 3, "kind": "comparison", "before": "x < y", "after": "x <= y"}
FOUND = {
    "status": "repaired", "failing_count": 2, "passing_count": 5, "tried": 7, "seconds": 3.0,
    "edits": [EDIT], "changes": [CHANGE], "alternatives": [{**CHANGE, "after": "x != y"}],
}  # fmt: skip


class Conversation:
    """Plays the agent: hands each move's calls the answers a test gives them."""

    def __init__(self, task: str = "Make the tests pass.") -> None:
        self.messages: list[ChatMessage] = [SystemMessage(text="You fix code."), UserMessage(text=task)]
        self.reply: ModelReply | None = None

    async def next(self, *answers: str, failed: bool = False) -> ModelReply:
        if self.reply is not None:
            for call, text in zip(self.reply.message.tool_calls, answers, strict=True):
                self.messages.append(ToolMessage(tool_call_id=call.id, name=call.name, text=text, is_error=failed))

        async def ignore(_text: str) -> None:
            return None

        request = ModelRequest("repair", tuple(self.messages), TOOLS)
        self.reply = await RepairProvider().generate(request, ignore)
        self.messages.append(self.reply.message)
        return self.reply


def arguments(reply: ModelReply) -> dict[str, object]:
    (call,) = reply.message.tool_calls
    return dict(json.loads(call.arguments))


def report(**fields: object) -> str:
    return "exit code: 0\nCODEAGENT-REPAIR-RESULT " + json.dumps({**FOUND, **fields})


async def searched(conversation: Conversation, answer: str) -> ModelReply:
    await conversation.next()
    await conversation.next("exit code: 1\n2 failed, 5 passed in 0.1s")
    return await conversation.next(answer)


async def test_a_repair_takes_five_turns() -> None:
    conversation = Conversation()
    tests = await conversation.next()
    assert tests.message.text == "Running the tests."
    assert "pytest" in str(arguments(tests)["command"])
    search = await conversation.next("exit code: 1\n2 failed, 5 passed in 0.1s")
    assert search.message.text == "2 tests fail. Looking for an edit that repairs it."
    edit = await conversation.next(report())
    assert (edit.message.tool_calls[0].name, arguments(edit)) == ("edit_file", EDIT)
    verify = await conversation.next("edited a.py")
    assert "pytest" in str(arguments(verify)["command"])
    submit = await conversation.next("exit code: 0\n7 passed")
    assert submit.message.tool_calls[0].name == "submit"
    told = str(arguments(submit)["summary"])
    assert "+x <= y" in told
    assert "+x != y" in told
    assert "not a language model" in told
    assert "Review" in told


async def test_the_same_conversation_gets_the_same_move() -> None:
    one, other = Conversation(), Conversation()
    for answers in ((), ("exit code: 1\n1 failed",), (report(),)):
        assert (await one.next(*answers)).message == (await other.next(*answers)).message


async def test_every_command_ends_within_the_time_a_call_has() -> None:
    conversation = Conversation()
    seconds = [arguments(await conversation.next())["timeout_seconds"]]
    seconds.append(arguments(await conversation.next("exit code: 1"))["timeout_seconds"])
    await conversation.next(report())
    seconds.append(arguments(await conversation.next("edited"))["timeout_seconds"])
    assert all(isinstance(item, int) and item <= 120 for item in seconds)


async def test_a_repair_that_does_not_hold_is_taken_back() -> None:
    conversation = Conversation()
    await searched(conversation, report())
    await conversation.next("edited a.py")
    undo = await conversation.next("exit code: 1\n1 failed, 6 passed")
    assert arguments(undo) == {"path": "a.py", "old": EDIT["new"], "new": EDIT["old"]}
    told = arguments(await conversation.next("edited a.py"))["summary"]
    assert str(told).startswith("**Not repaired.**")


async def test_an_edit_that_does_not_fit_is_not_followed_by_a_claim() -> None:
    conversation = Conversation()
    await searched(conversation, report())
    told = arguments(await conversation.next("error: old occurs 0 times in a.py, not once", failed=True))["summary"]
    assert str(told).startswith("**Not repaired.**")


async def test_a_missing_interpreter_or_pytest_is_looked_for_under_the_other_name() -> None:
    for problem in ("exit code: 127\nbash: python: command not found", "exit code: 1\nNo module named pytest"):
        conversation = Conversation()
        await conversation.next()
        assert str(arguments(await conversation.next(problem))["command"]).startswith("python3 ")
        assert str(arguments(await conversation.next("exit code: 1\n1 failed"))["command"]).startswith("python3 -B -")


async def test_a_search_that_was_cut_off_is_tried_once_more_with_less_time() -> None:
    conversation = Conversation()
    second = await searched(conversation, "reason: timeout\n")
    assert '\\"budget_seconds\\": 30' in str(arguments(second)["command"])
    told = arguments(await conversation.next("reason: timeout\n"))["summary"]
    assert str(told).startswith("**Not repaired.**")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("not_found", "**Not repaired.**"),
        ("crashed", "**Not repaired.**"),
        ("unfinished", "**Not repaired.**"),
        ("no_tests", "No tests were found"),
        ("passing", "All 5 tests pass"),
        ("something new", "**Not repaired.**"),
    ],
)
async def test_every_other_end_is_said_plainly(status: str, expected: str) -> None:
    conversation = Conversation()
    submit = await searched(conversation, report(status=status, edits=[], changes=[]))
    told = str(arguments(submit)["summary"])
    assert told.startswith(expected)
    assert "CODEAGENT_PROVIDERS_FILE" in told


async def test_tests_named_in_the_task_go_to_the_search() -> None:
    conversation = Conversation("In shop/cart.py something is off: test_total fails; ignore 'test_$(reboot)'")
    await conversation.next()
    command = str(arguments(await conversation.next("exit code: 1"))["command"])
    assert "test_total" in command
    assert "shop/cart.py" in command
    assert "reboot" not in command


async def test_a_new_message_of_the_user_starts_over() -> None:
    conversation = Conversation()
    await searched(conversation, report())
    conversation.reply = None
    conversation.messages.append(UserMessage(text="Again, please."))
    assert (await conversation.next()).message.text == "Running the tests."


async def test_after_submitting_there_is_nothing_left_to_say() -> None:
    conversation = Conversation()
    await conversation.next()
    await conversation.next("exit code: 0\n3 passed")
    last = await conversation.next("submitted")
    assert last.message.tool_calls == ()
    assert last.finish_reason is FinishReason.STOP


async def test_without_its_tools_it_says_which_it_needs() -> None:
    async def ignore(_text: str) -> None:
        return None

    request = ModelRequest("repair", (UserMessage(text="hi"),), TOOLS[:1])
    reply = await RepairProvider().generate(request, ignore)
    assert reply.message == AssistantMessage(text="builtin/repair cannot work without these tools: edit_file, submit.")


@pytest.mark.parametrize(("model", "messages", "reason"), [("gpt", 1, "not_found"), ("repair", 0, "invalid_request")])
async def test_it_refuses_as_every_provider_does(model: str, messages: int, reason: str) -> None:
    async def ignore(_text: str) -> None:
        return None

    with pytest.raises(ProviderError) as refused:
        await RepairProvider().generate(ModelRequest(model, (UserMessage(text="hi"),) * messages, TOOLS), ignore)
    assert (refused.value.reason, refused.value.retryable) == (reason, False)


@pytest.mark.parametrize(
    "edit", [{**EDIT, "path": "/etc/passwd"}, {**EDIT, "path": "../a.py"}, {**EDIT, "old": ""}, {"path": "a.py"}]
)
def test_a_forged_report_is_not_believed(edit: dict[str, str]) -> None:
    assert findings.parse(report(edits=[edit])) is None
    assert findings.parse("CODEAGENT-REPAIR-RESULT {broken}") is None
    assert findings.parse("no report at all") is None


def test_the_script_is_one_program_without_clashing_names_for_python_3_9() -> None:
    program = (
        "import ast, sys, collections\n"
        "tree = ast.parse(sys.stdin.read(), feature_version=(3, 9))\n"
        "names = collections.Counter(node.name for node in tree.body if hasattr(node, 'name'))\n"
        "sys.exit(str([name for name, count in names.items() if count > 1] or ''))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=bundle.script(), text=True, capture_output=True, check=False
    )
    assert done.stderr.strip() == ""


def test_the_command_fits_a_shell_and_quotes_whatever_it_is_given() -> None:
    command = bundle.command("python", {"focus": ["'; rm -rf / #", 'CODEAGENT_REPAIR\n"""'], "budget_seconds": 1})
    assert len(command) < 100_000
    assert command.splitlines().count("CODEAGENT_REPAIR") == 1
    assert subprocess.run(["bash", "-n"], input=command, text=True, check=False).returncode == 0
