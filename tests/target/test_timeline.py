import threading

from uffdlab.target.timeline import Timeline


def test_times_are_counted_from_the_first_entry_in_microseconds():
    timeline = Timeline()
    timeline.add("ioctl", "UFFDIO_CONTINUE(page 3) → ok", 1_002_000, 1_004_500)
    timeline.add("map", "a region", 1_000_000)
    assert timeline.rows() == [
        ("0.0", "", "map", "a region"),
        ("2.0", "2.5", "ioctl", "UFFDIO_CONTINUE(page 3) → ok"),
    ]
    assert "UFFDIO_CONTINUE(page 3)" in str(timeline)


def test_html_is_escaped():
    timeline = Timeline()
    timeline.add("map", "<Region & co>", 1)
    assert "&lt;Region &amp; co&gt;" in timeline._repr_html_()


def test_the_newest_none_are_none():
    timeline = Timeline()
    timeline.add("ioctl", "x", 1)
    assert timeline.newest(0) == []


def test_an_empty_timeline_can_be_shown():
    assert len(Timeline()) == 0
    assert "what happened" in str(Timeline())
    assert "<table>" in Timeline()._repr_html_()


def test_entries_that_threads_add_at_once_are_numbered_in_order():
    timeline = Timeline()
    threads = [threading.Thread(target=lambda: [timeline.add("message", "m", 1) for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.number for entry in timeline] == list(range(1600))


def test_entries_are_printed_in_the_order_in_which_they_began():
    timeline = Timeline()
    timeline.add("message", "Fault(page=5)", 2000)
    timeline.add("ioctl", "UFFDIO_CONTINUE(page 5)", 5000, 6000)
    timeline.add("touch", "read of page 5: done", 2000, 7000)
    timeline.add("unmap", "region-1 was unmapped", 1000)
    assert [kind for _, _, kind, _ in timeline.rows()] == ["unmap", "touch", "message", "ioctl"]
    assert [line.split("  ")[-1].strip().partition(":")[0] for line in str(timeline).splitlines()[1:]] == [
        "unmap", "touch", "message", "ioctl",
    ]  # fmt: skip
