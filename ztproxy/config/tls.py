"""The certificates ztproxy shows, as an operator writes them.

Promises: one way to write them, and a key beside every certificate. Leaves reading the files to `wire`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import model_validator

from ztproxy.config.files import Files
from ztproxy.config.mistakes import Loc, quoted, wrong
from ztproxy.config.model import Model
from ztproxy.config.settings import CertificateFiles, ListenerTLS
from ztproxy.config.values import ONE_OR_MANY, Kind, Text


class CertificateModel(Model):
    """A certificate chain and its key, PEM."""

    certificate: Text
    key: Text


def _version(value: object) -> str:
    if str(value) not in ("1.2", "1.3"):
        raise wrong(f"{quoted(value)} is not a version that is offered", "write `1.2` or `1.3`")
    return str(value)


class TLSModel(Model):
    """TLS towards clients: one certificate, or several, chosen by SNI."""

    certificate: Text | None = None
    key: Text | None = None
    certificates: Annotated[list[CertificateModel], ONE_OR_MANY] | None = None
    min_version: Annotated[Literal["1.2", "1.3"], Kind(_version, enum=["1.2", "1.3", 1.2, 1.3])] = "1.2"

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, value: Any) -> Any:
        if isinstance(value, dict):
            single = [key for key in ("certificate", "key") if key in value]
            if single and "certificates" in value:
                raise wrong("`certificates` lists them all", f"move `{single[0]}` there", single[0])
            if len(single) == 1:
                missing = "key" if single == ["certificate"] else "certificate"
                raise wrong(f"the `{missing}` is missing", f"add `{missing}: ...`")
            if not single and "certificates" not in value:
                raise wrong("there is no certificate", "add `certificate: ...` and `key: ...`")
        return value


def compile_tls(model: TLSModel, files: Files) -> ListenerTLS:
    pairs: list[CertificateFiles] = []
    if model.certificate is not None and model.key is not None:
        pairs.append(certificate_files(model.certificate, model.key, ("tls",), files))
    for i, one in enumerate(model.certificates or ()):
        pairs.append(certificate_files(one.certificate, one.key, ("tls", "certificates", i), files))
    return ListenerTLS(tuple(pairs), model.min_version)


def certificate_files(certificate: str, key: str, loc: Loc, files: Files) -> CertificateFiles:
    return CertificateFiles(
        files.named(certificate, (*loc, "certificate")), files.named(key, (*loc, "key"), secret=True)
    )
