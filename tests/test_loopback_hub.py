"""The Hub of the tests, by huggingface_hub's own client: it has to refuse what the real one refuses."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError


@pytest.fixture
def api(loopback_hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    return HfApi(loopback_hub.endpoint, token="hf_loopback")


def test_what_is_uploaded_comes_back(api, loopback_hub, tmp_path):
    assert api.whoami()["name"] == "tester"
    api.create_repo("org/things")
    api.create_repo("org/things", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("org/things")
    content = {
        "config.json": b"{}",
        "model.safetensors": bytes(range(256)) * 9,
        "folder/deep.txt": b"deep",
        "x.bin": b"pickle",
    }
    for name, data in {**content, ".gitignore": b"x.bin\n"}.items():
        (tmp_path / "local" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "local" / name).write_bytes(data)
    commit = api.upload_folder(repo_id="org/things", folder_path=tmp_path / "local")
    del content["x.bin"]
    assert set(api.list_repo_files("org/things")) == {*content, ".gitattributes", ".gitignore"}
    for name, data in content.items():
        path = api.hf_hub_download("org/things", name, cache_dir=tmp_path / "cache")
        assert Path(path).read_bytes() == data
        assert commit.oid in path
    assert api.model_info("org/things").sha == commit.oid
    # large files aren't sent twice, and unchanged ones make no commit
    assert len(loopback_hub.large_files) == 1
    (tmp_path / "local" / "x.bin").unlink()
    assert api.upload_folder(repo_id="org/things", folder_path=tmp_path / "local").oid == commit.oid
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("org/things", "nothing.json", cache_dir=tmp_path / "cache")


def test_strangers_read_what_is_public_and_write_nothing(api, loopback_hub):
    stranger = HfApi(loopback_hub.endpoint, token=False)
    api.create_repo("org/public")
    api.create_repo("org/secret", private=True)
    assert stranger.model_info("org/public").private is False
    assert api.model_info("org/secret").private is True
    for name in ("org/secret", "org/missing"):
        with pytest.raises(RepositoryNotFoundError):
            stranger.model_info(name)
    with pytest.raises(HfHubHTTPError):
        stranger.create_repo("org/new")
    with pytest.raises(RepositoryNotFoundError):
        stranger.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="org/public")
    assert set(loopback_hub.files("org/public")) == {".gitattributes"}


def test_branches_hold_commits_of_their_own(api, loopback_hub):
    api.create_repo("org/branched")
    api.create_branch("org/branched", branch="text-only")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="org/branched", revision="text-only")
    assert "config.json" in loopback_hub.files("org/branched", "text-only")
    assert "config.json" not in loopback_hub.files("org/branched")
