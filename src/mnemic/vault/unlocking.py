"""From a master key to the keys of a vault; a new vault that is opened with one is encrypted from then on."""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from mnemic.cube.errors import InvalidOption, WrongKey
from mnemic.vault import tables
from mnemic.vault.database import Database, Statement, Transaction
from mnemic.vault.keys import KEY_BYTES, KeyLike, KeyService, master, new_master
from mnemic.vault.migrations import get_meta, migrate, put_meta
from mnemic.vault.sealing import Seals

_p = sa.bindparam
_add_tenant = Statement(
    sa.text("INSERT INTO tenant (tenant, last_space, wrapped_key) VALUES (:t, 0, :k) ON CONFLICT DO NOTHING")
)
_tenant = Statement(sa.select(tables.tenant.c.wrapped_key).where(tables.tenant.c.tenant == _p("t")))
_tenants = Statement(sa.select(tables.tenant.c.tenant, tables.tenant.c.wrapped_key))
_rewrap = Statement(
    sa.update(tables.tenant).where(tables.tenant.c.tenant == _p("t")).values(wrapped_key=_p("k"))
)


def unlock(database: Database, tenant: str, key: KeyLike | None) -> tuple[bytes, Seals | None]:
    """The key of look-ups and the data keys of a tenant, which is made if it is new.

    Raises KeyRequired, WrongKey, InvalidOption for a key to a vault that is not encrypted, MissingExtra.
    """
    with database.read() as transaction:
        described, mac_key = get_meta(transaction, "encryption"), get_meta(transaction, "mac_key") or b""
        known = transaction.row(_tenant, {"t": tenant})
    if described is None and key is None:
        if known is None:
            with database.write() as transaction:
                transaction.run(_add_tenant, {"t": tenant, "k": None})
        return mac_key, None
    if described is None:
        described, mac_key = _encrypt_from_now_on(database, key)
    service = master(key, described)
    mac_key = service.unwrap(mac_key)
    if known is None:
        with database.write() as transaction:
            transaction.run(_add_tenant, {"t": tenant, "k": service.wrap(secrets.token_bytes(KEY_BYTES))})
            known = transaction.row(_tenant, {"t": tenant})
    if known is None or known[0] is None:
        raise WrongKey(f"the key of tenant {tenant!r} is gone: what it holds cannot be read any more")
    return mac_key, Seals(tenant, service.unwrap(bytes(known[0])))


def _encrypt_from_now_on(database: Database, key: KeyLike | None) -> tuple[bytes, bytes]:
    """The first that opens a new vault with a key sets how it is encrypted; others find it set."""
    if key is None:
        raise InvalidOption("a vault is encrypted with a key")
    service, described = new_master(key)
    with database.write() as transaction:
        found = get_meta(transaction, "encryption")
        if found is not None:
            return found, get_meta(transaction, "mac_key") or b""
        if transaction.rows(_tenants, {}):
            raise InvalidOption(
                f"{database.location} is not encrypted, and has been used. Open it without key=…; for an "
                "encrypted copy open a new vault with key=… and load this one into it"
            )
        wrapped = service.wrap(secrets.token_bytes(KEY_BYTES))  # not the one that lay there in clear
        put_meta(transaction, "encryption", described)
        put_meta(transaction, "mac_key", wrapped)
    return described, wrapped


def change_master(database: Database, old: KeyLike | None, new: KeyLike) -> None:
    """Let another master key open the vault, and the old one no more. O(tenants); no data is rewritten.

    Old wrapped keys are overwritten on disk. Raises WrongKey, InvalidOption; then nothing has changed.
    """
    migrate(database)
    service, described = new_master(new)
    with database.write() as transaction:
        before = _service(transaction, old)
        put_meta(transaction, "mac_key", service.wrap(before.unwrap(get_meta(transaction, "mac_key") or b"")))
        put_meta(transaction, "encryption", described)
        for tenant, wrapped in transaction.rows(_tenants, {}):
            if wrapped is not None:
                again = service.wrap(before.unwrap(bytes(wrapped)))
                transaction.run(_rewrap, {"t": tenant, "k": again})
    database.reclaim()


def _service(transaction: Transaction, key: KeyLike | None) -> KeyService:
    described = get_meta(transaction, "encryption")
    if described is None:
        raise InvalidOption("this vault is not encrypted; it has no key to change")
    return master(key, described)
