"""Certificates from files: what is usable, and what a change of the files does."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from libs.common.rpc.tls import CertificateFiles, WatchedCertificate
from tests.support.certificates import Authority


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> CertificateFiles:
    return authority.issue("executor").write(tmp_path / "tls", authority.certificate)


def test_unchanged_files_are_not_read_again(files: CertificateFiles) -> None:
    watched = WatchedCertificate(files)
    assert watched.changed() is None
    assert watched.current == files.read()


def test_new_content_is_seen_once(files: CertificateFiles, authority: Authority) -> None:
    watched = WatchedCertificate(files)
    renewed = authority.issue("executor")
    renewed.write(files.certificate.parent)
    found = watched.changed()
    assert found is not None
    assert (found.chain, found.key, found.authority) == (renewed.certificate, renewed.key, authority.certificate)
    assert watched.changed() is None


def test_swapped_folder_is_seen_like_a_mounted_secret(authority: Authority, tmp_path: Path) -> None:
    for name in ("one", "two"):
        authority.issue(name).write(tmp_path / name, authority.certificate)
    current = tmp_path / "current"
    current.symlink_to("one")
    watched = WatchedCertificate(CertificateFiles(current / "tls.crt", current / "tls.key", current / "ca.crt"))
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(current)
    found = watched.changed()
    assert found is not None
    assert found.chain == (tmp_path / "two" / "tls.crt").read_bytes()


def test_half_written_pair_leaves_the_old_one_and_is_told_once(files: CertificateFiles, authority: Authority) -> None:
    watched = WatchedCertificate(files)
    before = watched.current
    renewed = authority.issue("executor")
    with structlog.testing.capture_logs() as lines:
        files.certificate.write_bytes(renewed.certificate)
        assert (watched.changed(), watched.changed()) == (None, None)
        files.key.unlink()
        assert watched.changed() is None
        assert watched.current == before
        files.key.write_bytes(renewed.key)
        assert watched.changed() is not None
    assert [line["event"] for line in lines] == ["certificate.unusable"] * 2 + ["certificate.reloaded"]


@pytest.mark.parametrize("content", [b"", b"garbage"])
@pytest.mark.parametrize("name", ["certificate", "key", "authority"])
def test_unusable_file_is_refused_at_the_start(files: CertificateFiles, name: str, content: bytes) -> None:
    getattr(files, name).write_bytes(content)
    with pytest.raises(ValueError):
        WatchedCertificate(files)


def test_missing_file_is_named(files: CertificateFiles) -> None:
    files.key.unlink()
    with pytest.raises(ValueError, match=r"tls\.key: No such file"):
        files.read()
