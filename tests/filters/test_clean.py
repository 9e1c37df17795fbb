import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.config.schema import Clean
from kun.filters.clean import clean, convert, repair_encoding, without_page_lines
from kun.text.normal import normalise

TEXT = "这家店的面很好吃，老板“人很好”；我们点了三样菜：（一）红烧肉……（二）ﬁsh！下次还会来。"


@pytest.mark.parametrize("encoding", ["latin-1", "sloppy-windows-1252"])
def test_a_wrong_encoding_is_repaired_and_punctuation_stays(encoding):
    import ftfy.bad_codecs  # noqa: F401  (sloppy-windows-1252)

    misread = normalise(TEXT.encode().decode(encoding))
    assert misread != TEXT
    assert clean(misread, Clean()) == (TEXT, ("encoding",))
    assert clean(misread, Clean(encoding=False)) == (misread, ())


@pytest.mark.parametrize("text", [TEXT, "café crème à la carte", "全角ＡＢＣ　１２３", "“引号”‘单引号’…～", "ﬁ ½ ㎏"])
def test_what_is_in_order_stays(text):
    assert repair_encoding(text) == text


ARTICLE = "人工湿地靠植物和微生物净化污水。\n水流过碎石时，悬浮物被拦下，氮和磷被植物吸收。\n它费用很低，适合村镇。"


@pytest.mark.parametrize(
    "line",
    [
        "首页 | 新闻中心 | 登录 | 注册".replace("新闻中心", "联系我们"),
        "返回顶部",
        "首頁　登入　註冊",
        "当前位置：首页 > 新闻 > 正文",
        "上一篇：湿地的前世今生",
        "分享到： 新浪微博 腾讯微博 人人网",
        "扫一扫，关注我们的公众号",
        "（责任编辑：张三）",
        "責任編輯：李四",
        "来源：新华网",
        "原标题：湿地治污",
        "图片来源：视觉中国",
        "版权所有 © 2019 某某网 京ICP备12345678号",
        "转载请注明出处。",
        "2019-06-07　阅读：76052次",
        "作者：潘柳　字号：大　中　小",
    ],
)
def test_lines_of_the_page_are_taken_out_where_the_rest_is_text(line):
    for text in (f"{line}\n{ARTICLE}", f"{ARTICLE}\n{line}", ARTICLE.replace("\n", f"\n{line}\n", 1)):
        assert clean(text, Clean()) == (ARTICLE, ("page_lines",))
        assert clean(text, Clean(page_lines=False)) == (text, ())


@pytest.mark.parametrize("credit", ["（责任编辑：张三）", "责任编辑：张三", "[来源：新华网]", "(编辑:李四)"])
def test_a_credit_at_the_end_of_one_line_is_taken_out(credit):
    line = ARTICLE.replace("\n", "")
    assert without_page_lines(line + credit) == line


@pytest.mark.parametrize(
    "text",
    [
        ARTICLE,
        "首页 | 登录 | 注册\n返回顶部\n友情链接",  # nothing would be left: a rule drops it
        "登录之后，点击首页右上角的“注册”，\n就可以收藏本站的文章，也可以分享到微博。",
        "记者：您今年多大年纪？\n老人：八十三了。\n记者：身体还好吗？\n老人：还行，天天走路。",
        "编辑：你这篇稿子写得太长了，能不能删掉一半？\n作者：好，我试试看，明天给你。",
        "水的来源：雨水、雪水和地下水。\n其中雨水最多，雪水最少，地下水要看年份，各地也不相同。",
    ],
)
def test_text_stays(text):
    assert without_page_lines(text) == text


def test_conversion_is_of_words_and_off_by_default():
    assert convert("頭髮與發現，皇后與後來", "simplified") == "头发与发现，皇后与后来"
    assert convert("头发与发现，皇后与后来", "traditional") == "頭髮與發現，皇后與後來"
    assert clean("頭髮與發現", Clean(script="simplified")) == ("头发与发现", ("script",))
    assert clean("頭髮與發現", Clean()) == ("頭髮與發現", ())


@given(st.text(alphabet="首页登录 |\n来源：责任编辑。好å¥½\x80\x85（）", max_size=80))
def test_cleaning_twice_is_cleaning_once_or_leaves_text(text):
    once, _ = clean(normalise(text), Clean())
    assert len("".join(once.split())) <= len("".join(text.replace("\x85", "…").split()))  # a blank, and repaired


@pytest.mark.parametrize("unit", ["登录", "登录\n", "首页 | ", "来源：", "（", "å¥½", "阅读：1", " \n"])
def test_a_long_text_takes_linear_time(unit):
    seconds = []
    for size in (50_000, 200_000):
        text = "好。" + unit * (size // len(unit)) + "。"
        start = time.perf_counter()
        clean(text, Clean())
        seconds.append(time.perf_counter() - start)
    assert seconds[1] < 16 * seconds[0] + 0.5


@pytest.mark.parametrize(
    "line",
    [
        "版权所有人可以许可他人使用其作品，并依照约定收取报酬。",
        "未经许可，任何单位和个人不得擅自使用他人作品。",
        "未经授权的访问可能导致数据泄露。",
        "掃描隧道顯微鏡可以看到單個原子的排列。",
        "扫描二维码支付在中国已经非常普及。",
        "扫一扫地，擦一擦窗，屋子就干净了。",
        "分享到的快乐会变成两份快乐。",
        "点击关注按钮之后，系统会发送一条确认消息给用户。",
        "长按识别键三秒，指示灯会闪烁两次。",
        "Copyright law protects original works of authorship.",
        "审核：文件须由两人签字",
        "来源：水是生命之源",
        "责任编辑：请把稿子送来",
    ],
)
def test_prose_that_opens_like_a_line_of_a_page_stays(line):
    text = f"第一条说明了这部法律的目的。\n{line}\n第三条写明了它从什么时候开始施行，由谁来解释。"
    assert without_page_lines(text) == text
    assert without_page_lines(f"{text}\n{line}") == f"{text}\n{line}"


@pytest.mark.parametrize(
    "line",
    [
        "分享到：微信　微博　QQ空间",
        "扫描下方二维码关注我们",
        "长按识别二维码",
        "版权所有，未经许可不得转载。",
        "Copyright © 2021 某某网",
        "未经授权，禁止转载",
        "版权声明：本文转载自网络，如有侵权请联系删除。",
        "（责任编辑：张三 李四）",
        "来源：中国青年报",
        "编辑：王小明",
    ],
)
def test_a_line_of_a_page_goes(line):
    text = "第一条说明了这部法律的目的。\n第二条说明了谁来执行它，从什么时候开始，在哪些地方。"
    assert without_page_lines(f"{text}\n{line}") == text


def test_japanese_is_not_converted():
    text = "東京で図書館に行きました。"
    assert clean(text, Clean(script="simplified")) == (text, ())
