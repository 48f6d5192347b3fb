"""Prometheus metrics, under the names operators' dashboards rely on. No run, user or tenant is ever a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 1800)


def _histogram(name: str, text: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = _FAST) -> Histogram:
    return Histogram(name, text, labels, buckets=buckets, registry=REGISTRY)


def _counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY)


HTTP_DURATION = _histogram(
    "http_server_request_duration_seconds",
    "HTTP requests, streams excluded",
    ("http_request_method", "http_route", "http_response_status_code"),
)
COMMAND_ACCEPT = _histogram(
    "codeagent_command_accept_duration_seconds", "From the request to the durable acceptance", ("command",)
)
RUN_DURATION = _histogram(
    "codeagent_run_duration_seconds", "From submission to the terminal event", ("status", "status_reason"), _SLOW
)
RUN_TRANSITIONS = _counter("codeagent_run_transitions_total", "Status changes of runs", ("to", "reason"))
STEP_DURATION = _histogram("codeagent_step_duration_seconds", "One message handled, commit included", ("message",))
APPEND_EVENTS = _counter("codeagent_eventstore_append_events_total", "Events appended", ("stream_category",))
APPEND_CONFLICTS = _counter(
    "codeagent_eventstore_append_conflicts_total", "Appends refused since the stream had moved", ("stream_category",)
)
EFFECT_CLAIMS = _counter("codeagent_effect_claims_total", "Effects claimed", ("kind", "way"))
EFFECT_OUTCOMES = _counter("codeagent_effect_outcomes_total", "Outcomes by what became of them", ("kind", "verdict"))
EFFECTS_ACTIVE = _gauge("codeagent_effects_active", "Effects being performed", ("kind",))
SENT = _counter("messaging_client_sent_messages_total", "Records sent", ("messaging_destination_name",))
CONSUMED = _counter("messaging_client_consumed_messages_total", "Records received", ("messaging_destination_name",))
PROCESS_DURATION = _histogram(
    "messaging_process_duration_seconds", "From a record's turn in its lane to its end", ("messaging_destination_name",)
)
DEAD_LETTERS = _counter("codeagent_dlq_messages_total", "Records dead-lettered", ("topic", "error_type"))
DEAD_LETTERS_KEPT = _counter("codeagent_dead_letters_kept_total", "Dead letters taken into the database", ("topic",))
DEAD_LETTERS_OPEN = _gauge("codeagent_dead_letters_open", "Dead letters that nobody has seen to")
DEAD_LETTERS_OLDEST = _gauge("codeagent_dead_letters_oldest_seconds", "Age of the oldest of them; 0 without any")
OUTBOX_PENDING = _gauge("codeagent_outbox_pending", "Rows waiting in the outbox")
OUTBOX_LAG = _gauge("codeagent_outbox_lag_seconds", "Age of the oldest row in the outbox")
EFFECTS_PENDING = _gauge("codeagent_effects_pending", "Rows in the effects ledger")
OUTBOX_RESENT = _counter("codeagent_outbox_resent_total", "Messages sent again by a sweep")
PROJECTION_LAG = _gauge(
    "codeagent_projection_lag_seconds", "Age of the oldest event that a projection has not taken", ("projection",)
)
CANARY_ROLLBACKS = _counter("codeagent_canary_rollbacks_total", "Canaries rolled back, by their bound", ("metric",))
KEYS_SHREDDED = _counter("codeagent_privacy_keys_shredded_total", "Subjects whose content was erased")
ERASURE_AGE = _gauge("codeagent_privacy_erasure_age_seconds", "Age of the oldest erasure that is not completed")
BREACH_LEFT = _gauge(
    "codeagent_privacy_breach_seconds_left",
    "Until the authority has to be told of an open breach, the next one; negative where that is past, +Inf without any",
)
CONTENT_DUE = _gauge("codeagent_privacy_content_due_seconds", "For how long the oldest content of a run has been due")
PROJECTION_SAMPLES = _counter("codeagent_projection_samples_total", "Runs held against what is kept of them")
PROJECTION_MISMATCHES = _counter(
    "codeagent_projection_mismatches_total",
    "Samples of which a projection keeps another thing",
    ("projection",),
)
AUDIT_SEALED = _counter("codeagent_audit_sealed_total", "Events that became entries of the Merkle log")
AUDIT_UNSEALED = _gauge("codeagent_audit_unsealed_seconds", "How long the oldest event has waited to be sealed")
AUDIT_UNANCHORED = _gauge(
    "codeagent_audit_unanchored_seconds", "How long the oldest checkpoint has waited to leave the database", ("target",)
)
AUDIT_REFUSED = _gauge(
    "codeagent_audit_seal_refused", "1 while the Merkle log contradicts what was signed and is not continued", ("part",)
)
AUDIT_UNREAD = _gauge(
    "codeagent_audit_anchor_unread", "1 while sealing waits to read what a place has kept before", ("target",)
)
AUDIT_JUNK = _gauge(
    "codeagent_audit_anchor_junk", "What the last look at a place passed by, since it vouches for nothing", ("target",)
)
AUDIT_FINDINGS = _counter("codeagent_audit_seal_findings_total", "Events that did not match their hash when sealed")
STREAM_CONNECTIONS = _gauge("codeagent_stream_connections", "Open streams", ("transport",))
WEBSOCKETS_CLOSED = _counter("codeagent_websockets_closed_total", "WebSockets that were closed from here", ("code",))
STREAM_DROPPED = _counter("codeagent_stream_dropped_total", "Deltas dropped for slow clients", ("transport",))
RATELIMIT_REJECTIONS = _counter("codeagent_ratelimit_rejections_total", "Requests answered 429", ("policy",))
RATELIMIT_SHARED = _gauge(
    "codeagent_ratelimit_shared", "1 while rates are counted together with other processes, 0 in this one alone"
)
RUN_VIEWS = _counter(
    "codeagent_run_views_total", "Looks at runs, by what was there already: final, kept, shared, log", ("found",)
)
HTTP_ACTIVE = _gauge("http_server_active_requests", "Requests at work, streams and waits left out")
HTTP_SHED = _counter("codeagent_requests_shed_total", "Requests answered 503 to keep the others going", ("reason",))
HTTP_OVERDUE = _counter("codeagent_requests_overdue_total", "Requests given up, by what took too long", ("phase",))
LOOP_LAG = _gauge("codeagent_event_loop_lag_seconds", "How late the event loop is")
DEPRECATED_REQUESTS = _counter(
    "codeagent_deprecated_requests_total", "Requests to routes that are going to be removed", ("http_route",)
)
BUDGET_REFUSALS = _counter("codeagent_budget_refusals_total", "Submissions that met an exhausted budget")
CALLS_REFUSED = _counter(
    "codeagent_model_calls_refused_total", "Model calls for which a limit had no room left", ("limit",)
)
IDEMPOTENCY_REPLAYS = _counter("codeagent_idempotency_replays_total", "Requests answered as repeats")
GENAI_DURATION = _histogram(
    "gen_ai_client_operation_duration_seconds",
    "Model calls",
    ("gen_ai_provider_name", "gen_ai_request_model", "error_type"),
    _SLOW,
)
GENAI_TOKENS = _counter(
    "gen_ai_client_token_usage_total",
    "Tokens used",
    ("gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"),
)
GENAI_COST = _counter("codeagent_gen_ai_cost_usd_total", "Cost of model calls", ("provider", "model"))
RESPONSE_CACHE_LOOKUPS = _counter(
    "codeagent_response_cache_lookups_total",
    "Model calls of runs with a cache, by what was found: hit, miss, error",
    ("result",),
)
RESPONSE_CACHE_STORES = _counter(
    "codeagent_response_cache_stores_total", "Replies to such calls: kept, not_good, too_long, error", ("result",)
)
MCP_DURATION = _histogram(
    "codeagent_mcp_call_duration_seconds", "Calls of MCP servers", ("server", "error_type"), _SLOW
)
WEBHOOK_DELIVERIES = _counter(
    "codeagent_webhook_deliveries_total", "Attempts to deliver, by what came of it", ("outcome",)
)
WEBHOOK_DURATION = _histogram("codeagent_webhook_delivery_duration_seconds", "Attempts to deliver", ("outcome",), _SLOW)
WEBHOOK_LAG = _histogram(
    "codeagent_webhook_first_attempt_lag_seconds", "How long deliveries wait to be tried", (), _SLOW
)
WEBHOOKS_DISABLED = _gauge("codeagent_webhook_endpoints_disabled", "Webhooks that nothing is sent to")
SANDBOX_LEVEL = _gauge(
    "codeagent_sandbox_level", "Isolation of this worker's sandboxes: 1 namespaces, 2 groups and users, 3 a kernel."
)
SANDBOX_EXEC = _histogram(
    "codeagent_sandbox_exec_duration_seconds", "Sandbox operations", ("provider", "reason"), _SLOW
)
SANDBOX_COLLECTED = _counter(
    "codeagent_sandbox_collected_total", "What nobody needed any more and was removed", ("what",)
)
SANDBOX_CPU = _counter("codeagent_sandbox_cpu_seconds_total", "CPU time of commands", ("provider",))
SANDBOX_MEMORY = _counter(
    "codeagent_sandbox_gib_hours_total", "Memory limits of commands times how long they ran", ("provider",)
)
SANDBOX_OUTPUT = _counter("codeagent_sandbox_output_bytes_total", "What commands printed", ("provider",))
SANDBOX_LIMITS_HIT = _counter(
    "codeagent_sandbox_limits_hit_total", "Commands that ran into a limit, by the limit", ("provider", "limit")
)
SANDBOX_WAITING = _gauge(
    "codeagent_sandbox_waiting", "Sandbox operations that wait until their tenant may have another sandbox"
)
SANDBOX_QUOTA_REFUSALS = _counter(
    "codeagent_sandbox_quota_refusals_total", "Runs and commands that met a tenant's used up quota", ("quota", "what")
)

AUTH_FAILURES = _counter("codeagent_auth_failures_total", "Logins and tokens that were refused", ("reason",))
REFRESH_REUSE = _counter("codeagent_auth_refresh_reuse_detected_total", "Refresh tokens that came again: thefts")


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
