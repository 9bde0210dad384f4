"""The codes of problem documents (RFC 9457): the HTTP status of each, what it means, and what to do about it.

docs/api.md lists them; helmd serves a page about each, which ``type`` names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

PROBLEM_PAGES = "/docs/problems/"
"""Where the pages are."""


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """An error code. ``meaning`` and ``remedy`` are sentences for display."""

    status: HTTPStatus
    meaning: str
    remedy: str


PROBLEMS: Mapping[str, ProblemKind] = {
    "bad_request": ProblemKind(
        HTTPStatus.BAD_REQUEST,
        "the request is not valid HTTP, or its body not what its headers say",
        "Correct the program that sends it: the text says what could not be read.",
    ),
    "already_running": ProblemKind(
        HTTPStatus.BAD_REQUEST,
        "a start: the service is running already",
        "Nothing has to be done; to start it again, use restart.",
    ),
    "not_running": ProblemKind(HTTPStatus.BAD_REQUEST, "a stop: the service is not running", "Nothing has to be done."),
    "usage": ProblemKind(
        HTTPStatus.BAD_REQUEST,
        "a parameter, header or body is not valid; the text says which",
        "Correct what the text names; for a body, errors lists each fault with a JSON pointer to it.",
    ),
    "no_credential": ProblemKind(
        HTTPStatus.UNAUTHORIZED,
        "the route needs a credential and there is none",
        "Send a token of Core (Authorization: Bearer), or use the unix socket on the machine itself.",
    ),
    "bad_token": ProblemKind(
        HTTPStatus.UNAUTHORIZED,
        "the token is not valid, expired, or its session has ended",
        "Log in again, or get a new token from Core.",
    ),
    "denied": ProblemKind(
        HTTPStatus.FORBIDDEN,
        "the caller is known and may not do this",
        "Ask an administrator for that role, or to do it for you.",
    ),
    "peer_refused": ProblemKind(
        HTTPStatus.FORBIDDEN,
        "the caller may do this, but not from this program or host",
        "Use helmctl, Helm's own login or the unix socket; http.trusted_units and http.trusted_proxies let in others.",
    ),
    "login_needed": ProblemKind(
        HTTPStatus.FORBIDDEN,
        "the caller may do this, but needs a recent login at Helm itself, or helmctl",
        "Log in at Helm itself again, or use helmctl on the machine.",
    ),
    "login_refused": ProblemKind(
        HTTPStatus.FORBIDDEN,
        "a login failed, or its link or answer is used, too old or another browser's",
        "Log in again, or make another link: helmctl dashboard.",
    ),
    "unknown_token": ProblemKind(
        HTTPStatus.NOT_FOUND, "no such machine token", "helmctl tokens list shows those that there are."
    ),
    "token_exists": ProblemKind(
        HTTPStatus.CONFLICT,
        "a machine token has this name already",
        "Choose another name, or revoke that token: helmctl tokens revoke NAME.",
    ),
    "unknown_service": ProblemKind(
        HTTPStatus.NOT_FOUND,
        "no service of this name",
        "GET /api/services or helmctl status lists the services.",
    ),
    "unknown_user": ProblemKind(
        HTTPStatus.NOT_FOUND,
        "no such user, or not any more",
        "GET /api/keycloak/users or helmctl users list lists them.",
    ),
    "user_exists": ProblemKind(
        HTTPStatus.CONFLICT,
        "another user has this username or email",
        "Choose another one, or change the user that has it.",
    ),
    "unknown_job": ProblemKind(
        HTTPStatus.NOT_FOUND, "no such job, or not any more", "GET /api/jobs or helmctl jobs list lists the jobs."
    ),
    "unknown_entry": ProblemKind(
        HTTPStatus.NOT_FOUND,
        "no such log entry, or not one that the caller may see",
        "GET /api/logs lists entries with their ids; entries older than the retention are deleted.",
    ),
    "unknown_view": ProblemKind(
        HTTPStatus.NOT_FOUND,
        "no such saved view, or not one that the caller may remove",
        "GET /api/views lists the views; only admins remove those that others share.",
    ),
    "too_many_views": ProblemKind(
        HTTPStatus.CONFLICT,
        "the caller has as many saved views as one may have",
        "Remove some: DELETE /api/views/ID.",
    ),
    "unknown_finding": ProblemKind(
        HTTPStatus.NOT_FOUND,
        "the security audit has no finding with this id",
        "GET /api/security/audit or helmctl security audit lists the findings.",
    ),
    "not_found": ProblemKind(HTTPStatus.NOT_FOUND, "no such path", "GET /api/openapi.json lists the paths."),
    "method_not_allowed": ProblemKind(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "the path exists for other methods (`Allow`)",
        "Use one of the methods in the header Allow.",
    ),
    "not_acceptable": ProblemKind(
        HTTPStatus.NOT_ACCEPTABLE,
        "the route has none of the media types in `Accept`",
        "Send Accept: */*, or a media type that the text names.",
    ),
    "request_timeout": ProblemKind(
        HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive within 10 s", "Send the request again, faster or smaller."
    ),
    "cancelled": ProblemKind(
        HTTPStatus.CONFLICT,
        "the job of this request was cancelled",
        "Send the request again if it is still wanted, with another Idempotency-Key.",
    ),
    "confirmation_required": ProblemKind(
        HTTPStatus.CONFLICT,
        "what would be stopped may be what the caller's session needs",
        'Send "confirm": true if it is to be stopped nevertheless; helmctl can start it again without a login.',
    ),
    "job_ended": ProblemKind(
        HTTPStatus.CONFLICT,
        "the job has ended, so it cannot be cancelled",
        "GET /api/jobs/ID or helmctl jobs show ID shows its result.",
    ),
    "dependency_failed": ProblemKind(
        HTTPStatus.CONFLICT,
        "a service that this one needs failed",
        "helmctl why says what failed; correct that first.",
    ),
    "key_file": ProblemKind(
        HTTPStatus.CONFLICT,
        "a key or certificate is there that cannot be used; none is replaced",
        "Correct or remove the file that the text names.",
    ),
    "locked": ProblemKind(
        HTTPStatus.CONFLICT, "another process is changing the same thing", "Try again when the other one has ended."
    ),
    "not_set_up": ProblemKind(HTTPStatus.CONFLICT, "set-up is not complete", "Run helmctl setup on the machine."),
    "port_taken": ProblemKind(
        HTTPStatus.CONFLICT,
        "another process listens on the port",
        "End the process that the text names, or give the service another port.",
    ),
    "precondition_failed": ProblemKind(
        HTTPStatus.PRECONDITION_FAILED,
        "what `If-Match` names is not the present state",
        "Read the resource again, and repeat the request with its new ETag.",
    ),
    "too_large": ProblemKind(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is larger than 16 MiB", "Send it in several requests."
    ),
    "content_encoding": ProblemKind(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "bodies are accepted without a content encoding only",
        "Send the body as it is, without Content-Encoding.",
    ),
    "media_type": ProblemKind(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "the body must be `application/json`",
        "Send JSON with Content-Type: application/json.",
    ),
    "expectation_failed": ProblemKind(
        HTTPStatus.EXPECTATION_FAILED,
        "`Expect` asks for something else than 100-continue",
        "Send the request without Expect.",
    ),
    "idempotency_key_reused": ProblemKind(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "the `Idempotency-Key` was sent before, with another request",
        "Send each request a key of its own.",
    ),
    "configuration": ProblemKind(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "the configuration has faults; nothing was changed",
        "Correct the lines that faults lists.",
    ),
    "faulty_rows": ProblemKind(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "some rows were not imported; all others were",
        "Correct the rows that the report names and import the file again: users who are there are not made twice.",
    ),
    "unit_refused": ProblemKind(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "systemd-analyze rejected a rendered unit; nothing was changed",
        "Correct the setting that the text names.",
    ),
    "precondition_required": ProblemKind(
        HTTPStatus.PRECONDITION_REQUIRED,
        "the change needs `If-Match`",
        "Read the resource, and send the ETag of the answer as If-Match: what another changed meanwhile is kept then.",
    ),
    "rate_limited": ProblemKind(
        HTTPStatus.TOO_MANY_REQUESTS,
        "the service posts more than it may (`Retry-After`)",
        "Wait for as many seconds as Retry-After says; ingest.rate and ingest.burst are the limits.",
    ),
    "headers_too_large": ProblemKind(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the headers are too long",
        "Send fewer or shorter headers; delete the site's cookies in a browser.",
    ),
    "uri_too_long": ProblemKind(
        HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long", "Use shorter parameters."
    ),
    "backup": ProblemKind(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "a backup could not be made, read or restored",
        "helmctl backup list says what there is; the lines of the job say what failed.",
    ),
    "module": ProblemKind(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "a module could not be installed, built, updated or rolled back; what was there before is still there",
        "The text names the step that failed and why; helmctl modules show says what there is now.",
    ),
    "module_record": ProblemKind(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "the record of a module (module.json) can't be read",
        "Install the module again, or restore the file from a backup.",
    ),
    "failed": ProblemKind(HTTPStatus.INTERNAL_SERVER_ERROR, "the operation failed", "The text says why."),
    "internal": ProblemKind(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "a fault in Helm; its log has the details",
        "Look for the correlation id: helmctl logs helm -g ID. Report what is there.",
    ),
    "interrupted": ProblemKind(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "the job of this request ended with the machine, or its unit was removed",
        "See how the services are (helmctl status), and send the request again.",
    ),
    "start_failed": ProblemKind(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "a unit failed to start",
        "helmctl why NAME says why; lines has its last lines.",
    ),
    "transfer_encoding": ProblemKind(
        HTTPStatus.NOT_IMPLEMENTED, "a transfer encoding other than chunked", "Send the body with Content-Length."
    ),
    "fetch": ProblemKind(HTTPStatus.BAD_GATEWAY, "a download failed", "Check the machine's network, and try again."),
    "keycloak": ProblemKind(
        HTTPStatus.BAD_GATEWAY,
        "Keycloak can't be reached, or refused a request",
        "helmctl why keycloak says how it is; helmctl keycloak status what is missing.",
    ),
    "audit_failed": ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "no security audit could be made",
        "helmctl security audit says why; without a suite, run helmctl setup first.",
    ),
    "bus": ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "systemd does not answer",
        "systemctl status user@UID on the machine says how the account's manager is.",
    ),
    "busy": ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE, "too many requests of this kind at once", "Try again in a few seconds."
    ),
    "cluster": ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "a PostgreSQL cluster cannot be used",
        "helmctl doctor says which, and what to do.",
    ),
    "core_unreachable": ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Core does not answer, and the token was not seen before",
        "helmctl why core says how it is. On the machine itself, the unix socket needs no token.",
    ),
    "helmd_away": ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE, "helmd cannot be reached", "systemctl --user status helmd says how it is."
    ),
    "keycloak_away": ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Keycloak is not running, is starting, or does not answer",
        "helmctl why keycloak says how it is; helmctl start keycloak starts it.",
    ),
    "journal": ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE, "the journal cannot be read", "helmctl doctor says why, and what to do."
    ),
    "not_healthy": ProblemKind(
        HTTPStatus.GATEWAY_TIMEOUT,
        "a service was started and did not become healthy in time",
        "helmctl why NAME says what its health check found; lines has its last lines.",
    ),
    "store": ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "PostgreSQL does not answer",
        "systemctl --user status helmd-postgres says how it is; log lines are kept in the journal meanwhile.",
    ),
    "store_timeout": ProblemKind(
        HTTPStatus.GATEWAY_TIMEOUT,
        "a query took longer than its limit",
        "Ask for less: a shorter time range, or fewer services.",
    ),
    "timeout": ProblemKind(
        HTTPStatus.GATEWAY_TIMEOUT, "something did not happen in time", "helmctl why NAME says what it waits for."
    ),
    "http_version": ProblemKind(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "not HTTP/1.0 or HTTP/1.1", "Use HTTP/1.1."),
}
"""Every code that helmd answers with."""
