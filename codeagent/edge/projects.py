"""`/v1/projects`: make, list, look at, change and archive projects; their credentials and statistics."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from codeagent.edge.accept import idempotency_key
from codeagent.edge.answers import answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.context import Context, EdgeContext, ProjectReader, ProjectWriter
from codeagent.edge.git_sources import check_git_ref, check_git_url
from codeagent.edge.model_choice import check_model
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IfMatch, RequestKey
from codeagent.edge.preconditions import check_match, etag
from codeagent.edge.problems import errors_of
from codeagent.edge.project_models import (
    GitCredentialBody,
    ProjectBody,
    ProjectModel,
    ProjectPage,
    ProjectPatch,
    ProjectStatsModel,
)
from codeagent.edge.resolve import check_agent, check_image
from codeagent.identity.principal import Principal
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.messages.project_events import ProjectSettings
from codeagent.projections.statistics import project_statistics
from codeagent.projects.projects import PREFIX, Project, ProjectOrder
from codeagent.sandboxes.protocol import GitCredential

router = APIRouter(prefix="/v1/projects", tags=["projects"], responses=errors_of(400, 401, 403, 404, 422, 503))


def _shown(project: Project) -> Response:
    return answer(ProjectModel.of(project), version=project.version)


async def _checked(context: EdgeContext, caller: Principal, settings: ProjectSettings) -> ProjectSettings:
    """The settings with the repository's address as it is fetched. Raises `InvalidInput` for what this installation
    does not have or fetch."""
    context.policy.limits.check(settings.limits)
    if settings.agent is not None:
        await check_agent(context, caller, settings.agent)
    if settings.model is not None:
        check_model(context, settings.model)
    check_image(context, settings.image)
    check_git_ref(settings.default_ref, pointer="/default_ref")
    url = check_git_url(settings.repository, context.policy.trusted_hosts, pointer="/repository")
    return settings.model_copy(update={"repository": url})


@router.post(
    "",
    status_code=201,
    response_model=ProjectModel,
    summary="Make a project",
    responses={
        200: {"model": ProjectModel, "description": "A repeat: the project was made before."},
        409: {"description": "Another project has this name (`conflict`)."},
    },
)
async def create_project(
    body: ProjectBody,
    context: Context,
    caller: ProjectWriter,
    key: RequestKey = None,
) -> Response:
    """Names are unique among a tenant's projects that are not archived."""
    named = derived_uuid(caller.tenant_id, caller.id, "POST /v1/projects", idempotency_key(key))
    project_id, fingerprint = typed_id(PREFIX, named), body.fingerprint()
    # First: what was made once is a repeat, whatever has become of its agent or model since.
    project, repeated = await context.projects.made_before(caller.tenant_id, project_id, fingerprint), True
    if project is None:
        order = ProjectOrder(project_id, await _checked(context, caller, body.settings()), fingerprint)
        project, repeated = await context.projects.create(author_of(caller), order)
    location = f"/v1/projects/{project.id}"
    return made(ProjectModel.of(project), location, repeated=repeated, version=project.version)


@router.get("", response_model=ProjectPage, summary="List projects, newest first")
async def list_projects(
    context: Context,
    caller: ProjectReader,
    limit: Limit = 50,
    cursor: PageCursor = None,
    archived: Annotated[bool, Query(description="The archived ones instead of the others.")] = False,
) -> Response:
    """The tenant's projects: those that can have runs, or the archived ones."""
    found, following = await context.projects.page(caller.tenant_id, archived=archived, after=cursor, limit=limit)
    shown = "true" if archived else None
    page = ProjectPage(items=[ProjectModel.of(project) for project in found], next_cursor=following)
    return page_answer(page, "/v1/projects", archived=shown, limit=limit, cursor=following)


@router.get("/{project_id}", response_model=ProjectModel, summary="A project as it is now")
async def get_project(project_id: str, context: Context, caller: ProjectReader) -> Response:
    """What it is now, with the ETag that changing it takes. Of its git credential only the user and the time."""
    return _shown(await context.projects.find(caller.tenant_id, project_id))


@router.patch(
    "/{project_id}", response_model=ProjectModel, summary="Change a project", responses=errors_of(409, 412, 428)
)
async def change_project(
    project_id: str, body: ProjectPatch, context: Context, caller: ProjectWriter, if_match: IfMatch = None
) -> Response:
    """Runs that are at work go on as they began. Another repository takes the git credential away, since that was
    given for the former one."""
    project = await context.projects.find(caller.tenant_id, project_id)
    check_match(if_match, project.version)
    settings = await _checked(context, caller, body.applied(project.settings))
    is_archived = project.archived_at is not None
    archived = body.archived if "archived" in body.model_fields_set else is_archived
    return _shown(await context.projects.change(author_of(caller), project, settings, archived=archived))


@router.delete("/{project_id}", status_code=204, summary="Archive a project", responses=errors_of(412, 428))
async def archive_project(
    project_id: str, context: Context, caller: ProjectWriter, if_match: IfMatch = None
) -> Response:
    """It takes no new runs then (`project_archived`), and its name is free. Nothing is removed, and runs at work go
    on. A repeat changes nothing."""
    project = await context.projects.find(caller.tenant_id, project_id)
    if project.archived_at is None:
        check_match(if_match, project.version)
        await context.projects.change(author_of(caller), project, project.settings, archived=True)
    return Response(status_code=204)


@router.post(
    "/{project_id}/unarchive",
    response_model=ProjectModel,
    summary="Bring an archived project back",
    responses={409: {"description": "Another project has its name by now (`conflict`)."}},
)
async def unarchive_project(project_id: str, context: Context, caller: ProjectWriter) -> Response:
    """It takes runs again. One that is not archived stays as it is."""
    project = await context.projects.find(caller.tenant_id, project_id)
    return _shown(await context.projects.change(author_of(caller), project, project.settings, archived=False))


@router.put(
    "/{project_id}/git-credential", status_code=204, summary="Set a project's git credential", responses=errors_of(501)
)
async def set_git_credential(
    project_id: str, body: GitCredentialBody, context: Context, caller: ProjectWriter
) -> Response:
    """Takes the place of any other, and opens the repository that the project has now. Nobody can read it back."""
    await context.projects.find(caller.tenant_id, project_id)
    credential = GitCredential(body.username, body.token.get_secret_value())
    version = await context.git_credentials.set(author_of(caller), project_id, credential)
    return Response(status_code=204, headers={"ETag": etag(version)})


@router.delete("/{project_id}/git-credential", status_code=204, summary="Remove a project's git credential")
async def remove_git_credential(project_id: str, context: Context, caller: ProjectWriter) -> Response:
    """Fetches that begin from now on go without. A repeat changes nothing."""
    await context.projects.find(caller.tenant_id, project_id)
    await context.git_credentials.remove(author_of(caller), project_id)
    return Response(status_code=204)


@router.get("/{project_id}/stats", response_model=ProjectStatsModel, summary="What a project's runs came to")
async def project_stats(project_id: str, context: Context, caller: ProjectReader) -> Response:
    """Counts, tokens, cost and durations of all its runs. Follows the log with a short delay."""
    await context.projects.find(caller.tenant_id, project_id)
    found = await project_statistics(context.database, caller.tenant_id, project_id)
    return answer(ProjectStatsModel.of(found))
