"""What the model says at the end: what it changed, what else would have passed, and what it is and is not."""

from __future__ import annotations

from codeagent.providers.repair.findings import Change, Findings

NATURE = (
    "`builtin/repair` is a set of rules, not a language model: it looks for a small edit that makes failing tests "
    "pass, and does not understand what the code is for. Review the change before you use it."
)
OTHER_MODELS = (
    "For anything beyond that, configure a language model: list it in the file `CODEAGENT_PROVIDERS_FILE` points to, "
    "and ask for it by name, for example `--model openai/<model>` or `--model anthropic/<model>`."
)


def passing(count: int | None) -> str:
    tests = "The tests" if count is None else f"All {count} tests"
    return f"{tests} pass as they are, so there is nothing these rules could repair. Nothing was changed.\n\n" + (
        "`builtin/repair` is a set of rules, not a language model: it repairs failing tests and does nothing else. "
    ) + OTHER_MODELS  # fmt: skip


def no_tests() -> str:
    return (
        "No tests were found that can be run, neither by pytest nor by unittest. Without a failing test these rules "
        "have nothing to go by. Nothing was changed.\n\n" + OTHER_MODELS
    )


def repaired(found: Findings) -> str:
    """Only said after the whole suite has been run again on the edited files."""
    parts = ["**Repaired.** Changed:\n"]
    parts += [_change(item) for item in found.changes]
    before = f"{found.failing_count} of {found.failing_count + found.passing_count} tests failed before"
    after = "all of them pass now" if not found.untouched else f"{found.untouched} that were not asked for still do"
    parts.append(f"\n{before}; {after}. {found.tried} edits were tried in {found.seconds:.0f} s.\n")
    if found.alternatives:
        parts.append("Other edits in place of the last one made every test pass too; one of them may be meant:\n")
        parts += [_change(item) for item in found.alternatives]
        parts.append("")
    parts.append(NATURE)
    return "\n".join(parts)


def not_found(found: Findings) -> str:
    parts = [
        f"**Not repaired.** {found.failing_count} tests fail, and none of the {found.tried} small edits tried "
        "makes them pass without breaking others. Nothing was changed.\n"
    ]
    if found.failing:
        parts.append("Failing:\n" + "\n".join(f"- `{name}`" for name in found.failing[:10]) + "\n")
    if found.changes:
        parts.append("These edits help some of the tests, but not all; they were not kept:\n")
        parts += [_change(item) for item in found.changes]
        parts.append("")
    if found.suspects:
        parts.append("Lines the failing tests run and the passing ones mostly do not:\n")
        parts += [f"- `{item.path}:{item.line}` `{item.text}`" for item in found.suspects]
        parts.append("")
    parts.append(
        "`builtin/repair` is a set of rules, not a language model: it knows mistakes of one or a few places, not "
        "missing features or wrong algorithms. " + OTHER_MODELS
    )
    return "\n".join(parts)


def gave_up(why: str) -> str:
    return f"**Not repaired.** {why} Nothing was changed.\n\n{OTHER_MODELS}"


def _change(change: Change) -> str:
    lines = [f"- `{change.path}`, line {change.line} ({change.kind}):", "", "  ```diff"]
    lines += [f"  -{line}" for line in change.before.splitlines()]
    lines += [f"  +{line}" for line in change.after.splitlines()]
    return "\n".join([*lines, "  ```"])
