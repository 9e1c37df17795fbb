"""Words of navigation, sharing and footers on web pages: `boilerplate_share("首页 | 登录 | 注册")` is 1."""

from __future__ import annotations

import re

WORDS = """
首页 主页 网站首页 返回首页 首頁 回首頁 登录 登陆 登錄 登入 注册 註冊 免费注册 退出登录 忘记密码 上一篇 下一篇
上一页 下一页 上一頁 下一頁 末页 尾页 返回顶部 回到顶部 回到頂端 返回列表 返回目录 返回上一页 友情链接 友情鏈接
友情連結 联系我们 聯繫我們 聯絡我們 关于我们 關於我們 收藏本站 收藏本页 加入收藏 设为首页 網站地圖 网站地图
在线客服 线上客服 客服中心 版权所有 版權所有 版权声明 免责声明 隐私政策 隱私權政策 帮助中心 意见反馈 招聘信息
加入我们 广告服务 广告合作 商务合作 手机版 电脑版 客户端下载 扫码下载 下载客户端 打印本页 关闭窗口 字体大小 分享到
分享至 一键分享 扫一扫 微信公众号 新浪微博 腾讯微博 人人网 开心网 阅读全文 查看全文 展开全文 查看更多 点击查看更多
加载更多 相关阅读 相关推荐 相关新闻 相关文章 热门推荐 热门文章 猜你喜欢 推荐阅读 最新评论 发表评论 我要评论
热门标签 当前位置 您的位置 你的位置
""".split()  # noqa: SIM905
WORD = "|".join(sorted(WORDS, key=len, reverse=True))  # a pattern, longest words first
_WORD = re.compile(WORD)
_SEPARATORS = re.compile(r"[\s|｜/>»›·•:：，、,.\[\]【】()（）-]+")


def boilerplate_share(text: str) -> float:
    """Share of the characters, apart from blanks and separators, that belong to such words."""
    words = _WORD.findall(text)
    if not words:
        return 0.0
    return sum(map(len, words)) / (len(_SEPARATORS.sub("", text)) or 1)
