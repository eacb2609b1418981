"""Files that are read back: whole or not there, and noticed when they were cut."""

import os
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from auditor import files
from auditor.errors import BadFile
from auditor.files import SEAL, flaw, replacing, replacing_folder, seal, take_place, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestOneFile:
    def test_what_is_written_takes_the_place_of_what_was_there(self, tmp_path):
        write_atomically(tmp_path / "new/memo", "one é")
        write_atomically(tmp_path / "new/memo", b"two")
        assert (tmp_path / "new/memo").read_bytes() == b"two"
        assert names(tmp_path / "new") == ["memo"]

    def test_a_writer_that_breaks_off_changes_nothing(self, tmp_path):
        write_atomically(tmp_path / "memo", "whole")

        def broken_off():
            with replacing(tmp_path / "memo") as part:
                part.write_text("who")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            broken_off()
        assert (tmp_path / "memo").read_text() == "whole"
        assert names(tmp_path) == ["memo"]

    def test_two_writers_do_not_meet(self, tmp_path):
        with replacing(tmp_path / "memo") as one, replacing(tmp_path / "memo") as two:
            one.write_text("one")
            two.write_text("two")
        assert (tmp_path / "memo").read_text() == "one"  # the last to end

    def test_readers_see_a_whole_file_while_others_write(self, tmp_path):
        texts = {c * 100_000 for c in "abc"}
        write_atomically(tmp_path / "memo", "a" * 100_000)

        def write(text):
            for _ in range(10):
                write_atomically(tmp_path / "memo", text)

        threads = [threading.Thread(target=write, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert (tmp_path / "memo").read_text() in texts
        assert names(tmp_path) == ["memo"]

    def test_tensors_get_the_mode_of_any_other_file(self, tmp_path):
        with replacing(tmp_path / "x.safetensors") as part:
            save_file({"x": torch.ones(2)}, part)
        (tmp_path / "plain").touch()
        assert load_file(tmp_path / "x.safetensors")["x"].tolist() == [1, 1]
        assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_where_nothing_can_be_written_one_line_says_so(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(BadFile, match=r"file/memo: cannot be written \((Not a directory|File exists)\)"):
            write_atomically(tmp_path / "file" / "memo", "text")

    def test_a_full_disk_is_one_line_too(self, tmp_path):
        def fill():
            with replacing(tmp_path / "memo"), open("/dev/full", "w") as full:
                full.write("text")

        with pytest.raises(BadFile, match=r"memo: cannot be written \(No space left on device\)"):
            fill()
        assert names(tmp_path) == []


class TestAFolder:
    """Of two files that belong together, where there were two before."""

    @pytest.fixture
    def target(self, tmp_path):
        for name, text in (("config", "old"), ("tensors", "old"), ("notes/mine", "kept")):
            write_atomically(tmp_path / "adapter" / name, text)
        return tmp_path / "adapter"

    def write(self, target, error=None):
        with replacing_folder(target) as part:
            (part / "config").write_text("new")
            if error:
                raise error
            (part / "tensors").write_text("new")

    def read(self, target):
        return [(target / name).read_text() for name in ("config", "tensors", "notes/mine")]

    def test_takes_the_place_of_what_was_there_and_leaves_the_rest(self, target, tmp_path):
        self.write(target)
        assert self.read(target) == ["new", "new", "kept"]
        self.write(tmp_path / "deep/new")
        assert names(tmp_path / "deep/new") == ["config", "tensors"]
        assert (names(tmp_path), names(tmp_path / "deep")) == (["adapter", "deep"], ["new"])

    def test_broken_off_it_is_as_it_was(self, target, tmp_path, monkeypatch):
        with pytest.raises(KeyboardInterrupt):
            self.write(target, KeyboardInterrupt())
        with pytest.raises(BadFile, match=r"adapter: cannot be written \(No space left"):
            self.write(target, OSError(28, "No space left"))
        moved, original = [], os.replace

        def fails(source, goal):
            moved.append(source)
            if len(moved) == 2:
                raise OSError(5, "Input/output error")
            original(source, goal)

        monkeypatch.setattr(files.os, "replace", fails)
        with pytest.raises(BadFile, match="Input/output error"):
            self.write(target)
        assert self.read(target) == ["old", "old", "kept"]
        assert names(tmp_path) == ["adapter"]

    def test_behind_a_link_it_is_what_the_link_leads_to(self, target, tmp_path):
        (tmp_path / "link").symlink_to(target)
        self.write(tmp_path / "link")
        assert self.read(target) == ["new", "new", "kept"]
        assert (tmp_path / "link").is_symlink()

    def test_cannot_be_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(BadFile, match="cannot be written"):
            self.write(tmp_path / "file")
        assert names(tmp_path) == ["file"]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "a.json").write_text("{}")
    (made / "b.bin").write_bytes(bytes(1000))
    seal(made)
    return made


class TestASealedFolder:
    def test_is_fine_as_it_was_written(self, folder):
        assert flaw(folder) == ""

    @pytest.mark.parametrize(
        ("name", "content"),
        [("a.json", b""), ("a.json", b"[]"), ("b.bin", bytes(999)), (SEAL, b""), (SEAL, b"{"), (SEAL, b"[1]")],
    )
    def test_shows_what_was_cut_or_changed(self, folder, name, content):
        (folder / name).write_bytes(content)
        assert name in flaw(folder)

    @pytest.mark.parametrize("name", ["a.json", "b.bin", SEAL])
    def test_shows_what_is_missing(self, folder, name):
        (folder / name).unlink()
        assert flaw(folder) == f"{name} is missing"

    def test_takes_the_place_of_a_flawed_one_but_not_of_a_whole_one(self, folder, tmp_path):
        target, second = tmp_path / "target", tmp_path / "second"
        target.mkdir()
        (target / "a.json").write_text("{")  # no seal: broken off
        take_place(folder, target)
        assert flaw(target) == ""
        second.mkdir()
        (second / "c").touch()
        seal(second)
        take_place(second, target)
        assert names(target) == ["a.json", "b.bin", SEAL]

    def test_cannot_be_put_into_a_file(self, folder, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(BadFile, match="cannot be written"):
            take_place(folder, tmp_path / "file" / "target")

    def test_takes_the_place_of_a_file(self, folder, tmp_path):
        (tmp_path / "target").touch()
        take_place(folder, tmp_path / "target")
        assert os.path.isdir(tmp_path / "target")
