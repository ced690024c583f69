"""The one table of what the admin API has; its routes and its OpenAPI document both come from here.

Knows: method, path, role and form of each endpoint. Promises: what is not here is not served.
"""

from __future__ import annotations

from ztproxy.surfaces.admin.asked import AnyEndpoint, Asked, Endpoint
from ztproxy.surfaces.admin.bodies import Nothing
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.device_lists import (
    Imported,
    ImportForm,
    PostureForm,
    Reported,
    import_devices,
    report_posture,
)
from ztproxy.surfaces.admin.devices import (
    DeviceChanged,
    DeviceForm,
    DeviceOpened,
    DeviceRemoved,
    DevicesFilter,
    DevicesShown,
    StatusForm,
    list_devices,
    register_device,
    remove_device,
    set_status,
    show_device,
)
from ztproxy.surfaces.admin.links import LinkMade, make_link
from ztproxy.surfaces.admin.openapi import Document, document
from ztproxy.surfaces.admin.people import (
    SessionShown,
    SessionsPage,
    SessionsWanted,
    list_sessions,
    show_session,
)
from ztproxy.surfaces.admin.revoking import (
    Applied,
    LockForm,
    LockShown,
    LocksShown,
    RevocationForm,
    Why,
    create_lock,
    lift_lock,
    list_locks,
    revoke,
    revoke_session,
    show_lock,
)
from ztproxy.surfaces.admin.tokens import (
    TokenForm,
    TokenMade,
    TokenRevoked,
    TokensShown,
    create_token,
    list_tokens,
    revoke_token,
)
from ztproxy.surfaces.admin.upkeep import (
    DecisionsShown,
    DecisionsWanted,
    Explained,
    ExplainForm,
    Myself,
    Reloaded,
    Rotated,
    RoutesShown,
    StatusShown,
    decisions,
    explain,
    list_routes,
    reload,
    rotate_keys,
    status,
    whoami,
)

PREFIX = "/api/v1"


async def show_document(desk: Desk, asked: Asked[Nothing]) -> Document:
    return DOCUMENT


# fmt: off
ENDPOINTS: tuple[AnyEndpoint, ...] = (
    Endpoint("GET", "/whoami", "viewer", "Who I am", Nothing, Myself, whoami, also=("feed",)),
    Endpoint("GET", "/sessions", "viewer", "List sessions", SessionsWanted, SessionsPage, list_sessions),
    Endpoint("GET", "/sessions/{id}", "viewer", "Show a session", Nothing, SessionShown, show_session),
    Endpoint("DELETE", "/sessions/{id}", "operator", "Revoke a session", Why, Applied, revoke_session,
             "session.revoke", "200 for an unknown session too: `matched` is 0, and it holds all the same.",
             ends=True),
    Endpoint("POST", "/revocations", "operator", "End sessions", RevocationForm, Applied, revoke,
             "revocation.create", "A target of kind `route` or `all` needs the role admin.", ends=True),
    Endpoint("GET", "/locks", "viewer", "List locks", Nothing, LocksShown, list_locks),
    Endpoint("POST", "/locks", "operator", "Make a lock", LockForm, Applied, create_lock,
             "lock.create", "A target of kind `route` or `all` needs the role admin.", ends=True),
    Endpoint("GET", "/locks/{id}", "viewer", "Show a lock", Nothing, LockShown, show_lock),
    Endpoint("DELETE", "/locks/{id}", "operator", "Lift a lock", Why, Applied, lift_lock,
             "lock.lift", "409 for a revocation: what was revoked stays revoked. 200 with `confirmed` false "
             "when not everybody has heard of it yet."),
    Endpoint("GET", "/devices", "viewer", "List devices", DevicesFilter, DevicesShown, list_devices),
    # Before the id, which could be this word too.
    Endpoint("PUT", "/devices/posture", "feed", "Report the posture of devices", PostureForm, Reported,
             report_posture, "devices.posture", "For each fact the newest by its own time stays. 400 lists "
             "every mistake by its place; nothing is taken in then. A body has at most 32 MiB and a million "
             "values.", bulk=True),
    Endpoint("POST", "/devices/import", "operator", "Import devices", ImportForm, Imported, import_devices,
             "devices.import", "400 lists every mistake by its place (`item 3`, counted from 1), and then "
             "nothing is imported. A body has at most 32 MiB and a million values.", bulk=True),
    Endpoint("GET", "/devices/{id}", "viewer", "Show a device", Nothing, DeviceOpened, show_device),
    Endpoint("PUT", "/devices/{id}", "operator", "Register or change a device", DeviceForm, DeviceChanged,
             register_device, "device.register"),
    Endpoint("DELETE", "/devices/{id}", "admin", "Shut a device out and forget it", Why, DeviceRemoved,
             remove_device, "device.remove", ends=True),
    Endpoint("POST", "/devices/{id}/status", "operator", "Approve, lose or retire a device", StatusForm,
             DeviceChanged, set_status, "device.status",
             "200 for `lost` and `retired` means that its sessions have ended everywhere.", ends=True),
    Endpoint("GET", "/revocation", "viewer", "How revocation stands", Nothing, StatusShown, status),
    Endpoint("GET", "/routes", "viewer", "List routes", Nothing, RoutesShown, list_routes),
    Endpoint("GET", "/decisions", "viewer", "Recent decisions", DecisionsWanted, DecisionsShown, decisions),
    Endpoint("POST", "/explain", "viewer", "What would be decided, and why", ExplainForm, Explained, explain),
    Endpoint("POST", "/reload", "admin", "Load the configuration anew", Nothing, Reloaded, reload,
             "config.reload"),
    Endpoint("POST", "/keys/rotate", "admin", "Take a new key into use", Nothing, Rotated, rotate_keys,
             "keys.rotate"),
    Endpoint("GET", "/tokens", "admin", "List tokens", Nothing, TokensShown, list_tokens),
    Endpoint("POST", "/tokens", "admin", "Make a token", TokenForm, TokenMade, create_token, "token.create"),
    Endpoint("DELETE", "/tokens/{id}", "admin", "Revoke a token", Nothing, TokenRevoked, revoke_token,
             "token.revoke", ends=True),
    Endpoint("POST", "/console-links", "viewer", "Make a link that opens the console", Nothing, LinkMade,
             make_link, "console.link"),
    Endpoint("GET", "/openapi.json", "viewer", "This document", Nothing, Document, show_document),
)
# fmt: on

DOCUMENT = document(ENDPOINTS, PREFIX)
