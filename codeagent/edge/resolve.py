"""What a request for a run comes to: what its body says, else its session, its project, or the installation."""

from __future__ import annotations

from dataclasses import dataclass

from codeagent.agent import mcp
from codeagent.agent_registry.agent import run_limits
from codeagent.agent_registry.approvals import checked, joined
from codeagent.agent_registry.canary import Unit
from codeagent.agent_registry.resolver import Resolved as ResolvedAgent
from codeagent.edge.context import EdgeContext
from codeagent.edge.delegates import Delegation, definition_given
from codeagent.edge.git_sources import check_git_ref, check_git_url
from codeagent.edge.model_choice import choose_models
from codeagent.edge.models import ArchiveSourceBody, GitSourceBody, RunBody
from codeagent.edge.threads import Thread, thread_of
from codeagent.errors import InvalidInput, NotFound
from codeagent.eventlog.accept import Placement
from codeagent.flags.features import GIT_SOURCES
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import Scope
from codeagent.messages.commands import SubmitRun
from codeagent.messages.project_events import ProjectSettings
from codeagent.messages.values import AgentDefinition, ApprovalPolicy, ArchiveSource, GitSource, LimitsAsked, Source
from codeagent.messages.verification import Verification
from codeagent.projections.view import RunView
from codeagent.sandboxes.protocol import DEFAULT_IMAGE


@dataclass(frozen=True, slots=True)
class Named:
    """The run that a request stands for, and what its body comes down to."""

    run_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The command of a request. `first` is the run that began the flow: the session's first, or the run itself."""

    command: SubmitRun
    first: str
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What a body stands in. All of it is None for a run of its own."""

    thread: Thread | None = None
    project_id: str | None = None
    project: ProjectSettings | None = None


_ALONE = _Surroundings()


async def resolve(context: EdgeContext, caller: Principal, body: RunBody, named: Named) -> Resolved:
    """A repeat has the command that it had first, whatever has changed since.

    Raises `InvalidInput` for a field that cannot be accepted, `Conflict` for a session that is busy.
    """
    if body.project_id is None and body.session_id is None:
        return Resolved(await _command(context, caller, body, named, _ALONE), named.run_id)
    # What is resolved now may not be what was then. Others need not look: their bodies say all there is.
    earlier = await context.submissions.earlier(caller.tenant_id, named.run_id)
    if earlier is not None:
        first = await first_run(context, caller.tenant_id, named.run_id, earlier.session_id)
        return Resolved(earlier, first, Placement(earlier.project_id, earlier.session_id))
    around = await _surroundings(context, caller, body)
    command = await _command(context, caller, body, named, around)
    thread = around.thread
    after = None if thread is None else thread.after
    first = (thread and thread.first) or named.run_id
    return Resolved(command, first, Placement(around.project_id, body.session_id, after))


async def first_run(context: EdgeContext, tenant_id: str, run_id: str, session_id: str | None) -> str:
    """The run whose submission names the flow that a run belongs to."""
    if session_id is None:
        return run_id
    return (await context.sessions.runs(tenant_id, session_id)).first or run_id


async def _surroundings(context: EdgeContext, caller: Principal, body: RunBody) -> _Surroundings:
    thread, project_id = None, body.project_id
    if body.session_id is not None:
        thread = await thread_of(context, caller.tenant_id, body.session_id)
        if project_id not in {None, thread.session.project_id}:
            detail = "The session is of another project, or of none."
            raise InvalidInput(detail, code="project_mismatch", pointer="/project_id")
        project_id = thread.session.project_id
    project = None if project_id is None else await project_of(context, caller, project_id)
    return _Surroundings(thread, project_id, project)


async def project_of(context: EdgeContext, caller: Principal, project_id: str) -> ProjectSettings:
    """A project that a body names. Raises `InvalidInput`."""
    try:
        return (await context.projects.find(caller.tenant_id, project_id)).settings
    except NotFound as error:
        raise InvalidInput(error.detail, code="unknown_project", pointer="/project_id") from None


async def _command(
    context: EdgeContext, caller: Principal, body: RunBody, named: Named, around: _Surroundings
) -> SubmitRun:
    context.policy.limits.check(body.limits)
    thread, project = around.thread, around.project
    previous = thread.previous if thread is not None else None
    reference = body.given_agent or (previous and previous.agent) or (project and project.agent) or body.agent
    unit = _unit(caller, body, around)
    agent = await check_agent(context, caller, reference, unit)
    definition = definition_given(context, agent)
    approvals = joined(_approvals(body, previous, definition), agent.approvals, mcp.changing(definition))
    chosen = choose_models(context, body, previous, project, agent)
    image = _image(project, previous)
    check_image(context, image or DEFAULT_IMAGE, pointer="/project_id")
    return SubmitRun(
        run_id=named.run_id,
        task=body.task,
        source=await _source(context, caller, body, around),
        agent=agent.name,
        agent_version=agent.number,
        definition=await Delegation(context, caller, unit).extended(definition, agent, approvals),
        model=chosen.model,
        fallbacks=chosen.fallbacks or None,
        limits=context.policy.limits.of_run(run_limits(_limits(body.limits, project), agent.limits)),
        approvals=approvals,
        verification=_verification(body, previous, project),
        fingerprint=named.fingerprint,
        image=image,
        project_id=around.project_id,
        session_id=body.session_id,
        continues=thread.files if thread is not None else None,
        follows=(thread.follows or None) if thread is not None else None,
        dependencies=project.dependencies if project is not None else None,
    )


def _approvals(body: RunBody, previous: RunView | None, definition: AgentDefinition | None) -> ApprovalPolicy | None:
    """What the request says, else what the session's run before had: saying nothing takes no approval away."""
    if body.approvals is not None:
        return checked(body.approvals.policy(), mcp.names(definition))
    return None if previous is None else previous.approval_policy


def _verification(body: RunBody, previous: RunView | None, project: ProjectSettings | None) -> Verification | None:
    if body.verification is not None:
        return body.verification.value()
    if previous is not None and previous.verification is not None:
        return previous.verification
    return None if project is None else project.verification


def _image(project: ProjectSettings | None, previous: RunView | None) -> str | None:
    """That of the session's run before, whose files it goes on with, else its project's. None is the usual one."""
    if previous is not None:
        return previous.image
    return None if project is None or project.image == DEFAULT_IMAGE else project.image


def _limits(asked: LimitsAsked, project: ProjectSettings | None) -> LimitsAsked:
    """Limit by limit: what the body asks for, else what its project does."""
    if project is None:
        return asked
    merged = project.limits.model_dump(exclude_none=True) | asked.model_dump(exclude_none=True)
    if asked.sandbox is not None and project.limits.sandbox is not None:
        merged["sandbox"] = asked.sandbox.over(project.limits.sandbox)
    return LimitsAsked(**merged)


async def check_agent(
    context: EdgeContext, caller: Principal, reference: str, unit: Unit | None = None
) -> ResolvedAgent:
    """What a run is given of an agent. Raises `InvalidInput`; `Rejected` for a draft that the caller may not try."""
    drafts, unit = caller.may(Scope.AGENTS_WRITE), unit or Unit("principal", caller.id)
    return await context.agents.resolver.resolve(caller.tenant_id, reference, unit, drafts=drafts)


def _unit(caller: Principal, body: RunBody, around: _Surroundings) -> Unit:
    """Whose runs have one version of their agent while a canary of it runs."""
    if body.session_id is not None:
        return Unit("session", body.session_id)
    if around.project_id is not None:
        return Unit("project", around.project_id)
    return Unit("principal", caller.id)


def check_image(context: EdgeContext, image: str, *, pointer: str = "/image") -> None:
    """Raises `InvalidInput` for one that this installation does not have."""
    if image not in context.policy.images:
        there = ", ".join(sorted(context.policy.images))
        detail = f"There is no image {image!r}: there are {there}."
        raise InvalidInput(detail, code="unsupported_image", pointer=pointer)


async def _source(context: EdgeContext, caller: Principal, body: RunBody, around: _Surroundings) -> Source:
    thread, project = around.thread, around.project
    if thread is not None and thread.files is not None and body.source is not None:
        detail = "The session goes on with the files that it has."
        raise InvalidInput(detail, code="source_not_allowed", pointer="/source")
    if isinstance(body.source, ArchiveSourceBody):
        return await _archive(context, caller, body.source.digest)
    if isinstance(body.source, GitSourceBody):
        source = GitSource(url=body.source.url, ref=body.source.ref)
    elif thread is not None and thread.source is not None:
        if thread.files is not None or not isinstance(thread.source, GitSource):
            return thread.source
        source = thread.source  # it has not been had yet: fetching it is what may be switched off
    elif project is not None:
        source = GitSource(url=project.repository, ref=project.default_ref)
    else:
        raise InvalidInput("The run needs a source.", pointer="/source")
    check_fetched(context, caller, source)
    return source


def check_fetched(context: EdgeContext, caller: Principal, source: GitSource) -> None:
    """Raises `InvalidInput` for a repository that a run may not be given."""
    if not context.features.enabled(GIT_SOURCES, caller.tenant_id, caller.id):
        raise InvalidInput("Git sources are switched off.", code="unsupported_source", pointer="/source/kind")
    check_git_url(source.url, context.policy.trusted_hosts)
    check_git_ref(source.ref)


async def _archive(context: EdgeContext, caller: Principal, digest: str) -> Source:
    if not await context.known.exists(caller.tenant_id, digest):
        raise InvalidInput(
            "There is no such artifact: upload the archive first.", code="unknown_artifact", pointer="/source/digest"
        )
    return ArchiveSource(digest=digest)
