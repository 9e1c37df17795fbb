from kun.pipeline.status import survey
from kun.report.plots import draw
from tests.small_pipeline import Small


def test_the_plots_of_a_run_are_drawn(tmp_path):
    small = Small(tmp_path, {"wudao": ["四个字符", "三字符"], "skypile": ["两字"]})
    small.go()
    folder = draw(small.run, small.stages(), survey(small.stages(), small.run))
    assert sorted(path.name for path in folder.iterdir()) == ["funnel.png", "tokens.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())
