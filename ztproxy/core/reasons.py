"""Why: the closed list of reasons, each with the sentence a person is shown.

Knows: every reason a decision, a refusal or a failure can have. Promises: the value is stable (logs, metrics
and policies of others hang on it); the sentence is plain language and gives nothing away. Leaves to `pages`
how it is shown, and to `decision` what follows from it.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """`Reason.X` is its value as a string; `.sentence` is what a person reads; `.status` the usual status."""

    sentence: str
    status: int

    def __new__(cls, value: str, status: int, sentence: str) -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.status = status
        member.sentence = sentence
        return member

    # Allowed, and on what ground.
    RULE_ALLOWED = "rule_allowed", 200, "A rule allows this."
    PUBLIC_ROUTE = "public_route", 200, "Everyone may open this."
    ANY_AUTHENTICATED = "any_authenticated", 200, "Everyone who is signed in may open this."
    CORS_PREFLIGHT = "cors_preflight", 200, "The browser asks what it may send; that reveals nothing."

    # Something is asked of the person first.
    LOGIN_REQUIRED = "login_required", 401, "Please sign in."
    SESSION_EXPIRED = "session_expired", 401, "Your session has ended. Please sign in again."
    SESSION_UNKNOWN = "session_unknown", 401, "Your session has ended. Please sign in again."
    SESSION_REVOKED = "session_revoked", 401, "Your session was ended. Please sign in again."
    STEP_UP_REQUIRED = "step_up_required", 401, "This needs a stronger sign-in."
    LOCK_SIGN_IN = "lock_sign_in", 401, "Please sign in once more before you go on."
    STEP_UP_FAILED = "step_up_failed", 403, "The sign-in was not as strong as this page needs."

    # Denied by a lock.
    LOCKED = "locked", 403, "Your access is suspended."

    # Denied by policy.
    RULE_DENIED = "rule_denied", 403, "A rule keeps you out of this page."
    NO_RULE_ALLOWS = "no_rule_allows", 403, "You do not have access to this page."
    USER_MISMATCH = "user_mismatch", 403, "This is open to other people only."
    EMAIL_MISMATCH = "email_mismatch", 403, "This is open to other e-mail addresses only."
    DOMAIN_MISMATCH = "domain_mismatch", 403, "This is open to another organisation only."
    GROUP_MISSING = "group_missing", 403, "You are not in a group that may open this."
    CLAIM_MISMATCH = "claim_mismatch", 403, "Your account lacks an attribute this page asks for."
    METHOD_MISMATCH = "method_mismatch", 403, "This action is not allowed here."
    PATH_MISMATCH = "path_mismatch", 403, "This part of the site is not open to you."
    TIME_MISMATCH = "time_mismatch", 403, "This is closed at this time."
    NETWORK_MISMATCH = "network_mismatch", 403, "This is not open to the network you are on."
    UPGRADE_NOT_ALLOWED = "upgrade_not_allowed", 403, "This site does not allow such a connection."
    ORIGIN_MISMATCH = "origin_mismatch", 403, "Another site tried to open a connection in your name."
    NO_SUCH_HOST = "no_such_host", 421, "There is no site of this name here."
    NO_SUCH_ROUTE = "no_such_route", 404, "There is nothing here."

    # Denied for the device, or for want of one.
    DEVICE_CERTIFICATE_REQUIRED = (
        "device_certificate_required",
        403,
        "This needs a device certificate, and your browser showed none.",
    )
    DEVICE_CERTIFICATE_INVALID = (
        "device_certificate_invalid",
        403,
        "The certificate your browser showed cannot be accepted.",
    )
    DEVICE_CERTIFICATE_EXPIRED = (
        "device_certificate_expired",
        403,
        "The certificate your browser showed is not valid at this time.",
    )
    DEVICE_CERTIFICATE_REVOKED = (
        "device_certificate_revoked",
        403,
        "The certificate your browser showed was revoked.",
    )
    DEVICE_CERTIFICATE_MISMATCH = (
        "device_certificate_mismatch",
        403,
        "This is open to other device certificates only.",
    )
    DEVICE_MISMATCH = "device_mismatch", 401, "Your session began on another device. Please sign in again."
    DEVICE_UNBOUND = "device_unbound", 401, "Please sign in again on this device."
    DEVICE_UNKNOWN = "device_unknown", 403, "This device is not registered."
    DEVICE_NOT_APPROVED = "device_not_approved", 403, "This device is not approved yet."
    DEVICE_LOST = "device_lost", 403, "This device was reported lost."
    DEVICE_RETIRED = "device_retired", 403, "This device was taken out of use."
    DEVICE_OWNER = "device_owner", 403, "This device belongs to somebody else."
    DEVICE_PLATFORM = "device_platform", 403, "This is not open to this kind of device."
    POSTURE_UNKNOWN = "posture_unknown", 403, "Nothing is known about the state of this device."
    POSTURE_STALE = "posture_stale", 403, "Nothing recent is known about the state of this device."
    POSTURE_MISMATCH = "posture_mismatch", 403, "This device does not meet the rules for this page."

    # A service that shows a token or a certificate of its own.
    CREDENTIALS_MIXED = "credentials_mixed", 400, "A session cookie and a token came together."
    TOKEN_REQUIRED = "token_required", 401, "This needs an access token."
    TOKEN_INVALID = "token_invalid", 401, "This access token cannot be accepted."
    SCOPE_MISSING = "scope_missing", 403, "The access token does not cover this."
    SERVICE_MISMATCH = "service_mismatch", 403, "This is open to other services only."
    SERVICES_ONLY = "services_only", 401, "This is open to services only."

    # The request itself cannot be accepted (wire policy). Constant pages; nothing of the input is shown.
    HTTP_SYNTAX = "http_syntax", 400, "The request could not be understood."
    HTTP_VERSION = "http_version", 505, "This version of HTTP is not spoken here."
    HTTP_METHOD = "http_method", 405, "This method is not allowed."
    HTTP_TARGET = "http_target", 400, "The address could not be understood."
    HTTP_PATH = "http_path", 400, "The address could be read in more than one way."
    HTTP_MISDIRECTED = "http_misdirected", 421, "This connection was made for another site."
    HTTP_CLIENT_CERTIFICATE = (
        "http_client_certificate",
        400,
        "A client certificate was passed on in a form that cannot be read.",
    )
    HTTP_HOST = "http_host", 400, "The site's name could not be understood."
    HTTP_FRAMING = "http_framing", 400, "The length of the request is not clear."
    HTTP_FIELD = "http_field", 400, "A header of the request is malformed."
    HTTP_FIELD_NAME = "http_field_name", 400, "A header of the request has a name that is not accepted."
    HTTP_DUPLICATE = "http_duplicate", 400, "A header of the request appears twice."
    HTTP_COOKIE = "http_cookie", 400, "The session cookie appears twice."
    HTTP_CONNECTION = "http_connection", 400, "The connection header names a field it must not."
    HTTP_UPGRADE = "http_upgrade", 400, "The upgrade request is malformed."
    HTTP_EXPECT = "http_expect", 417, "This expectation cannot be met."
    HTTP_REQUEST_LINE_TOO_LONG = "http_request_line_too_long", 414, "The address is too long."
    HTTP_HEAD_TOO_LARGE = "http_head_too_large", 431, "The headers are too large."
    HTTP_BODY_TOO_LARGE = "http_body_too_large", 413, "The request is too large."
    HTTP_BODY = "http_body", 400, "The body of the request is malformed."
    HTTP_TIMEOUT = "http_timeout", 408, "The request took too long."
    TOO_MANY_CONNECTIONS = "too_many_connections", 503, "Too many connections at this moment."
    OVERLOADED = "overloaded", 503, "Too much is asked of this service at this moment."
    RATE_LIMITED = "rate_limited", 429, "Too many requests came in a short time."

    # A dependency is away or lies.
    STATE_UNAVAILABLE = (
        "state_unavailable",
        503,
        "Sessions cannot be checked at this moment. You stay signed in.",
    )
    DEVICE_CERTIFICATE_UNCHECKED = (
        "device_certificate_unchecked",
        503,
        "Whether your device certificate was revoked cannot be checked at this moment.",
    )
    AUDIT_UNAVAILABLE = "audit_unavailable", 503, "The audit log cannot be written at this moment."
    PROVIDER_UNAVAILABLE = "provider_unavailable", 502, "The sign-in service does not answer at this moment."
    UPSTREAM_UNREACHABLE = "upstream_unreachable", 502, "The app does not answer at this moment."
    UPSTREAM_TIMEOUT = "upstream_timeout", 504, "The app took too long to answer."
    UPSTREAM_INVALID = "upstream_invalid", 502, "The app gave an answer that cannot be passed on."
    UPSTREAM_BUSY = "upstream_busy", 503, "The app is busy at this moment."
    INTERNAL = "internal", 500, "Something went wrong on our side."

    # A sign-in that did not succeed (core.login, core.claims). Short codes, as in the audit line.
    LOGIN_STATE = "login_state", 400, "This sign-in was not started in this browser, or was used already."
    LOGIN_EXPIRED = "login_expired", 400, "This sign-in took too long."
    LOGIN_TOO_MANY = "login_too_many", 429, "Too many sign-ins were started in a short time."
    LOGIN_CALLBACK = "login_callback", 400, "The sign-in service sent an answer that cannot be accepted."
    LOGIN_ISSUER = "login_issuer", 400, "The answer came from another sign-in service than was asked."
    LOGIN_REFUSED = "login_refused", 403, "The sign-in service refused the sign-in."
    LOGIN_TOKEN = "login_token", 400, "The sign-in service sent a token that cannot be accepted."
    LOGIN_CLAIMS = "login_claims", 403, "The sign-in service sent details that cannot be accepted."
    LOGIN_EMAIL = "login_email", 403, "Your e-mail address is not verified by the sign-in service."
    LOGIN_OTHER_PERSON = "login_other_person", 403, "You signed in as somebody else."
    LOGIN_REVOKED = "login_revoked", 403, "This sign-in was overtaken by a revocation. Please sign in again."
    LOGOUT_TOKEN = "logout_token", 400, "This sign-out notice cannot be accepted."
    LOGIN_TICKET = "login_ticket", 400, "This sign-in link was used already or belongs to another browser."
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch", 422, "This idempotency key was used for another request."
    IDEMPOTENCY_PENDING = "idempotency_pending", 409, "The first request with this key is still under way."
    FORGED_FORM = "forged_form", 403, "This form was not sent from our own page."
