"""Why a server's tool was not called, or what it was asked for did not come back."""

from __future__ import annotations

from codeagent.errors import CodeAgentError


class McpFailure(CodeAgentError):
    """`code` is stable, and what a run's log and its model are told, with `detail`.

    | code | what has happened |
    |---|---|
    | `mcp_server_unknown` | the operator lists no server of that name |
    | `mcp_tools_changed` | the server does not offer what was pinned; nothing was called |
    | `mcp_credential_unavailable` | its token, or the authority of its certificate, cannot be had; nothing was sent |
    | `mcp_address_refused` | its name leads nowhere, or to an address that is not public |
    | `mcp_unreachable` | no connection, or it broke |
    | `mcp_unauthorized` | the server does not take its token |
    | `mcp_timeout` | it was not done in time |
    | `mcp_answer_too_large` | it sent more than is read |
    | `mcp_protocol_error` | what it sent is no answer of the protocol, or an error of it |
    | `mcp_arguments_too_large` | the model's arguments are more than is sent |
    | `mcp_outcome_unknown` | the worker that asked is gone, and it may have been carried out |
    """

    code = "mcp_protocol_error"

    def __init__(self, detail: str, code: str, *, offered_digest: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.offered_digest = offered_digest
