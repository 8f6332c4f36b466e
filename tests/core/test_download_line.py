"""The line of text about a download: file, size, speed, time left."""

from __future__ import annotations

from test_progress import Clock

from lowvram_core.files.download_line import DownloadLine

GB, MB = 10**9, 10**6


def test_speed_and_time_left_are_those_of_the_last_seconds() -> None:
    """1 GB came at 10 MB/s, then 20 s at 50 MB/s."""
    clock, told = Clock(), []
    line = DownloadLine(told.append, "paint", 0, 4 * GB, clock)
    line.file = "unet/net.safetensors"
    done = 0
    for speed, seconds in ((10 * MB, 100), (50 * MB, 20)):
        for _ in range(seconds):
            clock.now += 1
            done += speed
            line.show(done)
    assert told[49] == "downloading paint: unet/net.safetensors, 0.50 of 4.00 GB, 10.0 MB/s, 5 min 50 s left"
    assert told[-1] == "downloading paint: unet/net.safetensors, 2.00 of 4.00 GB, 50.0 MB/s, 40 s left"


def test_two_lines_a_second_and_the_last_one() -> None:
    clock, told = Clock(), []
    line = DownloadLine(told.append, "paint", 0, 100 * MB, clock)
    for step in range(1, 101):
        clock.now += 0.125
        line.show(step * MB)
    assert len(told) == 26 and "0.10 of 0.10 GB" in told[-1]
    line.file = "a.bin"
    for _ in range(8):
        clock.now += 0.125
        line.show(100 * MB)
    assert told[26:] == ["checking paint: a.bin"] * 2


def test_what_was_there_counts_as_done_but_not_as_speed() -> None:
    clock, told = Clock(), []
    line = DownloadLine(told.append, "paint", 40 * MB, 60 * MB, clock)
    line.file = "a.bin"
    clock.now += 2
    line.show(44 * MB)
    assert told == ["downloading paint: a.bin, 44.00 of 60.00 MB, 2.0 MB/s, 8 s left"]


def test_a_server_that_sends_nothing() -> None:
    clock, told = Clock(), []
    line = DownloadLine(told.append, "paint", 0, GB, clock)
    line.file = "a.bin"
    line.show(0)
    clock.now += 3
    line.show(0)
    assert told == ["downloading paint: a.bin, 0.00 of 1.00 GB",
                    "downloading paint: a.bin, 0.00 of 1.00 GB, waiting for the server"]  # fmt: skip
