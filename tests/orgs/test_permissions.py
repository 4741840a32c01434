"""The table of roles, word for word as the contract has it."""

from __future__ import annotations

import pytest

from orgs.permissions import OPERATOR, PERMISSIONS, Permission, Role, may, roles_with

TABLE = {
    (Permission.ORG_DELETE, Permission.ORG_TRANSFER, Permission.RETAINED_CLEAR): "owner",
    (
        Permission.MEMBERS_MANAGE,
        Permission.API_KEYS_MANAGE,
        Permission.PROVIDERS_MANAGE,
        Permission.ORG_UPDATE,
    ): "owner admin",
    (
        Permission.CREDENTIALS_MANAGE,
        Permission.POLICY_EDIT,
        Permission.POLICY_SIMULATE,
        Permission.POLICY_DEPLOY,
        Permission.SESSIONS_CLOSE,
    ): "owner admin developer",
    (Permission.ORG_READ,): "owner admin developer auditor viewer",
    (Permission.AUDIT_READ, Permission.AUDIT_EXPORT): "owner admin auditor",
}


@pytest.mark.parametrize(
    ("permission", "holders"), [(permission, row.split()) for names, row in TABLE.items() for permission in names]
)
def test_each_permission_is_held_by_exactly_these_roles(permission: Permission, holders: list[str]) -> None:
    assert [role for role in Role if may(role, permission)] == [Role(name) for name in holders]
    assert roles_with(permission) == tuple(Role(name) for name in holders)


def test_the_table_names_every_permission_once() -> None:
    named = [permission for names in TABLE for permission in names]
    assert sorted(named) == sorted(Permission)


def test_an_operator_looks_and_changes_nothing_but_what_fills_the_shared_broker() -> None:
    look = {Permission.ORG_READ, Permission.AUDIT_READ, Permission.AUDIT_EXPORT}
    assert look | {Permission.RETAINED_CLEAR} == OPERATOR
    assert PERMISSIONS[Role.OWNER] >= OPERATOR
